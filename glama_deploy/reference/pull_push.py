"""Pull-push interpolation of missing pixels, the first picture of a network with `fill`.

The method is that of Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.6.2. Pull: each level has the means of
the known pixels in blocks of 2×2, and a weight that says how far a pixel is known. Push: from the coarsest level to the
finest, unknown pixels take the value of the coarser level and are smoothed by box means. Gortler uses a tent filter
instead; a box needs no weights and is the same in every engine. The network then predicts a term that is added to the
log odds of this picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glama_deploy.network import FILL_LEAST, FILL_LEAST_KNOWN, FILL_SMOOTHINGS


def fill(masked: Tensor) -> Tensor:
    """Interpolate the missing pixels, in float32 even under autocast, and without a gradient.

    Args:
        masked: float [B, 4, H, W], 0…1: image × (1 − mask), then the mask.

    Returns:
        float32 [B, 3, H, W], 0…1. Known pixels are not changed.
    """
    with torch.no_grad(), torch.autocast(masked.device.type, enabled=False):
        masked = masked.float()
        levels = [torch.cat([masked[:, :3], 1 - masked[:, 3:]], dim=1)]
        for _ in FILL_SMOOTHINGS[1:]:
            odd = [side % 2 for side in levels[-1].shape[2:]]
            even = nn.functional.pad(levels[-1], (0, odd[1], 0, odd[0]), mode="replicate")
            mean = nn.functional.avg_pool2d(even, 2)
            levels.append(mean / mean[:, 3:].clamp_min(0.25))
        mean = levels[-1].mean((2, 3), keepdim=True)
        picture = mean[:, :3] / mean[:, 3:].clamp_min(FILL_LEAST_KNOWN)
        for level, smoothings in zip(reversed(levels), reversed(FILL_SMOOTHINGS), strict=True):
            known, unknown = level[:, :3], 1 - level[:, 3:]
            if level is not levels[-1]:
                picture = nn.functional.interpolate(picture, scale_factor=2.0, mode="nearest")
                picture = picture[:, :, : level.shape[2], : level.shape[3]]
            picture = known + unknown * picture
            for _ in range(smoothings):
                picture = known + unknown * nn.functional.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    return picture


def log_odds(picture: Tensor) -> Tensor:
    """Compute log(p / (1 − p)) of each value p.

    Args:
        picture: float, any shape, 0…1. Values are first limited to FILL_LEAST…1 − FILL_LEAST.

    Returns:
        float, of the same shape.
    """
    bounded = picture.clamp(FILL_LEAST, 1 - FILL_LEAST)
    return torch.log(bounded / (1 - bounded))
