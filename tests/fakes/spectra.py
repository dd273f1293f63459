"""Arrays and spectra that the FFT plugins transform, and one kernel of theirs in numpy."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from glama_deploy.runtime.tensorrt.plugins import fft

#: Odd, even, prime and tiny sides.
sides = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 17, 31])


shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), sides, sides)


def spectrum_like(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """What a network makes of a spectrum: float32 [B, C, H, F, 2] that is no real array's."""
    values = np.random.default_rng(seed).normal(size=fft.rfft2_shape(shape)).astype(np.float32)
    return np.maximum(values, -0.2)


def real_array(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to float32: 24 bits, a few of them lost in sums of up to some hundred terms."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=4e-6 * max(1.0, float(np.abs(expected).max())))


def hermitian_copy(z: np.ndarray, width: int) -> np.ndarray:
    """What the kernel computes, in numpy: complex64 [N, H, F] → the same, of a real array."""
    mirrored = np.conj(np.roll(z[:, ::-1], 1, axis=1))
    columns = [f for f in range(z.shape[2]) if 2 * f % width == 0]
    result = z.copy()
    result[:, :, columns] = (z + mirrored)[:, :, columns] / 2
    return result
