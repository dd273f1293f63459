"""What every mask kind shares: the call, checks of settings, and drawing until a mask is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from glama_deploy.errors import GlamaError

Mask = Callable[[int, int, np.random.Generator], np.ndarray]
Direction = Literal["vertical", "horizontal"]

#: A mask is drawn anew so many times before the image counts as too small for it. Of the strokes' masks six in ten or
#: more are accepted, from 16×16 to 512×512.
MAX_DRAWS = 100

DIRECTIONS: tuple[Direction, ...] = ("vertical", "horizontal")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise GlamaError(message)


def require_range(name: str, field: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    require(1 <= low <= high, f"{name}: {field} is {low}…{high}; give two numbers from 1, the smaller first")


def draw_until(draw: Callable[[], np.ndarray], is_accepted: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Return the first mask that is accepted.

    Raises:
        GlamaError: None of :data:`MAX_DRAWS` masks was accepted.
    """
    for _ in range(MAX_DRAWS):
        mask = draw()
        if is_accepted(mask):
            return mask
    height, width = mask.shape
    raise GlamaError(f"the image is {height}x{width}, too small for such a mask; give an image of 16x16 or more")


def draw_integer(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))
