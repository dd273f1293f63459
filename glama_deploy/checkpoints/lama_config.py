"""Read LaMa's `config.yaml`. Each field that affects the generator's output is honoured or refused by its name.

The fields and their defaults are those of LaMa's own code: the arguments of `FFCResNetGenerator`, `FFC_BN_ACT`, `FFC`
and `FourierUnit` (saicinpainting/training/modules/ffc.py), of `GlobalGenerator`, `MultiDilatedGlobalGenerator`
(pix2pixhd.py) and `MultidilatedConv` (multidilated_conv.py), and of `DefaultInpaintingTrainingModule`
(saicinpainting/training/trainers/default.py). Only training uses the sections other than `generator` and
`training_model`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from glama_deploy import catalogue
from glama_deploy.checkpoints.file_kinds import check_placeholder
from glama_deploy.checkpoints.pickles import Stub
from glama_deploy.errors import CheckpointError
from glama_deploy.network import Activation, Kind
from glama_deploy.text.excerpts import excerpt, quoted

_Meaning = TypeVar("_Meaning")

#: The default of a field without a default in LaMa, which a file must contain.
_REQUIRED = object()

#: Largest number of references that lead from one to the next.
_MAX_REFERENCES = 16

#: Largest number of nested sections of a config in a checkpoint.
_MAX_NESTING = 8

#: Our kinds of networks by LaMa's `generator.kind`.
_KINDS: dict[str, Kind] = {
    "ffc_resnet": "ffc",
    "pix2pixhd_global": "regular",
    "pix2pixhd_multidilated": "multidilated",
}

#: Our activations by LaMa's `add_out_act`. LaMa's default is True.
_ACTIVATIONS: dict[Any, Activation] = {"sigmoid": "sigmoid", "tanh": "tanh", True: "tanh", False: "none", None: "none"}

#: LaMa's `fft_norm`. To torch, None and "backward" are the same.
_FFT_NORMS = {"ortho": "ortho", "backward": "backward", "forward": "forward", None: "backward"}

#: Fields of the generator with any value, and LaMa's defaults. They have the same names in our config.
_FREE_FIELDS = {"ngf": 64, "n_blocks": 9, "n_downsampling": 3, "max_features": 1024}

#: The number of blocks of `pix2pixhd_multidilated` where the field is missing.
_MULTIDILATED_BLOCKS = 3

# Fields with one supported value: the supported value, and LaMa's default.

#: Fields of the section `generator`, of every kind.
_GENERATOR = {"input_nc": (4, _REQUIRED), "output_nc": (3, _REQUIRED), "padding_type": ("reflect", "reflect")}

#: More fields of the section `generator` of `ffc_resnet`.
_FOURIER_GENERATOR: dict[str, tuple[Any, Any]] = {
    "spatial_transform_layers": (None, None),
    "spatial_transform_kwargs": ({}, {}),
    "out_ffc": (False, False),
    "out_ffc_kwargs": ({}, {}),
}
#: Fields of the section `generator` of both regular kinds. (A norm that is not affine has no parameters.)
_REGULAR_GENERATOR = {
    "conv_kind": ("default", "default"),
    "norm_layer": ("bn", "bn"),
    "up_norm_layer": ("bn", "bn"),
    "affine": (None, None),
    "ffc_positions": (None, None),
}
#: More fields of the section `generator` of `pix2pixhd_global`.
_GLOBAL_GENERATOR = {
    "dilated_blocks_n": (0, 0),
    "dilated_blocks_n_start": (0, 0),
    "dilated_blocks_n_middle": (0, 0),
    "is_resblock_depthwise": (False, False),
}
#: Fields of `pix2pixhd_global` without an effect, because no block has its own dilation.
_GLOBAL_WITHOUT_EFFECT = {"dilation_block_kind", "multidilation_kwargs"}

#: More fields of the section `generator` of `pix2pixhd_multidilated`.
_MULTIDILATED_GENERATOR = {"deconv_kind": ("convtranspose", "convtranspose")}

#: Fields of the section `multidilation_kwargs`. `comb_mode`, `dilation_num` and `min_dilation` have several values.
_MULTIDILATION = {
    "equal_dim": (True, True),
    "padding": (1, 1),
    "shuffle_in_channels": (False, False),
    "use_depthwise": (False, False),
    "groups": (1, 1),
    "stride": (1, 1),
    "bias": (True, True),
}
#: Fields of `multidilation_kwargs` without an effect on reading: a file has the weights of each convolution.
_MULTIDILATION_WITHOUT_EFFECT = {"shared_weights"}

#: Fields of every section of convolutions.
_CONVOLUTION = {
    "groups": (1, 1),
    "bias": (False, False),
    "padding_type": ("reflect", "reflect"),
    "gated": (False, False),
}
#: Fields of the spectral transform. LaMa's local Fourier units (`enable_lfu`) take square pictures only.
_SPECTRAL = {
    "enable_lfu": (False, True),
    "spatial_scale_factor": (None, None),
    "spectral_pos_encoding": (False, False),
    "use_se": (False, False),
    "se_kwargs": (None, None),
    "ffc3d": (False, False),
    "use_jit": (False, False),
}
#: Fields without an effect, because `spatial_scale_factor` is not set.
_SPECTRAL_WITHOUT_EFFECT = {"spatial_scale_mode"}

#: More fields of the residual blocks.
_BLOCK = {"spatial_transform_kwargs": (None, None), "inline": (False, False)}

#: More fields of the stem and of the downsampling.
_NO_GLOBAL_CHANNELS = {"dilation": (1, 1), "ratio_gin": (0, _REQUIRED), "ratio_gout": (0, _REQUIRED)}

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


def read_hyper_parameters(path: Path, tree: Any) -> dict[str, Any] | None:
    """Read the config that LaMa's trainer stores in a checkpoint, as OmegaConf pickles it.

    Args:
        path: The checkpoint, for messages.
        tree: The object in the checkpoint.

    Returns:
        Fields of :class:`glama_deploy.network.NetworkConfig`, or None where the checkpoint has no config of LaMa.

    Raises:
        CheckpointError: A field is missing, unknown, or has a value that is not supported.
    """
    stored = _unwrap(tree.get("hyper_parameters")) if isinstance(tree, dict) else None
    generator = stored.get("generator") if isinstance(stored, dict) else None
    if not isinstance(generator, dict) or "kind" not in generator:
        return None
    return _Reader(path, stored).read()


def _unwrap(node: Any, depth: int = 0) -> Any:
    """Return the plain values of OmegaConf's containers: a container has `_content`, a value has `_val`."""
    if isinstance(node, Stub):
        node = node.state.get("_content", node.state.get("_val"))
    if isinstance(node, dict) and depth < _MAX_NESTING:
        return {name: _unwrap(value, depth + 1) for name, value in node.items()}
    if isinstance(node, list) and depth < _MAX_NESTING:
        return [_unwrap(value, depth + 1) for value in node]
    return node


class _Reader:
    """Reader of a `config.yaml`, in which `${a.b}` refers to the value at a.b.

    Args:
        path: The file, for messages.
        tree: The content of the file.
    """

    def __init__(self, path: Path, tree: Any) -> None:
        self._path, self._tree, self._kind = path, tree, ""

    def read(self) -> dict[str, Any]:
        """Check all fields.

        Returns:
            The fields of the network.
        """
        generator = self._section("generator")
        kind = self._choose("generator", generator, "kind", _KINDS, _REQUIRED)
        self._kind = self._value("generator", generator, "kind", _REQUIRED)
        read_kind = {"ffc": self._read_fourier, "regular": self._read_regular, "multidilated": self._read_multidilated}
        found = read_kind[kind](generator)
        if isinstance(self._tree, dict) and "training_model" in self._tree:
            self._check("training_model", self._section("training_model"), _TRAINING_MODEL, _TRAINING_ONLY)
        activation = self._choose("generator", generator, "add_out_act", _ACTIVATIONS, True)
        defaults = _FREE_FIELDS | ({"n_blocks": _MULTIDILATED_BLOCKS} if kind == "multidilated" else {})
        found |= {name: self._read_integer("generator", generator, name, value) for name, value in defaults.items()}
        return found | {"kind": kind, "activation": activation}

    def _read_fourier(self, generator: dict[Any, Any]) -> dict[str, Any]:
        """Check the fields of the kind `ffc_resnet` and return those that only this kind has."""
        sections = {"init_conv_kwargs", "downsample_conv_kwargs", "resnet_conv_kwargs"}
        self._check_generator(generator, _FOURIER_GENERATOR, sections)
        for name in ("init_conv_kwargs", "downsample_conv_kwargs"):
            # without global channels, a layer has no spectral transform and its fields have no effect
            fields = _CONVOLUTION | _NO_GLOBAL_CHANNELS
            section = f"generator.{name}"
            others = {*_SPECTRAL, *_SPECTRAL_WITHOUT_EFFECT, "fft_norm"}
            self._check(section, self._section(section), fields, others)
        section = "generator.resnet_conv_kwargs"
        blocks = self._section(section)
        ratio = self._value(section, blocks, "ratio_gin", _REQUIRED)
        if not isinstance(ratio, int | float) or not math.isfinite(ratio):
            raise CheckpointError(
                f"{self._path}: {section}.ratio_gin is {quoted(ratio, 40)}; a finite number is expected"
            )
        fields = _CONVOLUTION | _SPECTRAL | _BLOCK | {"ratio_gout": (ratio, _REQUIRED)}
        self._check(section, blocks, fields, {*_SPECTRAL_WITHOUT_EFFECT, "ratio_gin", "dilation", "fft_norm"})
        return {
            "ratio": ratio,
            "dilation": self._read_integer(section, blocks, "dilation", 1),
            "fft_norm": self._choose(section, blocks, "fft_norm", _FFT_NORMS, "ortho"),
        }

    def _read_regular(self, generator: dict[Any, Any]) -> dict[str, Any]:
        """Check the fields of the kind `pix2pixhd_global` and return those that only this kind has."""
        dilation = self._read_integer("generator", generator, "dilation", 1)
        second = self._value("generator", generator, "second_dilation", None)
        if second not in (None, dilation):
            raise CheckpointError(
                f"{self._path}: generator.second_dilation is {quoted(second, 40)}; only the same as dilation, "
                f"{dilation}, is supported"
            )
        # ffc_kwargs has no effect without ffc_positions
        others = {"dilation", "second_dilation", "ffc_kwargs", *_GLOBAL_WITHOUT_EFFECT}
        self._check_generator(generator, _REGULAR_GENERATOR | _GLOBAL_GENERATOR, others)
        return {"ratio": 0.0, "dilation": dilation}

    def _read_multidilated(self, generator: dict[Any, Any]) -> dict[str, Any]:
        """Check the fields of the kind `pix2pixhd_multidilated` and return those that only this kind has."""
        fields = _REGULAR_GENERATOR | _MULTIDILATED_GENERATOR
        self._check_generator(generator, fields, {"multidilation_kwargs", "ffc_kwargs"})
        section = "generator.multidilation_kwargs"
        blocks = self._section(section)
        others = {"comb_mode", "dilation_num", "min_dilation", *_MULTIDILATION_WITHOUT_EFFECT}
        self._check(section, blocks, _MULTIDILATION, others)
        modes = {"sum": False, "cat_in": True}
        return {
            "ratio": 0.0,
            "dilation": self._read_integer(section, blocks, "min_dilation", 1),
            "branches": self._read_integer(section, blocks, "dilation_num", 3),
            "splits_channels": self._choose(section, blocks, "comb_mode", modes, "sum"),
        }

    def _check_generator(self, generator: dict[Any, Any], fields: dict[str, tuple[Any, Any]], others: set[str]) -> None:
        """Check the fields of the section `generator`: those of every kind, and those of one kind."""
        self._check("generator", generator, _GENERATOR | fields, {*_FREE_FIELDS, "kind", "add_out_act", *others})

    def _read_integer(self, section: str, values: dict[Any, Any], name: str, default: Any) -> int:
        value = self._value(section, values, name, default)
        if type(value) is not int:
            raise CheckpointError(f"{self._path}: {section}.{name} is {quoted(value, 40)}; an integer is expected")
        return value

    def _choose(
        self, section: str, values: dict[Any, Any], name: str, meanings: Mapping[Any, _Meaning], default: Any
    ) -> _Meaning:
        """Return the meaning of a field that has one of several values."""
        value = self._value(section, values, name, default)
        for known, meaning in meanings.items():
            if type(known) is type(value) and known == value:
                return meaning
        shown = catalogue.join_names([_shown(known) for known in meanings])
        raise CheckpointError(f"{self._path}: {section}.{name} is {quoted(value, 40)}; expected {shown}")

    def _check(
        self, section: str, values: dict[Any, Any], fields: dict[str, tuple[Any, Any]], others: set[str]
    ) -> None:
        """Raise CheckpointError for the first field that is unknown, or has a value that is not supported."""
        for name in values:
            if name not in fields and name not in others:
                of_kind = f"'s {self._kind}" if section.startswith("generator") else ""
                raise CheckpointError(f"{self._path}: {section}.{excerpt(name)} is not a known field of LaMa{of_kind}")
        for name, (supported, default) in fields.items():
            value = self._value(section, values, name, default)
            if not _same(value, supported):
                found = f"is {quoted(value, 40)}" if name in values else f"is missing, and LaMa's default is {default}"
                raise CheckpointError(f"{self._path}: {section}.{name} {found}; only {_shown(supported)} is supported")

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
