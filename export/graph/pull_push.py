"""The interpolated picture with which a network with `fill` begins, as poolings and sums.

:mod:`glama_deploy.reference.pull_push` describes the method. It has no weights. All engines compute its nodes alike.
A separate node pads odd sides, because some providers ignore a pooling's padding at the end. Enlarging by two is a
depth-to-space of four copies, because OpenVINO in bf16 would not compute a resize in float32. All nodes compute in
float32 at every precision. The one exception is the picture of a coarse network in OpenVINO's bf16, which computes in
float32 only after the last matrix product.
"""

from __future__ import annotations

from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.export.graph.window import Window
from glama_deploy.network import FILL_LEAST, FILL_LEAST_KNOWN, FILL_SMOOTHINGS, SIZE_MULTIPLE
from glama_deploy.node_names import FILL


class PullPush:
    """Writes the interpolated picture."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, x: str) -> None:
        """Write the picture.

        Args:
            graph: The graph.
            size: The images' (height, width). None: any size.
            x: The masked image and the mask, [B, 4, H, W].
        """
        self._graph, self._size = graph, size
        self._mask = self._slice_channels(x, 3, 4, "mask")
        masked = self._slice_channels(x, 0, 3, "masked")
        known = self._add("Sub", [self._graph.scalar(1), self._mask], "known")
        self._picture = self._push(self._pull(self._add("Concat", [masked, known], "levels0", axis=1)))

    def write_network_input(self) -> str:
        """Write the network's input.

        Returns:
            The picture and the mask, [B, 4, H, W].
        """
        return self._add("Concat", [self._picture, self._mask], "seen", axis=1)

    def add_log_odds(self, logits: str, window: Window) -> str:
        """Add the picture's log odds to the network's output.

        Args:
            logits: The network's output [B, 3, H, W] before the sigmoid, in the window.
            window: The graph's window.

        Returns:
            The sum, in the window.
        """
        lowest, highest = self._graph.scalar(FILL_LEAST), self._graph.scalar(1 - FILL_LEAST)
        p = self._add("Min", [self._add("Max", [self._picture, lowest], "bounded_below"), highest], "bounded")
        odds = self._add("Div", [p, self._add("Sub", [self._graph.scalar(1), p], "complement")], "odds")
        odds = window.cut(self._add("Log", [odds], "log_odds"), f"{FILL}/log_odds_window")
        return self._add("Add", [logits, odds], "logits")

    def _pull(self, level: str) -> list[str]:
        """Return the pyramid's levels [B, 4, h, w] (colour × known, known), the finest first."""
        levels = [level]
        for number in range(1, len(FILL_SMOOTHINGS)):
            name = f"levels{number}"
            finer, odd = levels[-1], self._find_odd_sides(number - 1)
            if odd != (0, 0):
                pads = self._graph.ints(0, 0, 0, 0, 0, 0, *odd)
                finer = self._add("Pad", [finer, pads], f"{name}/even", mode="edge")
            mean = self._add("AveragePool", [finer], f"{name}/mean", kernel_shape=[2, 2], strides=[2, 2])
            share = self._slice_channels(mean, 3, 4, f"{name}/share")
            most = self._add("Max", [share, self._graph.scalar(0.25)], f"{name}/divisor")
            levels.append(self._add("Div", [mean, most], name))
        return levels

    def _push(self, levels: list[str]) -> str:
        """Return the picture [B, 3, H, W]."""
        mean = self._add("GlobalAveragePool", [levels[-1]], "mean")
        share = self._slice_channels(mean, 3, 4, "mean/share")
        share = self._add("Max", [share, self._graph.scalar(FILL_LEAST_KNOWN)], "mean/divisor")
        picture = self._add("Div", [self._slice_channels(mean, 0, 3, "mean/sums"), share], "mean/picture")
        for number in reversed(range(len(levels))):
            name = f"push{number}"
            known = self._slice_channels(levels[number], 0, 3, f"{name}/known")
            share = self._slice_channels(levels[number], 3, 4, f"{name}/share")
            unknown = self._add("Sub", [self._graph.scalar(1), share], f"{name}/unknown")
            if number + 1 < len(levels):
                picture = self._enlarge(picture, number, known, name)
            picture = self._complete(known, unknown, picture, f"{name}/begun")
            for step in range(FILL_SMOOTHINGS[number]):
                own = f"{name}/step{step}"
                mean = self._add("AveragePool", [picture], f"{own}/mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
                picture = self._complete(known, unknown, mean, own)
        return picture

    def _complete(self, known: str, unknown: str, picture: str, name: str) -> str:
        return self._add("Add", [known, self._add("Mul", [unknown, picture], f"{name}/unknown")], name)

    def _enlarge(self, picture: str, number: int, like: str, name: str) -> str:
        """Enlarge the picture of level `number` + 1 to the size of level `number`, which `like` has."""
        picture = self._add("Concat", [picture] * 4, f"{name}/four", axis=1)
        picture = self._add("DepthToSpace", [picture], f"{name}/twice", blocksize=2, mode="DCR")
        if self._find_odd_sides(number) == (0, 0):
            return picture
        ints = self._graph.ints
        if self._size is None:
            sides = self._add("Shape", [like], f"{name}/sides", start=2, end=4)
        else:
            sides = ints(*(-(-side // 2**number) for side in self._size))
        return self._add("Slice", [picture, ints(0, 0), sides, ints(2, 3)], f"{name}/cropped")

    def _find_odd_sides(self, number: int) -> tuple[int, int]:
        """Return for height and width whether that side of a level is odd, or may be odd in a graph of any size."""
        if self._size is None:
            odd = int(2**number >= SIZE_MULTIPLE)
            return odd, odd
        height, width = (-(-side // 2**number) % 2 for side in self._size)
        return height, width

    def _slice_channels(self, x: str, first: int, last: int, name: str) -> str:
        ints = self._graph.ints
        return self._add("Slice", [x, ints(first), ints(last), ints(1)], name)

    def _add(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        return self._graph.add(op, inputs, f"{FILL}/{name}", **attributes)
