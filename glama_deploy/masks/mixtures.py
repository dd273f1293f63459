"""Masks that are made of other masks: one of several, a union of several, and a choice by the image's size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from glama_deploy.masks.base import Mask, draw_integer, draw_until
from glama_deploy.masks.strokes import Painted


@dataclass(frozen=True)
class OneOf:
    """Draw a mask of one of several kinds.

    Attributes:
        parts: The kinds, each as likely as any other.
    """

    parts: tuple[Mask, ...]

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        return self.parts[rng.integers(len(self.parts))](height, width, rng)


@dataclass(frozen=True)
class Union:
    """Draw several masks and join their missing pixels, until at least one pixel is known.

    Attributes:
        parts: The kinds, each as likely as any other.
        count: Range of the number of masks, both ends included.
    """

    parts: tuple[Mask, ...]
    count: tuple[int, int] = (2, 3)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        one = OneOf(self.parts)

        def draw() -> np.ndarray:
            return np.logical_or.reduce([one(height, width, rng) for _ in range(draw_integer(rng, self.count))])

        return draw_until(draw, lambda mask: not mask.all())


@dataclass(frozen=True)
class BySide:
    """Draw a mask with the settings for the image's size.

    Attributes:
        settings: The settings. The mask takes those whose `side` is nearest, by ratio, to the image's smaller side.
    """

    settings: tuple[Painted, ...]

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        smaller = min(height, width)
        nearest = min(self.settings, key=lambda painted: abs(math.log(smaller / painted.side)))
        return nearest(height, width, rng)
