"""CUDA through pycuda, which is what a Jetson often has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.cuda.interface import OutOfMemory

#: CU_STREAM_NON_BLOCKING, which pycuda has no name for: see :class:`glama_deploy.runtime.cuda.cuda_python.Cuda`.
_NON_BLOCKING = 1


class PyCuda:
    """The first GPU, in its primary context, which TensorRT uses too.

    See :class:`glama_deploy.runtime.cuda.interface.Device`.

    pycuda has no CUDA graphs, and no way to name another package's stream.
    """

    def __init__(self, driver: Any = None) -> None:
        """`driver`: the module `pycuda.driver`. Raises EngineError where there is no driver, GPU or pycuda."""
        self._driver = driver or require("pycuda.driver", "pycuda", "pip install pycuda")
        try:
            self._driver.init()
            count = self._driver.Device.count()
        except self._driver.Error as error:
            raise EngineError(f"no NVIDIA driver or GPU here ({_line(error)})") from error
        if not count:
            raise EngineError("no NVIDIA driver or GPU here (pycuda counts none)")
        with self._explained():
            self._device = self._driver.Device(0)
            self._context = self._device.retain_primary_context()
        with self.active(), self._explained():
            self._stream = self._driver.Stream(_NON_BLOCKING)
        self.stream: int = self._stream.handle
        self._allocations: dict[int, Any] = {}

    def name(self) -> str:
        return str(self._device.name())

    def compute_capability(self) -> tuple[int, int]:
        major, minor = self._device.compute_capability()
        return major, minor

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._explained():
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size: int) -> int:
        with self._explained():
            allocation = self._driver.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        with self._explained():
            self._allocations.pop(address).free()

    def pin(self, size: int) -> np.ndarray:
        with self._explained():
            block: np.ndarray = self._driver.pagelocked_empty(size, np.uint8)
        return block

    def unpin(self, block: np.ndarray) -> None:
        allocation: Any = block.base  # what pycuda keeps the memory by
        with self._explained():
            allocation.free()

    def upload(self, address: int, block: np.ndarray) -> None:
        with self._explained():
            self._driver.memcpy_htod_async(address, block, self._stream)

    def download(self, block: np.ndarray, address: int) -> None:
        with self._explained():
            self._driver.memcpy_dtoh_async(block, address, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        with self._explained():
            self._driver.memcpy_dtod_async(target, source, size, self._stream)

    def wait_for(self, stream: int) -> None:
        with self._explained():
            self._driver.Context.synchronize()  # that stream among all others

    def capture(self, work: Callable[[], bool]) -> None:
        """pycuda has no CUDA graphs."""

    def synchronize(self) -> None:
        with self._explained():
            self._stream.synchronize()

    def close(self) -> None:
        with self.active(), self._explained():
            del self._stream  # pycuda destroys it with its last reference
        self._context.detach()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """pycuda's exceptions as ours."""
        try:
            yield
        except self._driver.MemoryError as error:
            raise OutOfMemory(_line(error)) from error
        except self._driver.Error as error:
            raise EngineError(_line(error)) from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
