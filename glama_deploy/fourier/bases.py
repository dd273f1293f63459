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
    angle = _compute_angles(n)[:, : n // 2 + 1]
    return np.concatenate([np.cos(angle), -np.sin(angle)], axis=1) / np.sqrt(n)


def column_basis(n: int) -> np.ndarray:
    """Compute K, which maps rows in the order (h, re/im) to the re block and then the im block of the orthonormal fft.

    K is orthogonal: its transpose is the inverse transform between the same two layouts.

    Args:
        n: The length of the axis.

    Returns:
        float64 [2n, 2n].
    """
    cos, sin = np.cos(_compute_angles(n)), np.sin(_compute_angles(n))
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
    angle = _compute_angles(n)[:half]
    weight = np.where(2 * np.arange(half) % n == 0, 1.0, 2.0)[:, None]
    return np.concatenate([weight * np.cos(angle), -weight * np.sin(angle)], axis=0) / np.sqrt(n)


def _compute_angles(n: int) -> np.ndarray:
    """Return 2π·(j·k mod n)/n, float64 [n, n], reduced to (−π, π]."""
    product = np.outer(np.arange(n), np.arange(n)) % n
    return 2 * np.pi * np.where(2 * product > n, product - n, product) / n
