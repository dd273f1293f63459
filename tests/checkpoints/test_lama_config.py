"""LaMa's config: each field is honoured, or refused by its name."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from glama_deploy import load
from glama_deploy.checkpoints import formats, lama_config
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig

CASES = Path(__file__).parents[3] / "shared" / "cases" / "checkpoints"

TINY = NetworkConfig(ngf=8, n_blocks=1)

#: The parts of a LaMa training config that are of interest here, with references as LaMa writes them.
PUBLISHED: dict[str, Any] = {
    "run_title": "b18_ffc075_batch8x15",
    "training_model": {
        "kind": "default",
        "visualize_each_iters": 1000,
        "concat_mask": True,
        "store_discr_outputs_for_vis": True,
    },
    "losses": {"resnet_pl": {"weight": 30, "weights_path": "${env:TORCH_HOME}"}},
    "data": {"train": {"indir": "${location.data_root_dir}/train", "out_size": 256}},
    "generator": {
        "kind": "ffc_resnet",
        "input_nc": 4,
        "output_nc": 3,
        "ngf": 8,
        "n_downsampling": 3,
        "n_blocks": 1,
        "add_out_act": "sigmoid",
        "init_conv_kwargs": {"ratio_gin": 0, "ratio_gout": 0, "enable_lfu": False},
        "downsample_conv_kwargs": {
            "ratio_gin": "${generator.init_conv_kwargs.ratio_gout}",
            "ratio_gout": "${generator.downsample_conv_kwargs.ratio_gin}",
            "enable_lfu": False,
        },
        "resnet_conv_kwargs": {
            "ratio_gin": 0.75,
            "ratio_gout": "${generator.resnet_conv_kwargs.ratio_gin}",
            "enable_lfu": False,
        },
    },
    "defaults": [{"location": "docker"}, {"hydra": "overrides"}],
}

_ABSENT = object()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the published config with one value set, or removed, at a dotted name."""

    def make(name: str = "", value: Any = None) -> Path:
        tree = copy.deepcopy(PUBLISHED)
        *sections, field = name.split(".")
        node = tree
        for section in sections:
            node = node[section]
        if value is _ABSENT:
            del node[field]
        elif name:
            node[field] = value
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path

    return make


def test_a_config_as_lama_publishes_it_is_read(write):
    assert NetworkConfig(**lama_config.read(write())) == TINY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generator.max_features", 1024),
        ("generator.padding_type", "reflect"),
        ("generator.out_ffc", False),
        ("generator.spatial_transform_layers", None),
        ("generator.spatial_transform_kwargs", {}),
        ("generator.init_conv_kwargs.ratio_gin", 0.0),
        ("generator.init_conv_kwargs.enable_lfu", True),  # without global channels there is nothing to enable
        ("generator.downsample_conv_kwargs.enable_lfu", _ABSENT),
        ("generator.resnet_conv_kwargs.dilation", 1),
        ("generator.resnet_conv_kwargs.fft_norm", "ortho"),
        ("generator.resnet_conv_kwargs.spatial_scale_mode", "nearest"),  # has no effect without a factor
        ("training_model.concat_mask", _ABSENT),
        ("training_model.average_generator", True),
        ("training_model.fake_fakes_proba", 0.5),
        ("training_model", _ABSENT),
        ("losses.resnet_pl.weight", 7),
    ],
)
def test_a_lama_config_with_fields_without_effect_is_read(write, name, value):
    assert NetworkConfig(**lama_config.read(write(name, value))) == TINY


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), "many"])
def test_a_ratio_that_is_no_finite_number_is_refused(write, ratio):
    with pytest.raises(CheckpointError, match=r"ratio_gin is ('many'|nan|inf); a finite number is expected"):
        lama_config.read(write("generator.resnet_conv_kwargs.ratio_gin", ratio))


@pytest.mark.parametrize("name", ["ngf", "n_blocks", "n_downsampling", "max_features"])
def test_an_absent_field_has_lamas_default(write, name):
    defaults = {"ngf": 64, "n_blocks": 9, "n_downsampling": 3, "max_features": 1024}
    path = write() if name == "max_features" else write(f"generator.{name}", _ABSENT)
    assert lama_config.read(path)[name] == defaults[name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generator.kind", "pix2pixhd_local"),
        ("generator.kind", _ABSENT),
        ("generator.add_out_act", "relu"),
        ("generator.add_out_act", 1),
        ("generator.input_nc", 3),
        ("generator.input_nc", _ABSENT),
        ("generator.output_nc", 4),
        ("generator.padding_type", "zeros"),
        ("generator.spatial_transform_layers", [3]),
        ("generator.out_ffc", True),
        ("generator.norm_layer", "bn"),
        ("generator.activation_layer", "elu"),
        ("generator.up_activation", "elu"),
        ("generator.whatever", 1),
        ("generator.ngf", "${nowhere.at.all}"),
        ("generator.ngf", "many"),
        ("generator.ngf", "8"),
        ("generator.n_blocks", 1.5),
        ("generator.init_conv_kwargs.ratio_gin", 0.5),
        ("generator.init_conv_kwargs.ratio_gout", _ABSENT),
        ("generator.init_conv_kwargs.dilation", 2),
        ("generator.init_conv_kwargs.whatever", 2),
        ("generator.init_conv_kwargs", _ABSENT),
        ("generator.downsample_conv_kwargs.ratio_gout", 0.5),
        ("generator.downsample_conv_kwargs.groups", 2),
        ("generator.downsample_conv_kwargs", 5),
        ("generator.resnet_conv_kwargs.ratio_gin", _ABSENT),
        ("generator.resnet_conv_kwargs.ratio_gout", 0.5),
        ("generator.resnet_conv_kwargs.enable_lfu", True),
        ("generator.resnet_conv_kwargs.enable_lfu", _ABSENT),
        ("generator.resnet_conv_kwargs.dilation", 1.5),
        ("generator.resnet_conv_kwargs.fft_norm", "none"),
        ("generator.resnet_conv_kwargs.groups", 2),
        ("generator.resnet_conv_kwargs.bias", True),
        ("generator.resnet_conv_kwargs.padding_type", "zeros"),
        ("generator.resnet_conv_kwargs.gated", True),
        ("generator.resnet_conv_kwargs.inline", True),
        ("generator.resnet_conv_kwargs.spatial_transform_kwargs", {"angle_init_range": 80}),
        ("generator.resnet_conv_kwargs.spatial_scale_factor", 0.5),
        ("generator.resnet_conv_kwargs.spectral_pos_encoding", True),
        ("generator.resnet_conv_kwargs.use_se", True),
        ("generator.resnet_conv_kwargs.se_kwargs", {"reduction": 4}),
        ("generator.resnet_conv_kwargs.ffc3d", True),
        ("generator.resnet_conv_kwargs.use_jit", True),
        ("generator.resnet_conv_kwargs.whatever", True),
        ("training_model.kind", "other"),
        ("training_model.concat_mask", False),
        ("training_model.add_noise_kwargs", {"scales": 1}),
        ("training_model.noise_fill_hole", True),
        ("training_model.whatever", 1),
    ],
)
def test_a_lama_config_with_an_unsupported_field_is_refused_by_name(write, tiny, tmp_path, name, value):
    config = write(name, value)
    folder = tmp_path / "lama"
    (folder / "models").mkdir(parents=True)
    shutil.copy(tiny, folder / "models" / "best.ckpt")
    shutil.copy(config, folder / "config.yaml")
    with pytest.raises(CheckpointError) as caught:
        formats.read(folder)
    # our own name of a field that is taken over stands for LaMa's
    assert name in str(caught.value) or (name == "generator.ngf" and "ngf" in str(caught.value))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 947\n", "Git LFS pointer .* 947 bytes"),
        ("<!DOCTYPE html>\n<html></html>", "web page"),
        ("a: &x [1]\nb: *x\n", "anchors and aliases"),
        ("generator: !!bool x\n", "tags"),
        ("generator: 5\n", "generator is 5"),
        ("- 1\n", "generator is None"),
        ("generator: ${generator}\n", "generator is '"),
        ("generator: {kind: 2024-99-99}\n", "generator.kind is '2024-99-99'"),
    ],
)
def test_a_file_that_is_not_a_lama_config_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=says) as caught:
        lama_config.read(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("pix2pixhd_global", "conv_kind", "depthwise"),
        ("pix2pixhd_global", "norm_layer", "in"),
        ("pix2pixhd_global", "up_norm_layer", "in"),
        ("pix2pixhd_global", "affine", False),
        ("pix2pixhd_global", "padding_type", "zero"),
        ("pix2pixhd_global", "ffc_positions", [1]),
        ("pix2pixhd_global", "dilated_blocks_n", 2),
        ("pix2pixhd_global", "dilated_blocks_n_start", 2),
        ("pix2pixhd_global", "dilated_blocks_n_middle", 2),
        ("pix2pixhd_global", "is_resblock_depthwise", True),
        ("pix2pixhd_global", "second_dilation", 2),
        ("pix2pixhd_global", "init_conv_kwargs", {}),
        ("pix2pixhd_multidilated", "deconv_kind", "bilinear"),
        ("pix2pixhd_multidilated", "dilation", 2),
        ("pix2pixhd_multidilated", "multidilation_kwargs", {"comb_mode": "cat_out"}),
        ("pix2pixhd_multidilated", "multidilation_kwargs", {"equal_dim": False}),
        ("pix2pixhd_multidilated", "multidilation_kwargs", {"padding": 2}),
        ("pix2pixhd_multidilated", "multidilation_kwargs", {"shuffle_in_channels": True}),
        ("pix2pixhd_multidilated", "multidilation_kwargs", {"use_depthwise": True}),
        ("pix2pixhd_multidilated", "multidilation_kwargs", {"whatever": True}),
    ],
)
def test_an_unsupported_field_of_a_regular_network_is_refused_by_name(tmp_path, kind, name, value):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"generator": {"kind": kind, "input_nc": 4, "output_nc": 3, name: value}}))
    with pytest.raises(CheckpointError) as caught:
        lama_config.read(path)
    field = next(iter(value), "") if isinstance(value, dict) else ""
    assert f"generator.{name}" + (f".{field}" if field else "") in str(caught.value)


@pytest.mark.parametrize("case", ["sigmoid", "tanh-true", "tanh-absent", "no-activation", "fft-backward", "dilation"])
def test_a_lama_folder_is_read_right(case):
    """The outputs are an independent implementation's."""
    folder = CASES / case
    if not folder.is_dir():
        pytest.skip("the cases of an independent implementation (../shared/cases) are not here")
    with np.load(folder / "case.npz") as arrays:
        image, mask, expected = (arrays[name] for name in ("image", "mask", "predicted"))
    # float32 in another order of summation; a wrong activation is off by 1
    found = load(folder, backend="torch").predict(image, mask)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
