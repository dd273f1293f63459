"""Arrays that lie in device memory already: of pycuda, CuPy, PyTorch and all others with `__cuda_array_interface__`."""

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
    """An array in device memory, in C order without gaps. `stream` may still be writing it (None: nothing is)."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def aligned(self) -> bool:
        return self.address % ALIGNMENT == 0


def on_device(array: object) -> bool:
    """Whether an array offers its memory on a GPU."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


def device_array(name: str, array: Any) -> DeviceTensor:
    """Read the interface (versions 0 to 3). Raises EngineError for an array that is not in C order without gaps."""
    interface = array.__cuda_array_interface__
    shape, dtype = tuple(map(int, interface["shape"])), np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and not _in_order(shape, tuple(strides), dtype.itemsize):
        raise EngineError(
            f"{name} has strides {list(strides)} in device memory, C order without gaps is expected; "
            "make it contiguous first"
        )
    # Before version 3 nothing says which stream it is; PyTorch, which is one of these, works in the default one.
    stream = interface.get("stream") if interface["version"] >= 3 else _LEGACY_DEFAULT
    if stream == 0:
        raise EngineError(
            f"{name} names stream 0 in its __cuda_array_interface__, which the interface rules out; use 1"
        )
    return DeviceTensor(int(interface["data"][0]), shape, dtype, stream)


def _in_order(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> bool:
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != step:
            return False
        step *= side
    return True
