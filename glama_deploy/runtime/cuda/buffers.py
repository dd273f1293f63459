"""Buffers that are kept between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Buffer = TypeVar("Buffer")


class BufferPool(Generic[Buffer]):
    """Buffers by name. A buffer is allocated again only when a larger one is requested."""

    def __init__(self, allocate: Callable[[int], Buffer], free: Callable[[Buffer], None]) -> None:
        """Make an empty pool.

        Args:
            allocate: Returns a buffer of a size in bytes.
            free: Frees a buffer.
        """
        self._allocate, self._free = allocate, free
        self._buffers: dict[str, tuple[Buffer, int]] = {}

    def get_size(self, name: str) -> int:
        """Return the size of a buffer.

        Args:
            name: The buffer's name.

        Returns:
            Bytes; 0 where the pool has no buffer of that name.
        """
        return self._buffers[name][1] if name in self._buffers else 0

    def get(self, name: str, size: int) -> Buffer:
        """Return the buffer of a name, and allocate or enlarge it where needed.

        Args:
            name: The buffer's name.
            size: The least size in bytes, above 0. The contents of a smaller buffer are lost.

        Returns:
            The buffer, of at least that size.
        """
        if self.get_size(name) < size:
            self._drop(name)
            self._buffers[name] = (self._allocate(size), size)
        return self._buffers[name][0]

    def release(self) -> None:
        """Free all buffers."""
        for name in list(self._buffers):
            self._drop(name)

    def _drop(self, name: str) -> None:
        buffer, _ = self._buffers.pop(name, (None, 0))
        if buffer is not None:
            self._free(buffer)
