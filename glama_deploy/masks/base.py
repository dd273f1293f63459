"""Helpers of all mask kinds: the type of a mask, checks of settings, and drawing until a mask is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from glama_deploy.errors import GlamaError

#: A mask kind: called with height, width and a generator of random numbers. The result is bool H×W, True = missing.
Mask = Callable[[int, int, np.random.Generator], np.ndarray]
Direction = Literal["vertical", "horizontal"]

#: After this many masks that were not accepted, the image counts as too small. From 16×16 to 512×512, at least six in
#: ten masks of strokes are accepted.
MAX_DRAWS = 100

DIRECTIONS: tuple[Direction, ...] = ("vertical", "horizontal")


def require(condition: bool, message: str) -> None:
    """Check a setting of a mask.

    Args:
        condition: Whether the setting is valid.
        message: The error's text: which setting was found, and which values are valid.

    Raises:
        GlamaError: The condition is false.
    """
    if not condition:
        raise GlamaError(message)


def require_range(name: str, field: str, bounds: tuple[int, int]) -> None:
    """Check a range of whole numbers from 1.

    Args:
        name: Name of the mask kind.
        field: Name of the setting.
        bounds: Smallest and largest value, both included.

    Raises:
        GlamaError: A bound is below 1, or the first is larger than the second.
    """
    low, high = bounds
    require(1 <= low <= high, f"{name}: {field} is {low}…{high}; give two numbers from 1, the smaller first")


def draw_until(draw: Callable[[], np.ndarray], is_accepted: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Draw masks until one is accepted.

    Args:
        draw: Draws a mask, bool H×W.
        is_accepted: Tells whether a mask may be used.

    Returns:
        The first accepted mask, bool H×W.

    Raises:
        GlamaError: None of `MAX_DRAWS` masks was accepted.
    """
    for _ in range(MAX_DRAWS):
        mask = draw()
        if is_accepted(mask):
            return mask
    height, width = mask.shape
    raise GlamaError(f"the image is {height}x{width}, too small for such a mask; give an image of 16x16 or more")


def draw_integer(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    """Draw a whole number uniformly.

    Args:
        rng: Generator of random numbers.
        bounds: Smallest and largest number, both included.

    Returns:
        The number.
    """
    return int(rng.integers(bounds[0], bounds[1] + 1))
