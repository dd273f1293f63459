"""What the nodes of the FFT plugins compute, in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given

from fakes.spectra import close, real_array, shapes, spectrum_like
from glama_deploy.runtime.tensorrt.plugins import fft
from glama_deploy.runtime.tensorrt.plugins.fft import Size


@given(shapes)
def test_shapes_are_those_of_numpys_rfft2(shape):
    spectrum = fft.rfft2_shape(shape)
    assert spectrum == (*np.fft.rfft2(np.zeros(shape)).shape, 2)
    assert fft.irfft2_shape(spectrum, shape) == shape
    size = fft.irfft2_size(spectrum, shape)
    assert size == fft.rfft2_size(shape) == Size(shape[0] * shape[1], *shape[2:])
    assert size.batch * size.real_bytes == 4 * np.prod(shape)
    assert size.batch * size.spectrum_bytes == 4 * np.prod(spectrum)


def test_the_width_of_the_inverse_comes_from_its_second_input():
    assert fft.rfft2_shape((1, 2, 6, 8)) == fft.rfft2_shape((1, 2, 6, 9)) == (1, 2, 6, 5, 2)
    assert fft.irfft2_shape((1, 2, 6, 5, 2), (1, 2, 6, 9)) == (1, 2, 6, 9)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 6, 8),), "RFFT2: an input of 4 axes"),
        (((1, 2, 6, 5), (1, 2, 6, 8)), "IRFFT2: an input of 5 axes"),
        (((1, 2, 6, 5, 2), (1, 2, 6, 10)), r"no spectrum of \[1, 2, 6, 10\]; \[1, 2, 6, 6, 2\] is"),
        (((1, 2, 6, 5, 3), (1, 2, 6, 8)), "no spectrum"),
        (((1, 3, 6, 5, 2), (1, 2, 6, 8)), "no spectrum"),
    ],
)
def test_wrong_shapes_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        fft.rfft2_shape(*shapes) if len(shapes) == 1 else fft.irfft2_shape(*shapes)


@given(shapes)
def test_the_reference_is_torchs_unnormalised_transform(shape):
    x = real_array(shape)
    expected = torch.view_as_real(torch.fft.rfft2(torch.from_numpy(x), norm="backward"))
    close(fft.rfft2(x), expected.numpy())
    z = spectrum_like(shape)
    back = torch.fft.irfft2(torch.view_as_complex(torch.from_numpy(z)), s=shape[2:], norm="forward")
    close(fft.irfft2(z, x), back.numpy())
    assert fft.rfft2(x).dtype == fft.irfft2(z, x).dtype == np.float32


@given(shapes)
def test_the_inverse_of_the_transform_is_the_array_times_its_number_of_pixels(shape):
    x = real_array(shape)
    close(fft.irfft2(fft.rfft2(x), x), x * (shape[2] * shape[3]))
