"""The config of a training run: named configs, YAML files that change them, and overrides `key=value`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.masks import by_name
from glama_deploy.network import NAMED, SIZE_MULTIPLE, NetworkConfig
from glama_deploy.text import plain_yaml
from glama_deploy.text.excerpts import excerpt, quoted
from glama_deploy.training.criteria import parse_criterion
from glama_deploy.training.losses import WEIGHTS, Weights

#: Networks that the perceptual loss can use (:mod:`glama_deploy.training.perceptual`).
PerceptualNetwork = Literal["scene-parsing-resnet50", "efficientnet-lite0"]

#: Largest number of parts of a key. `network.coarse.n_blocks` has three.
_MAX_KEY_PARTS = 8


class _Section(FrozenModel):
    model_config = ConfigDict(allow_inf_nan=False)


class Data(_Section):
    """Photographs and masks."""

    train: tuple[str, ...] = Field(default=(), description="folders of images, or WebDataset shards (x-{000..123}.tar)")
    valid: tuple[str, ...] = Field(default=(), description="the same, for validation")
    side: int = Field(
        default=256, ge=16, multiple_of=SIZE_MULTIPLE, description="side of the training images in pixels"
    )
    fit: Literal["crop", "resize"] = Field(
        default="crop", description="crop: Places2, ImageNet, WikiArt; resize: FFHQ (section 4.1)"
    )
    zoom: float = Field(default=1.0, gt=0, le=1, description="crops are up to 1/zoom times as wide, then scaled down")
    flip: bool = Field(default=True, description="mirror half of the photographs")
    distort: bool = Field(
        default=False, description="LaMa's augmentations: perspective, rotation, scale, lens, contrast, colours"
    )
    recolour: bool = Field(
        default=False, description="exchange the colour channels of half of the photographs; for small sets"
    )
    masks: str = Field(
        default="general", description="a mask or a mixture (section 3.2, Table 4), or several: general+RandomExpand"
    )
    keep: int = Field(default=0, ge=0, description="number of decoded photographs that each worker keeps in memory")
    workers: int = Field(
        default=4, ge=0, le=1024, description="processes that read photographs; 0: the training process reads"
    )

    @model_validator(mode="after")
    def _check_masks(self) -> Data:
        by_name(self.masks)
        return self


class Discriminator(_Section):
    """LaMa's discriminator, which the paper uses, too (section 3.3)."""

    channels: int = Field(default=64, ge=1, le=512, description="channels after the first convolution")
    layers: int = Field(default=4, ge=1, le=6, description="convolutions of stride 2")


class Optimization(_Section):
    """Adam, by default with constant learning rates (section 4.2)."""

    generator_rate: float = Field(default=1e-3, gt=0, description="learning rate of the generator")
    discriminator_rate: float = Field(default=1e-4, gt=0, description="learning rate of the discriminator")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="cosine: both rates fall to 0 at the last step by half a cosine"
    )
    warm_up: int = Field(default=0, ge=0, description="steps in which the rates rise linearly to the schedule's")
    freeze_norms: int | None = Field(
        default=None,
        ge=0,
        description="step after which the running statistics of the generator's batch norms are fixed",
    )
    clip: float | None = Field(default=None, gt=0, description="largest norm of each network's gradient")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="Adam's decay of squared gradients")
    batch: int = Field(default=20, ge=1, description="images in each step, over all processes and accumulated parts")
    accumulate: int = Field(
        default=1, ge=1, description="number of parts into which each process divides its share of a batch"
    )
    steps: int = Field(default=1_000_000, ge=1, description="the last step of the run")
    average: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the generator's running average; 0: no average"
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast; FFTs stay fp32")
    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="seed of weights, samples and masks")


class Saving(_Section):
    """Checkpoints, validation and logs."""

    every: int = Field(default=1000, ge=1, description="steps between checkpoints")
    keep: int = Field(default=3, ge=1, description="checkpoints that are kept, in addition to the best")
    best: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="scores that choose the best checkpoints, one file each: `SCORE` over all masks, or `SCORE@MASK`; "
        "null: by the kind of run",
    )
    metric_weights: Path | None = Field(default=None, description="folder with the weight files of LPIPS and FID")
    validate_every: int = Field(default=5000, ge=1, description="steps between validations")
    validate_images: int = Field(
        default=32, ge=1, description="photographs in each validation, with each of the seven masks"
    )
    log_every: int = Field(default=50, ge=1, description="steps between logged scalars")

    @field_validator("best", mode="before")
    @classmethod
    def _list_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("best")
    @classmethod
    def _check_best(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        names = [parse_criterion(text).name for text in value or ()]
        if len(set(names)) < len(names):
            raise ValueError("a score is repeated; list each score once")
        return value


class Config(_Section):
    """The config of a training run."""

    network: NetworkConfig = Field(description="the generator")
    discriminator: Discriminator = Field(default_factory=Discriminator, description="the discriminator")
    weights: Weights = Field(default_factory=Weights, description="weights of the losses")
    perceptual_network: PerceptualNetwork = Field(
        default="scene-parsing-resnet50",
        description="network φ of the perceptual loss; the package of efficientnet-lite0 contains its weights",
    )
    perceptual_weights: Path | None = Field(
        default=None, description="weights file of the perceptual network; efficientnet-lite0 needs none"
    )
    teacher: str | None = Field(
        default=None, description="checkpoint, or name of glama-models list, whose predictions weights.teacher uses"
    )
    data: Data = Field(default_factory=Data, description="photographs and masks")
    optimization: Optimization = Field(default_factory=Optimization, description="optimizers, batches and steps")
    saving: Saving = Field(default_factory=Saving, description="checkpoints, validations and logs")

    @model_validator(mode="after")
    def _check_teacher(self) -> Config:
        if self.teacher is not None and not self.weights.teacher:
            raise ValueError("teacher is set and weights.teacher is 0; set a weight such as 1, or leave teacher out")
        if self.teacher is None and self.weights.teacher:
            raise ValueError(
                "weights.teacher is set and teacher is not; set teacher to a checkpoint, or the weight to 0"
            )
        return self


#: Settings in which LaMa's own training differs from GLaMa's (advimman/lama: lama-fourier.yaml, big-lama.yaml, their
#: data, optimizers and trainer). The batch of 10 is the batch of one GPU. docs/training.md lists remaining differences.
_LAMA: dict[str, Any] = {
    "weights": WEIGHTS["lama"].model_dump(),
    "data": {"masks": "lama", "distort": True},
    "optimization": {"batch": 10, "clip": 1.0, "average": 0.0},
}

#: Named configs, by the values that differ from the defaults. The defaults are those of GLaMa's paper.
CONFIGS: dict[str, dict[str, Any]] = {
    "glama": {"network": NAMED["glama"].model_dump()},
    "glama-tiny": {"network": NAMED["glama-tiny"].model_dump()},
    "glama-2stage": {"network": NAMED["glama-2stage"].model_dump(), "data": {"side": 512}},
    "lama": {"network": NAMED["lama"].model_dump(), **_LAMA},
    "big-lama": {"network": NAMED["big-lama"].model_dump(), **_LAMA},
}


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """Load a config.

    Args:
        source: A key of `CONFIGS`, or a YAML file. A file that contains `base: NAME` changes a named config.
        overrides: Values that replace those of the source, such as `data.side=128`. Values are plain YAML.

    Returns:
        The config.

    Raises:
        GlamaError: The file or name does not exist, the file is not plain YAML, a key is unknown, or a value is out of
            range. The message suggests a similar key.
    """
    tree = _read_tree(source)
    for override in overrides:
        _set(tree, override)
    _check_keys(tree, Config, "")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        message = excerpt(first["msg"].removeprefix("Value error, "), 300)
        if first["loc"]:  # else two values contradict each other, and the message names both
            message = f"{excerpt('.'.join(map(str, first['loc'])))} is {quoted(first.get('input'))}: {message}"
        raise GlamaError(f"config {excerpt(source)}: {message}") from error


def to_yaml(config: Config) -> str:
    """Write a config as YAML.

    Args:
        config: The config.

    Returns:
        YAML that :func:`load` reads.
    """
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_tree(source: str) -> dict[str, Any]:
    if source in CONFIGS:
        return _copy(CONFIGS[source])
    path = Path(source)
    if not os.path.isfile(source):  # unlike Path.is_file, returns False for a name that is too long
        known = ", ".join(CONFIGS)
        raise GlamaError(
            f"no config {quoted(source)}: neither a file nor one of {known}{_suggest(source, list(CONFIGS))}"
        )
    try:
        tree = plain_yaml.read(path)
    except plain_yaml.PlainYamlError as error:
        raise GlamaError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise GlamaError(f"{path} is not a config; keys such as 'network:' and 'data:' are expected")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str) or base not in CONFIGS:
        suggestion = _suggest(base, list(CONFIGS)) if isinstance(base, str) else ""
        raise GlamaError(f"{path}: base is {quoted(base)}; expected {', '.join(CONFIGS)}{suggestion}")
    return _merge(_copy(CONFIGS[base]), tree)


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise GlamaError(f"{quoted(override)} is not an override; key=value is expected, such as data.side=128")
    *parents, last = key.split(".")
    if len(parents) >= _MAX_KEY_PARTS:
        raise GlamaError(f"{quoted(override)}: the key has more than {_MAX_KEY_PARTS} parts")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise GlamaError(f"{quoted(override)}: {excerpt(parent)} is not a section of the config")
    try:
        tree[last] = plain_yaml.parse(value)
    except plain_yaml.PlainYamlError as error:
        raise GlamaError(f"{quoted(override)}: the value is not valid YAML ({error}); quote the value") from error


def _check_keys(tree: dict[str, Any], model: type[BaseModel], prefix: str) -> None:
    """Raise GlamaError for the first unknown key, with a similar key."""
    for key, value in tree.items():
        if key not in model.model_fields:
            known = list(model.model_fields)
            hint = _suggest(excerpt(key), known) or f"; known are {', '.join(known)}"
            raise GlamaError(f"the config has no {prefix}{excerpt(key)}{hint}")
        kind = model.model_fields[key].annotation
        for section in (kind, *get_args(kind)):
            if isinstance(section, type) and issubclass(section, BaseModel) and isinstance(value, dict):
                _check_keys(value, section, f"{prefix}{key}.")


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _merge(tree: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        below = tree.get(key)
        tree[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return tree
