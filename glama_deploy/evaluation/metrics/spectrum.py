"""How far an image's spectrum is from the truth's (the paper's Figure 3)."""

from __future__ import annotations

import numpy as np

from glama_deploy.evaluation.metrics.pairs import Measurement, Pair

#: Rings of frequencies in which errors are averaged: equal widths from 0 to the corner, √½ cycles a pixel.
RINGS = 16

#: Added to amplitudes, so that one of 0 has a logarithm; a thousandth of a step of 8 bits is 4e-6.
_LEAST = 1e-6

#: The same within holes, some of which are of one colour: what rounding to 8 bits leaves at each frequency, 1/255/√12.
_LEAST_WITHIN = 1.1e-3


def log_amplitudes(image: np.ndarray) -> np.ndarray:
    """ln |F| of the channels' mean of an image (uint8 H×W×3 as 0…1), orthonormal; zero frequency in the middle,
    float64 H×W."""
    return _log_amplitudes(_gray(image))


def _log_amplitudes(gray: np.ndarray, least: float = _LEAST) -> np.ndarray:
    return np.log(np.abs(np.fft.fftshift(np.fft.fft2(gray, norm="ortho"))) + least)


def _gray(image: np.ndarray) -> np.ndarray:
    return image.mean(axis=2) / 255


def errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """|difference of log amplitudes| at each frequency, float64 H×W, of two images uint8 H×W×3."""
    return np.abs(log_amplitudes(found) - log_amplitudes(truth))


def errors_within(found: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The same of the missing pixels alone (bool H×W): in both images the known ones are put at the mean of the truth's
    missing ones, so that they have no part in it, and the step at the hole's edge has little."""
    found, truth = _gray(found), _gray(truth)
    level = truth[missing].mean()
    one, other = (_log_amplitudes(np.where(missing, gray, level), _LEAST_WITHIN) for gray in (found, truth))
    return np.abs(one - other)


def by_ring(error: np.ndarray) -> tuple[float | None, ...]:
    """The mean of what :func:`errors` gives in each of RINGS rings; None where an image so small has none."""
    rows, columns = (np.fft.fftshift(np.fft.fftfreq(side)) for side in error.shape)
    radius = np.hypot(rows[:, None], columns)
    ring = np.minimum((radius / np.sqrt(0.5) * RINGS).astype(int), RINGS - 1).ravel()
    counts = np.bincount(ring, minlength=RINGS)
    sums = np.bincount(ring, error.ravel(), RINGS)
    return tuple(float(total / count) if count else None for total, count in zip(sums, counts, strict=True))


def measure_spectrum(pair: Pair) -> Measurement:
    """Return the mean of the errors over frequencies, and their means by ring."""
    missing = errors_within(pair.found, pair.truth, pair.missing)
    whole = errors(pair.found, pair.truth)
    return Measurement(
        float(missing.mean()), float(whole.mean()), {"missing": by_ring(missing), "whole": by_ring(whole)}
    )
