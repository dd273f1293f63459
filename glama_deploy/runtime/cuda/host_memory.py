"""Page-locked host memory for the tensors of a run."""

from __future__ import annotations

import numpy as np

from glama_deploy.runtime.cuda.buffers import BufferPool
from glama_deploy.runtime.cuda.interface import Device


class HostMemory:
    """Page-locked host memory by tensor, which is kept between runs and only grows.

    A GPU that shares the host's memory, as on a Jetson, uses the memory where it lies. Other GPUs have a copy.
    """

    def __init__(self, device: Device) -> None:
        """Make an empty pool.

        Args:
            device: The GPU, which is current.
        """
        self._device = device
        #: Whether the GPU uses the memory where it lies.
        self.is_mapped = device.is_integrated() and device.can_map()
        self._blocks: BufferPool[np.ndarray] = BufferPool(
            lambda size: device.pin(size, mapped=self.is_mapped), device.unpin
        )

    def get(self, name: str, size: int) -> np.ndarray:
        """Return the memory of a tensor.

        Args:
            name: The tensor's name.
            size: Bytes.

        Returns:
            uint8 [size].
        """
        return self._blocks.get(name, size)[:size]

    def find_address(self, name: str, size: int) -> int:
        """Return the address at which the GPU uses the memory of a tensor, where it does so.

        Args:
            name: The tensor's name.
            size: Bytes.

        Returns:
            The device address.
        """
        return self._device.find_address(self._blocks.get(name, size))

    def release(self) -> None:
        """Free all memory. The GPU has finished its work."""
        self._blocks.release()
