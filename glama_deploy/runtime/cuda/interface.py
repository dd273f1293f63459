"""The interface through which the TensorRT runner uses CUDA.

:mod:`.cuda_python` and :mod:`.pycuda` implement the interface. :mod:`.device` chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from glama_deploy.errors import EngineError


class OutOfMemory(EngineError):
    """The GPU has no free memory, or the host has no memory that can be page-locked."""


class Graph(Protocol):
    """A CUDA graph of captured work."""

    def launch(self) -> None:
        """Enqueue the work into the stream from which it was captured."""
        ...

    def discard(self) -> None:
        """Destroy the graph."""
        ...


class Mark(Protocol):
    """A place in the stream of a device, behind the work that was enqueued before."""

    def is_reached(self) -> bool:
        """Return whether the GPU has finished the work before the mark.

        Returns:
            True once the work is done.
        """
        ...

    def wait(self) -> None:
        """Let the host wait until the work before the mark is done."""
        ...

    def hold(self, stream: int) -> None:
        """Let another stream wait until the work before the mark is done.

        Args:
            stream: The other stream's handle. 1 and 2 are CUDA's two default streams.
        """
        ...


class Device(Protocol):
    """One GPU and one stream on it.

    Sizes are in bytes, addresses are device addresses. Every method raises EngineError where CUDA reports an error.
    """

    #: The stream's handle, as TensorRT takes it.
    stream: int

    @property
    def gpu(self) -> int:
        """The GPU's number, as CUDA counts the GPUs that this process sees."""
        ...

    def name(self) -> str:
        """Return the GPU's name.

        Returns:
            The name that the driver reports.
        """
        ...

    def compute_capability(self) -> tuple[int, int]:
        """Return the GPU's compute capability.

        Returns:
            (major, minor).
        """
        ...

    def is_integrated(self) -> bool:
        """Return whether the GPU shares the host's memory, as on a Jetson.

        Returns:
            True for such a GPU.
        """
        ...

    def can_map(self) -> bool:
        """Return whether the GPU can use page-locked host memory where it lies.

        Returns:
            True for a GPU that can.
        """
        ...

    def find_gpu(self, address: int) -> int | None:
        """Find the GPU whose memory has an address.

        Args:
            address: Any address.

        Returns:
            The GPU's number. None where this GPU reads memory that is not a GPU's own (managed or page-locked memory),
            or where the package cannot tell.

        Raises:
            EngineError: CUDA does not know the address.
        """
        ...

    def free_memory(self) -> int:
        """Return the free memory of the GPU.

        Returns:
            Bytes.
        """
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current in this thread. All other methods, and TensorRT's, are called inside this context.

        Returns:
            The context.
        """
        ...

    def allocate(self, size: int) -> int:
        """Allocate device memory.

        Args:
            size: Bytes.

        Returns:
            The address, a multiple of 256.

        Raises:
            OutOfMemory: the GPU has no free memory.
        """
        ...

    def free(self, address: int) -> None:
        """Free memory from :meth:`allocate`.

        Args:
            address: The memory's address.
        """
        ...

    def pin(self, size: int, *, mapped: bool = False) -> np.ndarray:
        """Allocate page-locked host memory, which CUDA copies while the host continues.

        Args:
            size: Bytes.
            mapped: Whether the GPU uses the memory where it lies, at the address of :meth:`find_address`.

        Returns:
            The memory as uint8 [size].

        Raises:
            OutOfMemory: the host has no memory that can be page-locked.
        """
        ...

    def find_address(self, block: np.ndarray) -> int:
        """Return the address at which the GPU uses mapped memory.

        Args:
            block: Memory from :meth:`pin` with `mapped`, from its first byte on.

        Returns:
            The device address.
        """
        ...

    def unpin(self, block: np.ndarray) -> None:
        """Free memory from :meth:`pin`.

        Args:
            block: The memory.
        """
        ...

    def upload(self, address: int, block: np.ndarray) -> None:
        """Enqueue a copy from page-locked host memory to the device.

        The caller must not change either of them before :meth:`synchronize`.

        Args:
            address: The device address to copy to.
            block: The host memory, uint8.
        """
        ...

    def download(self, block: np.ndarray, address: int) -> None:
        """Enqueue a copy from the device to page-locked host memory, which is complete after :meth:`synchronize`.

        Args:
            block: The host memory to copy to, uint8.
            address: The device address to copy from.
        """
        ...

    def copy(self, target: int, source: int, size: int) -> None:
        """Enqueue a copy from one device address to another.

        Args:
            target: The address to copy to.
            source: The address to copy from.
            size: Bytes.
        """
        ...

    def wait_for(self, stream: int) -> None:
        """Let the stream wait until all work that is in another stream now is done.

        Args:
            stream: The other stream's handle. 1 and 2 are CUDA's two default streams.
        """
        ...

    def mark(self) -> Mark:
        """Mark the end of the work that is in the stream now.

        Returns:
            The mark.
        """
        ...

    def capture(self, work: Callable[[], bool]) -> Graph | None:
        """Capture what `work` enqueues, without running it.

        Args:
            work: Enqueues work into the stream; returns whether that succeeded.

        Returns:
            The CUDA graph, or None where the work cannot be captured.
        """
        ...

    def make_event(self) -> Any:
        """Make an event, which marks a point of time in the stream.

        Returns:
            The event. The device keeps it until :meth:`close`.
        """
        ...

    def record(self, event: Any) -> None:
        """Enqueue an event: its time is that at which all work before it is done.

        Args:
            event: An event of :meth:`make_event`, which may be recorded again.
        """
        ...

    def measure_seconds(self, start: Any, end: Any) -> float:
        """Return the time between two recorded events, after :meth:`synchronize`.

        Args:
            start: The earlier event.
            end: The later event.

        Returns:
            Seconds, with a resolution of about half a microsecond.
        """
        ...

    def synchronize(self) -> None:
        """Wait until all work in the stream is done."""
        ...

    def synchronize_gpu(self) -> None:
        """Wait until all work of this process on the GPU is done, in all streams.

        CUDA refuses this while a stream on the GPU is captured.
        """
        ...

    def close(self) -> None:
        """Destroy the stream and its events. No method may be called afterwards."""
        ...
