"""Generator checkpoints: the four kinds that are read, and the two that are written.

1. ours: safetensors with the config in its metadata, or `.pt` holding `{"config": …, "state_dict": …}`;
2. a LaMa model folder: `config.yaml` and `models/best.ckpt`, the generator under `generator.`;
3. bare parameters under LaMa's names, any prefix: names and shapes imply the config;
4. TorchScript (`big-lama.pt`): its parameters. Its code is never run
   (:mod:`glama_deploy.checkpoints.script_code` looks in the code's text for settings that are not supported).

Names and shapes do not tell everything. Kinds 3 and 4 are taken for LaMa as published: a sigmoid behind the head,
orthonormal transforms, no dilation, no interpolated picture at the start, and 256 pixels for the picture of a coarse
network. The published big-lama.pt is such a network. A network that differs needs kind 1 or 2.

A file is told by its content, not by its suffix. Reading runs no code from a file
(:mod:`glama_deploy.checkpoints.torch_zip`) and needs no torch; :func:`load` needs torch for the module that it returns.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

from glama_deploy.checkpoints import file_kinds, lama_config, safetensors_file, script_code
from glama_deploy.checkpoints import torch_zip as archive
from glama_deploy.checkpoints.parameters import STEM, check_shapes, find_config, sample
from glama_deploy.checkpoints.stored_tensors import FLOAT_TYPES, StoredTensor
from glama_deploy.errors import CheckpointError
from glama_deploy.io.files import atomic_file, sha256
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.text.excerpts import excerpt

if TYPE_CHECKING:
    from glama_deploy.reference.generator import Generator

DEFAULT = Path(__file__).parent.parent / "assets" / "default.safetensors"

#: LaMa's trainer keeps a running average of its generator under this name, and its predictor reads the other one.
_GENERATOR, _AVERAGE = "generator.", "generator_average."

#: Words in the names of tensors that only training uses. Tensors beside the generator have to have one in their name.
_TRAINING_WORDS = re.compile(
    r"(?:^|[._])"
    r"(?:callbacks|criterion|dis|disc|discr|discriminator|epoch|evaluators?|fid|inception|iteration|loops|loss|losses|"
    r"lpips|metrics?|netd|optim|optimizers?|perceptual|rng|scaler|schedulers?|steps?|training|vgg|vgg16|vgg19)"
    r"(?:[._]|$)",
    re.IGNORECASE,
)

#: Types of counters and of random states, which only training has, as torch and as safetensors name the types.
_WHOLE_NUMBERS = re.compile(r"u?int\d+|bool|[UI]\d+|BOOL")


@dataclass(frozen=True)
class Checkpoint:
    """A generator's config and its float32 parameters, in the order of `parameter_shapes(config)`."""

    path: Path
    kind: str
    sha256: str
    config: NetworkConfig
    weights: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Source:
    """What a file holds before anything is checked: named tensors not yet read, and the config it declares."""

    file: Path
    kind: str
    declared: dict[str, Any] | None
    tensors: dict[str, StoredTensor]


def read(path: str | Path) -> Checkpoint:
    """Return a checkpoint of any of the four kinds.

    Args:
        path: a file, a LaMa model folder, or `default` for the embedded network.

    Raises:
        CheckpointError: missing, damaged, truncated, another network, more than one generator, missing or left-over
            parameters (named and counted), a config that contradicts the shapes or says what is not supported (the
            field is named), parameters of another type than float16, bfloat16, float32 and float64, or values that
            are not finite.
    """
    path = DEFAULT if str(path) == "default" else Path(path)
    source = _open(path)
    with archive.named(source.file):
        found = _find_generator(source.tensors)
        config = find_config({name: tensor.shape for name, tensor in found.items()}, source.declared)
        values_in_all = sum(math.prod(tensor.shape) for tensor in found.values())
        if values_in_all > source.file.stat().st_size:  # no type is smaller than a byte
            raise CheckpointError(f"it has {values_in_all} values in fewer bytes; the file is damaged")
        weights = {name: _read_values(name, found[name]) for name in parameter_shapes(config)}
    return Checkpoint(path, source.kind, sha256(source.file), config, weights)


def weights_file(path: str | Path) -> Path:
    """The file that holds a checkpoint's parameters: the embedded one, LaMa's `best.ckpt`, or the path itself."""
    path = DEFAULT if str(path) == "default" else Path(path)
    file = path / "models" / "best.ckpt" if os.path.isdir(path) else path
    _check_is_file(file)
    return file


def _check_is_file(path: Path) -> None:
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that no file can have
        raise CheckpointError(
            f"no checkpoint at {excerpt(str(path), 200)}; give a file, a LaMa model folder or 'default'"
        )


def load(path: str | Path) -> Generator:
    """The generator of a checkpoint, on the CPU, float32, in eval mode; see :func:`read` for what is raised."""
    return module(read(path))


def module(checkpoint: Checkpoint) -> Generator:
    """A checkpoint's generator as a torch module, on the CPU, float32, in eval mode."""
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
    """Write our own checkpoint, whole or not at all: `.safetensors` (dtypes kept), or `.pt` for any other suffix.

    `weights` holds an array for every name of `parameter_shapes(config)`. Raises CheckpointError if it does not, or
    where the place cannot be written.
    """
    path = Path(path)
    with archive.named(path):
        check_shapes(config, {name: tuple(np.shape(values)) for name, values in weights.items()})
    ordered = {name: np.ascontiguousarray(weights[name]) for name in parameter_shapes(config)}
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            metadata = {"format": "glama-deploy", "config": config.model_dump_json()}
            temporary.write_bytes(safetensors.numpy.save(ordered, metadata=metadata))
        else:
            import torch

            state = {name: torch.from_numpy(np.array(values)) for name, values in ordered.items()}
            with temporary.open("wb") as file:  # torch's own file would hide why a write failed
                torch.save({"config": config.model_dump(), "state_dict": state}, file)


# ---------------------------------------------------------------- opening a file of each kind


def _open(path: Path) -> _Source:
    if os.path.isdir(path):
        return _open_lama_folder(path)
    _check_is_file(path)
    kind = file_kinds.identify(path)
    if kind == "safetensors":
        return _open_safetensors(path)
    tree = archive.read_zip(path) if kind == "zip" else archive.read_legacy(path)
    code = archive.read_code(path) if kind == "zip" else b""
    name, declared, part = ("TorchScript", None, tree) if code else _split(tree)
    with archive.named(path):
        tensors = dict(archive.tensors(part))
        if code and any(tensor.endswith(STEM) for tensor in tensors):
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
        raise CheckpointError(f"{path}: its metadata has no readable config; save it again") from error
    if not isinstance(declared, dict):
        raise CheckpointError(f"{path}: the config in its metadata is {excerpt(declared)}; save it again")
    return _Source(path, "safetensors", declared, tensors)


def _split(tree: Any) -> tuple[str, dict[str, Any] | None, Any]:
    """Return what a file's content is, the config that it declares, and the part with the generator's tensors. Ours
    from a training holds other networks too, under `training`."""
    if isinstance(tree, dict) and isinstance(tree.get("config"), dict) and "state_dict" in tree:
        return "pt", tree["config"], tree["state_dict"]
    return "bare parameters", None, tree


def _open_lama_folder(folder: Path) -> _Source:
    config_file, weights_file = folder / "config.yaml", folder / "models" / "best.ckpt"
    if (folder / "manifest.json").is_file():
        raise CheckpointError(f"{folder} is a bundle already; a checkpoint is expected")
    for file in (config_file, weights_file):
        if not file.is_file():
            raise CheckpointError(f"{folder} has no {file.relative_to(folder)}; a LaMa model folder has it")
    declared = lama_config.read(config_file)
    source = _open(weights_file)
    return _Source(source.file, "LaMa folder", declared, source.tensors)


# ---------------------------------------------------------------- from named tensors to parameters


def _find_generator(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Return the generator's tensors under their own names.

    Raises:
        CheckpointError: no generator, several of which none is the obvious one, tensors beside the generator that
            are of no training (they may change what the network computes), or a parameter of another type than those
            of `FLOAT_TYPES`.
    """
    ends = [name[: -len(STEM)] for name in tensors if name.endswith(STEM)]
    prefixes = {prefix for prefix in ends if prefix == "" or prefix.endswith(".")}
    prefixes -= {f"{prefix}coarse." for prefix in prefixes}
    if not prefixes:
        whole = any(name.startswith("_modules.") for name in tensors)
        hint = "; it is a whole module, of which the state_dict() alone is read" if whole else ""
        raise CheckpointError(
            f"it holds no LaMa or GLaMa generator: no tensor in it is called …{STEM} (tensors found: {len(tensors)}"
            f"{': ' if tensors else ''}{sample(tensors)}){hint}"
        )
    prefix = _choose(prefixes)
    parts = tuple(f"{each}{part}." for each in prefixes for part in ("model", "coarse"))
    others = [name for name, tensor in tensors.items() if not name.startswith(parts) and _may_compute(name, tensor)]
    if others:
        raise CheckpointError(
            f"tensors beside the generator ({len(others)}): {sample(others)}; they may change what the network "
            "computes and are not supported; if they do not, save the generator's parameters alone"
        )
    found = {
        name[len(prefix) :]: tensor
        for name, tensor in tensors.items()
        if name.startswith((f"{prefix}model.", f"{prefix}coarse.")) and not name.endswith(".num_batches_tracked")
    }
    for name, tensor in found.items():
        if tensor.dtype not in FLOAT_TYPES:
            raise CheckpointError(f"{excerpt(name)} is {tensor.dtype}; {', '.join(FLOAT_TYPES)} are supported")
    return found


def _may_compute(name: str, tensor: StoredTensor) -> bool:
    """Whether a tensor beside the generator may change what the network computes: no training state, no single value.

    A tensor whose values cannot be read may have a shape that is not known.
    """
    single = tensor.shape == () and tensor.dtype in FLOAT_TYPES
    return not (single or _WHOLE_NUMBERS.fullmatch(tensor.dtype) or _TRAINING_WORDS.search(name))


def _choose(prefixes: set[str]) -> str:
    """Return the prefix of the generator that is meant: the only one, or LaMa's beside its running average."""
    if len(prefixes) == 1:
        return next(iter(prefixes))
    first, second = sorted(prefixes, key=len)[:2]
    if len(prefixes) == 2 and first.endswith(_GENERATOR) and second == first.removesuffix(_GENERATOR) + _AVERAGE:
        return first
    raise CheckpointError(
        f"it holds {len(prefixes)} generators, under {sample(f'{prefix}model' for prefix in prefixes)}; "
        "save the parameters of one alone"
    )


def _read_values(name: str, tensor: StoredTensor) -> np.ndarray:
    """Return a parameter's values as float32.

    Raises:
        CheckpointError: damaged, not finite in float32, or a variance below 0.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is an error below
        values = tensor.read().astype(np.float32, order="C")
    if not np.isfinite(values).all():
        raise CheckpointError(f"{name} has values that are not finite; training went wrong there")
    if name.endswith("running_var") and values.min() < 0:
        raise CheckpointError(f"{name} has negative values; a variance has none")
    return values
