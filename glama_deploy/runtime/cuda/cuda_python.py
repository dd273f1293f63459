"""A device through cuda-python's runtime bindings."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.cuda.driver import find_driver_version, format_remedy
from glama_deploy.runtime.cuda.interface import Graph, Mark, OutOfMemory
from glama_deploy.runtime.devices import check_gpu_index


class CudaPythonDevice:
    """A :class:`glama_deploy.runtime.cuda.interface.Device`: one GPU, without an index the current one.

    All threads may use it.
    """

    def __init__(self, api: Any = None, index: int | None = None) -> None:
        """Open the GPU and make a stream.

        Args:
            api: The module `cuda.bindings.runtime`, or a fake of it. None: import the module.
            index: The GPU's number, from 0; None: the one that is current now.

        Raises:
            EngineError: cuda-python is not installed or too new for the driver, or there is no driver or no such GPU.
        """
        self._api = api or require("cuda.bindings.runtime", "cuda-python", "pip install cuda-python")
        status, count = self._api.cudaGetDeviceCount()
        if status != self._api.cudaError_t.cudaSuccess or not count:
            raise EngineError(self._explain_no_gpu(status))
        check_gpu_index(index, count)
        self._gpu = int(self._call("cudaGetDevice")) if index is None else index
        with self.active():
            # Work in CUDA's default stream would wait for an ordinary stream, and fail while that one is captured.
            self.stream = int(self._call("cudaStreamCreateWithFlags", self._api.cudaStreamNonBlocking))
        self._event: Any = None
        self._timing_events: list[Any] = []

    def name(self) -> str:
        text: bytes = self._properties().name
        return text.decode().rstrip("\0")

    def compute_capability(self) -> tuple[int, int]:
        properties = self._properties()
        return properties.major, properties.minor

    def is_integrated(self) -> bool:
        return bool(self._properties().integrated)

    @property
    def gpu(self) -> int:
        return self._gpu

    def can_map(self) -> bool:
        return bool(self._properties().canMapHostMemory)

    def find_gpu(self, address: int) -> int | None:
        attributes, kinds = self._call("cudaPointerGetAttributes", address), self._api.cudaMemoryType
        if attributes.type == kinds.cudaMemoryTypeDevice:
            return int(attributes.device)
        if attributes.type == kinds.cudaMemoryTypeManaged or attributes.devicePointer:
            return None
        raise EngineError(f"CUDA knows no memory at {address:#x}")

    def free_memory(self) -> int:
        return int(self._call("cudaMemGetInfo"))  # its second result, all memory, is not needed

    @contextmanager
    def active(self) -> Iterator[None]:
        current = int(self._call("cudaGetDevice"))  # each thread has one of its own
        if current == self._gpu:
            yield
            return
        self._call("cudaSetDevice", self._gpu)
        try:
            yield
        finally:
            self._call("cudaSetDevice", current)

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def pin(self, size: int, *, mapped: bool = False) -> np.ndarray:
        flags = self._api.cudaHostAllocMapped if mapped else self._api.cudaHostAllocDefault
        address = int(self._call("cudaHostAlloc", size, flags))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def find_address(self, block: np.ndarray) -> int:
        return int(self._call("cudaHostGetDevicePointer", block.ctypes.data, 0))

    def unpin(self, block: np.ndarray) -> None:
        self._call("cudaFreeHost", block.ctypes.data)

    def upload(self, address: int, block: np.ndarray) -> None:
        self._copy(address, block.ctypes.data, block.nbytes, "cudaMemcpyHostToDevice")

    def download(self, block: np.ndarray, address: int) -> None:
        self._copy(block.ctypes.data, address, block.nbytes, "cudaMemcpyDeviceToHost")

    def copy(self, target: int, source: int, size: int) -> None:
        self._copy(target, source, size, "cudaMemcpyDeviceToDevice")

    def wait_for(self, stream: int) -> None:
        if self._event is None:
            self._event = self._call("cudaEventCreateWithFlags", self._api.cudaEventDisableTiming)
        self._call("cudaEventRecord", self._event, stream)
        self._call("cudaStreamWaitEvent", self.stream, self._event, 0)

    def mark(self) -> Mark:
        return _CudaMark(self)

    def capture(self, work: Callable[[], bool]) -> Graph | None:
        success = self._api.cudaError_t.cudaSuccess
        # Thread-local: other threads may allocate meanwhile; this one must not.
        (status,) = self._api.cudaStreamBeginCapture(
            self.stream, self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        if status != success:
            return None
        done = False
        try:
            done = work()
        finally:
            status, graph = self._api.cudaStreamEndCapture(self.stream)
        if status != success:
            return None
        status, executable = self._api.cudaGraphInstantiate(graph, 0) if done else (None, None)
        self._call("cudaGraphDestroy", graph)
        return _CudaGraph(self, executable) if status == success else None

    def make_event(self) -> Any:
        event = self._call("cudaEventCreateWithFlags", self._api.cudaEventDefault)
        self._timing_events.append(event)
        return event

    def record(self, event: Any) -> None:
        self._call("cudaEventRecord", event, self.stream)

    def measure_seconds(self, start: Any, end: Any) -> float:
        return float(self._call("cudaEventElapsedTime", start, end)) / 1000  # CUDA's unit is the millisecond

    def synchronize(self) -> None:
        self._call("cudaStreamSynchronize", self.stream)

    def synchronize_gpu(self) -> None:
        self._call("cudaDeviceSynchronize")

    def close(self) -> None:
        with self.active():
            for event in [*self._timing_events, *([self._event] if self._event is not None else [])]:
                self._call("cudaEventDestroy", event)
            self._call("cudaStreamDestroy", self.stream)

    def _explain_no_gpu(self, status: Any) -> str:
        """Return the message for a CUDA runtime that counts no GPU.

        CUDA reports a driver that is too old and a driver that is missing as the same error.
        """
        driver = find_driver_version()
        if status == self._api.cudaError_t.cudaErrorInsufficientDriver and driver is not None:
            supports = ".".join(map(str, driver))
            return (
                f"the NVIDIA driver supports CUDA {supports} and is too old for the installed cuda-python "
                f"{_find_version()}; {format_remedy(driver)}"
            )
        return f"no NVIDIA driver or GPU here ({self._get_message(status)})"

    def _properties(self) -> Any:
        return self._call("cudaGetDeviceProperties", self._gpu)

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        self._call("cudaMemcpyAsync", target, source, size, getattr(self._api.cudaMemcpyKind, kind), self.stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._api, name)(*arguments)
        if status == self._api.cudaError_t.cudaErrorMemoryAllocation:
            raise OutOfMemory(f"{name} failed: {self._get_message(status)}")
        if status != self._api.cudaError_t.cudaSuccess:
            raise EngineError(f"{name} failed: {self._get_message(status)}")
        return results[0] if results else None

    def _get_message(self, status: Any) -> str:
        text = self._api.cudaGetErrorString(status)[1]
        return text.decode() if isinstance(text, bytes) else str(text)


def _find_version() -> str:
    """Return the version of cuda-python, of which cuda-bindings is the part that is used here; empty if unknown."""
    for name in ("cuda-bindings", "cuda-python"):
        with suppress(PackageNotFoundError):
            return version(name)
    return ""


class _CudaGraph:
    """A :class:`glama_deploy.runtime.cuda.interface.Graph` of work from a device's stream."""

    def __init__(self, device: CudaPythonDevice, executable: Any) -> None:
        """Keep a graph that can be launched.

        Args:
            device: The device whose stream the graph runs in.
            executable: CUDA's `cudaGraphExec_t`.
        """
        self._device, self._executable = device, executable

    def launch(self) -> None:
        self._device._call("cudaGraphLaunch", self._executable, self._device.stream)

    def discard(self) -> None:
        self._device._call("cudaGraphExecDestroy", self._executable)


class _CudaMark:
    """A :class:`glama_deploy.runtime.cuda.interface.Mark` of a device's stream: an event."""

    def __init__(self, device: CudaPythonDevice) -> None:
        """Record an event in a device's stream.

        Args:
            device: The device, which is current.
        """
        self._device, api = device, device._api
        self._event = device._call("cudaEventCreateWithFlags", api.cudaEventDisableTiming)
        # The status is not read: where CUDA has ended, its events are gone.
        weakref.finalize(self, api.cudaEventDestroy, self._event)
        device._call("cudaEventRecord", self._event, device.stream)

    def is_reached(self) -> bool:
        errors = self._device._api.cudaError_t
        (status,) = self._device._api.cudaEventQuery(self._event)
        if status not in (errors.cudaSuccess, errors.cudaErrorNotReady):
            raise EngineError(f"cudaEventQuery failed: {self._device._get_message(status)}")
        return bool(status == errors.cudaSuccess)

    def wait(self) -> None:
        self._device._call("cudaEventSynchronize", self._event)

    def hold(self, stream: int) -> None:
        with self._device.active():  # CUDA's two default streams are those of the current GPU
            self._device._call("cudaStreamWaitEvent", stream, self._event, 0)
