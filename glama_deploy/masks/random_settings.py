"""The four fixed types with the random settings of the challenge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glama_deploy.masks.base import DIRECTIONS, Direction, draw_integer
from glama_deploy.masks.fixed import Completion, EveryNLines, Expand, NearestNeighbor


@dataclass(frozen=True)
class RandomCompletion:
    """Draw :class:`Completion` masks in both directions and from both sides.

    Attributes:
        ratio: Range of the ratio, drawn uniformly.
    """

    ratio: tuple[float, float] = (0.2, 0.8)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        drawn = Completion(rng.uniform(*self.ratio), _draw_direction(rng), reverse=bool(rng.integers(2)))
        return drawn(height, width, rng)


@dataclass(frozen=True)
class RandomExpand:
    """Draw :class:`Expand` masks.

    Attributes:
        shares: The shares, each as likely as any other.
    """

    shares: tuple[float, ...] = (1 / 4, 1 / 3, 1 / 2)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        return Expand(self.shares[rng.integers(len(self.shares))])(height, width, rng)


@dataclass(frozen=True)
class RandomEveryNLines:
    """Draw :class:`EveryNLines` masks in both directions, with any first line.

    Attributes:
        n: Range of n in pixels, both ends included.
    """

    n: tuple[int, int] = (2, 5)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        n = draw_integer(rng, self.n)
        return EveryNLines(n, _draw_direction(rng), int(rng.integers(n)))(height, width, rng)


@dataclass(frozen=True)
class RandomNearestNeighbor:
    """Draw :class:`NearestNeighbor` masks, with any first row and column.

    Attributes:
        scale: Range of the scale in pixels, both ends included.
    """

    scale: tuple[int, int] = (2, 4)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        scale = draw_integer(rng, self.scale)
        return NearestNeighbor(scale, (int(rng.integers(scale)), int(rng.integers(scale))))(height, width, rng)


def _draw_direction(rng: np.random.Generator) -> Direction:
    return DIRECTIONS[rng.integers(len(DIRECTIONS))]
