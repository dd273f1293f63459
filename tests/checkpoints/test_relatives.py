"""Relatives of LaMa give the outputs of LaMa's own code, which are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fakes.lama_relatives import RELATIVES, STEP, make_input, read_outputs, write_folder
from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.reference.generator import Generator


def run(generator: Generator) -> np.ndarray:
    with torch.inference_mode():
        return generator(torch.from_numpy(make_input()))[0, :, ::STEP, ::STEP].numpy()


@pytest.mark.parametrize("name", RELATIVES)
def test_a_folder_gives_the_output_of_lamas_own_code(tmp_path, name):
    found = run(formats.load(write_folder(name, tmp_path / "lama")))
    # float32, in the order of summation of another CPU; the values reach 6
    np.testing.assert_allclose(found, read_outputs(name), atol=5e-6, rtol=0)


@pytest.mark.parametrize("name", ["regular", "dilated"])
def test_names_and_shapes_imply_a_regular_network(tmp_path, name):
    folder = write_folder(name, tmp_path / "lama")
    bare = formats.read(folder / "models" / "best.ckpt")
    assert bare.config == formats.read(folder).config
    np.testing.assert_allclose(run(formats.build_module(bare)), read_outputs(name), atol=5e-6, rtol=0)


REGULAR = [
    NetworkConfig(ngf=8, n_blocks=2, kind="regular", ratio=0),
    NetworkConfig(ngf=8, n_blocks=1, n_downsampling=2, max_features=24, kind="regular", ratio=0, activation="tanh"),
    NetworkConfig(ngf=8, n_blocks=3, kind="multidilated", ratio=0, branches=4, splits_channels=True),
    NetworkConfig(ngf=8, n_blocks=1, n_downsampling=1, kind="multidilated", ratio=0, branches=3, dilation=2),
]


@pytest.mark.parametrize("config", REGULAR)
def test_the_torch_module_has_exactly_the_parameters_that_the_config_implies(config):
    with torch.device("meta"):
        state = Generator(config).state_dict()
    shapes = {name: tuple(t.shape) for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert list(shapes.items()) == list(parameter_shapes(config).items())


@pytest.mark.parametrize("config", REGULAR)
def test_our_own_format_keeps_the_config(tmp_path, make_checkpoint, config):
    assert formats.read(make_checkpoint(config)).config == config
    source = formats.read(make_checkpoint(config))
    formats.save(tmp_path / "x.pt", config, source.weights)
    assert formats.read(tmp_path / "x.pt").config == config


def test_a_config_without_the_new_fields_is_written_as_before():
    config = NetworkConfig(ngf=8)
    fields = {"ngf", "n_blocks", "n_downsampling", "ratio", "max_features"}
    assert config.model_dump().keys() == fields
    assert NetworkConfig(ngf=8, dilation=2, activation="tanh").model_dump().keys() == {
        *fields,
        "dilation",
        "activation",
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kind": "regular"}, "give ratio 0"),
        ({"kind": "regular", "ratio": 0, "fft_norm": "forward"}, "leave fft_norm out"),
        ({"kind": "regular", "ratio": 0, "branches": 2}, "branches and splits_channels are for kind multidilated"),
        (
            {"kind": "multidilated", "ratio": 0, "branches": 3, "splits_channels": True},
            "cannot be shared by 3 branches",
        ),
        ({"ratio": 0}, "gives 0 global channels"),
        ({"fill": "pull-push", "activation": "tanh"}, "fill and coarse are for kind ffc with activation sigmoid"),
        ({"coarse": NetworkConfig(dilation=4), "coarse_side": 32}, "the dilation of the coarse network needs 40"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        NetworkConfig(**fields)


def test_the_least_side_follows_from_the_dilation():
    assert NetworkConfig().min_side == 16
    assert NetworkConfig(dilation=2).min_side == 24
    assert NetworkConfig(kind="multidilated", ratio=0, branches=4).min_side == 72


def test_a_training_folder_without_a_best_checkpoint_gives_its_last_one(tmp_path, caplog):
    folder = write_folder("lama", tmp_path / "lama")
    (folder / "models" / "best.ckpt").rename(folder / "models" / "last.ckpt")
    np.testing.assert_allclose(run(formats.load(folder)), read_outputs("lama"), atol=5e-6, rtol=0)
    assert "has no models/best.ckpt; reading models/last.ckpt" in caplog.text
    assert formats.find_weights_file(folder).name == "last.ckpt"


class DictConfig:
    """A container as OmegaConf pickles it."""

    def __init__(self, content: dict[str, Any]) -> None:
        wrap = lambda value: DictConfig(value) if isinstance(value, dict) else AnyNode(value)  # noqa: E731
        self._content, self._parent = {name: wrap(value) for name, value in content.items()}, None


class AnyNode:
    """A value as OmegaConf pickles it."""

    def __init__(self, value: Any) -> None:
        self._val = value


@pytest.mark.parametrize("wrap", [DictConfig, dict])
@pytest.mark.parametrize("name", ["tanh", "fft_norm backward", "dilation", "dilated", "lama"])
def test_the_config_in_a_checkpoint_of_lamas_trainer_is_honoured(tmp_path, name, wrap):
    folder = write_folder(name, tmp_path / "lama")
    state = torch.load(folder / "models" / "best.ckpt")["state_dict"]
    stored = {"run_title": "x", "generator": RELATIVES[name], "training_model": {"kind": "default"}}
    torch.save({"state_dict": state, "hyper_parameters": wrap(stored)}, tmp_path / "epoch=3.ckpt")
    found = formats.read(tmp_path / "epoch=3.ckpt")
    assert found.config == formats.read(folder).config
    np.testing.assert_allclose(run(formats.build_module(found)), read_outputs(name), atol=5e-6, rtol=0)
    stored["training_model"]["noise_fill_hole"] = True
    torch.save({"state_dict": state, "hyper_parameters": wrap(stored)}, tmp_path / "epoch=3.ckpt")
    with pytest.raises(CheckpointError, match=r"training_model\.noise_fill_hole is True; only False"):
        formats.read(tmp_path / "epoch=3.ckpt")
    (tmp_path / "epoch=3.ckpt").replace(folder / "models" / "best.ckpt")
    assert formats.read(folder).config == found.config  # the folder's own config counts
