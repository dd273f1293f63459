"""The metrics that compare two images pixel by pixel: L1, PSNR and SSIM."""

from __future__ import annotations

import numpy as np

from glama_deploy.evaluation.metrics.pairs import Measurement, Pair
from glama_deploy.psnr import compute_mean_square, compute_psnr

#: PSNR of an identical image, in place of infinity.
MAX_PSNR_DB = 100.0


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
