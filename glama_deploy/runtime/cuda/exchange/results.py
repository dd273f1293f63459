"""Results that stay in GPU memory, and the memory that they lie in."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import deque
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.exchange import dlpack
from glama_deploy.runtime.cuda.exchange.streams import LEGACY_DEFAULT
from glama_deploy.runtime.cuda.interface import Device, Mark, OutOfMemory

log = logging.getLogger("glama_deploy")

#: Results that were dropped and whose memory waits to be used again. To use their memory again, the host waits for the
#: GPU, so the host waits once in as many runs.
_MAX_DROPPED = 4

#: What a reader of DLPack gives as its stream if it wants no waiting.
_NO_WAITING = -1


class GpuArray:
    """A result in GPU memory, in C order. The memory is kept as long as this object, or an array made from it, is used.

    CuPy, PyTorch and other packages read it without a copy: `cupy.from_dlpack(result)`, `torch.from_dlpack(result)`,
    or `__cuda_array_interface__`.
    """

    def __init__(
        self,
        memory: ResultMemory,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        writing: tuple[Mark, int] | None,
    ) -> None:
        """Show memory as an array.

        Args:
            memory: Gave the address, and is told when nothing refers to the array.
            address: The device address.
            shape: The array's shape.
            dtype: The type of the elements.
            writing: The mark behind the run that writes the array, and the stream that was told to wait for the mark.
                None if the array is complete.
        """
        self.shape, self.dtype = shape, dtype
        self._gpu, self._address, self._writing = memory.gpu, address, writing
        weakref.finalize(self, memory.drop, address)

    @property
    def nbytes(self) -> int:
        """The array's size in bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3. The stream is that of the run's caller."""
        stream = self._writing[1] if self._writing else None
        return {**self._describe(), "strides": None, "stream": stream}

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return where the array lies.

        Returns:
            DLPack's number of GPU memory, and the GPU's number.
        """
        return dlpack.CUDA, self._gpu

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a capsule of DLPack.

        Args:
            stream: The handle of the reader's stream, which waits for the result. None: the legacy default stream. -1:
                no stream.
            max_version: The newest version of DLPack that the reader knows.
            dl_device: The device that the reader wants; only the array's own.
            copy: Whether the reader wants a copy; True is not supported.

        Returns:
            The capsule.

        Raises:
            BufferError: the reader wants a copy, another device, or a stream that does not exist.
        """
        if copy:
            raise BufferError("glama-deploy gives the array itself; copy it afterwards")
        if dl_device is not None and tuple(map(int, dl_device)) != self.__dlpack_device__():
            raise BufferError(f"the array lies on GPU {self._gpu}; copy it to another device afterwards")
        stream = LEGACY_DEFAULT if stream is None else stream
        if not isinstance(stream, int) or isinstance(stream, bool) or stream == 0 or stream < _NO_WAITING:
            raise BufferError(f"{stream!r} is not a stream of CUDA; 1 is the default stream")
        if self._writing is not None and stream != _NO_WAITING:
            self._writing[0].hold(stream)
        return dlpack.lend(np.asarray(_HostView(self)), self._gpu, max_version)

    def _describe(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self._address, False), "version": 3}


class _HostView:
    """Shows a result to NumPy, which does not look at the memory. NumPy's array keeps this object and the result."""

    def __init__(self, array: GpuArray) -> None:
        """Show a result.

        Args:
            array: The result.
        """
        self._array = array
        self.__array_interface__ = array._describe()


class ResultMemory:
    """The device memory of results. It stays open until its owner has closed it and the last result is dropped.

    Memory of a dropped result is freed or used again once all work on the GPU is done: a reader's stream may still use
    it. A result may be dropped by Python's garbage collection, in any thread and during a capture, so that only notes
    the memory.
    """

    def __init__(self, device: Device) -> None:
        """Take ownership of a device.

        Args:
            device: The GPU. It is closed with this memory.
        """
        self.gpu = device.gpu
        self._device = device
        self._lock = threading.RLock()  # garbage collection may enter a second time
        self._sizes: dict[int, int] = {}  # of the addresses of results that are in use
        self._dropped: deque[tuple[int, int]] = deque()
        self._idle: list[tuple[int, int]] = []
        self._is_closed = self._is_device_closed = False

    def take(self, size: int) -> int:
        """Return memory for a result. The GPU is current.

        Args:
            size: Bytes.

        Returns:
            The device address.

        Raises:
            OutOfMemory: the GPU has no free memory.
        """
        with self._lock:
            if len(self._dropped) >= _MAX_DROPPED:
                self._settle()
            for block in self._idle:
                if block[1] == size:
                    self._idle.remove(block)
                    self._sizes[block[0]] = size
                    return block[0]
            address = self._allocate(size)
            self._sizes[address] = size
            return address

    def drop(self, address: int) -> None:
        """Take back the memory of a result.

        Args:
            address: The memory's address.
        """
        with self._lock:
            self._dropped.append((address, self._sizes.pop(address)))
            if not self._is_closed:
                return
        try:
            with self._device.active():
                self.release()
            self._close_device()
        except EngineError as error:  # the GPU is gone, and what was on it too
            log.info("the memory of a result was not given back: %s", error)

    def release(self) -> None:
        """Free the memory of all dropped results. The GPU is current."""
        with self._lock:
            count = len(self._dropped)  # a result that is dropped from here on may be in use
            if count:
                self._device.synchronize_gpu()
            # garbage collection may have entered here meanwhile, and have freed what was dropped
            self._idle += [self._dropped.popleft() for _ in range(min(count, len(self._dropped)))]
            self._free_idle()

    def close(self) -> None:
        """Free all memory that is not in use, and close the device once none is."""
        self._is_closed = True
        with self._device.active():
            self.release()
        self._close_device()

    def _close_device(self) -> None:
        with self._lock:
            is_last = not self._sizes and not self._dropped and not self._is_device_closed
            self._is_device_closed |= is_last
        if is_last:
            self._device.close()

    def _settle(self) -> None:
        """Let the memory of dropped results be used again, and free what the results before them left."""
        count = len(self._dropped)
        try:
            self._device.synchronize_gpu()
        except EngineError as error:  # another engine's stream is being captured; a later run tries again
            log.debug("memory of results is not used again yet: %s", error)
            return
        self._free_idle()
        self._idle = [self._dropped.popleft() for _ in range(count)]

    def _free_idle(self) -> None:
        while self._idle:
            self._device.free(self._idle.pop()[0])

    def _allocate(self, size: int) -> int:
        try:
            return self._device.allocate(size)
        except OutOfMemory:
            self.release()
            return self._device.allocate(size)
