"""The window of a graph of any size: the part of the picture that the graph computes behind the last block.

Up to the last block each value depends on the whole image. Behind the block all layers are local. To fill a hole, the
transposed convolutions and the head are needed only around the hole.

The window is the graph's third input, int64 [4]: the first row, the first column, the row behind the last and the
column behind the last, in pixels. The input has a default, so programs that do not set the window get the whole
picture. In ONNX the default of an input is an initializer of the same name.

Graphs of one size have no window: they consist of the few operators that every engine supports.
"""

from __future__ import annotations

import numpy as np

from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.node_names import WINDOW

#: The end of the default window in pixels. The end is behind the last pixel of any image, fits into an int32, and
#: is a multiple of each level's reduction.
_DEFAULT_END = 2**30


class Window:
    """Cuts feature maps to the window."""

    def __init__(self, graph: GraphBuilder, *, is_used: bool) -> None:
        """Add the window to a graph.

        Args:
            graph: The graph.
            is_used: Whether the graph has the input `window`. Otherwise feature maps are not cut.
        """
        self._graph, self._is_used = graph, is_used
        self._corners: dict[int, tuple[str, str]] = {}

    def cut(self, x: str, name: str, reduction: int = 1) -> str:
        """Cut a feature map.

        Args:
            x: The feature map [B, C, H / reduction, W / reduction].
            name: The name of the node.
            reduction: Pixels of the image for each value of the feature map, along each side.

        Returns:
            The part in the window; `x` itself where the graph has no window.
        """
        if not self._is_used:
            return x
        first, behind = self._find_corners(reduction)
        return self._graph.add("Slice", [x, first, behind, self._graph.ints(2, 3)], name)

    def _find_corners(self, reduction: int) -> tuple[str, str]:
        """Return the window's first (row, column) and those behind its last ones, in values of a feature map."""
        if reduction not in self._corners:
            add, ints = self._graph.add, self._graph.ints
            if not self._corners:
                self._graph.optional_input(WINDOW, np.array([0, 0, _DEFAULT_END, _DEFAULT_END], np.int64))
            window = WINDOW
            if reduction > 1:
                window = add("Div", [WINDOW, ints(reduction)], f"{WINDOW}/by_{reduction}")
            self._corners[reduction] = (
                add("Slice", [window, ints(0), ints(2)], f"{WINDOW}/first_by_{reduction}"),
                add("Slice", [window, ints(2), ints(4)], f"{WINDOW}/behind_by_{reduction}"),
            )
        return self._corners[reduction]
