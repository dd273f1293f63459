"""A CUDA driver in memory, under the interface of pycuda."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fakes.cuda_runtime import MemoryRuntime


class MemoryPycuda:
    """`pycuda.driver`: those of its names that are used here, over a :class:`MemoryRuntime`. Without a context on the
    stack nearly everything fails, as in pycuda."""

    device_attribute = SimpleNamespace(INTEGRATED="integrated", CAN_MAP_HOST_MEMORY="can map host memory")
    event_flags = SimpleNamespace(DISABLE_TIMING=MemoryRuntime.cudaEventDisableTiming)
    host_alloc_flags = SimpleNamespace(DEVICEMAP=MemoryRuntime.cudaHostAllocMapped)

    class Error(Exception):
        pass

    class MemoryError(Error, MemoryError):
        pass

    class LogicError(Error):
        pass

    def __init__(self, runtime: MemoryRuntime) -> None:
        self.runtime = runtime
        self.ready = False
        self.stack: list[Any] = []
        self.retained = 0
        driver = self

        class Context:
            def __init__(self, number: int) -> None:
                self.number = number

            def push(self) -> None:
                driver.stack.append(self)
                runtime.cudaSetDevice(self.number)

            @staticmethod
            def pop() -> None:
                driver.stack.pop()
                runtime.cudaSetDevice(driver.stack[-1].number if driver.stack else 0)

            def detach(self) -> None:
                driver.retained -= 1

            @staticmethod
            def synchronize() -> None:
                driver.need_context()
                runtime.calls.append(("wait for", 0))
                runtime.cudaDeviceSynchronize()

        class Device:
            def __init__(self, number: int) -> None:
                assert driver.ready
                assert number in range(runtime.count)
                self.number = number

            @staticmethod
            def count() -> int:
                return runtime.count

            def name(self) -> str:
                return "Memory Jetson"

            def compute_capability(self) -> tuple[int, int]:
                return runtime.capability

            def get_attribute(self, attribute: str) -> int:
                there = {"integrated": runtime.is_integrated, "can map host memory": runtime.maps_host_memory}
                return int(there[attribute])

            def retain_primary_context(self) -> Context:
                driver.retained += 1
                return Context(self.number)

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                driver.need_context()
                _, self.handle = runtime.cudaStreamCreateWithFlags(flags)

            def synchronize(self) -> None:
                driver.need_context()
                runtime.cudaStreamSynchronize(self.handle)

            def __del__(self) -> None:
                runtime.cudaStreamDestroy(self.handle)

        class Event:
            def __init__(self, flags: int = 0) -> None:
                driver.need_context()
                _, self.handle = runtime.cudaEventCreateWithFlags(flags)

            def record(self, stream: Stream) -> Event:
                driver.need_context()
                assert isinstance(stream, Stream)  # a number is no stream of pycuda's
                runtime.cudaEventRecord(self.handle, stream.handle)
                return self

            def query(self) -> bool:
                driver.need_context()
                return not runtime.cudaEventQuery(self.handle)[0]

            def synchronize(self) -> None:
                driver.need_context()
                runtime.cudaEventSynchronize(self.handle)

            def time_since(self, earlier: Event) -> float:
                driver.need_context()
                status, milliseconds = runtime.cudaEventElapsedTime(earlier.handle, self.handle)
                if status:
                    raise driver.LogicError("cuEventElapsedTime failed: invalid resource handle")
                return milliseconds

            def __del__(self) -> None:
                runtime.cudaEventDestroy(self.handle)

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event

    def init(self, flags: int = 0) -> None:
        self.ready = True

    def need_context(self) -> None:
        if not self.stack:
            raise self.LogicError("cuCtx failed: invalid device context")

    def mem_get_info(self) -> tuple[int, int]:
        self.need_context()
        return self.runtime.cudaMemGetInfo()[1:]

    def mem_alloc(self, size: int) -> Any:
        self.need_context()
        status, address = self.runtime.cudaMalloc(size)
        if status:
            raise self.MemoryError("cuMemAlloc failed: out of memory")
        runtime = self.runtime

        class DeviceAllocation:
            def __int__(self) -> int:
                return address

            def free(self) -> None:
                runtime.cudaFree(address)

        return DeviceAllocation()

    def pagelocked_empty(self, shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        self.need_context()
        runtime, (_, address) = self.runtime, self.runtime.cudaHostAlloc(shape, mem_flags)

        class PagelockedHostAllocation:
            __array_interface__ = {"shape": (shape,), "typestr": "|u1", "data": (address, False), "version": 3}  # noqa: RUF012

            def get_device_pointer(self) -> int:
                status, there = runtime.cudaHostGetDevicePointer(address, 0)
                assert not status
                return there

            def free(self) -> None:
                runtime.cudaFreeHost(address)

        array = np.asarray(PagelockedHostAllocation())
        assert array.dtype == dtype
        return array

    def memcpy_htod_async(self, target: int, source: np.ndarray, stream: Any) -> None:
        self.need_context()
        self.runtime.cudaMemcpyAsync(target, source.ctypes.data, source.nbytes, 1, stream.handle)

    def memcpy_dtoh_async(self, target: np.ndarray, source: int, stream: Any) -> None:
        self.need_context()
        self.runtime.cudaMemcpyAsync(target.ctypes.data, source, target.nbytes, 2, stream.handle)

    def memcpy_dtod_async(self, target: int, source: int, size: int, stream: Any) -> None:
        self.need_context()
        self.runtime.cudaMemcpyAsync(target, source, size, 3, stream.handle)
