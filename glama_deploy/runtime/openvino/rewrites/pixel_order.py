"""The order in which a tensor with the channels last stores the pixels of its images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PixelOrder:
    """The order of the pixels of [H, W] images in a tensor [B, P, C].

    Attributes:
        size: (H, W).
        grid: Two factors of P, the number of positions.
        pixels: The pixel at each position, int32 [P], as an index into the H·W pixels by rows. Where P is larger than
            H·W, the values at some positions are not used, and `pixels` has any pixel there.
        positions: The position of each pixel, int32 [H·W].
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    pixels: np.ndarray
    positions: np.ndarray

    def index_from(self, other: PixelOrder) -> np.ndarray:
        """Return where a tensor of another order has the pixel of each position.

        Args:
            other: The other order, of the same size.

        Returns:
            The positions in the other order, int32 [P].
        """
        return other.positions[self.pixels]


def by_rows(height: int, width: int) -> PixelOrder:
    """Return the order by rows, which [B, H, W, C] has.

    Args:
        height: H.
        width: W.

    Returns:
        The order.
    """
    pixels = np.arange(height * width, dtype=np.int32)
    return PixelOrder((height, width), (height, width), pixels, pixels)


def by_columns(height: int, width: int) -> PixelOrder:
    """Return the order by columns, which [B, W, H, C] has.

    Args:
        height: H.
        width: W.

    Returns:
        The order.
    """
    pixels = np.arange(height * width, dtype=np.int32)
    order, positions = pixels.reshape(height, width).T.ravel(), pixels.reshape(width, height).T.ravel()
    return PixelOrder((height, width), (width, height), order, positions)


def by_tiles(height: int, width: int, tile: tuple[int, int]) -> PixelOrder:
    """Return the order by tiles, and by rows within a tile. Tiles may reach beyond the image.

    Args:
        height: H.
        width: W.
        tile: Height and width of a tile.

    Returns:
        The order.
    """
    (down, across), pixels = tile, np.arange(height * width, dtype=np.int32).reshape(height, width)
    tiles = -(-height // down), -(-width // across)
    padded = np.pad(pixels, ((0, tiles[0] * down - height), (0, tiles[1] * across - width)), mode="edge")
    order = padded.reshape(tiles[0], down, tiles[1], across).swapaxes(1, 2).ravel()
    positions = np.arange(order.size, dtype=np.int32).reshape(*tiles, down, across).swapaxes(1, 2)
    positions = positions.reshape(padded.shape)[:height, :width].ravel()
    return PixelOrder((height, width), (tiles[0] * tiles[1], down * across), order, positions)
