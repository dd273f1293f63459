"""Brush strokes and boxes, by the settings of the challenge and of LaMa."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from glama_deploy.masks.base import draw_integer, draw_until, require, require_range

#: OpenCV draws a line of width w as all pixels at a distance of at most (w + 1)//2 + 0.28. With 0.28, the areas of 1000
#: lines of the widths of thin and thick strokes differ from OpenCV's by 0.2 % (measured).
LINE_EDGE_PIXELS = 0.28

#: Angles of segments in radians, from downwards to the right. Every other stroke takes 2π minus one of these angles.
STROKE_ANGLES = (0.01, 1.01, 2.01, 3.01)

#: The largest number of straight segments of a stroke.
MAX_SEGMENTS = 5


@dataclass(frozen=True)
class Strokes:
    """Brush strokes of 1 to `MAX_SEGMENTS` straight segments with round ends.

    A stroke starts at any pixel. Each segment has its own angle of `STROKE_ANGLES`. Ranges include both ends.

    Attributes:
        count: Range of the number of strokes.
        width: Range of a segment's width in pixels.
        length: Range of a segment's length in pixels.

    Raises:
        GlamaError: A range is empty or begins below 1.
    """

    count: tuple[int, int]
    width: tuple[int, int]
    length: tuple[int, int]

    def __post_init__(self) -> None:
        for field in ("count", "width", "length"):
            require_range("Strokes", field, getattr(self, field))

    def paint(self, mask: np.ndarray, scale: float, rng: np.random.Generator) -> None:
        """Add the strokes to a mask.

        Args:
            mask: bool H×W, changed in place.
            scale: Factor of all lengths and widths.
            rng: Generator of random numbers.
        """
        height, width = mask.shape
        for stroke in range(draw_integer(rng, self.count)):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            for _ in range(draw_integer(rng, (1, MAX_SEGMENTS))):
                angle = STROKE_ANGLES[rng.integers(len(STROKE_ANGLES))] * (1 if stroke % 2 else -1)
                length = draw_integer(rng, self.length) * scale
                reach = ((draw_integer(rng, self.width) + 1) // 2 + LINE_EDGE_PIXELS) * scale
                to_x = min(max(int(x + length * math.sin(angle)), 0), width)
                to_y = min(max(int(y + length * math.cos(angle)), 0), height)
                _paint_segment(mask, (x, y), (to_x, to_y), reach)
                x, y = to_x, to_y


@dataclass(frozen=True)
class Boxes:
    """Rectangles of any aspect ratio. Ranges include both ends.

    Attributes:
        count: Range of the number of rectangles.
        size: Range of each side in pixels.
        margin: Smallest distance from the image's edges in pixels.

    Raises:
        GlamaError: A range is empty or begins below 1, or the margin is negative.
    """

    count: tuple[int, int]
    size: tuple[int, int]
    margin: int = 0

    def __post_init__(self) -> None:
        require_range("Boxes", "count", self.count)
        require_range("Boxes", "size", self.size)
        require(self.margin >= 0, f"Boxes: margin is {self.margin}; give 0 or more")

    def paint(self, mask: np.ndarray, scale: float, rng: np.random.Generator) -> None:
        """Add the boxes to a mask.

        Args:
            mask: bool H×W, changed in place.
            scale: Factor of all sizes and of the margin.
            rng: Generator of random numbers.
        """
        height, width = mask.shape
        margin = min(round(self.margin * scale), (min(height, width) - 1) // 2)
        for _ in range(draw_integer(rng, self.count)):
            box_width = self._draw_side(width - 2 * margin, scale, rng)
            box_height = self._draw_side(height - 2 * margin, scale, rng)
            left = draw_integer(rng, (margin, width - margin - box_width))
            top = draw_integer(rng, (margin, height - margin - box_height))
            mask[top : top + box_height, left : left + box_width] = True

    def _draw_side(self, largest: int, scale: float, rng: np.random.Generator) -> int:
        return min(max(1, round(draw_integer(rng, self.size) * scale)), largest)


def _paint_segment(mask: np.ndarray, start: tuple[int, int], end: tuple[int, int], reach: float) -> None:
    """Add the pixels that are at most `reach` from the straight line between two points (x, y)."""
    reach = max(reach, 0.5)
    (x0, y0), (x1, y1) = start, end
    beyond = math.ceil(reach)
    rows = slice(max(min(y0, y1) - beyond, 0), max(y0, y1) + beyond + 1)
    columns = slice(max(min(x0, x1) - beyond, 0), max(x0, x1) + beyond + 1)
    part = mask[rows, columns]
    y = np.arange(rows.start, rows.start + part.shape[0], dtype=np.float32)[:, None] - y0
    x = np.arange(columns.start, columns.start + part.shape[1], dtype=np.float32) - x0
    dx, dy = x1 - x0, y1 - y0
    along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1), 0, 1)
    part |= (x - along * dx) ** 2 + (y - along * dy) ** 2 <= reach**2


@dataclass(frozen=True)
class Painted:
    """Draw strokes or boxes until a part of the image, and at most `max_coverage`, is missing.

    Attributes:
        kinds: Strokes or boxes, each with the weight of its probability.
        max_coverage: The largest missing share of the image, 0 to 1. A mask of the whole image is never accepted.
        side: The smaller side in pixels of the images for which the lengths of the kinds are meant.
    """

    kinds: tuple[tuple[Strokes | Boxes, float], ...]
    max_coverage: float = 0.5
    side: int = 256

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        weights = np.array([weight for _, weight in self.kinds])

        def paint() -> np.ndarray:
            kind, _ = self.kinds[rng.choice(len(self.kinds), p=weights / weights.sum())]
            mask = np.zeros((height, width), bool)
            kind.paint(mask, min(height, width) / self.side, rng)
            return mask

        return draw_until(paint, lambda mask: mask.mean() <= self.max_coverage and not mask.all())
