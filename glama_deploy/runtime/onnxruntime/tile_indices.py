"""Nodes that compute which pixels lie in which tile, from the shape of a feature map at run time.

Tiles of 4×4 pixels cover the map. The last row and column of tiles may reach over the edge. Each tile's convolution
reads 6×6 pixels, of which the outermost may lie in the border of one pixel that reflects the map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glama_deploy.runtime.onnxruntime.model_file import GraphEditor

#: The side of a tile, and of the square of pixels that its convolution reads.
TILE_SIDE, READ_SIDE = 4, 6


@dataclass(frozen=True)
class TileIndices:
    """Values that bring pixels into tiles and back. B, H and W are the feature map's sides, T is the number of tiles.

    Attributes:
        read: The pixel, of B·H·W, at each place of each tile: int64 [6·6·B·T], in the order (row, column, image, tile).
        back: The place, of 4·4·B·T in that order, of each pixel: int64 [B·H·W].
        shape: The shape (B, H, W, −1): int64 [4].
    """

    read: str
    back: str
    shape: str


def write_tile_indices(editor: GraphEditor, like: str, name: str) -> TileIndices:
    """Write the nodes.

    Args:
        editor: The graph.
        like: A value [B, C, H, W].
        name: The prefix of the nodes' names.

    Returns:
        The indices for maps of that size.
    """
    return _Writer(editor, name).write(like)


class _Writer:
    """Writes the nodes. All values are int64."""

    def __init__(self, editor: GraphEditor, name: str) -> None:
        """Keep where to write.

        Args:
            editor: The graph.
            name: The prefix of the nodes' names.
        """
        self._editor, self._name = editor, name

    def write(self, like: str) -> TileIndices:
        ints, scalar = self._editor.ints, self._editor.scalar
        shape = self._add("Shape", [like], "shape")
        batch, height, width = (
            self._add("Gather", [shape, scalar(axis)], f"sides/{axis}", axis=0) for axis in (0, 2, 3)
        )
        sides = self._add("Gather", [shape, ints(0, 2, 3)], "sides", axis=0)
        rows, row_count = self._write_read_positions(height, "rows")
        columns, column_count = self._write_read_positions(width, "columns")

        # [6, 1, 1, tiles down, 1] · W + [6, 1, 1, tiles across] + [B, 1, 1] · H·W
        rows = self._add("Mul", [self._add("Unsqueeze", [rows, ints(1, 2, 4)], "rows/axes"), width], "rows/first")
        columns = self._add("Unsqueeze", [columns, ints(1, 2)], "columns/axes")
        area = self._add("Mul", [height, width], "area")
        images = self._add("Range", [scalar(0), batch, scalar(1)], "images")
        images = self._add("Mul", [self._add("Unsqueeze", [images, ints(1, 2)], "images/axes"), area], "images/first")
        read = self._add("Add", [self._add("Add", [rows, columns], "in_image"), images], "read/axes")
        read = self._add("Reshape", [read, ints(-1)], "read")
        return TileIndices(
            read,
            self._write_back(sides, row_count, column_count),
            self._add("Concat", [sides, ints(-1)], "pixels_shape", axis=0),
        )

    def _write_read_positions(self, side: str, name: str) -> tuple[str, str]:
        """Return the positions along one axis that tiles read, [6, tiles], and the number of tiles, [1].

        Positions behind the border are not used. They are moved into the map.
        """
        scalar = self._editor.scalar
        first = self._add("Range", [scalar(0), side, scalar(TILE_SIDE)], f"{name}/tiles")
        offsets = self._editor.store("edited/offsets", np.arange(-1, READ_SIDE - 1, dtype=np.int64)[:, None])
        inside = self._add("Abs", [self._add("Add", [first, offsets], f"{name}/places")], f"{name}/from_start")
        last = self._add("Sub", [side, scalar(1)], f"{name}/last")
        from_end = self._add("Abs", [self._add("Sub", [last, inside], f"{name}/to_end")], f"{name}/from_end")
        inside = self._add("Max", [self._add("Sub", [last, from_end], f"{name}/reflected"), scalar(0)], name)
        return inside, self._add("Shape", [first], f"{name}/count")

    def _write_back(self, sides: str, row_count: str, column_count: str) -> str:
        """Return where each pixel is among those of all tiles."""
        ints, scalar = self._editor.ints, self._editor.scalar
        images = self._add("Slice", [sides, ints(0), ints(1)], "back/images")
        tiled = self._add(
            "Concat", [ints(TILE_SIDE, TILE_SIDE), images, row_count, column_count], "back/tiled_shape", axis=0
        )
        count = self._add("ReduceProd", [tiled], "back/count", keepdims=0)
        places = self._add("Range", [scalar(0), count, scalar(1)], "back/places")
        places = self._add("Reshape", [places, tiled], "back/tiled")
        places = self._add("Transpose", [places], "back/by_image", perm=[2, 3, 0, 4, 1])
        covered = [
            self._add("Mul", [tiles, ints(TILE_SIDE)], f"back/{name}")
            for tiles, name in ((row_count, "height"), (column_count, "width"))
        ]
        whole = self._add("Concat", [images, *covered], "back/covered_shape", axis=0)
        places = self._add("Reshape", [places, whole], "back/covered")
        inside = self._add("Slice", [places, ints(0, 0, 0), sides], "back/inside")
        return self._add("Reshape", [inside, ints(-1)], "back")

    def _add(self, op: str, inputs: list[str], name: str, **attributes: int | list[int]) -> str:
        return self._editor.add(op, inputs, f"{self._name}/{name}", **attributes)
