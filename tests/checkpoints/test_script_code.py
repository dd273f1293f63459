"""Settings that the code of a TorchScript archive shows, and the parameters do not, are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from glama_deploy.checkpoints import formats, script_code, torch_zip
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.generator import Generator


def save_traced(network: torch.nn.Module, path: Path) -> None:
    with pytest.warns(match="deprecated"):
        torch.jit.trace(network.eval(), torch.rand(1, 4, 32, 32), check_trace=False).save(str(path))


def dilate(generator: Generator) -> None:
    for module in generator.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3) and module.stride == (1, 1):
            module.dilation = module.padding = (2, 2)
            module._reversed_padding_repeated_twice = [2, 2, 2, 2]


def pad(mode: str) -> Callable[[Generator], None]:
    def change(generator: Generator) -> None:
        for module in generator.modules():
            if isinstance(module, torch.nn.Conv2d) and module.padding == (1, 1):
                module.padding_mode = mode

    return change


def leak(generator: Generator) -> None:
    generator.model[-4] = torch.nn.LeakyReLU(0.2)


def enlarge(generator: Generator) -> None:
    generator.model.insert(len(generator.model) - 1, torch.nn.Upsample(scale_factor=2.0))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dilate, r"_convolution with dilation \[2, 2\]; only \[1, 1\]"),
        (pad("zeros"), r"_convolution with padding \[1, 1\]; only \[0, 0\]"),
        (pad("replicate"), 'pad with mode "replicate"; only "reflect"'),
        (leak, "calls leaky_relu"),
        (enlarge, "calls upsample_nearest2d"),
    ],
)
def test_a_traced_network_of_other_settings_is_refused(tmp_path, change, says):
    generator = Generator(NetworkConfig(ngf=8, n_blocks=1))
    change(generator)
    save_traced(generator, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=says):
        formats.read(tmp_path / "x.pt")


@pytest.mark.parametrize(("norm", "shown"), [("backward", '"backward"'), ("forward", '"forward"'), (None, "None")])
def test_a_traced_network_of_another_fft_norm_is_refused(tmp_path, monkeypatch, norm, shown):
    original = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda x, **_: original(x, norm=norm))
    save_traced(Generator(NetworkConfig(ngf=8, n_blocks=1)), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f'fft_rfft2 with norm {shown}; only "ortho" is supported'):
        formats.read(tmp_path / "x.pt")


def test_a_traced_network_with_a_coarse_one_may_enlarge_its_picture(tmp_path):
    tiny = NetworkConfig(ngf=8, n_blocks=1)
    save_traced(Generator(NetworkConfig(ngf=8, n_blocks=1, coarse=tiny)), tmp_path / "x.pt")
    assert formats.read(tmp_path / "x.pt").config.coarse == tiny


@pytest.mark.parametrize(("dilation", "padding_mode"), [(1, "reflect"), (2, "reflect"), (1, "zeros")])
def test_scripted_convolutions_are_understood(tmp_path, dilation, padding_mode):
    """The scripted code has the padding in a variable, and the function `conv2d` in place of `_convolution`."""
    convolution = torch.nn.Conv2d(4, 4, 3, 1, dilation, dilation=dilation, padding_mode=padding_mode)
    with pytest.warns(match="deprecated"):
        torch.jit.script(torch.nn.Sequential(convolution, torch.nn.Sigmoid())).save(str(tmp_path / "x.pt"))
    code = torch_zip.read_code(tmp_path / "x.pt").decode()
    if (dilation, padding_mode) == (1, "reflect"):
        script_code.check(code)
        return
    with pytest.raises(CheckpointError, match=r"conv2d with (dilation|padding)"):
        script_code.check(code)


#: As older versions of torch print LaMa's network.
OLD = """
def forward(self: __torch__.saicinpainting.FourierUnit, x: Tensor) -> Tensor:
    _0 = torch.reflection_pad2d(x, [1, 1, 1, 1])
    input = torch._convolution(_0, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, False, False, True)
    ffted = torch.fft_rfftn((self).f(input, ), None, [-2, -1], "ortho")
    _1 = torch._convolution(ffted, weight, bias, [2, 2], [1, 1], [1, 1], True, [1, 1], 1, False, False, True)
    return torch.sigmoid(torch.fft_irfftn(_1, [int(_2), int(_3)], [-2, -1], "ortho"))
"""


def test_the_code_of_older_versions_is_taken():
    script_code.check(OLD)
    with pytest.raises(CheckpointError, match="fft_irfftn with norm None"):
        script_code.check(OLD.replace(', [-2, -1], "ortho"))', ", [-2, -1]))"))


@pytest.mark.parametrize("part", ["torch.sigmoid(", "x", '\\"', "a = [", " ", "."])
def test_time_is_linear_in_the_length_of_the_code(part):
    """At 10^6 characters, the work of a quadratic reader would not end."""
    script_code.check('sigmoid "' + part * (1_000_000 // len(part)))
    script_code.check("sigmoid " + part * (1_000_000 // len(part)))
