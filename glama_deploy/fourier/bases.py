"""The matrices of the FFT as two matrix products in each direction (:mod:`glama_deploy.export.graph.fft_matmul`)."""

from __future__ import annotations

import numpy as np


def row_basis(n: int) -> np.ndarray:
    """Compute R: `x @ R` is `[re | im]` of the orthonormal rfft along the last axis.

    Args:
        n: The length of the axis.

    Returns:
        float64 [n, 2F] with F = n//2+1.
    """
    cos, sin = (values[:, : n // 2 + 1] for values in _compute_cos_sin(n))
    return np.concatenate([cos, -sin], axis=1) / np.sqrt(n)


def column_basis(n: int) -> np.ndarray:
    """Compute K, which maps rows in the order (h, re/im) to the re block and then the im block of the orthonormal fft.

    K is orthogonal: its transpose is the inverse transform between the same two layouts.

    Args:
        n: The length of the axis.

    Returns:
        float64 [2n, 2n].
    """
    cos, sin = _compute_cos_sin(n)
    real = np.stack([cos, sin], axis=2).reshape(n, 2 * n)
    imag = np.stack([-sin, cos], axis=2).reshape(n, 2 * n)
    return np.concatenate([real, imag], axis=0) / np.sqrt(n)


def inverse_row_basis(n: int) -> np.ndarray:
    """Compute R′: `[re | im] @ R′` is the orthonormal irfft along the last axis.

    As in every irfft, the imaginary parts of the first column have no effect, nor, for even n, those of the last.

    Args:
        n: The length of the axis.

    Returns:
        float64 [2F, n] with F = n//2+1.
    """
    half = n // 2 + 1
    cos, sin = (values[:half] for values in _compute_cos_sin(n))
    weight = np.where(2 * np.arange(half) % n == 0, 1.0, 2.0)[:, None]
    return np.concatenate([weight * cos, -weight * sin], axis=0) / np.sqrt(n)


def _compute_cos_sin(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosines and sines of 2π·(j·k mod n)/n, float64 [n, n]. The angles are reduced to (−π, π]."""
    k = np.arange(n)
    angle = 2 * np.pi * np.where(2 * k > n, k - n, k) / n
    product = np.outer(k, k) % n
    return np.cos(angle)[product], np.sin(angle)[product]
