"""Tensors out of a torch file without running a line of it.

`torch.save` and TorchScript both write a zip with a pickle (`data.pkl`) that refers to raw storages (`data/0`, …). The
pickle is read here by an unpickler that knows four harmless names and turns every other class or function into an
inert stub, so a file that would run code when unpickled runs nothing, and TorchScript is never compiled or executed.
Storages are read when a tensor is asked for, and only then: an optimizer's state in the same file costs nothing.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.errors import CheckpointError

#: A pickle of tensors' names and shapes is some kilobytes; one past these is no checkpoint.
MAX_PICKLE_BYTES = 8 << 20
MAX_MEMO = 4_000_000

#: What a damaged zip or pickle makes their readers raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in the archive: its shape is known, its numbers are read by :meth:`numpy`."""

    archive: zipfile.ZipFile
    member: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def numpy(self) -> np.ndarray:
        """The values, contiguous, bfloat16 widened to float32. Raises CheckpointError: damaged."""
        with _damage(self.archive.filename):
            flat = np.frombuffer(self.archive.read(self.member), "<u2" if self.dtype == "bf16" else self.dtype)
            last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.empty(self.shape, np.float32)
        if min(self.shape, default=1) < 0 or self.offset < 0 or any(s < 0 for s in self.strides) or last >= flat.size:
            raise CheckpointError(f"{self.member}: a tensor reaches past its storage; the file is damaged")
        if np.prod(self.shape, dtype=float) > flat.size:
            raise CheckpointError(f"{self.member}: a tensor has more values than its storage; the file is damaged")
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, tuple(s * flat.itemsize for s in self.strides)
        )
        values = np.ascontiguousarray(view)
        if self.dtype == "bf16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values


class Stub:
    """Stands for any class or function the file names; takes whatever the pickle does to it and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__.setdefault("state", {})

    def append(self, item: Any) -> None:
        """Lists of foreign classes are of no interest."""

    extend = add = append


class _InertUnpickler(pickle.Unpickler):
    def __init__(self, pickled: bytes, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(pickled))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        return type(str(name), (Stub,), {})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and pid[1] in _STORAGES.values():
            return (f"{self._root}/data/{pid[2]}", pid[1])
        return None

    def _rebuild_tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> LazyTensor | None:
        if storage is None:
            return None
        member, dtype = storage
        return LazyTensor(self._archive, member, dtype, int(offset), tuple(size), tuple(stride))


def read(path: Path) -> Any:
    """The object in a torch zip archive, tensors as :class:`LazyTensor`, foreign objects as :class:`Stub`.

    Raises CheckpointError for a file that is damaged or no such archive.
    """
    with _damage(path):
        archive = zipfile.ZipFile(path)
        entries = {info.filename: info for info in archive.infolist()}
        roots = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"{path} is a zip without a torch data.pkl; a checkpoint is expected")
        entry = entries[f"{roots[0]}/data.pkl"]
        if entry.file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(f"{path}: its pickle is over {MAX_PICKLE_BYTES >> 20} MiB; no checkpoint is")
        storages = [info for name, info in entries.items() if name.startswith(f"{roots[0]}/data/")]
        if any(info.compress_type != zipfile.ZIP_STORED for info in (entry, *storages)):
            raise CheckpointError(f"{path} has compressed tensors, which torch never writes; save it again")
        pickled = archive.read(entry)
        _check_memo(path, pickled)
        return _InertUnpickler(pickled, archive, roots[0]).load()


def _check_memo(path: Path, pickled: bytes) -> None:
    """A few bytes can ask the unpickler for a memo of gigabytes; torch numbers its memo from 0 upwards."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > MAX_MEMO:
            raise CheckpointError(f"{path}: its pickle asks for a memo of {argument} entries; no checkpoint does")


@contextmanager
def _damage(path: Any) -> Iterator[None]:
    """Whatever a damaged file makes its readers raise, as one line."""
    try:
        yield
    except _DAMAGE as error:
        detail = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or truncated ({detail}); fetch or save it again") from error


def tensors(tree: Any, kind: type = LazyTensor) -> Iterator[tuple[str, Any]]:
    """Every tensor (of class `kind`) in nested dicts and stubs, with its dotted name; a container met twice counts
    once."""
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        prefix, node = stack.pop()
        if isinstance(node, kind):
            yield prefix, node
            continue
        items = node.state if isinstance(node, Stub) else node
        if isinstance(items, dict) and id(items) not in seen:
            seen.add(id(items))
            named = [(f"{prefix}.{key}" if prefix else key, v) for key, v in items.items() if isinstance(key, str)]
            stack += reversed(named)
