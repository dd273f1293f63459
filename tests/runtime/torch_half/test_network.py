"""The half layers compute what the reference computes."""

import pytest
import torch

from glama_deploy import catalogue
from glama_deploy.checkpoints import formats
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.generator import predict
from glama_deploy.runtime.torch_half.layers import DTYPES, fold_layers
from glama_deploy.runtime.torch_half.network import convert_to_half

#: Every kind of layer, and every scaling of the transforms.
CONFIGS = {
    "ffc": NetworkConfig(ngf=8, n_blocks=2),
    "forward": NetworkConfig(ngf=8, n_blocks=1, fft_norm="forward"),
    "backward, dilated": NetworkConfig(ngf=8, n_blocks=1, fft_norm="backward", dilation=2),
    "fill": NetworkConfig(ngf=8, n_blocks=1, fill="pull-push"),
    "fine blocks": NetworkConfig(ngf=8, n_blocks=1, fine_blocks=2, fill="pull-push"),
    "regular": NetworkConfig(ngf=8, n_blocks=1, kind="regular", ratio=0, activation="tanh"),
    "multidilated": NetworkConfig(ngf=8, n_blocks=1, kind="multidilated", ratio=0, branches=3),
    "shared": NetworkConfig(
        ngf=8, n_blocks=1, kind="multidilated", ratio=0, branches=2, splits_channels=True, activation="none"
    ),
    "two stages": NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64),
}


def make_case(size: tuple[int, int], batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, *size, generator=rng)
    return image, (torch.rand(batch, 1, *size, generator=rng) > 0.7).float()


@torch.inference_mode()
def measure_error(source, dtype, size, batch=1) -> float:
    image, mask = make_case(size, batch)
    reference = predict(formats.load(source), image, mask)
    half = formats.load(source)
    convert_to_half(half, dtype)
    return float((predict(half, image, mask) - reference).abs().max())


@pytest.mark.parametrize("name", CONFIGS)
def test_folding_changes_nothing_but_rounding(name, make_checkpoint):
    """In float64 nothing is left but the rounding of the reference's float32."""
    bound = catalogue.PRECISIONS["fp32"].tolerance.max_abs_error
    assert measure_error(make_checkpoint(CONFIGS[name]), torch.float64, (72, 88), batch=2) < bound


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("name", "size"), [("default", (128, 128)), ("lama9", (64, 64))])
def test_half_types_are_within_the_tolerance_of_parity(name, size, precision, request):
    """A CPU rounds each result of a layer to the half type, as tensor cores do."""
    source = name if name == "default" else request.getfixturevalue(name)
    assert measure_error(source, DTYPES[precision], size) < catalogue.PRECISIONS[precision].tolerance.max_abs_error


def test_a_layer_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="a layer InstanceNorm2d, which has no half form"):
        fold_layers([torch.nn.InstanceNorm2d(4)], torch.float16)
