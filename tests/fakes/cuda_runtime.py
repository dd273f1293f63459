"""A CUDA driver in memory, under the interface of cuda-python's runtime bindings."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any


class Stream:
    """Work in order, on one GPU; what is captured goes into a graph instead."""

    def __init__(self, gpu: int = 0) -> None:
        self.gpu = gpu
        self.queue: list[Callable[[], None]] = []
        self.total = self.done = 0
        self.captured: list[Callable[[], None]] | None = None
        self.broken = False

    def put(self, work: Callable[[], None]) -> None:
        if self.captured is not None:
            self.captured.append(work)
        else:
            self.queue.append(work)
            self.total += 1

    def drain(self, until: int | None = None) -> None:
        while self.queue and (until is None or self.done < until):
            self.queue.pop(0)()
            self.done += 1


class MemoryRuntime:
    """`cuda.bindings.runtime`: those of its functions that are called here, with its results: a tuple, status first.

    Each thread has a current GPU, at first 0: memory and streams are made on that one, and only its streams take work.
    Device addresses are numbers that no other memory has; host memory that is mapped has one, too. Work waits in its
    stream until that is synchronized. Host memory that is copied must be page-locked, memory that is freed idle, and no
    more is given than `room`.
    """

    class cudaError_t(IntEnum):
        cudaSuccess = 0
        cudaErrorInvalidValue = 1
        cudaErrorMemoryAllocation = 2
        cudaErrorInsufficientDriver = 35
        cudaErrorInvalidDevice = 101
        cudaErrorInvalidResourceHandle = 400
        cudaErrorNotReady = 600
        cudaErrorStreamCaptureUnsupported = 900
        cudaErrorStreamCaptureInvalidated = 901

    class cudaMemcpyKind(IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2
        cudaMemcpyDeviceToDevice = 3

    class cudaStreamCaptureMode(IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    class cudaMemoryType(IntEnum):
        cudaMemoryTypeUnregistered = 0
        cudaMemoryTypeHost = 1
        cudaMemoryTypeDevice = 2
        cudaMemoryTypeManaged = 3

    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0
    cudaHostAllocMapped = 2
    cudaEventDefault = 0
    cudaEventDisableTiming = 2

    #: Simulated time that a copied byte and a run of an engine take, in milliseconds.
    COPY_MS_PER_BYTE, RUN_MS = 1e-6, 5.0

    def __init__(self, room: int = 1 << 30, capability: tuple[int, int] = (8, 9), count: int = 1) -> None:
        self.room, self.capability, self.count = room, capability, count
        self.memory: dict[int, bytearray] = {}
        self.gpus: dict[int, int] = {}  # of each device address that was ever given
        self._current = threading.local()
        self.pinned: dict[int, Any] = {}
        self.mapped: dict[int, int] = {}  # the host address of each device address of page-locked memory
        self.managed: set[int] = set()  # device addresses that tests declare managed
        self.streams: dict[int, Stream] = {1: Stream(), 2: Stream()}
        self.events: dict[Any, tuple[int, int] | None] = {}
        self.milliseconds = 0.0  # the simulated clock
        self.times: dict[Any, float | None] = {}  # of the events that have timing data
        self.graphs: list[Any] = []
        self.executables: list[Any] = []
        self.calls: list[tuple[str, int]] = []
        self.captures_at_all = True
        self.is_integrated = self.maps_host_memory = False
        self._next = 1 << 40

    # -- what tests look at

    @property
    def leaked(self) -> bool:
        return bool(
            self.memory or self.pinned or len(self.streams) > 2 or self.events or self.graphs or self.executables
        )

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def takes_work(self, stream: int) -> bool:
        """Whether this thread's current GPU is the stream's; CUDA's own two are of any."""
        return stream in (1, 2) or self.streams[stream].gpu == self.cudaGetDevice()[1]

    def block(self, address: int, size: int) -> memoryview:
        """Device memory; fails where it is not, or not to its end, allocated."""
        mapped = {there: memoryview(self.pinned[here]).cast("B") for there, here in self.mapped.items()}
        for base, block in {**self.memory, **mapped}.items():
            if base <= address and address + size <= base + len(block):
                return memoryview(block)[address - base : address - base + size]
        raise AssertionError(f"no device memory at {address:#x}, {size} bytes")

    # -- cuda.bindings.runtime

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        if not self.count:
            return self.cudaError_t.cudaErrorInsufficientDriver, None
        return self.cudaError_t.cudaSuccess, self.count

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return self.cudaError_t.cudaSuccess, getattr(self._current, "gpu", 0)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        if device not in range(self.count):
            return (self.cudaError_t.cudaErrorInvalidDevice,)
        self._current.gpu = device
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        major, minor = self.capability
        return self.cudaError_t.cudaSuccess, SimpleNamespace(
            name=b"Memory GPU",
            major=major,
            minor=minor,
            integrated=int(self.is_integrated),
            canMapHostMemory=int(self.maps_host_memory),
        )

    def cudaPointerGetAttributes(self, ptr: int) -> tuple[Any, ...]:
        kinds, found = self.cudaMemoryType, SimpleNamespace(type=0, device=self.cudaGetDevice()[1], devicePointer=0)
        for base, block in self.memory.items():
            if base <= ptr < base + len(block):
                kind = kinds.cudaMemoryTypeManaged if base in self.managed else kinds.cudaMemoryTypeDevice
                found = SimpleNamespace(type=kind, device=self.gpus[base], devicePointer=ptr)
        for there, here in self.mapped.items():
            if there <= ptr < there + len(self.pinned[here]):
                found = SimpleNamespace(type=kinds.cudaMemoryTypeHost, device=found.device, devicePointer=ptr)
        return self.cudaError_t.cudaSuccess, found

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:
        if self._breaks_capture():
            return (self.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.calls.append(("synchronize the GPU", 0))
        for stream in list(self.streams.values()):
            stream.drain()
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return self.cudaError_t.cudaSuccess, self.room - sum(map(len, self.memory.values())), self.room

    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:
        texts = {2: b"out of memory", 35: b"CUDA driver version is insufficient for CUDA runtime version"}
        return self.cudaError_t.cudaSuccess, texts.get(int(error), b"invalid argument")

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        handle = self._number()
        self.streams[handle] = Stream(self.cudaGetDevice()[1])
        return self.cudaError_t.cudaSuccess, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        assert not self.streams.pop(stream).queue, "a stream was destroyed with work in it"
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if self._breaks_capture():
            return (self.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.calls.append(("synchronize", 0))
        self.streams[stream].drain()
        return (self.cudaError_t.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self._breaks_capture():
            return self.cudaError_t.cudaErrorStreamCaptureUnsupported, None
        if size + sum(map(len, self.memory.values())) > self.room:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        self.calls.append(("malloc", size))
        address = self._number()
        self.memory[address] = bytearray(size)
        self.gpus[address] = self.cudaGetDevice()[1]
        return self.cudaError_t.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        assert not any(stream.queue for stream in self.streams.values()), "freed while a stream may still use it"
        self.calls.append(("free", len(self.memory.pop(address))))
        return (self.cudaError_t.cudaSuccess,)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        self.calls.append(("map" if flags == self.cudaHostAllocMapped else "pin", size))
        block = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(block)
        self.pinned[address] = block
        if flags == self.cudaHostAllocMapped:
            assert self.maps_host_memory
            self.mapped[self._number()] = address
        return self.cudaError_t.cudaSuccess, address

    def cudaHostGetDevicePointer(self, pHost: int, flags: int) -> tuple[Any, ...]:
        for there, here in self.mapped.items():
            if here == pHost and not flags:
                return self.cudaError_t.cudaSuccess, there
        return self.cudaError_t.cudaErrorInvalidValue, None

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        self.mapped = {there: here for there, here in self.mapped.items() if here != address}
        self.calls.append(("unpin", len(self.pinned.pop(address))))
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[Any, ...]:
        name = {1: "upload", 2: "download", 3: "copy"}[int(kind)]
        self.calls.append((name, size))

        def work() -> None:
            to = self._host(target, size) if name == "download" else self.block(target, size)
            of = self._host(source, size) if name == "upload" else self.block(source, size)
            to[:] = of
            self.milliseconds += size * self.COPY_MS_PER_BYTE

        self.streams[stream].put(work)
        return (self.cudaError_t.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        event = self._number()
        self.events[event] = None
        if flags != self.cudaEventDisableTiming:
            self.times[event] = None
        return self.cudaError_t.cudaSuccess, event

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:
        if stream not in self.streams or not self.takes_work(stream):
            return (self.cudaError_t.cudaErrorInvalidResourceHandle,)
        if event in self.times:
            self.times[event] = None

            def work() -> None:
                self.times[event] = self.milliseconds

            self.streams[stream].put(work)
        self.events[event] = (stream, self.streams[stream].total)
        return (self.cudaError_t.cudaSuccess,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[Any, ...]:
        times = self.times.get(start), self.times.get(end)
        if times[0] is None or times[1] is None:  # not done, not recorded, or without timing data
            return self.cudaError_t.cudaErrorInvalidResourceHandle, None
        return self.cudaError_t.cudaSuccess, times[1] - times[0]

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any, ...]:
        recorded = self.events[event]
        assert recorded is not None
        if stream not in self.streams:
            return (self.cudaError_t.cudaErrorInvalidResourceHandle,)
        other, until = recorded
        self.calls.append(("wait for", other))
        awaited = self.streams[other]
        self.streams[stream].put(lambda: awaited.drain(until))
        return (self.cudaError_t.cudaSuccess,)

    def cudaEventQuery(self, event: int) -> tuple[Any, ...]:
        other, until = self.events[event]
        is_reached = other not in self.streams or self.streams[other].done >= until
        return (self.cudaError_t.cudaSuccess if is_reached else self.cudaError_t.cudaErrorNotReady,)

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:
        self.calls.append(("synchronize an event", 0))
        other, until = self.events[event]
        self.streams[other].drain(until)
        return (self.cudaError_t.cudaSuccess,)

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:
        del self.events[event]
        self.times.pop(event, None)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        assert mode == self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if not self.captures_at_all:
            return (self.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.streams[stream].captured = []
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        ours = self.streams[stream]
        captured, broken = ours.captured, ours.broken
        ours.captured, ours.broken = None, False
        if broken:
            return self.cudaError_t.cudaErrorStreamCaptureInvalidated, None
        self.calls.append(("capture", 0))
        self.graphs.append(captured)
        return self.cudaError_t.cudaSuccess, captured

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        executable = SimpleNamespace(work=list(graph))
        self.executables.append(executable)
        return self.cudaError_t.cudaSuccess, executable

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        self.graphs = [other for other in self.graphs if other is not graph]
        return (self.cudaError_t.cudaSuccess,)

    def cudaGraphLaunch(self, executable: Any, stream: int) -> tuple[Any, ...]:
        assert executable in self.executables, "a graph was launched after its end"
        if not self.takes_work(stream):
            return (self.cudaError_t.cudaErrorInvalidResourceHandle,)
        self.calls.append(("launch", 0))
        for work in executable.work:
            self.streams[stream].put(work)
        return (self.cudaError_t.cudaSuccess,)

    def cudaGraphExecDestroy(self, executable: Any) -> tuple[Any, ...]:
        assert not any(stream.queue for stream in self.streams.values()), "a graph was destroyed while it ran"
        self.executables.remove(executable)
        return (self.cudaError_t.cudaSuccess,)

    # -- inside

    def _number(self) -> int:
        self._next += 1 << 32
        return self._next

    def _host(self, address: int, size: int) -> memoryview:
        for base, block in self.pinned.items():
            if base <= address and address + size <= base + len(block):
                return memoryview(block).cast("B")[address - base : address - base + size]
        raise AssertionError("host memory that is copied must be page-locked")

    def _breaks_capture(self) -> bool:
        capturing = [stream for stream in self.streams.values() if stream.captured is not None]
        for stream in capturing:
            stream.broken = True
        return bool(capturing)
