"""The metrics that compare two images pixel by pixel: L1, PSNR and SSIM."""

from __future__ import annotations

import numpy as np

from glama_deploy.evaluation.metrics.pairs import Measurement, Pair
from glama_deploy.psnr import compute_mean_square, compute_psnr

#: PSNR of an identical image, in place of infinity.
MAX_PSNR_DB = 100.0

#: The constants of SSIM for a peak of 1.
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


def measure_l1(pair: Pair) -> Measurement:
    """Measure the mean absolute difference in float64.

    Args:
        pair: the inpainted image beside the photograph.

    Returns:
        Values of 0…1.
    """
    error = np.abs(pair.found.astype(np.float64) - pair.truth) / 255
    return Measurement(float(error[pair.missing].mean()), float(error.mean()))


def measure_psnr(pair: Pair) -> Measurement:
    """Measure the PSNR in float64.

    Args:
        pair: the inpainted image beside the photograph.

    Returns:
        Values in dB for a peak of 1, at most MAX_PSNR_DB.
    """
    missing, whole = (
        min(MAX_PSNR_DB, compute_psnr(compute_mean_square(pair.found[pixels], pair.truth[pixels])))
        for pixels in (pair.missing, slice(None))
    )
    return Measurement(missing, whole)


def measure_ssim(pair: Pair) -> Measurement:
    """Measure the mean of the SSIM map (Wang et al., IEEE TIP 2004) with torchmetrics, in float32.

    Args:
        pair: the inpainted image beside the photograph.

    Returns:
        Values up to 1.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    found, truth, missing = pair.tensors
    whole, of_each = structural_similarity_index_measure(found, truth, data_range=1.0, return_full_image=True)
    return Measurement(float(of_each[0].mean(0)[missing].mean()), float(whole))


def measure_ssim_as_lama(pair: Pair) -> Measurement:
    """Measure SSIM as LaMa's evaluator does, in float32.

    The window is the same as in :func:`measure_ssim`. But windows that reach over the image's edge see zeros there.

    Args:
        pair: the inpainted image beside the photograph.

    Returns:
        Values up to 1.
    """
    import torch
    from torch.nn.functional import conv2d

    found, truth, missing = pair.tensors
    line = torch.exp(-(torch.arange(-5, 6, device=found.device, dtype=found.dtype) ** 2) / (2 * 1.5**2))
    line = line / line.sum()
    window = torch.outer(line, line).expand(3, 1, 11, 11)
    pictures = torch.cat((found, truth, found * found, truth * truth, found * truth))
    mean_found, mean_truth, *squares = conv2d(pictures, window, padding=5, groups=3)
    products = (mean_found * mean_found, mean_truth * mean_truth, mean_found * mean_truth)
    variance_found, variance_truth, covariance = (s - p for s, p in zip(squares, products, strict=True))
    luminance = (2 * products[2] + _SSIM_C1) / (products[0] + products[1] + _SSIM_C1)
    structure = (2 * covariance + _SSIM_C2) / (variance_found + variance_truth + _SSIM_C2)
    of_each = (luminance * structure).mean(0)
    return Measurement(float(of_each[missing].mean()), float(of_each.mean()))
