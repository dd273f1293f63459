"""Read tensors of files that `torch.save` or TorchScript wrote, without running code of the file.

Since torch 1.6, both write a zip with a pickle (`data.pkl`) that refers to raw storages (`data/0`, …). Older files
contain the pickle and then the storages. The pickle is read as data (:mod:`glama_deploy.checkpoints.pickles`), and
TorchScript is never compiled or executed. A storage is read when the values of its tensor are read, so an optimizer's
state in the same file takes no time. The last storage is kept in memory, because several tensors may share one storage.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.checkpoints import pickles
from glama_deploy.checkpoints.pickles import Global, Stub
from glama_deploy.checkpoints.stored_tensors import (
    FLOAT_TYPES,
    MAX_NAME_CHARACTERS,
    Layout,
    StoredTensor,
    unreadable,
    widen,
)
from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt, first_line

#: Largest pickle. The names and shapes of a checkpoint's tensors take some kilobytes.
MAX_PICKLE_BYTES = 8 << 20

#: Largest number of entries of a zip.
MAX_ENTRIES = 100_000

#: Largest code. A network of 18 blocks has less than 1 MiB.
MAX_CODE_BYTES = 8 << 20

#: Largest number of nested dicts and modules.
MAX_DEPTH = 64

#: Largest number of tensors.
MAX_TENSORS = 50_000

#: First bytes of a file of torch < 1.6: its magic number as a pickle.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

#: Header of an entry of a zip: the signature, and the lengths of the name and of the extra field after the header.
_LOCAL_HEADER = struct.Struct("<4s22xHH")

#: Exceptions that readers of a damaged zip raise.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
)

#: torch's name of the element type, and the size of an element in bytes, by the class of a storage in a pickle.
_STORAGES = {
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("quantized (qint8)", 1),
    "QUInt8Storage": ("quantized (quint8)", 1),
    "QInt32Storage": ("quantized (qint32)", 4),
    "UntypedStorage": ("untyped", 1),
}


@dataclass(frozen=True)
class _Storage:
    """The storage of a persistent id in a pickle.

    Attributes:
        key: Name of the storage in the file.
        dtype: torch's name of the element type.
        offset: Offset of the storage in a larger storage, in elements.
        count: Number of elements in the pickle, or None where the pickle does not have this number.
        read: Returns the bytes of the storage.
    """

    key: str
    dtype: str
    offset: int
    count: object
    read: Callable[[], bytes]


def read_zip(path: Path) -> Any:
    """Read a zip archive of torch or TorchScript.

    Args:
        path: The file.

    Returns:
        The object in the archive: dicts and Stubs of StoredTensors.

    Raises:
        CheckpointError: The archive is damaged, truncated, compressed, not one of torch, from a big-endian machine, or
            exceeds a bound of this module.
    """
    with report_damage(path), zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) < len(archive.infolist()):  # of two entries with one name, readers choose different ones
            raise CheckpointError(f"{path} has two entries of one name; save the checkpoint again")
        root = _find_root(path, entries)
        storages = [info for name, info in entries.items() if name.startswith(f"{root}/data/")]
        if any(info.compress_type != zipfile.ZIP_STORED for info in (entries[f"{root}/data.pkl"], *storages)):
            raise CheckpointError(
                f"{path} has compressed tensors, which torch does not write; save the checkpoint again"
            )
        if f"{root}/byteorder" in entries and _read_head(archive, f"{root}/byteorder", 16) != b"little":
            raise CheckpointError(
                f"{path} was saved on a big-endian machine; save the checkpoint on a little-endian machine"
            )
        pickled = _read_head(archive, f"{root}/data.pkl", MAX_PICKLE_BYTES + 1)
        if len(pickled) > MAX_PICKLE_BYTES:
            raise CheckpointError(
                f"{path}: the pickle is larger than {MAX_PICKLE_BYTES >> 20} MiB; a checkpoint's is smaller"
            )

    @lru_cache(maxsize=1)  # all parameters may be views of one storage
    def read_storage(key: str) -> bytes:
        name = f"{root}/data/{key}"
        if name not in entries:
            raise CheckpointError(f"{path}: a tensor's storage, data/{excerpt(key)}, is missing; the file is damaged")
        with report_damage(f"{path}: data/{excerpt(key)}"):
            return _read_stored(path, entries[name])

    with name_in_errors(path):
        return pickles.read(io.BytesIO(pickled), _REBUILD, _persistent(read_storage))


def read_code(path: Path) -> bytes:
    """Read the code of a TorchScript archive, which is never run.

    Args:
        path: A zip archive.

    Returns:
        The source text. It is empty for other zip archives.

    Raises:
        CheckpointError: The archive is damaged, or has more than `MAX_CODE_BYTES` of code.
    """
    parts: list[bytes] = []
    room = MAX_CODE_BYTES
    with report_damage(path), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/code/" in name and name.endswith(".py"):
                parts.append(_read_head(archive, name, room + 1))
                room -= len(parts[-1])
                if room < 0:
                    raise CheckpointError(
                        f"{path} has more than {MAX_CODE_BYTES >> 20} MiB of code; a checkpoint has less"
                    )
    return b"\n".join(parts)


def read_legacy(path: Path) -> Any:
    """Read a file of torch < 1.6.

    Args:
        path: The file.

    Returns:
        The object in the file: dicts and Stubs of StoredTensors.

    Raises:
        CheckpointError: The file is damaged, truncated, from a big-endian machine, or exceeds a bound of this module.
    """
    places: dict[str, tuple[int, int]] = {}

    @lru_cache(maxsize=1)
    def read_storage(key: str) -> bytes:
        if key not in places:
            raise CheckpointError(f"{path}: a tensor's storage is missing; the file is damaged")
        start, length = places[key]
        with report_damage(path), path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    with report_damage(path), path.open("rb") as file:
        stream = io.BytesIO(file.read(min(MAX_PICKLE_BYTES, path.stat().st_size)))
    sizes: dict[str, int] = {}
    with name_in_errors(path):
        _, _, system = (pickles.read(stream, {}, lambda _: Stub()) for _ in range(3))
        if isinstance(system, dict) and system.get("little_endian") is False:
            raise CheckpointError(
                "the file was saved on a big-endian machine; save the checkpoint on a little-endian machine"
            )
        tree = pickles.read(stream, _REBUILD, _persistent(read_storage, sizes))
        keys = pickles.read(stream, {}, lambda _: Stub())
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise CheckpointError("the list of storages is damaged; fetch or save the file again")
        places |= _place_storages(path, stream.tell(), keys, sizes)
    return tree


def list_tensors(tree: Any) -> Iterator[tuple[str, StoredTensor]]:
    """Walk nested dicts and Stubs and yield all tensors. A container that occurs twice is walked once.

    Args:
        tree: The object in a file.

    Yields:
        The dotted name of each tensor, and the tensor.

    Raises:
        CheckpointError: The tensors exceed `MAX_TENSORS`, `MAX_DEPTH` or `MAX_NAME_CHARACTERS`.
    """
    seen: set[int] = set()
    stack: list[tuple[str, int, Any]] = [("", 0, tree)]
    found = 0
    while stack:
        prefix, depth, node = stack.pop()
        if isinstance(node, StoredTensor):
            found += 1
            if found > MAX_TENSORS:
                raise CheckpointError(f"the file has more than {MAX_TENSORS} tensors; a checkpoint has fewer")
            yield prefix, node
            continue
        items = node.state if isinstance(node, Stub) else node
        if not isinstance(items, dict) or id(items) in seen:
            continue
        seen.add(id(items))
        if depth == MAX_DEPTH:
            raise CheckpointError(f"the file has more than {MAX_DEPTH} nested dicts; a checkpoint has fewer")
        for key, value in reversed(items.items()):
            if not isinstance(value, dict | Stub | StoredTensor):
                continue
            if len(prefix) + len(key) >= MAX_NAME_CHARACTERS:
                raise CheckpointError(
                    f"the tensor name {excerpt(prefix + key, 40)} has more than {MAX_NAME_CHARACTERS} characters"
                )
            stack.append((f"{prefix}.{key}" if prefix else key, depth + 1, value))


# ---------------------------------------------------------------- zips


def _find_root(path: Path, entries: Mapping[str, Any]) -> str:
    """Return the folder of the zip that contains `data.pkl`."""
    if len(entries) > MAX_ENTRIES:
        raise CheckpointError(f"{path} is a zip of {len(entries)} entries; a checkpoint has at most {MAX_ENTRIES}")
    roots = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) == 1:
        return roots[0]
    sample = ", ".join(excerpt(name, 40) for name in list(entries)[:3]) or "nothing"
    raise CheckpointError(f"{path} is a zip of {sample}, without a torch data.pkl; a checkpoint is expected")


def _read_head(archive: zipfile.ZipFile, name: str, length: int) -> bytes:
    """Return the first `length` bytes of an entry."""
    with archive.open(name) as file:
        return file.read(length)


def _read_stored(path: Path, info: zipfile.ZipInfo) -> bytes:
    """Return the data of an entry that is not compressed. The file is opened for this entry and closed again.

    Raises:
        zipfile.BadZipFile: The entry is damaged, encrypted or truncated.
    """
    if info.file_size != info.compress_size or info.flag_bits & 1 or info.file_size > path.stat().st_size:
        raise zipfile.BadZipFile("its size is wrong, or it is encrypted")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        file.seek(name_length + extra_length, io.SEEK_CUR)
        data = file.read(info.file_size)
    if signature != b"PK\3\4" or len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile("bad header or checksum")
    return data


@contextmanager
def report_damage(place: Path | str) -> Iterator[None]:
    """Turn exceptions of readers of a damaged file into a CheckpointError.

    Args:
        place: The file, or a part of the file, for the message.

    Yields:
        None.

    Raises:
        CheckpointError: The block raised an exception of a reader.
    """
    try:
        yield
    except _DAMAGE as error:
        raise CheckpointError(
            f"{place} is damaged or truncated ({first_line(error)}); fetch or save the file again"
        ) from error


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Put a file's name in front of messages of CheckpointErrors.

    Args:
        path: The file.

    Yields:
        None.

    Raises:
        CheckpointError: The block raised a CheckpointError.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


# ---------------------------------------------------------------- files of torch < 1.6


def _place_storages(path: Path, start: int, keys: list[str], sizes: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return the offset and the length of each storage in bytes. Each storage follows its number of elements."""
    places = {}
    size = path.stat().st_size
    with report_damage(path), path.open("rb") as file:
        for key in keys:
            if key not in sizes or key in places:
                raise CheckpointError("the list of storages does not fit the tensors; the file is damaged")
            file.seek(start)
            head = file.read(8)
            if len(head) < 8:
                raise CheckpointError(f"the file is truncated: {size} bytes found, at least {start + 8} expected")
            (count,) = struct.unpack("<q", head)
            if count < 0:
                raise CheckpointError("a storage has a negative size; the file is damaged")
            end = start + 8 + count * sizes[key]
            if end > size:
                raise CheckpointError(f"the file is truncated: {size} bytes found, at least {end} expected")
            places[key] = (start + 8, end - start - 8)
            start = end
    return places


# ---------------------------------------------------------------- read the calls of a pickle


def _persistent(read: Callable[[str], bytes], sizes: dict[str, int] | None = None) -> Callable[[Any], Any]:
    """Return the reader of persistent ids, which stores the size of each storage's elements in `sizes`.

    An id is ("storage", class, key, location, count). In old files, a view (key, offset, count) follows.
    """

    def resolve(identity: Any) -> Any:
        if not isinstance(identity, tuple) or len(identity) < 4 or not isinstance(identity[0], str | bytes):
            return Stub()
        kind, storage, key = identity[:3]
        if kind not in ("storage", b"storage") or not isinstance(storage, Global) or not isinstance(key, str):
            return Stub()
        dtype, size = _STORAGES.get(storage.name, (excerpt(storage.name, 40), 0))
        if sizes is not None and not size:
            raise CheckpointError(f"the pickle refers to a storage of an unknown type, {dtype}; save the file again")
        if sizes is not None:
            sizes.setdefault(key, size)
        view = identity[5] if len(identity) > 5 else None
        offset = view[1] if isinstance(view, tuple) and len(view) == 3 else 0
        count = identity[4] if sizes is None and len(identity) > 4 else None
        return _Storage(key, dtype, offset, count, lambda: read(key))

    return resolve


def _rebuild_tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """Read calls of torch._utils._rebuild_tensor and _rebuild_tensor_v2: storage, offset, shape, strides and more."""
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, _Storage):
        return unreadable("in a storage that is not in the file")
    layout = Layout.checked(offset, shape, strides)
    within = Layout.checked(storage.offset, (), ())
    layout = Layout(layout.offset + within.offset, layout.shape, layout.strides)
    if storage.dtype not in FLOAT_TYPES:
        return unreadable(storage.dtype, layout.shape)

    def read() -> np.ndarray:
        data = storage.read()
        stored = np.dtype(FLOAT_TYPES[storage.dtype])
        if storage.count is not None and storage.count != len(data) / stored.itemsize:
            raise CheckpointError(
                f"a storage has {len(data)} bytes, but the pickle says {excerpt(storage.count)} values of "
                f"{storage.dtype}; the file is damaged"
            )
        return widen(layout.take(np.frombuffer(data, stored, len(data) // stored.itemsize)), storage.dtype)

    return StoredTensor(storage.dtype, layout.shape, read)


def _rebuild_typed(arguments: tuple[Any, ...]) -> StoredTensor:
    """Read calls of torch._utils._rebuild_tensor_v3, whose types have no storage class and are not supported."""
    named = [argument.name for argument in arguments if isinstance(argument, Global)]
    return unreadable(excerpt(named[-1] if named else "of an unknown type", 40))


def _rebuild_from_type(arguments: tuple[Any, ...]) -> Any:
    """Read calls of torch._tensor._rebuild_from_type_v2: a function, a class, the function's arguments, attributes."""
    function, _, inner = arguments[:3]
    known = _REBUILD.get(function) if isinstance(function, Global) else None
    if known in (None, _rebuild_from_type) or not isinstance(inner, tuple):
        return unreadable("of a class of its own")
    return known(inner)


def _rebuild_ordered_dict(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments:
        raise CheckpointError("the file was written by Python 2; load and save the checkpoint with Python 3")
    return {}


def _refuse(name: str) -> pickles.Rebuild:
    """Return a reader of calls that make tensors of a kind that is not supported."""
    return lambda _: unreadable(name)


_REBUILD: dict[Global, pickles.Rebuild] = {
    Global("collections", "OrderedDict"): _rebuild_ordered_dict,
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _rebuild_typed,
    Global("torch._utils", "_rebuild_parameter"): lambda arguments: arguments[0],
    Global("torch._utils", "_rebuild_parameter_with_state"): lambda arguments: arguments[0],
    Global("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    Global("torch._utils", "_rebuild_qtensor"): _refuse("quantized"),
    Global("torch._utils", "_rebuild_sparse_tensor"): _refuse("sparse"),
    Global("torch._utils", "_rebuild_sparse_csr_tensor"): _refuse("sparse"),
    Global("torch._utils", "_rebuild_nested_tensor"): _refuse("nested"),
    Global("torch._utils", "_rebuild_meta_tensor_no_storage"): _refuse("without values (meta)"),
    Global("torch._utils", "_rebuild_wrapper_subclass"): _refuse("of a class of its own"),
    Global("torch._utils", "_rebuild_device_tensor_from_numpy"): _refuse("of another device"),
    Global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _refuse("of another device"),
}
