"""The texture term of wide holes: a sliced Wasserstein distance of patches. The paper does not have this term.

In a wide hole the place of a detail is unpredictable, so L1 and PSNR are best for blurred results. This term does not
compare pixels at their places. It compares the set of all patches in the prediction's hole with the set of all patches
in the truth's hole (the distance of Heitz et al., CVPR 2021, on patches as in Elnekave and Weiss, ECCV 2022):

    patches of 7×7×3 values → projections to random directions → sorted values → mean absolute difference

The mean absolute difference of sorted values is the Wasserstein distance of one projection. Only patches count whose
centers are farther from known pixels than `distance`, so the term does not act in narrow holes, lines and grids.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Side of the patches in pixels, and number of random directions of a step.
PATCH_SIDE, DIRECTION_COUNT = 7, 64


def draw_directions(seed: int, step: int) -> Tensor:
    """Draw the directions of a step, which are the same in each process and after resuming.

    Args:
        seed: The run's seed.
        step: Number of completed steps.

    Returns:
        float32 [DIRECTION_COUNT, 3, PATCH_SIDE, PATCH_SIDE]. The norm of each direction is 1.
    """
    rng = np.random.default_rng((seed, 2, step))  # training/data.py draws with 0 and 1 in the second place
    drawn = rng.standard_normal((DIRECTION_COUNT, 3, PATCH_SIDE, PATCH_SIDE))
    return torch.from_numpy(drawn / np.sqrt(np.square(drawn).sum((1, 2, 3), keepdims=True))).float()


def find_wide_pixels(mask: Tensor, distance: int) -> Tensor:
    """Find the missing pixels far from known pixels.

    Args:
        mask: Masks [B, 1, H, W], 1 = missing.
        distance: Pixels. A pixel is found if all pixels up to this distance are missing, horizontally, vertically and
            diagonally. Pixels outside of the image do not count as known.

    Returns:
        bool [B, H, W].
    """
    return F.max_pool2d(1 - mask, 2 * distance + 1, stride=1, padding=distance)[:, 0] == 0


def find_wide_holes(mask: Tensor, distance: int) -> Tensor:
    """Find the wide holes.

    Args:
        mask: Masks [B, 1, H, W], 1 = missing.
        distance: Pixels. The squares that contain missing pixels only and whose sides are 2 · distance + 1 make up the
            wide holes.

    Returns:
        Masks [B, 1, H, W] of the type of `mask`, 1 = in a wide hole.
    """
    wide = find_wide_pixels(mask, distance)[:, None].to(mask.dtype)
    return F.max_pool2d(wide, 2 * distance + 1, stride=1, padding=distance)


def keep_wide_holes(predicted: Tensor, image: Tensor, mask: Tensor, distance: int) -> Tensor:
    """Replace the prediction by the truth everywhere except in wide holes.

    Args:
        predicted: Generated images [B, 3, H, W].
        image: Real images of the same shape.
        mask: Masks [B, 1, H, W], 1 = missing.
        distance: Pixels, as :func:`find_wide_holes` takes it.

    Returns:
        The images [B, 3, H, W]. Gradients reach the prediction only through its wide holes.
    """
    return torch.where(find_wide_holes(mask, distance) > 0, predicted, image)


def compare_textures(predicted: Tensor, image: Tensor, mask: Tensor, directions: Tensor, distance: int) -> Tensor:
    """Compute the sliced Wasserstein distance of the patches in wide holes, averaged over directions and images.

    Args:
        predicted: Generated images [B, 3, H, W].
        image: Real images of the same shape.
        mask: Masks [B, 1, H, W], 1 = missing.
        directions: float [K, 3, P, P], as :func:`draw_directions` returns.
        distance: Distance of the patches' centers from known pixels, as :func:`find_wide_pixels` takes it.

    Returns:
        A scalar in float32 or float64, also under autocast. An image without patches in wide holes counts 0.
    """
    real = image if image.dtype == torch.float64 else image.float()
    edge = directions.shape[-1] // 2  # a patch lies within the image
    wide = find_wide_pixels(mask, distance)[:, edge : mask.shape[2] - edge, edge : mask.shape[3] - edge]
    with torch.autocast(real.device.type, enabled=False):
        projected, target = (F.conv2d(each.to(real.dtype), directions.to(real)) for each in (predicted, real))
    distances = []
    for of_prediction, of_truth, place in zip(projected, target, wide, strict=True):
        mine, theirs = (values[:, place].sort(dim=1).values for values in (of_prediction, of_truth))
        distances.append((mine - theirs.detach()).abs().sum() / max(1, mine.numel()))
    return torch.stack(distances).mean()
