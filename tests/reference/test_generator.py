from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glama_deploy.checkpoints import formats
from glama_deploy.network import NAMED, NetworkConfig, get_named, parameter_count, parameter_shapes
from glama_deploy.reference.ffc import FourierUnit, hermitian
from glama_deploy.reference.generator import Generator, inpaint, predict


def test_agrees_with_an_independent_implementation(lama_small, goldens):
    generator = formats.load(lama_small)
    for case in goldens:
        height, width = case["mask"].shape
        pad = ((0, -height % 8), (0, -width % 8))
        image = np.pad(case["image"], (*pad, (0, 0)), mode="symmetric").astype(np.float32) / 255
        mask = (np.pad(case["mask"], pad, mode="symmetric") > 0).astype(np.float32)
        image_t, mask_t = torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(mask)[None, None]
        with torch.inference_mode():
            for name, run in (("predicted", predict), ("inpainted", inpaint)):
                ours = run(generator, image_t, mask_t)[0, :, :height, :width].permute(1, 2, 0).numpy()
                # float32 in two orders of summation: the goldens' README expects 1e-6 or so
                assert np.abs(ours - case[name]).max() < 2e-6


@pytest.mark.parametrize(
    ("name", "millions"), [("lama", 27.0), ("big-lama", 51.0), ("glama", 27.0), ("glama-tiny", 3.4)]
)
def test_named_networks_have_the_published_sizes(name, millions):
    assert parameter_count(NAMED[name]) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("config", [*NAMED.values(), NetworkConfig(ngf=12, n_blocks=2, n_downsampling=2, ratio=0.5)])
def test_the_torch_module_has_exactly_the_parameters_that_the_config_implies(config):
    with torch.device("meta"):
        state = Generator(config).state_dict()
    shapes = {name: tuple(t.shape) for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert shapes == parameter_shapes(config)
    assert list(shapes) == list(parameter_shapes(config))


def test_glama_goes_from_6_to_18_blocks():
    assert get_named("glama", 6).n_blocks == 6
    assert get_named("glama", 18).n_blocks == 18
    with pytest.raises(ValueError, match="6 to 18"):
        get_named("glama", 5)
    with pytest.raises(ValueError, match="big-lama"):
        get_named("enormous-lama")


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 3))
def test_the_fourier_unit_takes_any_length_and_batch(height, width, batch):
    """Its spectrum is the DFT by definition, a sum in float64, and a unit that changes nothing gives its input back."""
    unit = FourierUnit(2).double().eval()
    torch.manual_seed(height * 100 + width)
    x = torch.randn(batch, 2, height, width, dtype=torch.float64)
    seen = {}
    unit.conv_layer.register_forward_pre_hook(lambda _, inputs: seen.update(spectrum=inputs[0]))
    with torch.inference_mode():
        unit.conv_layer.weight.copy_(torch.eye(4, dtype=torch.float64)[:, :, None, None])
        unit.relu = torch.nn.Identity()
        unit.bn.running_var.fill_(1 - unit.bn.eps)
        # identity convolution, norm and no activation: the unit must give its input back
        torch.testing.assert_close(unit(x), x, rtol=0, atol=1e-12)
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) / np.sqrt(n) for n in (height, width)]
    spectrum = np.einsum("uh,bchw,wv->bcuv", waves[0], x.numpy(), waves[1][:, : width // 2 + 1])
    parts = seen["spectrum"].reshape(batch, 2, 2, height, -1).numpy()
    np.testing.assert_allclose(parts[:, :, 0], spectrum.real, atol=1e-12)
    np.testing.assert_allclose(parts[:, :, 1], spectrum.imag, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 24), st.integers(1, 24))
def test_the_hermitian_part_of_a_spectrum_is_a_real_arrays_and_has_the_same_inverse(height, width):
    generator = torch.Generator().manual_seed(height * 100 + width)
    shape = (2, 3, height, width // 2 + 1)
    spectrum = torch.complex(*(torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2)))
    made = hermitian(spectrum, width)
    real = torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")
    torch.testing.assert_close(torch.fft.irfft2(made, s=(height, width), norm="ortho"), real, rtol=0, atol=1e-12)
    torch.testing.assert_close(made, torch.fft.rfft2(real, norm="ortho"), rtol=0, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (264, 520), (1024, 1024)])
def test_the_reference_is_the_same_on_a_gpu(size):
    rng = torch.Generator().manual_seed(0)
    image, mask = torch.rand(1, 3, *size, generator=rng), torch.zeros(1, 1, *size)
    mask[..., 40:120, 60:200] = 1
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        expected = inpaint(formats.load("default"), image, mask)
        found = inpaint(formats.load("default").cuda(), image.cuda(), mask.cuda()).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)  # as every fp32 engine is held to it


def test_the_fourier_unit_interleaves_real_and_imaginary_parts():
    unit = FourierUnit(2).double().eval()
    x = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    x[0, 1, 0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # its spectrum under ortho: (1, −i, −1)/2
    seen = {}
    unit.conv_layer.register_forward_pre_hook(lambda _, inputs: seen.update(spectrum=inputs[0]))
    with torch.inference_mode():
        unit(x)
    expected = torch.tensor([[0, 0, 0], [0, 0, 0], [0.5, 0, -0.5], [0, -0.5, 0]], dtype=torch.float64)
    torch.testing.assert_close(seen["spectrum"][0, :, 0], expected, rtol=0, atol=1e-15)


def test_masking_hides_the_missing_pixels_from_the_network(make_checkpoint):
    generator = formats.load(make_checkpoint(NetworkConfig(ngf=8, n_blocks=1)))
    image, mask = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 8:20] = 1
    other = torch.where(mask > 0, torch.rand(1, 3, 32, 32), image)
    with torch.inference_mode():
        assert torch.equal(predict(generator, image, mask), predict(generator, other, mask))
        assert torch.equal(inpaint(generator, image, mask) * (1 - mask), image * (1 - mask))
