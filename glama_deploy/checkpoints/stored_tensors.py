"""A tensor in a file: its type and shape are known, its values are read when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glama_deploy.errors import CheckpointError

#: The types that parameters may have, and how NumPy reads them. NumPy has no bfloat16: its bits are widened.
FLOAT_TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2"}

MAX_DIMENSIONS = 8
#: Of a tensor's whole name, with the names of what holds the tensor.
MAX_NAME_CHARACTERS = 512
#: No side and no offset of a tensor is larger.
MAX_EXTENT = 1 << 48


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read yet.

    Attributes:
        dtype: torch's name of the element type, such as `float32`, or what the tensor is instead, such as `quantized`.
        shape: the extents.
        read: return the values in the type of the file (bfloat16 widened to float32), perhaps as a view that cannot be
            written to. Raises CheckpointError.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def unreadable(dtype: str, shape: tuple[int, ...] = ()) -> StoredTensor:
    """Return a tensor of a type that is not supported: it has a name in the file, but its values cannot be read."""

    def refuse() -> np.ndarray:
        raise CheckpointError(f"a tensor is {dtype}; {', '.join(FLOAT_TYPES)} are supported")

    return StoredTensor(dtype, shape, refuse)


def widen(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return values that were read as `FLOAT_TYPES[dtype]`; those of bfloat16, which are bits so far, as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else values


@dataclass(frozen=True)
class Layout:
    """Where a tensor's elements lie in its storage, in elements."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def checked(cls, offset: object, shape: object, strides: object) -> Layout:
        """Return the layout that a file states.

        Raises:
            CheckpointError: not one integer, and two tuples of as many integers, each from 0 to `MAX_EXTENT`.
        """
        for part, values in (("offset", (offset,)), ("shape", shape), ("strides", strides)):
            if not isinstance(values, tuple) or not all(_is_extent(value) for value in values):
                raise CheckpointError(f"a tensor's {part} is not made of integers from 0 upwards; the file is damaged")
        assert isinstance(offset, int)
        assert isinstance(shape, tuple)
        assert isinstance(strides, tuple)
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise CheckpointError(
                f"a tensor has {len(shape)} extents and {len(strides)} strides; the file is damaged "
                f"(at most {MAX_DIMENSIONS} of each, and as many of one as of the other)"
            )
        return cls(offset, shape, strides)

    def take(self, storage: np.ndarray) -> np.ndarray:
        """Return a view of a 1-D storage: the tensor's values, never more than the storage holds.

        Raises:
            CheckpointError: the tensor reaches past its storage, or repeats the storage's values.
        """
        if 0 in self.shape:
            return np.empty(self.shape, storage.dtype)
        last = self.offset + sum((extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True))
        if last >= storage.size:
            raise CheckpointError("a tensor reaches past its storage; the file is damaged")
        if math.prod(self.shape) > storage.size:
            raise CheckpointError("a tensor has more values than its storage; the file is damaged")
        steps = tuple(stride * storage.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, steps, writeable=False)


def _is_extent(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_EXTENT
