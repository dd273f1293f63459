"""What a filled image is measured by, against the truth. All but the spectrum's error are torchmetrics' and
torch-fidelity's.

Images are uint8 H×W×3; `missing` is bool H×W. Every figure is of one image but FID, which compares the distributions of
two sets by their features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

#: Figures of one image by name, in the order of reports, and whether more is better.
PIXEL = {
    "psnr_missing": True,
    "ssim_missing": True,
    "l1_missing": False,
    "psnr": True,
    "ssim": True,
    "l1": False,
    "spectrum": False,
}

#: Rings that the spectrum's error is averaged over, from the lowest frequencies to the highest of the axes.
RINGS = 16

#: PSNR of an image without an error, in dB: finite, so that means exist; a 16-bit image's last digit.
PSNR_MOST = 100.0

#: Beside the amplitude in the logarithm, in units of 0…1: a 16th of a level of 8 bits.
_FLOOR = 1 / (16 * 255)


def pixels(filled: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> dict[str, float]:
    """L1 (0…1), PSNR (dB, peak 1) and SSIM of the missing pixels and of the whole image, and the spectrum's error.

    SSIM is the usual one (Gaussian windows of 11 pixels, σ 1.5); of the missing pixels it is the mean of its map there,
    whose windows reach beyond them. Raises ValueError where nothing is missing.
    """
    if not missing.any():
        raise ValueError("no pixel is missing; there is nothing to measure")
    error = (filled.astype(np.float64) - truth) / 255
    pair = (_planar(filled), _planar(truth))
    ssim, map_ = structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    within = map_[0].mean(0).numpy()[missing]
    return {
        "psnr_missing": _psnr(error[missing]),
        "ssim_missing": float(within.mean()),
        "l1_missing": float(np.abs(error[missing]).mean()),
        "psnr": _psnr(error),
        "ssim": float(ssim),
        "l1": float(np.abs(error).mean()),
        "spectrum": float(np.abs(log_amplitudes(filled) - log_amplitudes(truth)).mean()),
    }


def log_amplitudes(image: np.ndarray) -> np.ndarray:
    """ln(|F| + 1/4080) of the mean of the three channels (0…1), orthonormal, zero frequency in the middle; float64 H×W.
    The paper shows these as its Figure 3; the small number keeps what 8 bits do not resolve out of the difference."""
    spectrum = np.fft.fft2(image.mean(axis=2) / 255, norm="ortho")
    return np.log(np.abs(np.fft.fftshift(spectrum)) + _FLOOR)


def rings(filled: np.ndarray, truth: np.ndarray) -> list[float]:
    """The spectrum's error by frequency: mean |difference of log-amplitudes| in RINGS rings of equal width around zero,
    the last ending at the Nyquist frequency of the axes; the corners beyond count to the last."""
    difference = np.abs(log_amplitudes(filled) - log_amplitudes(truth))
    height, width = difference.shape
    y, x = (np.fft.fftshift(np.fft.fftfreq(side)) for side in (height, width))
    ring = np.minimum((np.hypot(y[:, None], x) / 0.5 * RINGS).astype(int), RINGS - 1).ravel()
    count = np.bincount(ring, minlength=RINGS)
    return (np.bincount(ring, difference.ravel(), RINGS) / np.maximum(count, 1)).tolist()


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """FID (Heusel et al., NeurIPS 2017) of two sets of features [N, 2048], by torch-fidelity; two of each at least."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in (one, other)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def bootstrap(values: Sequence[float], seed: int = 0, rounds: int = 1000) -> tuple[float, float]:
    """The interval that holds the mean of such a set in 95 of 100 cases, from `rounds` samples of it."""
    array = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(len(array), size=(rounds, len(array)))
    low, high = np.percentile(array[chosen].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _psnr(error: np.ndarray) -> float:
    mean = float(np.square(error).mean())
    return PSNR_MOST if mean == 0 else min(PSNR_MOST, -10 * float(np.log10(mean)))


def _planar(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
