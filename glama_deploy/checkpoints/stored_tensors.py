"""Tensors in a file with a known type and shape, whose values are read on demand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glama_deploy.errors import CheckpointError

#: Supported types of parameters, and the NumPy types that read them. NumPy does not support bfloat16, which is read as
#: integers and widened to float32.
FLOAT_TYPES = {"float32": "<f4", "float64": "<f8", "float16": "<f2", "bfloat16": "<u2"}

#: Largest number of a tensor's dimensions.
MAX_DIMENSIONS = 8

#: Longest name of a tensor, including the names of the objects that contain the tensor.
MAX_NAME_CHARACTERS = 512

#: Largest extent, stride or offset of a tensor, in elements.
MAX_EXTENT = 1 << 48


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read yet.

    Attributes:
        dtype: torch's name of the element type, such as `float32`, or the reason why the tensor is not supported, such
            as `quantized`.
        shape: The extents.
        read: Returns the values in the type of the file, with bfloat16 widened to float32. The array may be read-only.
            Raises CheckpointError where the data is damaged.
    """

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def unreadable(dtype: str, shape: tuple[int, ...] = ()) -> StoredTensor:
    """Describe a tensor that is not supported.

    Args:
        dtype: The type of the tensor, for messages.
        shape: The extents, if they are known.

    Returns:
        A tensor whose `read` raises CheckpointError.
    """

    def refuse() -> np.ndarray:
        raise CheckpointError(f"a tensor is {dtype}; {', '.join(FLOAT_TYPES)} are supported")

    return StoredTensor(dtype, shape, refuse)


def widen(values: np.ndarray, dtype: str) -> np.ndarray:
    """Widen bfloat16 to float32.

    Args:
        values: Values of the type `FLOAT_TYPES[dtype]`.
        dtype: torch's name of the type.

    Returns:
        float32 where `dtype` is bfloat16, otherwise `values`.
    """
    return (values.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else values


@dataclass(frozen=True)
class Layout:
    """The positions of a tensor's elements in its storage.

    Attributes:
        offset: Position of the first element.
        shape: The extents.
        strides: Distance of neighbours along each dimension, in elements.
    """

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def checked(cls, offset: object, shape: object, strides: object) -> Layout:
        """Check the layout in a file.

        Args:
            offset: An integer from 0 to `MAX_EXTENT`.
            shape: A tuple of such integers.
            strides: A tuple of as many such integers.

        Returns:
            The layout.

        Raises:
            CheckpointError: An argument has another type or range.
        """
        for part, values in (("offset", (offset,)), ("shape", shape), ("strides", strides)):
            if not isinstance(values, tuple) or not all(_is_extent(value) for value in values):
                raise CheckpointError(
                    f"a tensor's {part} does not consist of integers from 0 to 2**48; the file is damaged"
                )
        assert isinstance(offset, int)
        assert isinstance(shape, tuple)
        assert isinstance(strides, tuple)
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise CheckpointError(
                f"a tensor has {len(shape)} extents and {len(strides)} strides; equal numbers of at most "
                f"{MAX_DIMENSIONS} are expected: the file is damaged"
            )
        return cls(offset, shape, strides)

    def take(self, storage: np.ndarray) -> np.ndarray:
        """Return the tensor's values in a storage.

        Args:
            storage: 1-D array.

        Returns:
            A read-only view of the storage.

        Raises:
            CheckpointError: The tensor reaches past its storage, or has more values than its storage.
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
