"""How far an image's spectrum is from the truth's (the paper's Figure 3)."""

from __future__ import annotations

import numpy as np

from glama_deploy.evaluation.metrics.pairs import Measurement, Pair

#: Number of rings of frequencies, of equal widths from 0 to the corner, √½ cycles a pixel.
RING_COUNT = 16

#: Added to amplitudes, because 0 has no logarithm. A thousandth of a step of 8 bits is 4e-6.
_AMPLITUDE_OFFSET = 1e-6

#: Added to amplitudes within holes, which may have one colour: the error of rounding to 8 bits, 1/255/√12.
_HOLE_AMPLITUDE_OFFSET = 1.1e-3


def compute_log_amplitudes(image: np.ndarray) -> np.ndarray:
    """Return ln |F| of the mean of an image's channels.

    Args:
        image: uint8 H×W×3, which counts as 0…1.

    Returns:
        float64 H×W of the orthonormal transform, with the zero frequency in the middle.
    """
    return _compute_log_amplitudes(_average_channels(image))


def _compute_log_amplitudes(gray: np.ndarray, offset: float = _AMPLITUDE_OFFSET) -> np.ndarray:
    return np.log(np.abs(np.fft.fftshift(np.fft.fft2(gray, norm="ortho"))) + offset)


def _average_channels(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2) / 255


def compute_errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Compute the absolute difference of the log amplitudes at each frequency.

    Args:
        found: uint8 H×W×3.
        truth: uint8 H×W×3.

    Returns:
        float64 H×W, with the zero frequency in the middle.
    """
    return np.abs(compute_log_amplitudes(found) - compute_log_amplitudes(truth))


def compute_errors_within(found: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Compute the same of the missing pixels alone.

    Known pixels of both images are set to the mean of the truth's missing pixels. They then add nothing, and the step
    at the edge of the hole adds little.

    Args:
        found: uint8 H×W×3.
        truth: uint8 H×W×3.
        missing: bool H×W.

    Returns:
        float64 H×W, with the zero frequency in the middle.
    """
    found, truth = _average_channels(found), _average_channels(truth)
    level = truth[missing].mean()
    one, other = (
        _compute_log_amplitudes(np.where(missing, gray, level), _HOLE_AMPLITUDE_OFFSET) for gray in (found, truth)
    )
    return np.abs(one - other)


def average_rings(error: np.ndarray) -> tuple[float | None, ...]:
    """Return the mean error of each of RING_COUNT rings of frequencies.

    Args:
        error: float64 H×W, as :func:`compute_errors` returns.

    Returns:
        A value for each ring; None for a ring that has no frequency of a small image.
    """
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(side)) for side in error.shape)
    radius = np.hypot(rows[:, None], columns)
    ring = np.minimum((radius / np.sqrt(0.5) * RING_COUNT).astype(int), RING_COUNT - 1).ravel()
    counts = np.bincount(ring, minlength=RING_COUNT)
    sums = np.bincount(ring, error.ravel(), RING_COUNT)
    return tuple(float(total / count) if count else None for total, count in zip(sums, counts, strict=True))


def measure_spectrum(pair: Pair) -> Measurement:
    """Measure the errors of the spectrum.

    Args:
        pair: the inpainted image beside the photograph.

    Returns:
        The means over frequencies, and the means by ring.
    """
    missing = compute_errors_within(pair.found, pair.truth, pair.missing)
    whole = compute_errors(pair.found, pair.truth)
    return Measurement(
        float(missing.mean()), float(whole.mean()), {"missing": average_rings(missing), "whole": average_rings(whole)}
    )
