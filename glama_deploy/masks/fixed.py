"""The four mask types that draw nothing at random: Completion, Expand, Every N Lines, Nearest Neighbor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glama_deploy.masks.base import DIRECTIONS, Direction, require


@dataclass(frozen=True)
class Completion:
    """Masks whose first rows or columns are missing.

    Attributes:
        ratio: Share of the missing rows or columns, between 0 and 1: `int(ratio·H)` rows, or `int(ratio·W)` columns.
        direction: Rows (vertical) or columns (horizontal).
        reverse: Exchange missing and known pixels.

    Raises:
        GlamaError: A setting is out of range.
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
    """Masks whose only known pixels are a square in the middle.

    The square has 2·s rows and columns around H//2 and W//2, with `s = int(share·min(H, W))//2`.

    Attributes:
        share: Side of the square as a share of the image's smaller side, between 0 and 1.

    Raises:
        GlamaError: The share is out of range.
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
    """Masks in which every n-th line is missing.

    Attributes:
        n: Distance of missing lines in pixels, at least 2.
        direction: Columns (vertical) or rows (horizontal).
        offset: The first missing line, 0 to n - 1.

    Raises:
        GlamaError: A setting is out of range.
    """

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
    """Masks whose only known pixels form a regular grid.

    Attributes:
        scale: Distance of known rows and columns in pixels, at least 2.
        offset: The first known row and column, each 0 to scale - 1.

    Raises:
        GlamaError: A setting is out of range.
    """

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
