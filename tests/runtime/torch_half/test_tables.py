"""The transforms and pads of the half layers, against NumPy."""

import numpy as np
import pytest
import torch

from glama_deploy.runtime.torch_half.tables import Tables, Transforms

DOUBLE = torch.empty(0, dtype=torch.float64)


@pytest.mark.parametrize(("height", "width"), [(2, 2), (8, 8), (5, 7), (6, 9), (3, 16)])
def test_the_transforms_are_numpys(height, width):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, height, width, 3))
    transforms = Transforms(height, width, DOUBLE)
    spectrum = np.fft.rfft2(x, axes=(1, 2), norm="ortho")
    parts = np.concatenate([spectrum.real, spectrum.imag], axis=3) * transforms.scale
    # 1e-12: sums of at most 48 products in float64
    assert np.abs(transforms.forward(torch.from_numpy(x)).numpy() - parts).max() < 1e-12

    any_values = rng.normal(size=parts.shape)  # no spectrum of a real map, as a network's
    expected = np.fft.irfft2(any_values[..., :3] + 1j * any_values[..., 3:], (height, width), (1, 2), "ortho")
    added = transforms.add_inverse(torch.from_numpy(x), torch.from_numpy(any_values * transforms.scale)).numpy()
    assert np.abs(added - (x + expected)).max() < 1e-12


def test_a_bright_map_stays_within_fp16():
    """Orthonormal transforms would make 64·30000 of the mean, beyond fp16's 65504."""
    x = torch.full((1, 64, 64, 8), 30000.0, dtype=torch.float16)
    transforms = Transforms(64, 64, torch.empty(0, dtype=torch.float16))
    spectrum = transforms.forward(x / 16)
    assert spectrum.isfinite().all()
    assert torch.finfo(torch.float16).max < 64 * 30000 / 16
    back = transforms.add_inverse(torch.zeros_like(x), spectrum)
    # 2e-3: fp16 has 11 bits, and four products round
    assert (back.double() / (30000 / 16) - 1).abs().max() < 2e-3


@pytest.mark.parametrize("padding", [1, 3])
def test_pads_reflect_a_part_of_the_channels(padding):
    x = torch.arange(2 * 5 * 6 * 4, dtype=torch.float64).view(2, 5, 6, 4)
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    tables = Tables(DOUBLE)
    padded = tables.pad(x[..., 1:3], padding)
    assert np.array_equal(padded.numpy(), np.pad(x.numpy()[..., 1:3], sides, mode="reflect"))
    assert padded.is_contiguous()
