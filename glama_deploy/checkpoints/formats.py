"""Read four formats of generator checkpoints, and write two.

1. Our own format: safetensors with the config in the metadata, or `.pt` with `{"config": …, "state_dict": …}`.
2. A LaMa model folder: `config.yaml`, and `models/best.ckpt` or `models/last.ckpt` with the generator. The zip archive
   in which the folder is downloaded is read as it is (:mod:`glama_deploy.checkpoints.archives`).
3. Bare parameters under LaMa's names with any prefix. Names and shapes imply the config, unless LaMa's trainer stored
   its config in the file.
4. TorchScript (`big-lama.pt`), of which only the parameters are read. The code is never run, but
   :mod:`glama_deploy.checkpoints.script_code` searches its text for settings that are not supported.

Names and shapes do not imply all settings. For formats 3 and 4, the settings of the published LaMa are assumed: a
sigmoid after the head, orthonormal transforms, no dilation (of LaMa-Dilated: 1, 2, 4, …), no interpolated picture, and
256 pixels for the picture of a coarse network. The published big-lama.pt has these settings. A network with other
settings needs format 1 or 2.

A file is identified by its content, not by its suffix. Reading does not run code from a file
(:mod:`glama_deploy.checkpoints.torch_zip`) and needs no torch. Only :func:`load` and :func:`build_module` need torch.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from glama_deploy.checkpoints import (
    archives,
    embedded,
    file_kinds,
    generators,
    lama_config,
    safetensors_file,
    script_code,
    torch_zip,
)
from glama_deploy.checkpoints.parameters import STEM, check_shapes, find_config
from glama_deploy.checkpoints.stored_tensors import StoredTensor
from glama_deploy.errors import CheckpointError
from glama_deploy.io.files import atomic_file, sha256
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.text.excerpts import excerpt

if TYPE_CHECKING:
    from glama_deploy.reference.generator import Generator

log = logging.getLogger("glama_deploy")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a generator's checkpoint.

    Attributes:
        path: The file or folder.
        kind: Name of the format.
        sha256: SHA-256 of the file with the parameters, in hexadecimal.
        config: The network's config.
        weights: float32 parameters by name, in the order of `parameter_shapes(config)`.
        weights_key: Which generator of the file was read, or None where the file has only one.
    """

    path: Path
    kind: str
    sha256: str
    config: NetworkConfig
    weights: dict[str, np.ndarray]
    weights_key: str | None = None


@dataclass(frozen=True)
class _Source:
    """The content of a file before the checks: named tensors that are not read yet, and the declared config.

    An archive is the file that the user has. Its unpacked checkpoint is `file`.
    """

    file: Path
    kind: str
    declared: dict[str, Any] | None
    tensors: dict[str, StoredTensor]
    archive: Path | None = None


def read(path: str | Path, weights_key: str | None = None) -> Checkpoint:
    """Read a checkpoint of any of the four formats.

    Args:
        path: A file, a LaMa model folder, or the name of an embedded network.
        weights_key: The generator of a file with several, such as `generator`. None: the running average, if the file
            has a generator and its running average (of LaMa's trainer: the generator).

    Returns:
        The config and the parameters.

    Raises:
        CheckpointError: The file is missing, damaged or truncated, contains another network or several generators, or
            has missing, additional or infinite parameters. Parameters of other types than float16, bfloat16, float32
            and float64, and configs that are not supported or contradict the shapes, are also refused. The message
            names the parameters or the field.
    """
    path = embedded.find_checkpoint(path) or Path(path)
    with ExitStack() as unpacked:
        source = _open(path, unpacked)
        with torch_zip.name_in_errors(source.file):
            found, key = generators.find(source.tensors, weights_key)
            config = find_config({name: tensor.shape for name, tensor in found.items()}, source.declared)
            values_in_all = sum(math.prod(tensor.shape) for tensor in found.values())
            if values_in_all > source.file.stat().st_size:  # no type is smaller than a byte
                raise CheckpointError(
                    f"the file has {values_in_all} values in fewer bytes; fetch or save the file again"
                )
            weights = {name: _read_values(name, found[name]) for name in parameter_shapes(config)}
        return Checkpoint(path, source.kind, sha256(source.archive or source.file), config, weights, key)


def find_weights_file(path: str | Path) -> Path:
    """Find the file with a checkpoint's parameters.

    Args:
        path: A file, a LaMa model folder, or the name of an embedded network.

    Returns:
        The file: an embedded checkpoint, `models/best.ckpt` or else `models/last.ckpt` of a LaMa folder, or `path`.

    Raises:
        CheckpointError: The file does not exist.
    """
    path = embedded.find_checkpoint(path) or Path(path)
    file = _find_in_folder(path) if os.path.isdir(path) else path
    _check_is_file(file)
    return file


def _find_in_folder(folder: Path) -> Path:
    """Return the file with the parameters of a LaMa folder. Training ends without a best.ckpt where it was stopped."""
    best, last = (folder / "models" / name for name in ("best.ckpt", "last.ckpt"))
    return last if last.is_file() and not best.is_file() else best


def _check_is_file(path: Path) -> None:
    if not os.path.isfile(path):  # unlike Path.is_file, returns False for a name that is too long
        raise CheckpointError(
            f"no checkpoint at {excerpt(str(path), 200)}; give a file, a LaMa model folder or 'default'"
        )


def load(path: str | Path) -> Generator:
    """Read a checkpoint's generator as a torch module.

    Args:
        path: A file, a LaMa model folder, or the name of an embedded network.

    Returns:
        The generator, float32, on the CPU, in eval mode.

    Raises:
        CheckpointError: See :func:`read`.
    """
    return build_module(read(path))


def build_module(checkpoint: Checkpoint) -> Generator:
    """Build a torch module from a checkpoint.

    Args:
        checkpoint: The checkpoint.

    Returns:
        The generator, float32, on the CPU, in eval mode.
    """
    import torch

    from glama_deploy.reference.generator import Generator

    with torch.device("meta"):
        generator = Generator(checkpoint.config)
    state = {name: torch.from_numpy(np.array(values)) for name, values in checkpoint.weights.items()}
    for name in generator.state_dict():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
    generator.load_state_dict(state, assign=True)
    return generator.eval()


def save(path: str | Path, config: NetworkConfig, weights: Mapping[str, np.ndarray]) -> None:
    """Write a checkpoint of our own format, completely or not at all.

    Args:
        path: The file. The suffix `.safetensors` selects safetensors, any other suffix selects `.pt`.
        config: The network's config.
        weights: Arrays by name, with the names and shapes of `parameter_shapes(config)`. Their dtypes are kept.

    Raises:
        CheckpointError: Names or shapes are not those of the config.
        GlamaError: The file cannot be written.
    """
    path = Path(path)
    with torch_zip.name_in_errors(path):
        check_shapes(config, {name: tuple(np.shape(values)) for name, values in weights.items()})
    ordered = {name: np.ascontiguousarray(weights[name]) for name in parameter_shapes(config)}
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            metadata = {"format": "glama-deploy", "config": config.model_dump_json()}
            temporary.write_bytes(safetensors.numpy.save(ordered, metadata=metadata))
        else:
            import torch

            state = {name: torch.from_numpy(np.array(values)) for name, values in ordered.items()}
            with temporary.open("wb") as file:  # if torch opened the file, it would hide the reason of a failed write
                torch.save({"config": config.model_dump(), "state_dict": state}, file)


# ---------------------------------------------------------------- open a file of each format


def _open(path: Path, unpacked: ExitStack) -> _Source:
    """Open a checkpoint of any format. Entries of an archive stay unpacked until the stack is closed."""
    if os.path.isdir(path):
        return _open_lama_folder(path)
    _check_is_file(path)
    member = archives.find_member(path) if file_kinds.identify(path) == "zip" else None
    return _open_file(path) if member is None else _open_archive(path, member, unpacked)


def _open_archive(path: Path, member: archives.Member, unpacked: ExitStack) -> _Source:
    names = [member.weights] if member.config is None else [member.weights, member.config]
    files = [unpacked.enter_context(archives.unpack(path, name)) for name in names]
    shown = {file: f"{path}: {excerpt(name)}" for file, name in zip(files, names, strict=True)}
    unpacked.enter_context(archives.name_members(shown))
    declared = None if member.config is None else lama_config.read(files[1])
    source = replace(_open_file(files[0], has_config=declared is not None), archive=path)
    return source if declared is None else replace(source, kind="LaMa folder", declared=declared)


def _open_file(path: Path, *, has_config: bool = False) -> _Source:
    """Open a file. With `has_config`, a config beside the file is read, and one in the file is not."""
    kind = file_kinds.identify(path)
    if kind == "safetensors":
        return _open_safetensors(path)
    tree = torch_zip.read_zip(path) if kind == "zip" else torch_zip.read_legacy(path)
    code = torch_zip.read_code(path) if kind == "zip" else b""
    name, declared, part = ("TorchScript", None, tree) if code else _split(path, tree, has_config)
    with torch_zip.name_in_errors(path):
        tensors = dict(torch_zip.list_tensors(part))
        if code:
            script_code.check_parameters(tensors)
            two_stages = any(tensor.endswith(f"coarse.{STEM}") for tensor in tensors)
            script_code.check(code.decode("utf-8", "replace"), two_stages)
    return _Source(path, name, declared, tensors)


def _open_safetensors(path: Path) -> _Source:
    tensors, metadata = safetensors_file.read(path)
    if metadata.get("format") != "glama-deploy":
        return _Source(path, "bare parameters", None, tensors)
    try:
        declared = json.loads(metadata["config"])
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata has no readable config; save the file again") from error
    if not isinstance(declared, dict):
        raise CheckpointError(f"{path}: the config in its metadata is {excerpt(declared)}; save the file again")
    return _Source(path, "safetensors", declared, tensors)


def _split(path: Path, tree: Any, has_config: bool) -> tuple[str, dict[str, Any] | None, Any]:
    """Return the format's name, the declared config, and the part with the generator's tensors.

    A checkpoint of a training run also contains other networks, under `training`.
    """
    if isinstance(tree, dict) and isinstance(tree.get("config"), dict) and "state_dict" in tree:
        return "pt", tree["config"], tree["state_dict"]
    if isinstance(tree, list | tuple):
        tree = _name_items(tree)
    return "bare parameters", None if has_config else lama_config.read_hyper_parameters(path, tree), tree


def _name_items(items: Sequence[Any]) -> dict[str, Any]:
    """Return a list as a dict: pairs of a name and a tensor under their names, other items under their numbers."""
    pairs = [item for item in items if isinstance(item, list | tuple) and len(item) == 2 and type(item[0]) is str]
    if len(pairs) < len(items):
        return {str(number): item for number, item in enumerate(items)}
    named: dict[str, Any] = {name: value for name, value in pairs}  # noqa: C416 (mypy)
    if len(named) < len(pairs):
        raise CheckpointError("the list in the file has two tensors of one name; save a state_dict() instead")
    return named


def _open_lama_folder(folder: Path) -> _Source:
    config_file, weights_file = folder / "config.yaml", _find_in_folder(folder)
    if (folder / "manifest.json").is_file():
        raise CheckpointError(f"{folder} is a bundle; a checkpoint is expected")
    for file in (config_file, weights_file):
        if not file.is_file():
            raise CheckpointError(f"{folder} has no {file.relative_to(folder)}; a LaMa model folder is expected")
    if weights_file.name != "best.ckpt":
        log.warning("%s has no models/best.ckpt; reading models/%s", folder, weights_file.name)
    declared = lama_config.read(config_file)
    return replace(_open_file(weights_file, has_config=True), kind="LaMa folder", declared=declared)


# ---------------------------------------------------------------- read the values


def _read_values(name: str, tensor: StoredTensor) -> np.ndarray:
    """Return a parameter's values as float32.

    Raises:
        CheckpointError: The data is damaged, a value is not finite in float32, or a variance is below 0.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite and is refused below
        values = tensor.read().astype(np.float32, order="C")
    if not np.isfinite(values).all():
        raise CheckpointError(f"{name} has values that are not finite; take an earlier checkpoint of the training")
    if name.endswith("running_var") and values.min() < 0:
        raise CheckpointError(
            f"{name} has negative values; a variance cannot be negative: fetch or save the file again"
        )
    return values
