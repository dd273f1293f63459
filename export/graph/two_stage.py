"""The two resamplings between the stages of GLaMa-2stage as matrix products: to S×S by area, and back bilinear.

:mod:`glama_deploy.reference.two_stage` describes the resamplings. All engines support matrix products, for one size and
for any size. Every weight is a ratio of integers, which float32 rounds once. Resize nodes would differ between engines,
and TensorRT does not support resizing by area. Both resamplings stay float32 at every precision: their input is the
image, and the known share of a cell may be small.
"""

from __future__ import annotations

import numpy as np
import onnx

from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.node_names import COARSE_PICTURE, ENLARGE, SHRINK, get_part

#: The parts of the graph that this module and `network` write between the stages.
PARTS = (SHRINK, COARSE_PICTURE, ENLARGE)

#: A cell is missing where less than this share of its area is known, as in the reference.
MIN_KNOWN_SHARE = 2.0**-10


def compute_area_weights(extent: int, cells: int) -> np.ndarray:
    """Compute the share of each cell that each pixel covers.

    Args:
        extent: Number of pixels.
        cells: Number of cells.

    Returns:
        float64 [cells, extent]; each row sums to 1.
    """
    cell, pixel = np.arange(cells)[:, None], np.arange(extent)
    overlap = np.minimum((cell + 1) * extent, (pixel + 1) * cells) - np.maximum(cell * extent, pixel * cells)
    return np.maximum(overlap, 0) / extent


def compute_bilinear_weights(cells: int, extent: int) -> np.ndarray:
    """Compute the weight of each cell in each pixel. Pixels are areas, edges are repeated.

    Args:
        cells: Number of cells.
        extent: Number of pixels.

    Returns:
        float64 [extent, cells]; each row sums to 1.
    """
    pixel, cell = np.arange(extent)[:, None], np.arange(cells)
    place = np.clip((2 * pixel + 1) * cells - extent, 0, 2 * extent * (cells - 1))  # in units of 1/(2·extent)
    return np.maximum(1 - np.abs(place - 2 * extent * cell) / (2 * extent), 0)


def find_products(model: onnx.ModelProto) -> dict[str, str]:
    """Find the resamplings' matrix products, which stay float32.

    Args:
        model: The graph.

    Returns:
        The nodes' names, each with the reason.
    """
    reason = "it resamples the image between two stages, where cells may be known by a thousandth"
    own = (node for node in model.graph.node if node.op_type == "MatMul" and get_part(node.name) in PARTS)
    return {node.name: reason for node in own}


class Resampling:
    """Writes both resamplings."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, side: int, like: str) -> None:
        """Keep what the resamplings depend on.

        Args:
            graph: The graph.
            size: The images' (height, width). None: the size of `like` at run time.
            side: S, the side of stage one's square picture.
            like: A value [B, C, H, W] of the images' size.
        """
        self._graph, self._size, self._side, self._like = graph, size, side, like

    def shrink(self, x: str) -> str:
        """Write the mean of x in each cell.

        Args:
            x: A value [B, C, H, W].

        Returns:
            The means [B, C, S, S].
        """
        if self._size is not None:
            rows, columns = (compute_area_weights(extent, self._side) for extent in self._size)
            names = self._constant(rows, f"{SHRINK}/rows"), self._constant(columns.T, f"{SHRINK}/columns")
        else:
            names = self._write_area_weights(0, f"{SHRINK}/rows"), self._write_area_weights(1, f"{SHRINK}/columns")
        return self._write_products(names, x, SHRINK)

    def enlarge(self, x: str) -> str:
        """Write the interpolation of x.

        Args:
            x: A value [B, C, S, S].

        Returns:
            The result [B, C, H, W].
        """
        if self._size is not None:
            rows, columns = (compute_bilinear_weights(self._side, extent) for extent in self._size)
            names = self._constant(rows, f"{ENLARGE}/rows"), self._constant(columns.T, f"{ENLARGE}/columns")
        else:
            names = (
                self._write_bilinear_weights(0, f"{ENLARGE}/rows"),
                self._write_bilinear_weights(1, f"{ENLARGE}/columns"),
            )
        return self._write_products(names, x, ENLARGE)

    def _write_products(self, matrices: tuple[str, str], x: str, name: str) -> str:
        rows, columns = matrices
        x = self._graph.add("MatMul", [rows, x], f"{name}/by_rows")
        return self._graph.add("MatMul", [x, columns], f"{name}/by_columns")

    def _constant(self, values: np.ndarray, name: str) -> str:
        return self._graph.constant(name, values.astype(np.float32))

    def _write_area_weights(self, axis: int, name: str) -> str:
        """Write :func:`compute_area_weights` of an axis; of columns (axis 1) the transpose.

        All numbers before the last division are integers below 2^24, which float32 holds exactly.
        """
        add = self._graph.add
        extent, pixel, cell = self._write_indices(axis, 1 - axis, name)
        side, one = self._graph.scalar(self._side), self._graph.scalar(1)
        ends = [
            add("Mul", [add("Add", [of, one], f"{name}/{label}_after"), step], f"{name}/{label}_end")
            for of, step, label in ((cell, extent, "cell"), (pixel, side, "pixel"))
        ]
        starts = [
            add("Mul", pair, f"{name}/{label}_start")
            for pair, label in (([cell, extent], "cell"), ([pixel, side], "pixel"))
        ]
        overlap = add("Sub", [add("Min", ends, f"{name}/end"), add("Max", starts, f"{name}/start")], f"{name}/overlap")
        return add("Div", [add("Relu", [overlap], f"{name}/covered"), extent], name)

    def _write_bilinear_weights(self, axis: int, name: str) -> str:
        """Write :func:`compute_bilinear_weights` of an axis; of columns (axis 1) the transpose.

        All numbers before the last division are integers below 2^24, which float32 holds exactly.
        """
        add = self._graph.add
        extent, pixel, cell = self._write_indices(axis, axis, name)
        two = self._graph.scalar(2)
        unit = add("Mul", [extent, two], f"{name}/unit")
        odd = add("Add", [add("Mul", [pixel, two], f"{name}/twice"), self._graph.scalar(1)], f"{name}/odd")
        place = add(
            "Sub", [add("Mul", [odd, self._graph.scalar(self._side)], f"{name}/centre"), extent], f"{name}/place"
        )
        last = add("Mul", [unit, self._graph.scalar(self._side - 1)], f"{name}/last")
        place = add("Min", [add("Relu", [place], f"{name}/from_first"), last], f"{name}/to_last")
        away = add("Sub", [place, add("Mul", [cell, unit], f"{name}/cells")], f"{name}/away")
        share = add("Div", [add("Abs", [away], f"{name}/distance"), unit], f"{name}/far")
        return add("Relu", [add("Sub", [self._graph.scalar(1), share], f"{name}/near")], name)

    def _write_indices(self, axis: int, direction: int, name: str) -> tuple[str, str, str]:
        """Return an axis's length, its pixel indices along `direction`, and the cell indices along the other axis."""
        add, ints = self._graph.add, self._graph.ints
        extent = add("Shape", [self._like], f"{name}/extent", start=2 + axis, end=3 + axis)
        pixel = add("Cast", [self._graph.range(extent, f"{name}/range")], f"{name}/range_float", to=1)
        pixel = add("Unsqueeze", [pixel, ints(1 - direction)], f"{name}/pixel")
        shape = (-1, 1) if direction else (1, -1)
        cell = np.arange(self._side, dtype=np.float32).reshape(shape)
        return (
            add("Cast", [extent], f"{name}/extent_float", to=1),
            pixel,
            self._graph.constant(f"const/cells_{'down' if direction else 'across'}", cell),
        )
