"""LaMa's `config.yaml`: each field that says what its generator computes is honoured or refused by its name.

The fields and their defaults are those of LaMa's own code: the arguments of `FFCResNetGenerator`, `FFC_BN_ACT`, `FFC`
and `FourierUnit` (saicinpainting/training/modules/ffc.py), and of `DefaultInpaintingTrainingModule`
(saicinpainting/training/trainers/default.py). What stands outside of `generator` and `training_model` is about
training alone.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from glama_deploy.checkpoints.file_kinds import check_placeholder
from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt, quoted

#: Stands for a field without a default in LaMa: the file has to have it.
_REQUIRED = object()

#: A reference to a reference, and so on.
_MAX_REFERENCES = 16

#: The fields whose values the network takes over, by their names in our config, and LaMa's defaults.
_TAKEN = {"ngf": 64, "n_blocks": 9, "n_downsampling": 3, "max_features": 1024}

#: Fields that are supported with one value: that value, and LaMa's default.
_GENERATOR = {
    "kind": ("ffc_resnet", _REQUIRED),
    "input_nc": (4, _REQUIRED),
    "output_nc": (3, _REQUIRED),
    "padding_type": ("reflect", "reflect"),
    "spatial_transform_layers": (None, None),
    "spatial_transform_kwargs": ({}, {}),
    "add_out_act": ("sigmoid", True),
    "out_ffc": (False, False),
    "out_ffc_kwargs": ({}, {}),
}
_CONVOLUTION = {
    "dilation": (1, 1),
    "groups": (1, 1),
    "bias": (False, False),
    "padding_type": ("reflect", "reflect"),
    "gated": (False, False),
}
_SPECTRAL = {
    "enable_lfu": (False, True),
    "spatial_scale_factor": (None, None),
    "spectral_pos_encoding": (False, False),
    "use_se": (False, False),
    "se_kwargs": (None, None),
    "ffc3d": (False, False),
    "fft_norm": ("ortho", "ortho"),
    "use_jit": (False, False),
}
#: Has no effect without `spatial_scale_factor`.
_SPECTRAL_WITHOUT_EFFECT = {"spatial_scale_mode"}
_BLOCK = {"spatial_transform_kwargs": (None, None), "inline": (False, False)}
_NO_GLOBAL_CHANNELS = {"ratio_gin": (0, _REQUIRED), "ratio_gout": (0, _REQUIRED)}

_TRAINING_MODEL = {
    "kind": ("default", "default"),
    "concat_mask": (True, True),
    "add_noise_kwargs": (None, None),
    "noise_fill_hole": (False, False),
}
#: What the training module has beside these, and reads in training only.
_TRAINING_ONLY = {
    "average_generator",
    "average_generator_period",
    "average_generator_start_step",
    "const_area_crop_kwargs",
    "distance_weighted_mask_for_discr",
    "distance_weighter_kwargs",
    "fake_fakes_generator_kwargs",
    "fake_fakes_proba",
    "generator_avg_beta",
    "image_to_discriminator",
    "predict_only",
    "rescale_scheduler_kwargs",
    "store_discr_outputs_for_vis",
    "visualize_each_iters",
}


def read(path: Path) -> dict[str, Any]:
    """Return the fields of a :class:`NetworkConfig` that a LaMa `config.yaml` states.

    Raises:
        CheckpointError: not plain YAML, a field that is missing, unknown or of a value that is not supported. The
            message names the field.
    """
    try:
        from glama_deploy.text import plain_yaml
    except ImportError as error:
        raise CheckpointError(f"reading {path} needs PyYAML; pip install pyyaml") from error
    with path.open("rb") as file:
        check_placeholder(path, file.read(1024), path.stat().st_size)
    try:
        tree = plain_yaml.read(path)
    except plain_yaml.PlainYamlError as error:
        raise CheckpointError(f"{path} is not YAML that can be read ({error})") from error
    return _Reader(path, tree).read()


class _Reader:
    """The tree of a `config.yaml`; `${a.b}` in it stands for the value at a.b."""

    def __init__(self, path: Path, tree: Any) -> None:
        self._path, self._tree = path, tree

    def read(self) -> dict[str, Any]:
        generator = self._section("generator")
        if "kind" in generator:  # of another generator every other field has another meaning
            self._check("generator", {"kind": generator["kind"]}, {"kind": _GENERATOR["kind"]}, set())
        sections = {"init_conv_kwargs", "downsample_conv_kwargs", "resnet_conv_kwargs"}
        self._check("generator", generator, _GENERATOR, set(_TAKEN) | sections)
        for name in ("init_conv_kwargs", "downsample_conv_kwargs"):
            # without global channels there is no spectral transform, and its fields have no effect
            fields = _CONVOLUTION | _NO_GLOBAL_CHANNELS
            section = f"generator.{name}"
            self._check(section, self._section(section), fields, set(_SPECTRAL) | _SPECTRAL_WITHOUT_EFFECT)
        blocks = self._section("generator.resnet_conv_kwargs")
        ratio = self._value("generator.resnet_conv_kwargs", blocks, "ratio_gin", _REQUIRED)
        if not isinstance(ratio, int | float) or not math.isfinite(ratio):
            raise CheckpointError(
                f"{self._path}: generator.resnet_conv_kwargs.ratio_gin is {quoted(ratio, 40)}; "
                "a finite number is expected"
            )
        fields = _CONVOLUTION | _SPECTRAL | _BLOCK | {"ratio_gout": (ratio, _REQUIRED)}
        self._check("generator.resnet_conv_kwargs", blocks, fields, _SPECTRAL_WITHOUT_EFFECT | {"ratio_gin"})
        if isinstance(self._tree, dict) and "training_model" in self._tree:
            self._check("training_model", self._section("training_model"), _TRAINING_MODEL, _TRAINING_ONLY)
        taken = {name: self._value("generator", generator, name, default) for name, default in _TAKEN.items()}
        for name, value in taken.items():
            if type(value) is not int:
                raise CheckpointError(f"{self._path}: generator.{name} is {quoted(value, 40)}; an integer is expected")
        return taken | {"ratio": ratio}

    def _check(
        self, section: str, values: dict[Any, Any], fields: dict[str, tuple[Any, Any]], others: set[str]
    ) -> None:
        """Raise CheckpointError for the first field that is not known, or has another value than is supported."""
        for name in values:
            if name not in fields and name not in others:
                raise CheckpointError(f"{self._path}: {section}.{excerpt(name)} is not a field of LaMa that is known")
        for name, (supported, default) in fields.items():
            value = self._value(section, values, name, default)
            if not _same(value, supported):
                found = f"is {quoted(value, 40)}" if name in values else f"is absent, which is {default} in LaMa"
                meaning = " (tanh)" if name == "add_out_act" and value is True else ""
                raise CheckpointError(
                    f"{self._path}: {section}.{name} {found}{meaning}; only {_shown(supported)} is supported"
                )

    def _section(self, dotted: str) -> dict[Any, Any]:
        node = self._tree
        for name in dotted.split("."):
            node = self._resolve(node.get(name, {})) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise CheckpointError(f"{self._path}: {dotted} is {quoted(node, 40)}; fields of LaMa are expected")
        return node

    def _value(self, section: str, values: dict[Any, Any], name: str, default: Any) -> Any:
        if name not in values and default is _REQUIRED:
            raise CheckpointError(f"{self._path}: {section}.{name} is missing; LaMa has no default for this field")
        return self._resolve(values[name]) if name in values else default

    def _resolve(self, value: Any) -> Any:
        """Follow `${a.b}`; a reference to nothing, or to itself, stays the text that it is."""
        for _ in range(_MAX_REFERENCES):
            reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
            if reference is None:
                return value
            node = self._tree
            for name in reference[1].split("."):
                if not isinstance(node, dict) or name not in node:
                    return value
                node = node[name]
            value = node
        return value


def _same(value: Any, supported: Any) -> bool:
    """Whether LaMa computes the same with both: 0, 0.0 and False are one value to it, other types are told apart."""
    if isinstance(supported, int | float):
        return isinstance(value, int | float) and value == supported
    return type(value) is type(supported) and value == supported


def _shown(value: Any) -> str:
    return "{}" if value == {} else quoted(value)
