"""Memory that is kept between runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

Block = TypeVar("Block")


class Blocks(Generic[Block]):
    """Blocks of memory by name, each made anew only where it is too small."""

    def __init__(self, make: Callable[[int], Block], give_back: Callable[[Block], None]) -> None:
        self._make, self._give_back = make, give_back
        self._blocks: dict[str, tuple[Block, int]] = {}

    def room(self, name: str) -> int:
        """Bytes of that block; 0 where there is none."""
        return self._blocks[name][1] if name in self._blocks else 0

    def get(self, name: str, size: int) -> Block:
        """The block of that name, of at least `size` bytes (> 0). What a smaller one held is lost."""
        if self.room(name) < size:
            self._drop(name)
            self._blocks[name] = (self._make(size), size)
        return self._blocks[name][0]

    def release(self) -> None:
        """Give all of them back."""
        for name in list(self._blocks):
            self._drop(name)

    def _drop(self, name: str) -> None:
        block, _ = self._blocks.pop(name, (None, 0))
        if block is not None:
            self._give_back(block)
