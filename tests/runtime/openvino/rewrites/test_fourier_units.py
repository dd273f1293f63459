"""Fourier units with the channels last."""

from __future__ import annotations

import numpy as np
import pytest

from glama_deploy.runtime.openvino.rewrites import fourier_units


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (8, 6), (9, 11), (64, 40)])
def test_the_matrices_give_the_transform_of_numpy_and_its_inverse(height, width):
    bases, channels, half = fourier_units.make_bases(height, width), 3, width // 2 + 1
    x = np.random.default_rng(0).standard_normal((channels, height, width))
    by_columns = x.transpose(2, 1, 0).reshape(width, height * channels)
    rows = (bases.rows @ by_columns).reshape(half, 2 * height, channels)
    spectrum = (bases.columns @ rows).reshape(half, height, 2, channels)
    expected = np.fft.rfft2(x, norm="ortho").transpose(2, 1, 0)
    # float64, and sums of up to 2,560 numbers of order 1
    np.testing.assert_allclose(spectrum[:, :, 0], expected.real, rtol=0, atol=1e-12)
    np.testing.assert_allclose(spectrum[:, :, 1], expected.imag, rtol=0, atol=1e-12)
    rows = bases.columns_inverse @ spectrum.reshape(half, 2 * height, channels)
    back = bases.rows_inverse @ rows.reshape(2 * half, height * channels)
    np.testing.assert_allclose(back, by_columns, rtol=0, atol=1e-12)
