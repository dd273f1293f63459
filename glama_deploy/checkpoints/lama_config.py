"""Read LaMa's `config.yaml`. Each field that affects the generator's output is honoured or refused by its name.

The fields and their defaults are those of LaMa's own code: the arguments of `FFCResNetGenerator`, `FFC_BN_ACT`, `FFC`
and `FourierUnit` (saicinpainting/training/modules/ffc.py), and of `DefaultInpaintingTrainingModule`
(saicinpainting/training/trainers/default.py). Only training uses the sections other than `generator` and
`training_model`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from glama_deploy.checkpoints.file_kinds import check_placeholder
from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt, quoted

#: The default of a field without a default in LaMa, which a file must contain.
_REQUIRED = object()

#: Largest number of references that lead from one to the next.
_MAX_REFERENCES = 16

#: Fields of the generator with any value, and LaMa's defaults. They have the same names in our config.
_FREE_FIELDS = {"ngf": 64, "n_blocks": 9, "n_downsampling": 3, "max_features": 1024}

# Fields with one supported value: the supported value, and LaMa's default.

#: Fields of the section `generator`.
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
#: Fields of every section of convolutions.
_CONVOLUTION = {
    "dilation": (1, 1),
    "groups": (1, 1),
    "bias": (False, False),
    "padding_type": ("reflect", "reflect"),
    "gated": (False, False),
}
#: Fields of the spectral transform.
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
#: Fields without an effect, because `spatial_scale_factor` is not set.
_SPECTRAL_WITHOUT_EFFECT = {"spatial_scale_mode"}

#: More fields of the residual blocks.
_BLOCK = {"spatial_transform_kwargs": (None, None), "inline": (False, False)}

#: More fields of the stem and of the downsampling.
_NO_GLOBAL_CHANNELS = {"ratio_gin": (0, _REQUIRED), "ratio_gout": (0, _REQUIRED)}

#: Fields of the section `training_model`.
_TRAINING_MODEL = {
    "kind": ("default", "default"),
    "concat_mask": (True, True),
    "add_noise_kwargs": (None, None),
    "noise_fill_hole": (False, False),
}
#: Fields of the section `training_model` that only training uses.
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
    """Read the fields of a network from LaMa's config.

    Args:
        path: The file `config.yaml`.

    Returns:
        Fields of :class:`glama_deploy.network.NetworkConfig`.

    Raises:
        CheckpointError: The file is not plain YAML, or a field is missing, unknown, or has a value that is not
            supported. The message names the field.
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
        raise CheckpointError(f"{path} is not valid YAML ({error}); fetch the file again") from error
    return _Reader(path, tree).read()


class _Reader:
    """Reader of a `config.yaml`, in which `${a.b}` refers to the value at a.b.

    Args:
        path: The file, for messages.
        tree: The content of the file.
    """

    def __init__(self, path: Path, tree: Any) -> None:
        self._path, self._tree = path, tree

    def read(self) -> dict[str, Any]:
        """Check all fields.

        Returns:
            The fields of the network.
        """
        generator = self._section("generator")
        if "kind" in generator:  # the fields of another generator have other meanings
            self._check("generator", {"kind": generator["kind"]}, {"kind": _GENERATOR["kind"]}, set())
        sections = {"init_conv_kwargs", "downsample_conv_kwargs", "resnet_conv_kwargs"}
        self._check("generator", generator, _GENERATOR, set(_FREE_FIELDS) | sections)
        for name in ("init_conv_kwargs", "downsample_conv_kwargs"):
            # without global channels, a layer has no spectral transform and its fields have no effect
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
        found = {name: self._value("generator", generator, name, default) for name, default in _FREE_FIELDS.items()}
        for name, value in found.items():
            if type(value) is not int:
                raise CheckpointError(f"{self._path}: generator.{name} is {quoted(value, 40)}; an integer is expected")
        return found | {"ratio": ratio}

    def _check(
        self, section: str, values: dict[Any, Any], fields: dict[str, tuple[Any, Any]], others: set[str]
    ) -> None:
        """Raise CheckpointError for the first field that is unknown, or has a value that is not supported."""
        for name in values:
            if name not in fields and name not in others:
                raise CheckpointError(f"{self._path}: {section}.{excerpt(name)} is not a known field of LaMa")
        for name, (supported, default) in fields.items():
            value = self._value(section, values, name, default)
            if not _same(value, supported):
                found = f"is {quoted(value, 40)}" if name in values else f"is missing, and LaMa's default is {default}"
                meaning = " (tanh)" if name == "add_out_act" and value is True else ""
                raise CheckpointError(
                    f"{self._path}: {section}.{name} {found}{meaning}; only {_shown(supported)} is supported"
                )

    def _section(self, dotted: str) -> dict[Any, Any]:
        node = self._tree
        for name in dotted.split("."):
            node = self._resolve(node.get(name, {})) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise CheckpointError(f"{self._path}: {dotted} is {quoted(node, 40)}; a section of fields is expected")
        return node

    def _value(self, section: str, values: dict[Any, Any], name: str, default: Any) -> Any:
        if name not in values and default is _REQUIRED:
            raise CheckpointError(f"{self._path}: {section}.{name} is missing; LaMa has no default for this field")
        return self._resolve(values[name]) if name in values else default

    def _resolve(self, value: Any) -> Any:
        """Follow a reference `${a.b}`. A reference that leads to nothing, or to itself, stays a string."""
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
    """Tell whether LaMa gives the same output with both values. To LaMa, 0, 0.0 and False are the same value."""
    if isinstance(supported, int | float):
        return isinstance(value, int | float) and value == supported
    return type(value) is type(supported) and value == supported


def _shown(value: Any) -> str:
    return "{}" if value == {} else quoted(value)
