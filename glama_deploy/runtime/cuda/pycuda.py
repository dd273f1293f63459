"""A device through pycuda, for machines that have pycuda and no cuda-python that fits their driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import require
from glama_deploy.runtime.cuda.interface import Mark, OutOfMemory
from glama_deploy.runtime.devices import check_gpu_index

#: CUDA's flag CU_STREAM_NON_BLOCKING, which pycuda does not name. :mod:`.cuda_python` says why the stream needs it.
_STREAM_NON_BLOCKING = 1


class PyCudaDevice:
    """A :class:`glama_deploy.runtime.cuda.interface.Device`: one GPU, in the primary context that TensorRT uses.

    pycuda does not support CUDA graphs, and does not tell which GPU has an address. It cannot name another package's
    stream: where that stream would wait, or be waited for, the host waits instead.
    """

    def __init__(self, driver: Any = None, index: int | None = None) -> None:
        """Open the GPU and make a stream.

        Args:
            driver: The module `pycuda.driver`, or a fake of it. None: import the module.
            index: The GPU's number, from 0; None: the first.

        Raises:
            EngineError: pycuda is not installed, or there is no driver or no such GPU.
        """
        self._driver = driver or require("pycuda.driver", "pycuda", "pip install pycuda")
        try:
            self._driver.init()
            count = self._driver.Device.count()
        except self._driver.Error as error:
            raise EngineError(f"no NVIDIA driver or GPU here ({_get_first_line(error)})") from error
        if not count:
            raise EngineError("no NVIDIA driver or GPU here (pycuda counts none)")
        check_gpu_index(index, count)
        self._gpu = index or 0
        with self._translated_errors():
            self._device = self._driver.Device(self._gpu)
            self._context = self._device.retain_primary_context()
        with self.active(), self._translated_errors():
            self._stream = self._driver.Stream(_STREAM_NON_BLOCKING)
        self.stream: int = self._stream.handle
        self._allocations: dict[int, Any] = {}
        self._timing_events: list[Any] = []

    def name(self) -> str:
        return str(self._device.name())

    def compute_capability(self) -> tuple[int, int]:
        major, minor = self._device.compute_capability()
        return major, minor

    def is_integrated(self) -> bool:
        return bool(self._device.get_attribute(self._driver.device_attribute.INTEGRATED))

    @property
    def gpu(self) -> int:
        return self._gpu

    def can_map(self) -> bool:
        return bool(self._device.get_attribute(self._driver.device_attribute.CAN_MAP_HOST_MEMORY))

    def find_gpu(self, address: int) -> int | None:
        return None

    def free_memory(self) -> int:
        with self._translated_errors():
            free, _ = self._driver.mem_get_info()
        return int(free)

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._translated_errors():
            self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size: int) -> int:
        with self._translated_errors():
            allocation = self._driver.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        with self._translated_errors():
            self._allocations.pop(address).free()

    def pin(self, size: int, *, mapped: bool = False) -> np.ndarray:
        with self._translated_errors():
            flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
            block: np.ndarray = self._driver.pagelocked_empty(size, np.uint8, mem_flags=flags)
        return block

    def find_address(self, block: np.ndarray) -> int:
        allocation: Any = block.base
        with self._translated_errors():
            return int(allocation.get_device_pointer())

    def unpin(self, block: np.ndarray) -> None:
        allocation: Any = block.base  # what pycuda keeps the memory by
        with self._translated_errors():
            allocation.free()

    def upload(self, address: int, block: np.ndarray) -> None:
        with self._translated_errors():
            self._driver.memcpy_htod_async(address, block, self._stream)

    def download(self, block: np.ndarray, address: int) -> None:
        with self._translated_errors():
            self._driver.memcpy_dtoh_async(block, address, self._stream)

    def copy(self, target: int, source: int, size: int) -> None:
        with self._translated_errors():
            self._driver.memcpy_dtod_async(target, source, size, self._stream)

    def wait_for(self, stream: int) -> None:
        with self._translated_errors():
            self._driver.Context.synchronize()  # waits for all streams

    def mark(self) -> Mark:
        return _PyCudaMark(self)

    def capture(self, work: Callable[[], bool]) -> None:
        """Return None: pycuda does not support CUDA graphs.

        Args:
            work: Not called.
        """

    def make_event(self) -> Any:
        with self._translated_errors():
            event = self._driver.Event()
        self._timing_events.append(event)
        return event

    def record(self, event: Any) -> None:
        with self._translated_errors():
            event.record(self._stream)

    def measure_seconds(self, start: Any, end: Any) -> float:
        with self._translated_errors():
            return float(end.time_since(start)) / 1000  # pycuda's unit is the millisecond

    def synchronize(self) -> None:
        with self._translated_errors():
            self._stream.synchronize()

    def synchronize_gpu(self) -> None:
        with self._translated_errors():
            self._driver.Context.synchronize()

    def close(self) -> None:
        with self.active(), self._translated_errors():
            self._timing_events.clear()  # pycuda destroys events and the stream with their last references
            del self._stream
        self._context.detach()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Raise pycuda's exceptions as EngineError or OutOfMemory."""
        try:
            yield
        except self._driver.MemoryError as error:
            raise OutOfMemory(_get_first_line(error)) from error
        except self._driver.Error as error:
            raise EngineError(_get_first_line(error)) from error


class _PyCudaMark:
    """A :class:`glama_deploy.runtime.cuda.interface.Mark` of a device's stream: an event."""

    def __init__(self, device: PyCudaDevice) -> None:
        """Record an event in a device's stream.

        Args:
            device: The device, which is current.
        """
        self._device, driver = device, device._driver
        with device._translated_errors():
            self._event = driver.Event(driver.event_flags.DISABLE_TIMING)
            self._event.record(device._stream)

    def is_reached(self) -> bool:
        with self._device._translated_errors():
            return bool(self._event.query())

    def wait(self) -> None:
        with self._device._translated_errors():
            self._event.synchronize()

    def hold(self, stream: int) -> None:
        """Let the host wait instead of the stream, which pycuda cannot name.

        Args:
            stream: Not used. What its owner enqueues later finds the work done.
        """
        with self._device.active():
            self.wait()


def _get_first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
