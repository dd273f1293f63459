"""Arrays in device memory: those of pycuda, CuPy, PyTorch and all packages with `__cuda_array_interface__`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError

#: TensorRT reads tensors only from addresses that are multiples of this (NvInferRuntime.h, setTensorAddress).
ALIGNMENT = 256

#: CUDA's legacy default stream, as `__cuda_array_interface__` and the CUDA runtime number it.
_LEGACY_DEFAULT = 1


@dataclass(frozen=True)
class DeviceTensor:
    """An array in device memory, in C order without gaps.

    Attributes:
        address: The device address of the first element.
        shape: The array's shape.
        dtype: The type of the elements.
        stream: The handle of a stream that may still write the array; None where no stream does.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None

    @property
    def nbytes(self) -> int:
        """The array's size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def aligned(self) -> bool:
        """Whether TensorRT can read the array at its address."""
        return self.address % ALIGNMENT == 0


def is_on_device(array: object) -> bool:
    """Return whether an array is in device memory.

    Args:
        array: Any object.

    Returns:
        True if the object has `__cuda_array_interface__`.
    """
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


def read_device_array(name: str, array: Any) -> DeviceTensor:
    """Read an array's `__cuda_array_interface__`, versions 0 to 3.

    Args:
        name: The array's name in error messages.
        array: The array, whose memory is not copied.

    Returns:
        The array's address, shape, type and stream.

    Raises:
        EngineError: the array has gaps or is not in C order, or its stream is invalid.
    """
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(map(int, interface["shape"])), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and not _is_contiguous(shape, tuple(strides), dtype.itemsize):
        raise EngineError(
            f"{name} has strides {list(strides)} in device memory, C order without gaps is expected; "
            "make it contiguous first"
        )
    # Versions below 3 do not name a stream. PyTorch, which has such a version, works in the default stream.
    stream = interface.get("stream") if interface["version"] >= 3 else _LEGACY_DEFAULT
    if stream == 0:
        raise EngineError(
            f"{name} names stream 0 in its __cuda_array_interface__, which the interface rules out; use 1"
        )
    return DeviceTensor(int(interface["data"][0]), shape, dtype, stream)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> bool:
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != step:
            return False
        step *= side
    return True
