"""Arrays in GPU memory: those of pycuda, CuPy, PyTorch and all packages with `__cuda_array_interface__` or DLPack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.exchange import dlpack
from glama_deploy.runtime.cuda.exchange.streams import LEGACY_DEFAULT

#: TensorRT reads tensors only from addresses that are multiples of this (NvInferRuntime.h, setTensorAddress).
ALIGNMENT = 256

#: The first version of `__cuda_array_interface__` that names a stream. PyTorch has an older one.
_VERSION_WITH_STREAM = 3


@dataclass(frozen=True)
class DeviceTensor:
    """An array in device memory, in C order without gaps.

    Attributes:
        address: The device address of the first element.
        shape: The array's shape.
        dtype: The type of the elements.
        stream: The handle of a stream that may still use the array; None where no stream does.
        is_read_only: Whether the array must not be written.
        owner: Keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    is_read_only: bool = False
    owner: object = None

    @property
    def nbytes(self) -> int:
        """The array's size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def aligned(self) -> bool:
        """Whether TensorRT can use the array at its address."""
        return self.address % ALIGNMENT == 0

    def overlaps(self, other: DeviceTensor) -> bool:
        """Return whether two arrays share memory.

        Args:
            other: The other array.

        Returns:
            True if at least one byte belongs to both.
        """
        return self.address < other.address + other.nbytes and other.address < self.address + self.nbytes


def is_on_device(array: object) -> bool:
    """Return whether an array is in device memory.

    Args:
        array: Any object.

    Returns:
        True if the object has `__cuda_array_interface__`, or says through DLPack that it lies on a GPU of NVIDIA's.
    """
    if isinstance(array, np.ndarray):
        return False
    try:
        if hasattr(array, "__cuda_array_interface__"):
            return True
    except RuntimeError:  # of PyTorch's tensors on a GPU that require a gradient; to read the tensor says so
        return True
    device = dlpack.find_device(array)
    return device is not None and device[0] in (dlpack.CUDA, dlpack.CUDA_MANAGED)


def find_shape(array: Any) -> tuple[int, ...]:
    """Find the shape of an array in device memory, without reading the array.

    Args:
        array: The array.

    Returns:
        The shape; empty where the array does not tell.
    """
    shape = getattr(array, "shape", None)
    if shape is None and hasattr(array, "__cuda_array_interface__"):
        shape = array.__cuda_array_interface__["shape"]
    return tuple(map(int, shape or ()))


def read_device_array(name: str, array: Any, stream: int = LEGACY_DEFAULT) -> DeviceTensor:
    """Read an array's `__cuda_array_interface__`, versions 0 to 3, or its `__dlpack__`.

    DLPack is preferred to an interface that does not name a stream. The array's GPU must be current.

    Args:
        name: The array's name in error messages.
        array: The array, whose memory is not copied.
        stream: The handle of the stream that waits for the array's package where DLPack is read.

    Returns:
        The array's address, shape, type and stream.

    Raises:
        EngineError: the array has gaps, is not in C order or does not lie on a GPU, its package refuses, or its stream
            is invalid.
    """
    has_dlpack = callable(getattr(array, "__dlpack__", None))
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
    except RuntimeError:  # of PyTorch's tensors that require a gradient; DLPack says so
        interface = None
    if interface is None or (has_dlpack and interface["version"] < _VERSION_WITH_STREAM):
        return _read_dlpack(name, array, stream)
    return _read_interface(name, array, interface)


def _read_dlpack(name: str, array: Any, stream: int) -> DeviceTensor:
    kind, _ = dlpack.find_device(array) or (0, 0)
    if kind not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        raise EngineError(f"{name} lies in memory of DLPack's kind {kind}, and not on a GPU of NVIDIA's; copy it there")
    borrowed = dlpack.borrow(name, array, stream)
    if borrowed.strides is not None:
        _check_order(name, borrowed.shape, borrowed.strides, borrowed.dtype)
    return DeviceTensor(
        borrowed.address, borrowed.shape, borrowed.dtype, stream, borrowed.is_read_only, (array, borrowed.loan)
    )


def _read_interface(name: str, array: Any, interface: dict[str, Any]) -> DeviceTensor:
    shape, dtype = tuple(map(int, interface["shape"])), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        _check_order(name, shape, tuple(strides), dtype)
    # Versions below 3 do not name a stream; their packages work in the default stream.
    has_stream = interface["version"] >= _VERSION_WITH_STREAM
    stream = interface.get("stream") if has_stream else LEGACY_DEFAULT
    if stream == 0:
        raise EngineError(
            f"{name} names stream 0 in its __cuda_array_interface__, which the interface rules out; use 1"
        )
    address, is_read_only = interface["data"]
    return DeviceTensor(int(address), shape, dtype, stream, bool(is_read_only), array)


def _check_order(name: str, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise EngineError if an array has gaps or is not in C order."""
    step = dtype.itemsize
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != step:
            raise EngineError(
                f"{name} has strides {list(strides)} in device memory, C order without gaps is expected; "
                "make it contiguous first"
            )
        step *= side
