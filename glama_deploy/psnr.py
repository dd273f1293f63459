"""The peak signal-to-noise ratio, by which engines, precisions and methods are compared."""

from __future__ import annotations

import math

import numpy as np


def compute_psnr(mean_square: float) -> float:
    """Return the PSNR of values from 0 to 1.

    Args:
        mean_square: the mean of the squared errors.

    Returns:
        Decibels for a peak of 1; infinity where the error is 0.
    """
    return -10 * math.log10(mean_square) if mean_square else math.inf


def compute_mean_square(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean squared difference of two arrays of bytes, as values from 0 to 1, in float64.

    Args:
        found: uint8, of any shape.
        truth: uint8 of the same shape.

    Returns:
        The mean, 0…1.
    """
    return float((((found.astype(np.float64) - truth) / 255) ** 2).mean())
