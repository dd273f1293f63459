"""The four mask types without chance: Completion, Expand, Every N Lines, Nearest Neighbor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glama_deploy.masks.base import DIRECTIONS, Direction, require


@dataclass(frozen=True)
class Completion:
    """The first `int(ratio·H)` rows (vertical) or `int(ratio·W)` columns (horizontal) are missing.

    With `reverse` these rows or columns are known, and all others are missing.
    """

    ratio: float = 0.5
    direction: Direction = "vertical"
    reverse: bool = False

    def __post_init__(self) -> None:
        require(0 < self.ratio < 1, f"Completion: ratio is {self.ratio}; give a number between 0 and 1")
        _require_direction(self)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        mask = np.full((height, width), self.reverse)
        if self.direction == "vertical":
            mask[: int(self.ratio * height)] = not self.reverse
        else:
            mask[:, : int(self.ratio * width)] = not self.reverse
        return mask


@dataclass(frozen=True)
class Expand:
    """Everything is missing but a square in the middle: 2·s rows and columns around H//2 and W//2.

    s is half of `share` of the smaller side, rounded down.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.share < 1, f"Expand: share is {self.share}; give a number between 0 and 1")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        half = int(self.share * min(height, width)) // 2
        row, column = height // 2, width // 2
        mask = np.ones((height, width), bool)
        mask[row - half : row + half, column - half : column + half] = False
        return mask


@dataclass(frozen=True)
class EveryNLines:
    """Every `n`-th line is missing, from line `offset` on: columns (vertical) or rows (horizontal)."""

    n: int = 2
    direction: Direction = "vertical"
    offset: int = 0

    def __post_init__(self) -> None:
        require(self.n >= 2, f"EveryNLines: n is {self.n}; give 2 or more")
        require(0 <= self.offset < self.n, f"EveryNLines: offset is {self.offset}; give 0 to {self.n - 1}")
        _require_direction(self)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros((height, width), bool)
        if self.direction == "vertical":
            mask[:, self.offset :: self.n] = True
        else:
            mask[self.offset :: self.n] = True
        return mask


@dataclass(frozen=True)
class NearestNeighbor:
    """Every `scale`-th pixel of every `scale`-th row is known, from the row and column of `offset` on."""

    scale: int = 4
    offset: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        require(self.scale >= 2, f"NearestNeighbor: scale is {self.scale}; give 2 or more")
        fits = all(0 <= each < self.scale for each in self.offset)
        require(fits, f"NearestNeighbor: offset is {self.offset}; give two numbers from 0 to {self.scale - 1}")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        row, column = self.offset
        mask = np.ones((height, width), bool)
        mask[row :: self.scale, column :: self.scale] = False
        return mask


def _require_direction(mask: Completion | EveryNLines) -> None:
    require(
        mask.direction in DIRECTIONS,
        f"{type(mask).__name__}: direction is {mask.direction!r}; give 'vertical' or 'horizontal'",
    )
