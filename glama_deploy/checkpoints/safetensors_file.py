"""Read safetensors files. The library checks the header, and values are read at the header's offsets."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from glama_deploy.checkpoints.stored_tensors import FLOAT_TYPES, MAX_NAME_CHARACTERS, StoredTensor, unreadable, widen
from glama_deploy.errors import CheckpointError
from glama_deploy.text.excerpts import excerpt, first_line

#: Largest header. A checkpoint's header has some 100 kilobytes. The library itself reads up to 100 MB.
MAX_HEADER_BYTES = 8 << 20

#: A file with a larger offset is damaged, not truncated.
MAX_FILE_BYTES = 1 << 48

#: torch's names of the supported types, by the names of safetensors.
_TYPES = {"F32": "float32", "F64": "float64", "F16": "float16", "BF16": "bfloat16"}


def read(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read a safetensors file.

    Args:
        path: The file.

    Returns:
        The tensors by name, whose values are read later, and the metadata.

    Raises:
        CheckpointError: The file is damaged or truncated. The message gives the found and the expected size.
    """
    size = path.stat().st_size
    header, start = _read_header(path, size)
    ends = [entry["data_offsets"][1] for entry in header.values() if _has_offsets(entry)]
    expected = start + max(ends, default=0)
    if size < expected <= MAX_FILE_BYTES:
        raise CheckpointError(
            f"{path} is truncated: {size} bytes found, {expected} expected; fetch or save the file again"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names = list(file.keys())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is a damaged safetensors file ({first_line(error)}); fetch or save the file again"
        ) from error
    for name in names:
        if len(name) > MAX_NAME_CHARACTERS:
            raise CheckpointError(
                f"{path}: the tensor name {excerpt(name, 40)} has {len(name)} characters; at most "
                f"{MAX_NAME_CHARACTERS} are supported"
            )
    return {name: _tensor(path, start, header[name]) for name in names}, metadata


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Return the header, and the offset of the tensors' bytes in the file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            raise CheckpointError(
                f"{path} is truncated: {size} bytes found, the header alone has {8 + length}; fetch or save the file "
                "again"
            )
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is a damaged safetensors file (its header is not JSON); fetch the file again"
            ) from error
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path} is a damaged safetensors file (its header is not a JSON object); fetch the file again"
        )
    return header, 8 + length


def _has_offsets(entry: Any) -> bool:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    return isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)


def _tensor(path: Path, start: int, entry: dict[str, Any]) -> StoredTensor:
    """Return the tensor of an entry of the header, which the library has checked."""
    shape = tuple(entry["shape"])
    dtype = _TYPES.get(entry["dtype"])
    if dtype is None:
        return unreadable(excerpt(entry["dtype"], 20), shape)
    begin, end = entry["data_offsets"]
    return StoredTensor(dtype, shape, _reader(path, start + begin, end - begin, dtype, shape))


def _reader(path: Path, begin: int, length: int, dtype: str, shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    def read_values() -> np.ndarray:
        try:
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read(length)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from error
        if len(data) != math.prod(shape) * np.dtype(FLOAT_TYPES[dtype]).itemsize:
            raise CheckpointError(f"{path} was truncated while it was read; fetch or save the file again")
        return widen(np.frombuffer(data, FLOAT_TYPES[dtype]), dtype).reshape(shape)

    return read_values
