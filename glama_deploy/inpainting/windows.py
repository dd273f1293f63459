"""The window of a run: the part of a picture that the network computes behind its last block.

Up to the last block each value depends on the whole picture. Behind the block there are only transposed convolutions
and the head. These layers see few pixels around each pixel, so a window around the hole gives the same values as the
whole picture, for less work and memory.

A transposed 3×3 convolution of stride 2 computes the pixel y from the values ⌊y/2⌋ to ⌈y/2⌉ of the smaller map. The
7×7 head computes y from the pixels y − 3 to y + 3. With a reduction of r pixels for each value behind the last block,
the pixel y thus depends on the values ⌊(y − 3)/r⌋ to ⌈(y + 3)/r⌉. Two 3×3 convolutions of a fine block see two more
values of their level on each side: 2 pixels at the level of the picture, then 4, and so on. For b fine blocks at each
level, the number 3 becomes 3 + 2·b·(r − 1).
"""

from __future__ import annotations

from glama_deploy.inpainting.boxes import Span
from glama_deploy.network import NetworkConfig


def bound_window(hole: tuple[int, int], size: tuple[int, int], network: NetworkConfig) -> tuple[int, int]:
    """Return the largest sides that the window of a hole may have, wherever the hole lies.

    Args:
        hole: height and width of the hole in pixels.
        size: height and width of the padded picture in pixels.
        network: the network.

    Returns:
        Height and width in pixels, at most those of the picture.
    """
    beside = 2 * network.decoder_reach + 3 * network.reduction
    return min(hole[0] + beside, size[0]), min(hole[1] + beside, size[1])


def find_window(hole: Span, size: tuple[int, int], network: NetworkConfig) -> Span:
    """Find the smallest window in which the pixels of a hole have the values of the whole picture.

    Args:
        hole: the hole in the picture.
        size: height and width of the padded picture in pixels, multiples of the network's reduction.
        network: the network.

    Returns:
        A rectangle within the padded picture, whose sides are multiples of the reduction.
    """
    reduction, reach = network.reduction, network.decoder_reach
    firsts = [max(0, (first - reach) // reduction * reduction) for first in (hole.top, hole.left)]
    # the last value that the hole's last pixel (`behind` - 1) depends on, and one more, which is behind the window
    behinds = [
        min(side, (-(-(behind - 1 + reach) // reduction) + 1) * reduction)
        for behind, side in zip((hole.bottom, hole.right), size, strict=True)
    ]
    return Span(*firsts, *behinds)
