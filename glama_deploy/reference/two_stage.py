"""The resampling of GLaMa-2stage (section 4.5), whose first network works at a small fixed size S×S.

Each cell of the small image is the mean of the known pixels in it. A cell without known pixels is missing, and the
coarse network fills it. The coarse picture is then enlarged to the image's size by bilinear interpolation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: A cell is missing where less than this share of its area is known. (At 1/8 of the size, one pixel is 1/64 of a cell.)
MIN_KNOWN_SHARE = 2.0**-10


def shrink(masked: Tensor, side: int) -> Tensor:
    """Shrink the network's input to the input of the coarse network.

    The means are computed in float32 even under autocast, because a known share may be as small as 1/1000.

    Args:
        masked: float [B, 4, H, W], 0…1: image × (1 − mask), then the mask.
        side: S, the side of the result in pixels.

    Returns:
        float [B, 4, S, S]: the means of the known pixels, then the mask (1 = missing).
    """
    known = torch.cat([masked[:, :3], 1 - masked[:, 3:]], dim=1)
    rows, columns = (compute_cell_weights(extent, side, known.device).to(known) for extent in known.shape[2:])
    with torch.autocast(known.device.type, enabled=False):
        means = rows @ known @ columns.T
    share = means[:, 3:]
    missing = (share < MIN_KNOWN_SHARE).to(known.dtype)
    return torch.cat([means[:, :3] / share.clamp_min(MIN_KNOWN_SHARE) * (1 - missing), missing], dim=1)


def enlarge(picture: Tensor, height: int, width: int) -> Tensor:
    """Enlarge the coarse picture by bilinear interpolation, with pixels as areas (section 4.5).

    Args:
        picture: float [B, 3, S, S].
        height: Height of the result in pixels.
        width: Width of the result in pixels.

    Returns:
        float [B, 3, height, width].
    """
    return nn.functional.interpolate(picture, (height, width), mode="bilinear", align_corners=False)


def compute_cell_weights(extent: int, cells: int, device: torch.device | None = None) -> Tensor:
    """Compute the weights with which pixels count in the means of cells, along one axis.

    Args:
        extent: Number of pixels along the axis.
        cells: Number of cells along the axis. All cells together are as long as all pixels.
        device: Where the weights are computed, because a CUDA graph cannot copy them there. None: on the CPU.

    Returns:
        float64 [cells, extent], the share of each cell that each pixel covers. The sum of each row is 1.
    """
    cell, pixel = torch.arange(cells, device=device)[:, None], torch.arange(extent, device=device)
    overlap = torch.minimum((cell + 1) * extent, (pixel + 1) * cells) - torch.maximum(cell * extent, pixel * cells)
    return overlap.clamp_min(0).double() / extent
