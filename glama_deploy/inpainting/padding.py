"""The rows and columns that an image needs so that a graph takes its size."""

from __future__ import annotations

from glama_deploy.bundle import Io, SizeRange
from glama_deploy.network import SIZE_MULTIPLE


def compute_padding(height: int, width: int, io: Io, sizes: SizeRange) -> tuple[int, int]:
    """Compute the rows and columns to add to an image so that a graph takes its size.

    Sides are padded to multiples of 8. A graph with uint8 tensors and dynamic sizes pads by itself, unless the image is
    smaller than its least size.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        io: whether the graph's tensors are float or uint8.
        sizes: sizes that the graph takes.

    Returns:
        Rows to add at the bottom and columns to add at the right, each from 0 to 7.
    """
    if io == "uint8" and not sizes.static and height >= sizes.min[0] and width >= sizes.min[1]:
        return 0, 0
    return -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE
