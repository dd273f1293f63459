"""The few CUDA calls that a TensorRT runner makes, behind one small class (cuda-python's runtime bindings)."""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require


class Cuda:
    """Device memory, copies and one stream. Every failure is an EngineError that says what CUDA said."""

    def __init__(self) -> None:
        """Raises EngineError where there is no driver, no GPU or no cuda-python."""
        runtime = require("cuda.bindings.runtime", "cuda-python", "pip install cuda-python")
        self._api = runtime
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess or not count:
            raise EngineError(f"no NVIDIA driver or GPU here ({self._message(status)})")
        self.stream = int(self._call("cudaStreamCreate"))

    def allocate(self, size: int) -> int:
        """Bytes of device memory; the address."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Host to device, in the stream; `array` must stay as it is until :meth:`synchronize`."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def download(self, array: np.ndarray, address: int) -> None:
        """Device to host, in the stream; `array` is ready after :meth:`synchronize`."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost")

    def synchronize(self) -> None:
        """Wait for everything in the stream."""
        self._call("cudaStreamSynchronize", self.stream)

    def close(self) -> None:
        """Give the stream back; nothing may be asked of this object afterwards."""
        self._call("cudaStreamDestroy", self.stream)

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._api.cudaMemcpyKind, kind), self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._api, name)(*arguments)
        if status != self._api.cudaError_t.cudaSuccess:
            raise EngineError(f"{name} failed: {self._message(status)}")
        return results[0] if results else None

    def _message(self, status: Any) -> str:
        text = self._api.cudaGetErrorString(status)[1]
        return text.decode() if isinstance(text, bytes) else str(text)
