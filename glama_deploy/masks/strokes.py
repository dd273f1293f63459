"""Brush strokes and boxes, by the settings of the challenge and of LaMa."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from glama_deploy.masks.base import draw_integer, draw_until, require, require_range

#: OpenCV draws a line of width w as the pixels within (w + 1)//2 + 0.28 of it. 0.28 was measured: the areas of 1000
#: lines of the widths of thin and thick strokes are then equal to 0.2 %.
LINE_EDGE_PIXELS = 0.28

#: Angles of strokes in radians, clockwise from downwards. Every other stroke takes 2π minus one of them.
STROKE_ANGLES = (0.01, 1.01, 2.01, 3.01)

#: A stroke has 1 to so many straight segments.
MAX_SEGMENTS = 5


@dataclass(frozen=True)
class Strokes:
    """Brush strokes: `count` of them, each of 1 to 5 straight segments with round ends.

    A stroke starts anywhere. Each of its segments has its own angle (of :data:`STROKE_ANGLES`), `length` and `width`
    in pixels. Ranges include both ends.
    """

    count: tuple[int, int]
    width: tuple[int, int]
    length: tuple[int, int]

    def __post_init__(self) -> None:
        for field in ("count", "width", "length"):
            require_range("Strokes", field, getattr(self, field))

    def paint(self, mask: np.ndarray, scale: float, rng: np.random.Generator) -> None:
        """Add the strokes to a mask, bool H×W, with all lengths multiplied by `scale`."""
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
    """Rectangles of any aspect ratio: `count` of them, each side drawn from `size`, at least `margin` from the edges.

    Sizes and the margin are in pixels. Ranges include both ends.
    """

    count: tuple[int, int]
    size: tuple[int, int]
    margin: int = 0

    def __post_init__(self) -> None:
        require_range("Boxes", "count", self.count)
        require_range("Boxes", "size", self.size)
        require(self.margin >= 0, f"Boxes: margin is {self.margin}; give 0 or more")

    def paint(self, mask: np.ndarray, scale: float, rng: np.random.Generator) -> None:
        """Add the boxes to a mask, bool H×W, with all lengths multiplied by `scale`."""
        height, width = mask.shape
        margin = min(round(self.margin * scale), (min(height, width) - 1) // 2)
        for _ in range(draw_integer(rng, self.count)):
            box_width = self._draw_side(width - 2 * margin, scale, rng)
            box_height = self._draw_side(height - 2 * margin, scale, rng)
            left = draw_integer(rng, (margin, width - margin - box_width))
            top = draw_integer(rng, (margin, height - margin - box_height))
            mask[top : top + box_height, left : left + box_width] = True

    def _draw_side(self, room: int, scale: float, rng: np.random.Generator) -> int:
        return min(max(1, round(draw_integer(rng, self.size) * scale)), room)


def _paint_segment(mask: np.ndarray, start: tuple[int, int], end: tuple[int, int], reach: float) -> None:
    """Add the pixels that are at most `reach` from a straight line between two points (x, y), and the line's own."""
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
    """Strokes or boxes, drawn anew until at most `max_coverage` of the image, and not all of it, is missing.

    `kinds` are the two with their weights: a kind is drawn as often as its share of their sum. Their lengths are
    pixels of an image whose smaller side is `side`.
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
