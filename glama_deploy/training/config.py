"""What a training run is: named configs, YAML files on top of them, `key=value` on top of those."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from glama_deploy.errors import GlamaError
from glama_deploy.masks import by_name
from glama_deploy.network import NAMED, SIZE_MULTIPLE, NetworkConfig
from glama_deploy.text import plain_yaml
from glama_deploy.text.excerpts import excerpt, quoted
from glama_deploy.training.losses import WEIGHTS, Weights

#: `data.train` has two parts, `network.coarse.n_blocks` has three.
_MAX_KEY_PARTS = 8


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Section):
    """Photographs and the masks put on them."""

    train: tuple[str, ...] = Field(default=(), description="folders of images, or WebDataset shards (x-{000..123}.tar)")
    valid: tuple[str, ...] = Field(default=(), description="the same, for validation")
    side: int = Field(default=256, ge=16, multiple_of=SIZE_MULTIPLE, description="of the squares that are trained on")
    fit: Literal["crop", "resize"] = Field(
        default="crop", description="crop: Places2, ImageNet, WikiArt; resize: FFHQ (section 4.1)"
    )
    zoom: float = Field(default=1.0, gt=0, le=1, description="crops are up to 1/zoom times as wide, and made smaller")
    flip: bool = Field(default=True, description="mirror half of them")
    distort: bool = Field(
        default=False, description="LaMa's augmentations: perspective, rotation, scale, lens, contrast, colours"
    )
    recolour: bool = Field(default=False, description="exchange the colours of half of them; for few photographs")
    masks: str = Field(
        default="general", description="a mask or a mixture (section 3.2, Table 4), or several: general+RandomExpand"
    )
    keep: int = Field(default=0, ge=0, description="so many photographs stay in each worker's memory, decoded")
    workers: int = Field(default=4, ge=0, le=1024, description="processes that read; 0: none beside the training")

    @model_validator(mode="after")
    def _known_mask(self) -> Data:
        by_name(self.masks)
        return self


class Discriminator(_Section):
    """LaMa's, which the paper keeps (section 3.3)."""

    channels: int = Field(default=64, ge=1, le=512)
    layers: int = Field(default=4, ge=1, le=6)


class Optimization(_Section):
    """Adam, by default with fixed rates (section 4.2)."""

    generator_rate: float = Field(default=1e-3, gt=0)
    discriminator_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="cosine: both rates fall to 0 at the last step by half a cosine"
    )
    warm_up: int = Field(default=0, ge=0, description="steps in which the rates rise to what the schedule says")
    freeze_norms: int | None = Field(
        default=None, ge=0, description="step from which on the generator's batch norms keep their running statistics"
    )
    clip: float | None = Field(default=None, gt=0, description="largest norm of each network's gradient")
    beta2: float = Field(
        default=0.999, ge=0, lt=1, description="Adam's decay of squared gradients; less forgets sooner"
    )
    batch: int = Field(default=20, ge=1, description="images a step, over all processes and accumulated parts")
    accumulate: int = Field(default=1, ge=1, description="parts that a process does its share of the batch in")
    steps: int = Field(default=1_000_000, ge=1)
    average: float = Field(default=0.999, ge=0, lt=1, description="decay of the generator's running average; 0: none")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast; FFTs stay fp32")
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class Saving(_Section):
    """Checkpoints and what is looked at on the way."""

    every: int = Field(default=1000, ge=1, description="steps between checkpoints")
    keep: int = Field(default=3, ge=1, description="checkpoints that stay, beside the best")
    validate_every: int = Field(default=5000, ge=1, description="steps between validations")
    validate_images: int = Field(default=32, ge=1, description="photographs of each, with each of the seven masks")
    log_every: int = Field(default=50, ge=1, description="steps between scalars")


class Config(_Section):
    """A training run."""

    network: NetworkConfig
    discriminator: Discriminator = Field(default_factory=Discriminator)
    weights: Weights = Field(default_factory=Weights, description="of the losses")
    perceptual_weights: Path | None = Field(default=None, description="file of the scene-parsing ResNet-50")
    data: Data = Field(default_factory=Data)
    optimization: Optimization = Field(default_factory=Optimization)
    saving: Saving = Field(default_factory=Saving)


#: What LaMa's own training (advimman/lama: lama-fourier.yaml, big-lama.yaml, their data, optimizers and trainer) has
#: otherwise than GLaMa's. Its batch of 10 is that of one GPU. docs/training.md names what still differs.
_LAMA: dict[str, Any] = {
    "weights": WEIGHTS["lama"].model_dump(),
    "data": {"masks": "lama", "distort": True},
    "optimization": {"batch": 10, "clip": 1.0, "average": 0.0},
}

#: Named configs, each the values in which it differs from the defaults. GLaMa's are the paper's.
CONFIGS: dict[str, dict[str, Any]] = {
    "glama": {"network": NAMED["glama"].model_dump()},
    "glama-tiny": {"network": NAMED["glama-tiny"].model_dump()},
    "glama-2stage": {"network": NAMED["glama-2stage"].model_dump(), "data": {"side": 512}},
    "lama": {"network": NAMED["lama"].model_dump(), **_LAMA},
    "big-lama": {"network": NAMED["big-lama"].model_dump(), **_LAMA},
}


def load(source: str, overrides: Sequence[str] = ()) -> Config:
    """The config of a name, or of a YAML file, which may say `base: NAME`, with overrides such as `data.side=128`.

    Raises GlamaError: no such file or name, no YAML, a key that does not exist (with the one that was probably meant),
    a value that is out of range.
    """
    tree = _tree(source)
    for override in overrides:
        _set(tree, override)
    _check_keys(tree, Config, "")
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = excerpt(".".join(map(str, first["loc"])) or "the whole")
        message = excerpt(first["msg"].removeprefix("Value error, "), 300)
        raise GlamaError(f"config {excerpt(source)}: {where} is {quoted(first.get('input'))}: {message}") from error


def text(config: Config) -> str:
    """The config as YAML that :func:`load` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _tree(source: str) -> dict[str, Any]:
    if source in CONFIGS:
        return _copy(CONFIGS[source])
    path = Path(source)
    if not os.path.isfile(source):  # unlike Path.is_file, False for a name that no file can have
        known = ", ".join(CONFIGS)
        raise GlamaError(f"no config {quoted(source)}: neither a file nor one of {known}{_near(source, list(CONFIGS))}")
    try:
        tree = plain_yaml.read(path)
    except plain_yaml.PlainYamlError as error:
        raise GlamaError(f"{path} is not YAML that can be read: {error}; see glama-train --help") from error
    if not isinstance(tree, dict):
        raise GlamaError(f"{path} holds no config; keys such as 'network:' and 'data:' are expected")
    base = tree.pop("base", None)
    if base is None:
        return tree
    if not isinstance(base, str) or base not in CONFIGS:
        near = _near(base, list(CONFIGS)) if isinstance(base, str) else ""
        raise GlamaError(f"{path}: base is {quoted(base)}; expected {', '.join(CONFIGS)}{near}")
    return _merge(_copy(CONFIGS[base]), tree)


def _set(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise GlamaError(f"{quoted(override)} is no override; key=value is expected, such as data.side=128")
    *parents, last = key.split(".")
    if len(parents) >= _MAX_KEY_PARTS:
        raise GlamaError(f"{quoted(override)}: its key has more than {_MAX_KEY_PARTS} parts")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise GlamaError(f"{quoted(override)}: {excerpt(parent)} is no section of the config")
    try:
        tree[last] = plain_yaml.parse(value)
    except plain_yaml.PlainYamlError as error:
        raise GlamaError(f"{quoted(override)}: the value is not YAML that can be read ({error}); quote it") from error


def _check_keys(tree: dict[str, Any], model: type[BaseModel], prefix: str) -> None:
    """Raise GlamaError for the first key that does not exist, with the near one."""
    for key, value in tree.items():
        if key not in model.model_fields:
            known = list(model.model_fields)
            hint = _near(excerpt(key), known) or f"; known are {', '.join(known)}"
            raise GlamaError(f"the config has no {prefix}{excerpt(key)}{hint}")
        kind = model.model_fields[key].annotation
        for section in (kind, *get_args(kind)):
            if isinstance(section, type) and issubclass(section, BaseModel) and isinstance(value, dict):
                _check_keys(value, section, f"{prefix}{key}.")


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _copy(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in tree.items()}


def _merge(tree: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        there = tree.get(key)
        tree[key] = _merge(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return tree
