"""Stage one of GLaMa-2stage (section 4.5): a picture at a small fixed size, for a second network to refine.

The image is brought to S×S by the mean of its known pixels in each cell; a cell is missing where nothing of it is
known. The coarse network fills those, and its picture is brought back to the image's size bilinearly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: A cell is missing where less than this share of its area is known (of an 8-fold shrinking a pixel is 1/64).
LEAST_KNOWN = 2.0**-10


def shrink(masked: Tensor, side: int) -> Tensor:
    """The coarse network's input [B, 4, S, S] from a network's input [B, 4, H, W] (masked image, then mask). In
    float32 even under autocast: a cell may be known by a thousandth."""
    known = torch.cat([masked[:, :3], 1 - masked[:, 3:]], dim=1)
    rows, columns = (area(extent, side).to(known) for extent in known.shape[2:])
    with torch.autocast(known.device.type, enabled=False):
        means = rows @ known @ columns.T
    share = means[:, 3:]
    missing = (share < LEAST_KNOWN).to(known.dtype)
    return torch.cat([means[:, :3] / share.clamp_min(LEAST_KNOWN) * (1 - missing), missing], dim=1)


def enlarge(picture: Tensor, height: int, width: int) -> Tensor:
    """[B, 3, S, S] → [B, 3, H, W], bilinear, pixels as areas (section 4.5)."""
    return nn.functional.interpolate(picture, (height, width), mode="bilinear", align_corners=False)


def area(extent: int, cells: int) -> Tensor:
    """float64 [cells, extent]: the share of each cell that each pixel covers, where all cells together are as long as
    all pixels. Rows add up to 1."""
    cell, pixel = torch.arange(cells)[:, None], torch.arange(extent)
    overlap = torch.minimum((cell + 1) * extent, (pixel + 1) * cells) - torch.maximum(cell * extent, pixel * cells)
    return overlap.clamp_min(0).double() / extent
