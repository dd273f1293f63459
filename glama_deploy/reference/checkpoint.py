"""Generator checkpoints: the four kinds that are read, and the two that are written.

1. ours: safetensors with the config in its metadata, or `.pt` holding `{"config": …, "state_dict": …}`;
2. a LaMa model folder: `config.yaml` and `models/best.ckpt`, the generator under `generator.`;
3. bare parameters under LaMa's names, any prefix: the config is read off the shapes (which do not tell a network that
   begins with an interpolated picture from a plain one: that needs kind 1);
4. TorchScript (`big-lama.pt`): its parameters, never its code.

Reading runs no code from a file (:mod:`glama_deploy.reference.archive`) and needs torch only for files older than
torch 1.6; :func:`load` needs it for the module that it returns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import ValidationError

from glama_deploy.errors import CheckpointError
from glama_deploy.files import atomic_file, sha256
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.reference import archive

if TYPE_CHECKING:
    from glama_deploy.reference.generator import Generator

DEFAULT = Path(__file__).parent.parent / "assets" / "default.safetensors"

_STEM = "model.1.ffc.convl2l.weight"
_Read = Callable[[], np.ndarray]


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
    tensors: dict[str, tuple[tuple[int, ...], _Read]]


def read(path: str | Path) -> Checkpoint:
    """Read a checkpoint of any of the four kinds; `default` is the embedded network.

    Raises CheckpointError: missing, damaged, another network, missing or left-over parameters (named and counted), a
    config that contradicts the shapes (which field), or parameters that are not finite.
    """
    path = DEFAULT if str(path) == "default" else Path(path)
    source = _open(path)
    found = _strip_prefix(source)
    config = _infer(source.file, {name: shape for name, (shape, _) in found.items()})
    if source.declared is not None:
        config = _declared(source, config)
    _check_names(source.file, config, found)
    values_in_all = sum(math.prod(shape) for shape, _ in found.values())
    if values_in_all > source.file.stat().st_size:  # no type is smaller than a byte
        raise CheckpointError(f"{source.file} has {values_in_all} values in fewer bytes; the file is damaged")
    weights = {}
    for name in parameter_shapes(config):
        values = found[name][1]().astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise CheckpointError(f"{source.file}: {name} has values that are not finite; training went wrong there")
        if name.endswith("running_var") and values.min() < 0:
            raise CheckpointError(f"{source.file}: {name} has negative values; a variance has none")
        weights[name] = values
    return Checkpoint(path, source.kind, sha256(source.file), config, weights)


def weights_file(path: str | Path) -> Path:
    """The file that holds a checkpoint's parameters: the embedded one, LaMa's `best.ckpt`, or the path itself."""
    path = DEFAULT if str(path) == "default" else Path(path)
    file = path / "models" / "best.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no checkpoint at {file}; give a file, a LaMa model folder or 'default'")
    return file


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
    found = {name: (tuple(np.shape(values)), lambda: np.empty(0)) for name, values in weights.items()}
    _check_names(path, config, found)
    ordered = {name: np.ascontiguousarray(weights[name]) for name in parameter_shapes(config)}
    with atomic_file(path) as temporary:
        if path.suffix == ".safetensors":
            metadata = {"format": "glama-deploy", "config": config.model_dump_json()}
            safetensors.numpy.save_file(ordered, temporary, metadata=metadata)
        else:
            import torch

            state = {name: torch.from_numpy(np.array(values)) for name, values in ordered.items()}
            torch.save({"config": config.model_dump(), "state_dict": state}, temporary)


# ---------------------------------------------------------------- opening a file of each kind


def _open(path: Path) -> _Source:
    if path.is_dir():
        return _open_lama_folder(path)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give a file, a LaMa model folder or 'default'")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty; fetch or save it again")
    if path.suffix == ".safetensors":
        return _open_safetensors(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PK\x03\x04":
        return _open_zip(path)
    return _open_legacy(path)


def _open_safetensors(path: Path) -> _Source:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); fetch or save it again") from error

    def reader(name: str) -> _Read:
        def values() -> np.ndarray:
            try:
                with safetensors.safe_open(path, framework="numpy") as file:
                    return file.get_tensor(name)
            except (safetensors.SafetensorError, AttributeError, TypeError) as error:
                raise CheckpointError(f"{path}: {name} is of a type that is not read ({error})") from error

        return values

    declared = None
    if metadata.get("format") == "glama-deploy":
        try:
            declared = json.loads(metadata["config"])
        except (KeyError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: its metadata has no readable config; save it again") from error
    kind = "safetensors" if declared is not None else "bare parameters"
    return _Source(path, kind, declared, {name: (shape, reader(name)) for name, shape in shapes.items()})


def _open_zip(path: Path) -> _Source:
    kind, declared, tree = _kind(archive.read(path))
    return _Source(path, kind, declared, {name: (lazy.shape, lazy.numpy) for name, lazy in archive.tensors(tree)})


def _kind(tree: Any) -> tuple[str, dict[str, Any] | None, Any]:
    """What a file's content is, the config that it declares, and the part with the generator's tensors. Ours from a
    training holds other networks too, under `training`."""
    if isinstance(tree, archive.Stub):
        return "TorchScript", None, tree
    if isinstance(tree, dict) and isinstance(tree.get("config"), dict) and "state_dict" in tree:
        return "pt", tree["config"], tree["state_dict"]
    return "bare parameters", None, tree


def _open_legacy(path: Path) -> _Source:
    """A file of torch < 1.6, which is no zip: torch's own reader, restricted to tensors."""
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path} is no zip archive; if it is a checkpoint of torch < 1.6, reading it needs torch: pip install torch"
        ) from error
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged, truncated or no checkpoint; a torch, TorchScript or safetensors file is expected"
        ) from error
    kind, declared, tree = _kind(tree)
    tensors = {
        name: (tuple(tensor.shape), tensor.detach().float().numpy)
        for name, tensor in archive.tensors(tree, torch.Tensor)
    }
    return _Source(path, kind, declared, tensors)


def _open_lama_folder(folder: Path) -> _Source:
    config_file, weights_file = folder / "config.yaml", folder / "models" / "best.ckpt"
    if (folder / "manifest.json").is_file():
        raise CheckpointError(f"{folder} is a bundle already; a checkpoint is expected")
    for file in (config_file, weights_file):
        if not file.is_file():
            raise CheckpointError(f"{folder} has no {file.relative_to(folder)}; a LaMa model folder has it")
    source = _open(weights_file)
    return _Source(source.file, "LaMa folder", _lama_config(config_file), source.tensors)


def _lama_config(path: Path) -> dict[str, Any]:
    """The fields of our config out of LaMa's `config.yaml` (`${a.b}` references resolved)."""
    try:
        import yaml
    except ImportError as error:
        raise CheckpointError(f"reading {path} needs PyYAML; pip install pyyaml") from error
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no YAML that can be read ({str(error).splitlines()[0][:100]})") from error

    def at(dotted: str, depth: int = 0) -> Any:
        node = tree
        for key in dotted.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        reference = re.fullmatch(r"\$\{([\w.]+)\}", node) if isinstance(node, str) else None
        return at(reference[1], depth + 1) if reference and depth < 16 else node

    kind = at("generator.kind")
    if kind != "ffc_resnet":
        raise CheckpointError(f"{path}: generator.kind is {str(kind)[:40]!r}; 'ffc_resnet' (LaMa, GLaMa) is expected")
    fixed = {
        "generator.input_nc": 4,
        "generator.output_nc": 3,
        "generator.add_out_act": "sigmoid",
        "generator.resnet_conv_kwargs.enable_lfu": False,
        "generator.init_conv_kwargs.ratio_gout": 0,
        "generator.padding_type": "reflect",
    }
    for name, expected in fixed.items():
        value = at(name)
        if value is not None and value != expected and not (name.endswith("add_out_act") and value is True):
            raise CheckpointError(f"{path}: {name} is {str(value)[:40]!r}; only {expected!r} is supported")
    fields = {
        "ngf": at("generator.ngf"),
        "n_blocks": at("generator.n_blocks"),
        "n_downsampling": at("generator.n_downsampling"),
        "ratio": at("generator.resnet_conv_kwargs.ratio_gin"),
        "max_features": at("generator.max_features"),
    }
    return {name: value for name, value in fields.items() if value is not None}


# ---------------------------------------------------------------- from named tensors to a network


def _strip_prefix(source: _Source) -> dict[str, tuple[tuple[int, ...], _Read]]:
    """The generator's tensors under their bare names; everything outside the generator is left alone."""
    prefixes = [name[: -len(_STEM)] for name in source.tensors if name.endswith(_STEM)]
    prefixes = [prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")]
    if not prefixes:
        sample = ", ".join(list(source.tensors)[:3]) or "none"
        raise CheckpointError(
            f"{source.file} holds no LaMa or GLaMa generator: none of its {len(source.tensors)} tensors "
            f"({sample}, …) is called …{_STEM}"
        )
    prefix = min(prefixes, key=lambda p: (not p.endswith("generator."), len(p)))
    return {
        name[len(prefix) :]: tensor
        for name, tensor in source.tensors.items()
        if name.startswith((f"{prefix}model.", f"{prefix}coarse.")) and not name.endswith("num_batches_tracked")
    }


def _infer(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> NetworkConfig:
    """The config that the parameters' names and shapes imply."""

    def count(first: int, suffix: str) -> int:
        n = 0
        while f"model.{first + n}.{suffix}" in shapes:
            n += 1
        return n

    def width(name: str, axis: int = 0) -> int:
        shape = shapes.get(name, ())
        return shape[axis] if len(shape) == 4 else 0

    n_down = count(2, "ffc.convl2l.weight")
    n_blocks = count(2 + n_down, "conv1.ffc.convl2l.weight")
    local = width(f"model.{1 + n_down}.ffc.convl2l.weight")
    globl = width(f"model.{1 + n_down}.ffc.convl2g.weight")
    bottleneck, ngf = local + globl, width(_STEM)
    fields: dict[str, Any] = {"ngf": ngf, "n_downsampling": n_down, "n_blocks": n_blocks}
    coarse = {name.removeprefix("coarse."): shape for name, shape in shapes.items() if name.startswith("coarse.")}
    if coarse:
        fields["coarse"] = _infer(file, coarse)
    if bottleneck:
        fields["ratio"] = globl / bottleneck
    if bottleneck < ngf * 2**n_down:
        fields["max_features"] = bottleneck
    try:
        return NetworkConfig(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        raise CheckpointError(
            f"{file}: its parameters are of another network ({'.'.join(map(str, problem['loc'])) or 'config'}: "
            f"{problem['msg']}; found {', '.join(f'{k} {v}' for k, v in fields.items())})"
        ) from error


def _declared(source: _Source, inferred: NetworkConfig) -> NetworkConfig:
    """The inferred config with what shapes do not tell; raises CheckpointError where the file's own contradicts it."""
    assert source.declared is not None
    try:
        declared = NetworkConfig(**source.declared)
    except (ValidationError, TypeError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        raise CheckpointError(
            f"{source.file}: its config is not valid: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        ) from error
    pairs = [("", declared, inferred)]
    if declared.coarse is not None and inferred.coarse is not None:
        pairs.append(("coarse.", declared.coarse, inferred.coarse))
    elif declared.coarse is not inferred.coarse:
        says, holds = ("one stage", "two") if declared.coarse is None else ("two stages", "one")
        raise CheckpointError(
            f"{source.file}: the config says {says}, the parameters hold {holds}; they are of two different networks"
        )
    for prefix, one, other in pairs:
        for name in ("ngf", "n_downsampling", "n_blocks", "bottleneck_channels", "global_channels"):
            said, held = getattr(one, name), getattr(other, name)
            if said != held:
                raise CheckpointError(
                    f"{source.file}: the config says {prefix}{name} {said}, the parameters hold {held}; "
                    "they are of two different networks"
                )
    return _with_what_shapes_lack(inferred, declared)


def _with_what_shapes_lack(inferred: NetworkConfig, declared: NetworkConfig) -> NetworkConfig:
    coarse = inferred.coarse
    if coarse is not None and declared.coarse is not None:
        coarse = _with_what_shapes_lack(coarse, declared.coarse)
    return inferred.model_copy(update={"coarse": coarse, "coarse_side": declared.coarse_side, "fill": declared.fill})


def _check_names(file: Path, config: NetworkConfig, found: Mapping[str, tuple[tuple[int, ...], _Read]]) -> None:
    expected = parameter_shapes(config)

    def some(names: Iterable[str]) -> str:
        names = sorted(names)
        return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")

    if missing := expected.keys() - found.keys():
        raise CheckpointError(f"{file}: {len(missing)} of {len(expected)} parameters are missing: {some(missing)}")
    if extra := found.keys() - expected.keys():
        raise CheckpointError(
            f"{file}: {len(extra)} parameters are left over, which this network has no place for: {some(extra)}"
        )
    for name, shape in expected.items():
        if found[name][0] != shape:
            raise CheckpointError(f"{file}: {name} has shape {list(found[name][0])}, expected {list(shape)}")
