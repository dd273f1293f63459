"""Checkpoints: zip archives of torch, legacy files, TorchScript and safetensors, mutated and crafted.

The outside truth is torch (`weights_only=True`) or safetensors' own reader: where our reader accepts a file, the values
are the ones that those give. TorchScript is compared with the weights that were saved.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from fuzz.case import Case, Wrong
from fuzz.generators.mutation import ODD_NAMES, ODD_VALUES, mutate_bytes, mutate_tree
from glama_deploy.checkpoints import formats
from glama_deploy.network import NetworkConfig, parameter_shapes
from glama_deploy.reference.random_weights import untrained

#: The valid files are 12 to 60 kB.
GROWTH_BYTES = 128 << 20
ADDRESS_BYTES = 4 << 30

#: The least of the family: 2,800 parameters.
NETWORK = NetworkConfig(ngf=4, n_blocks=1, n_downsampling=1)

_KINDS = ("ours.pt", "ours.safetensors", "bare.ckpt", "bare.safetensors", "legacy.pt", "script.pt", "training.ckpt")


class _Node(torch.nn.Module):
    """A module that holds parameters under dotted names, for TorchScript."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def prepare(base: Path) -> None:
    """Write the network as a file of every kind."""
    weights = untrained(NETWORK)
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    for name in ("ours.pt", "ours.safetensors"):
        formats.save(base / name, NETWORK, weights)
    torch.save({"state_dict": tensors}, base / "bare.ckpt")
    safetensors.torch.save_file(tensors, base / "bare.safetensors")
    torch.save(tensors, base / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(_module(tensors)).save(str(base / "script.pt"))
    state = {f"generator.{name}": tensor for name, tensor in tensors.items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(5)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({"epoch": 3, "state_dict": state, "optimizer_states": [optimizer]}, base / "training.ckpt")


def _module(tensors: dict[str, torch.Tensor]) -> _Node:
    root = _Node()
    for name, tensor in tensors.items():
        *parents, last = name.split(".")
        node: torch.nn.Module = root
        for parent in parents:
            if parent not in node._modules:
                node.add_module(parent, _Node())
            node = node.get_submodule(parent)
        node.register_buffer(last, tensor)
    return root


def generate(seed: int, base: Path) -> Case:
    """Return a valid file for seeds that end in 00, else a mutated or a crafted file."""
    rng = random.Random(seed)
    if seed % 100 == 0:
        name = rng.choice(_KINDS)
        return _case(f"valid: {name}", name, (base / name).read_bytes())
    makers: tuple[Callable[[random.Random, Path], Case], ...] = (_bytes, _zip, _pickle, _pickle, _safetensors, _legacy)
    return rng.choice(makers)(rng, base)


def _case(label: str, kind: str, data: bytes) -> Case:
    return Case(label, {f"checkpoint{Path(kind).suffix}": data}, expected=kind)


def _bytes(rng: random.Random, base: Path) -> Case:
    name = rng.choice(_KINDS)
    kind, data = mutate_bytes(rng, (base / name).read_bytes())
    suffix = rng.choice((name, name, name, "x.pt", "x.safetensors", "x.ckpt"))
    return Case(f"{name}: {kind}", {f"checkpoint{Path(suffix).suffix}": data}, expected=name)


def _zip(rng: random.Random, base: Path) -> Case:
    """The archive written anew, with members that are missing, doubled, compressed, renamed or exchanged."""
    name = rng.choice(("ours.pt", "bare.ckpt", "script.pt", "training.ckpt"))
    with zipfile.ZipFile(base / name) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    kind = rng.choice(
        ("missing", "double", "deflate", "bomb", "rename", "exchange", "shorter", "no storage", "two roots")
    )
    data = [number for number, (member, _) in enumerate(members) if "/data/" in member]
    place, other = rng.choice(data), rng.choice(data)
    method = zipfile.ZIP_DEFLATED if kind in ("deflate", "bomb") else zipfile.ZIP_STORED
    if kind == "missing":
        del members[rng.randrange(len(members))]
    elif kind == "double":
        members.append((members[place][0], members[other][1]))
    elif kind == "bomb":
        members[place] = members[place][0], bytes(200 << 20)
    elif kind == "rename":
        members[place] = rng.choice(ODD_NAMES).replace("\x00", "") or "x", members[place][1]
    elif kind == "exchange":
        first, second = members[place], members[other]
        members[place], members[other] = (first[0], second[1]), (second[0], first[1])
    elif kind == "shorter":
        members[place] = members[place][0], members[place][1][: rng.randrange(8)]
    elif kind == "no storage":
        members = [member for number, member in enumerate(members) if number not in data]
    elif kind == "two roots":
        members += [(f"other/{member}", content) for member, content in members]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = rng.choice((b"", b"x" * 300))
        for member, content in members:
            archive.writestr(_entry(member), content, method)
    # what is in a file after exchanges is another network's; torch says which
    return _case(f"zip: {kind}", "bare.ckpt" if name == "script.pt" and kind == "exchange" else name, buffer.getvalue())


def _entry(name: str) -> zipfile.ZipInfo:
    """An archive's entry with a date that does not depend on today."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


class _Storage:
    """Stands for a storage in a crafted pickle."""

    def __init__(self, pid: Any) -> None:
        self.pid = pid


class _Rebuilt:
    """Stands for a call of a function by its name in a crafted pickle."""

    def __init__(self, module: str, name: str, arguments: tuple[Any, ...]) -> None:
        self.module, self.name, self.arguments = module, name, arguments


class _Global:
    """Stands for a class by its name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


def _dumps(value: Any) -> bytes:
    """Pickle protocol 2 for nested values, with names of classes and functions that need not exist."""
    out = bytearray(b"\x80\x02")
    stack: list[Any] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, bytes):  # opcodes as they are
            out += node
        elif isinstance(node, _Storage):
            stack += [b"Q", node.pid]
        elif isinstance(node, _Global):
            out += f"c{node.module}\n{node.name}\n".encode()
        elif isinstance(node, _Rebuilt):
            stack += [b"R", node.arguments, _Global(node.module, node.name)]
        elif isinstance(node, tuple):
            stack += [b"t", *reversed(node), b"("]
        elif isinstance(node, dict):
            stack += [b"u", *(part for key, held in reversed(node.items()) for part in (held, key)), b"(", b"}"]
        elif isinstance(node, list):
            stack += [b"e", *reversed(node), b"(", b"]"]
        else:
            out += pickle.dumps(node, 2)[2:-1]  # without its header and its end
    return bytes(out + b".")


def _tensor(rng: random.Random, shape: tuple[int, ...], key: Any, mutated: str) -> Any:
    """A tensor as torch pickles it; `mutated` names the part that is odd."""
    strides = tuple(int(np.prod(shape[n + 1 :])) for n in range(len(shape)))
    odd = rng.choice(ODD_VALUES)
    count, offset, size = int(np.prod(shape)), 0, tuple[Any, ...](shape)
    kind: Any = _Global("torch", "FloatStorage")
    if mutated == "stride 0":
        strides, size = (0,) * len(shape), rng.choice((shape, (2**20, 2**20), (2**31,) * 3))
    elif mutated == "shape":
        size = rng.choice(
            ((), (odd,), (0.5,) * len(shape), (-1,) * len(shape), (2**62,), (*shape, 1), shape[::-1], odd)
        )
    elif mutated == "strides":
        strides = rng.choice(((), (odd,), (-1,) * len(shape), (2**62,) * len(shape), strides[::-1], odd))
    elif mutated == "offset":
        offset = rng.choice((-1, 1, 2**62, odd))
    elif mutated == "storage id":
        key = rng.choice((odd, _nested_tuple(rng.choice((3, 30))), "../data.pkl", "0/../1", 0))
    elif mutated == "storage kind":
        name = rng.choice(("QInt8Storage", "ComplexFloatStorage", "HalfStorage", "BFloat16Storage", "BoolStorage"))
        kind = _Global("torch", name)
    storage = _Storage(("storage", kind, key, "cpu", count))
    return _Rebuilt("torch._utils", "_rebuild_tensor_v2", (storage, offset, size, strides, False, _no_hooks()))


def _no_hooks() -> _Rebuilt:
    """The empty OrderedDict that torch writes behind every tensor."""
    return _Rebuilt("collections", "OrderedDict", ())


def _nested_tuple(depth: int) -> Any:
    """A tuple whose repr doubles with each level."""
    node: Any = ("x",)
    for _ in range(depth):
        node = (node, node) if depth < 12 else b"".join((b"(", _inner(node), b"2t"))
    return node


def _inner(node: Any) -> bytes:
    """The opcodes that push a node; DUP (`2`) behind them repeats the node without writing the node twice."""
    return node if isinstance(node, bytes) else _dumps(node)[2:-1]


def _pickle(rng: random.Random, base: Path) -> Case:
    """A torch archive with a pickle of our own making: right but for one part."""
    kind = rng.choice(
        (
            *("stride 0", "shape", "strides", "offset", "storage id", "storage kind"),
            *(
                "alias",
                "deep dict",
                "wide dict",
                "long keys",
                "odd key",
                "tuple key",
                "code",
                "NEWOBJ",
                "BUILD",
                "memo",
            ),
            *("opcodes", "recursive", "wrong value", "config"),
        )
    )
    shapes = parameter_shapes(NETWORK)
    chosen = rng.choice(list(shapes))
    state: dict[Any, Any] = {}
    storages: dict[str, bytes] = {}
    values = untrained_values()
    for number, (name, shape) in enumerate(shapes.items()):
        storages[str(number)] = values[name].tobytes()
        state[name] = _tensor(rng, shape, str(number), kind if name == chosen else "")
    tree: Any = {"state_dict": state}
    if kind == "alias":
        first = next(iter(storages))
        state |= {name: _tensor(rng, shape, first, "") for name, shape in shapes.items()}
    elif kind == "deep dict":
        depth, length = rng.choice(((50, 5), (2_000, 1), (20_000, 1), (300, 10_000)))
        tree = _deep(depth, "k" * length, tree)
    elif kind == "wide dict":
        state |= {f"other.{number}": state[chosen] for number in range(20_000)}
    elif kind == "long keys":
        state |= {f"{'n' * 100_000}{number}": state[chosen] for number in range(20)}
    elif kind == "odd key":
        state[rng.choice((*ODD_NAMES, 1, None, 0.5, f"model.{chr(27)}[2J"))] = state.pop(chosen)
    elif kind == "tuple key":
        tree = {"state_dict": {**state, _Key(_nested_tuple(rng.choice((3, 11, 40)))): 1}}
    elif kind == "code":
        module, name = rng.choice(
            (("os", "system"), ("builtins", "eval"), ("subprocess", "Popen"), ("posix", "system"))
        )
        state[chosen] = _Rebuilt(module, name, ("touch CODE-WAS-RUN",))
    elif kind == "NEWOBJ":
        foreign = _Global(*rng.choice((("builtins", "dict"), ("numpy", "ndarray"), ("collections", "OrderedDict"))))
        state[chosen] = _Raw(_inner(foreign) + b")\x81")
    elif kind == "BUILD":
        state[chosen] = _Raw(_inner(state[chosen]) + _inner(rng.choice(ODD_VALUES)) + b"b")
    elif kind == "memo":
        state[chosen] = _Raw(
            _inner(state[chosen]) + b"r" + struct.pack("<I", rng.choice((2**32 - 1, 2**28, 4_000_001)))
        )
    elif kind == "recursive":
        state[chosen] = _Raw(b"}q\x01" + _inner("self") + b"h\x01s")
    elif kind == "wrong value":
        state[chosen] = rng.choice(ODD_VALUES)
    elif kind == "config":
        config = mutate_tree(rng, {"config": NETWORK.model_dump(exclude={"fill", "coarse"})}, rng.choice((1, 2)))
        tree = {**config, "state_dict": state}
    pickled = _dumps(_resolved(tree))
    if kind == "opcodes":
        spliced = bytearray(pickled)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(2, len(spliced))
            spliced[at:at] = rng.choice(
                (b"0", b"1", b"2", b"(", b"e", b"b", b"R", b"s", b"a", b"Q", b"\x81", b"\x93", b".")
            )
        pickled = bytes(spliced)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("data.pkl", pickled), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(_entry(f"archive/{name}"), data)
        for name, data in storages.items():
            archive.writestr(_entry(f"archive/data/{name}"), data)
    return _case(f"pickle: {kind}", "bare.ckpt", buffer.getvalue())


class _Raw:
    """Opcodes that push one value."""

    def __init__(self, opcodes: bytes) -> None:
        self.opcodes = opcodes


class _Key:
    """A value that need not be hashable here, as a key of a dict."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _resolved(node: Any) -> Any:
    """The tree with raw opcodes in place of `_Raw` and `_Key`."""
    if isinstance(node, _Raw):
        return node.opcodes
    if isinstance(node, _Key):
        return node.value
    if isinstance(node, dict):
        if any(isinstance(key, _Key) for key in node):
            pairs = [(_resolved(key), _resolved(value)) for key, value in node.items()]
            return b"}(" + b"".join(_inner(part) for pair in pairs for part in pair) + b"u"
        return {key: _resolved(value) for key, value in node.items()}
    return node


def _deep(depth: int, key: str, tree: Any) -> bytes:
    """Dicts in dicts, by opcodes: a Python recursion over the tree would fail here, too."""
    return b"}" + (_inner(key) + b"}") * (depth - 1) + _inner(key) + _inner(tree) + b"s" * depth


@lru_cache(maxsize=1)
def untrained_values() -> dict[str, np.ndarray]:
    """Return the weights that every crafted file holds."""
    return untrained(NETWORK)


def _safetensors(rng: random.Random, base: Path) -> Case:
    """A safetensors file whose header was changed."""
    name = rng.choice(("ours.safetensors", "bare.safetensors"))
    data = (base / name).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    kind = rng.choice(
        ("tree", "tree", "length", "dtype", "alias", "deep", "metadata", "encoding", "double", "not finite")
    )
    entry = header[rng.choice([key for key in header if key != "__metadata__"])]
    text = None
    if kind == "tree":
        header = mutate_tree(rng, header, rng.choice((1, 3)))
    elif kind == "dtype":
        entry["dtype"] = rng.choice(("F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "U8", "C64", "x"))
    elif kind == "alias":
        other = header[rng.choice([key for key in header if key != "__metadata__"])]
        entry["data_offsets"] = other["data_offsets"]
    elif kind == "deep":
        text = (b'{"a":' * rng.choice((100, 100_000))) + b"1"
    elif kind == "metadata":
        config = mutate_tree(rng, json.loads(NETWORK.model_dump_json()), rng.choice((1, 2)))
        value = rng.choice((json.dumps(config), "[" * 100_000, "{", "null", "\x1b[2J", json.dumps({"coarse": config})))
        header["__metadata__"] = {"format": "glama-deploy", "config": value}
    elif kind == "not finite":
        at = 4 * rng.randrange(len(body) // 4)
        body = body[:at] + struct.pack("<f", rng.choice((float("nan"), float("inf"), -1e38))) + body[at + 4 :]
    written = text if text is not None else json.dumps(header).encode()
    if kind == "encoding":
        written = written.replace(b"model", rng.choice((b"\xff\xfe", b"mod\\u0000", b"mod\xc3")), 1)
    elif kind == "double":
        written = written[:-1] + b"," + written[1:]
    claimed = rng.choice((0, 1, 2**40, 2**63, 100_000_001, len(written) + 1)) if kind == "length" else len(written)
    return _case(f"safetensors: {kind}", name, struct.pack("<Q", claimed) + written + body)


def _legacy(rng: random.Random, base: Path) -> Case:
    """A file of torch < 1.6 with tensors that torch itself would write."""
    kind = rng.choice(
        ("expanded", "alias", "quantized", "complex", "half", "names", "sparse", "deep", "module", "shapes")
    )
    tensors: dict[Any, Any] = {name: torch.from_numpy(values) for name, values in untrained_values().items()}
    chosen = rng.choice(list(tensors))
    shape = tensors[chosen].shape
    if kind == "expanded":
        huge = torch.zeros(1).expand(*rng.choice(((2**20, 2**12), (2**16, 2**10), (2**15,))))
        tensors |= {f"other.{number}": huge for number in range(rng.choice((1, 300)))}
    elif kind == "alias":
        tensors |= {name: tensors[chosen] for name in tensors if tensors[name].shape == shape}
    elif kind == "quantized":
        tensors[chosen] = torch.quantize_per_tensor(tensors[chosen], 0.1, 0, torch.qint8)
    elif kind == "complex":
        tensors[chosen] = torch.complex(tensors[chosen], tensors[chosen])
    elif kind == "half":
        tensors = {name: tensor.to(rng.choice((torch.float16, torch.bfloat16))) for name, tensor in tensors.items()}
    elif kind == "names":
        tensors[rng.choice(ODD_NAMES)] = tensors.pop(chosen)
    elif kind == "sparse":
        tensors[chosen] = torch.ones(2, 2).to_sparse()
    elif kind == "deep":
        for _ in range(50):
            tensors = {"k": tensors}
    elif kind == "module":
        tensors[chosen] = torch.nn.Parameter(tensors[chosen])
    else:
        tensors[chosen] = torch.zeros(rng.choice(((), (0,), (1, 1, 1, 1, 1), tuple(shape)[::-1])))
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=rng.random() < 0.3)
    return _case(f"torch: {kind}", "legacy.pt", buffer.getvalue())


def check(case: Case, folder: Path, base: Path) -> None:
    """Read the checkpoint; every parameter has the shape and the values that the other reader gives."""
    (name,) = case.files
    found = formats.read(folder / name)
    if set(found.weights) != set(parameter_shapes(found.config)):
        raise Wrong("the parameters are not those of the config")
    truth = _truth(folder / name, str(case.expected))
    for key, values in found.weights.items():
        if values.dtype != np.float32 or values.shape != parameter_shapes(found.config)[key]:
            raise Wrong("a parameter has another type or shape than the config says")
        given = truth.get(key)
        if given is None or not np.array_equal(values, given):
            raise Wrong(f"{'no' if given is None else 'other'} values in the other reader")


def _truth(path: Path, kind: str) -> dict[str, np.ndarray]:
    """Return float32 values by bare name, read by torch or safetensors.

    Of TorchScript, and where the other reader refuses the file, return the values that were saved.
    """
    if kind == "script.pt":
        return untrained_values()
    tree: Any
    try:
        data = path.read_bytes()  # torch goes by the suffix of a file
        if data[8:9] == b"{":
            tree = safetensors.torch.load(data)
        else:
            tree = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, safetensors.SafetensorError):
        return untrained_values()  # a file that the other reader refuses may still be read right
    while "state_dict" in tree:
        tree = tree["state_dict"]
    while set(tree) == {"k"} or (len(tree) == 1 and isinstance(next(iter(tree.values())), dict)):
        tree = next(iter(tree.values()))
        tree = tree.get("state_dict", tree)
    tensors = {key: value for key, value in tree.items() if isinstance(value, torch.Tensor)}
    return {key.removeprefix("generator."): value.detach().float().numpy() for key, value in tensors.items()}


def may_remain(case: Case, name: str, refused: bool) -> bool:
    """Reading writes nothing."""
    return False
