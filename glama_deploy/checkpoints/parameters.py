"""Find the network to which a file's parameters belong, by the declared config or by names and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.text.excerpts import excerpt

#: A parameter that every generator with Fourier convolutions has. Everything before this name in a file is the prefix
#: of a generator.
STEM = "model.1.ffc.convl2l.weight"

#: The same parameter of a regular network, which has no Fourier convolutions.
REGULAR_STEM = "model.1.weight"

Shapes = Mapping[str, tuple[int, ...]]

#: Fields and properties in which a config may contradict the parameters.
_COMPARED = (
    "kind",
    "ngf",
    "n_downsampling",
    "n_blocks",
    "bottleneck_channels",
    "global_channels",
    "branches",
    "splits_channels",
    "fine_blocks",
)


def find_config(shapes: Shapes, declared: Mapping[str, Any] | None) -> NetworkConfig:
    """Find the config of the network to which parameters belong.

    Args:
        shapes: The shape of each parameter, under the generator's own names.
        declared: Fields of the config in the file, or None.

    Returns:
        The declared config where it implies exactly these shapes, or the config that the shapes imply.

    Raises:
        CheckpointError: The declared config is not valid or contradicts the shapes, or parameters are missing,
            additional, or of another shape. The message names the field or the parameters.
    """
    config = _infer(shapes) if declared is None else _validate(declared)
    if parameter_shapes(config) != shapes:
        if declared is not None:
            _check_agreement(config, _infer(shapes))
        check_shapes(config, shapes)
    return config


def check_shapes(config: NetworkConfig, shapes: Shapes) -> None:
    """Check that names and shapes are those of a config's parameters.

    Args:
        config: The network's config.
        shapes: The shape of each parameter, under the generator's own names.

    Raises:
        CheckpointError: Parameters are missing, additional, or of another shape.
    """
    expected = parameter_shapes(config)
    if missing := expected.keys() - shapes.keys():
        raise CheckpointError(f"{len(missing)} of {len(expected)} parameters are missing: {sample(missing)}")
    if extra := shapes.keys() - expected.keys():
        raise CheckpointError(f"this network does not have {len(extra)} of the parameters: {sample(extra)}")
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise CheckpointError(f"{name} has shape {list(shapes[name])}, expected {list(shape)}")


def sample(names: Iterable[str]) -> str:
    """List the first three names for a message.

    Args:
        names: Any number of names.

    Returns:
        Up to three names in alphabetical order, with an ellipsis where names were left out.
    """
    names = sorted(names)
    return ", ".join(excerpt(name) for name in names[:3]) + (", …" if len(names) > 3 else "")


def _validate(declared: Mapping[str, Any]) -> NetworkConfig:
    _check_plain(declared)
    try:
        return NetworkConfig.model_validate(dict(declared))
    except ValidationError as error:
        raise CheckpointError(f"the config is not valid: {_describe(error)}") from error


def _check_plain(fields: Mapping[str, Any], depth: int = 0) -> None:
    """Raise CheckpointError where a config has a field that is not a number, a string or a nested config."""
    for name, value in fields.items():
        if isinstance(value, dict) and depth < 2:
            _check_plain(value, depth + 1)
        elif value is not None and not isinstance(value, bool | int | float | str):
            raise CheckpointError(f"the config is not valid: {excerpt(name)} is {excerpt(value)}")


def _describe(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or "config"
    return f"{excerpt(where)}: {excerpt(first['msg'].removeprefix('Value error, '), 200)}"


def _check_agreement(declared: NetworkConfig, inferred: NetworkConfig, prefix: str = "") -> None:
    """Raise CheckpointError for the first field that the parameters contradict."""
    if (declared.coarse is None) != (inferred.coarse is None):
        stages, found = ("one stage", "two") if declared.coarse is None else ("two stages", "one")
        raise CheckpointError(
            f"the config has {stages}, the parameters have {found}; give the config and the parameters of one network"
        )
    for name in _COMPARED:
        said, held = getattr(declared, name), getattr(inferred, name)
        if said != held:
            raise CheckpointError(
                f"the config has {prefix}{name} {said}, the parameters have {held}; give the config and the parameters "
                "of one network"
            )
    if declared.coarse is not None and inferred.coarse is not None:
        _check_agreement(declared.coarse, inferred.coarse, "coarse.")


def _infer(shapes: Shapes) -> NetworkConfig:
    """Return the config that names and shapes imply. `max_features` is a value with the same effect."""
    bottleneck, fields = (_infer_fourier if STEM in shapes else _infer_regular)(shapes)
    coarse = {name.removeprefix("coarse."): shape for name, shape in shapes.items() if name.startswith("coarse.")}
    if coarse:
        fields["coarse"] = _infer(coarse)
    usual = min(NetworkConfig.model_fields["max_features"].default, fields["ngf"] * 2 ** fields["n_downsampling"])
    if bottleneck != usual:
        fields["max_features"] = bottleneck
    try:
        return NetworkConfig(**fields)
    except ValidationError as error:
        found = ", ".join(f"{name} {value}" for name, value in fields.items() if name != "coarse")
        raise CheckpointError(
            f"the parameters are not those of LaMa or GLaMa ({_describe(error)}; found {found})"
        ) from error


def _infer_fourier(shapes: Shapes) -> tuple[int, dict[str, Any]]:
    """Return the bottleneck's channels and the fields of a network with Fourier convolutions."""
    n_down = _count(shapes, "model.{}.ffc.convl2l.weight", 2)
    n_blocks = _count(shapes, "model.{}.conv1.ffc.convl2l.weight", 2 + n_down)
    globl = _width(shapes, f"model.{1 + n_down}.ffc.convl2g.weight")
    bottleneck = _width(shapes, f"model.{1 + n_down}.ffc.convl2l.weight") + globl
    fields: dict[str, Any] = {"ngf": _width(shapes, STEM), "n_downsampling": n_down, "n_blocks": n_blocks}
    if bottleneck:
        fields["ratio"] = _ratio(globl, bottleneck)
    if fine := _count(shapes, f"model.{6 + n_down + n_blocks}" + ".{}.conv1.weight", 0):
        fields["fine_blocks"] = fine
    return bottleneck, fields


def _infer_regular(shapes: Shapes) -> tuple[int, dict[str, Any]]:
    """Return the bottleneck's channels and the fields of a network without Fourier convolutions."""
    n_down = _count(shapes, "model.{}.weight", 4, 3)
    first = f"model.{4 + 3 * n_down}.conv_block"
    branches = _count(shapes, first + ".0.convs.{}.weight", 0)
    inner = "1" if branches == 0 else "0.convs.0"
    n_blocks = _count(shapes, "model.{}.conv_block." + f"{inner}.weight", 4 + 3 * n_down)
    bottleneck = _width(shapes, f"model.{1 + 3 * n_down}.weight")
    fields: dict[str, Any] = {"ngf": _width(shapes, REGULAR_STEM), "n_downsampling": n_down, "n_blocks": n_blocks}
    fields |= {"ratio": 0.0, "kind": "multidilated" if branches else "regular"}
    if branches:
        fields["branches"] = branches
        fields["splits_channels"] = shapes[f"{first}.0.convs.0.weight"][1:2] != (bottleneck,)
    return bottleneck, fields


def _count(shapes: Shapes, name: str, first: int, step: int = 1) -> int:
    """Return how many parameters have a name with the numbers `first`, `first + step`, … in it."""
    n = 0
    while name.format(first + step * n) in shapes:
        n += 1
    return n


def _width(shapes: Shapes, name: str) -> int:
    """Return the output channels of a convolution, or 0."""
    shape = shapes.get(name, ())
    return shape[0] if len(shape) == 4 else 0


def _ratio(part: int, whole: int) -> float:
    """Return a ratio with `int(whole * ratio) == part`. The quotient may be rounded down, which gives `part - 1`."""
    ratio = part / whole
    return ratio if int(whole * ratio) == part else math.nextafter(ratio, 1.0)
