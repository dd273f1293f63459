"""The seven mask types of GLaMa (section 3.2) and their mixtures: numpy and Pillow only.

A mask is a callable `(height, width, rng) -> bool H×W`, True where pixels are missing. The same state of the
generator gives the same mask. Lengths of strokes and boxes are in pixels of a 256-pixel image and grow with
the smaller side.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from glama_deploy.errors import GlamaError

Mask = Callable[[int, int, np.random.Generator], np.ndarray]
Direction = Literal["vertical", "horizontal"]

#: Side in pixels of the images that the strokes' and boxes' settings are made for.
REFERENCE_SIDE = 256

#: Strokes and boxes stop being added before they cover more than this share of the image.
MAX_COVERAGE = 0.5


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GlamaError(message)


def _require_direction(mask: Completion | EveryNLines) -> None:
    _require(
        mask.direction in ("vertical", "horizontal"),
        f"{type(mask).__name__}: direction is {mask.direction!r}; give 'vertical' or 'horizontal'",
    )


def _require_range(name: str, field: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    _require(1 <= low <= high, f"{name}: {field} is {low}…{high}; give two numbers from 1, the smaller first")


# ---------------------------------------------------------------- the four exact ones


@dataclass(frozen=True)
class Completion:
    """The first `int(ratio·H)` rows (vertical) or `int(ratio·W)` columns (horizontal) are missing."""

    ratio: float = 0.5
    direction: Direction = "vertical"

    def __post_init__(self) -> None:
        _require(0 < self.ratio < 1, f"Completion: ratio is {self.ratio}; give a number between 0 and 1")
        _require_direction(self)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros((height, width), bool)
        if self.direction == "vertical":
            mask[: int(self.ratio * height)] = True
        else:
            mask[:, : int(self.ratio * width)] = True
        return mask


@dataclass(frozen=True)
class Expand:
    """Everything is missing but a square in the middle: 2·s rows and columns around H//2 and W//2.

    s is half of `share` of the smaller side, rounded down.
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        _require(0 < self.share < 1, f"Expand: share is {self.share}; give a number between 0 and 1")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        half = int(self.share * min(height, width)) // 2
        row, column = height // 2, width // 2
        mask = np.ones((height, width), bool)
        mask[row - half : row + half, column - half : column + half] = False
        return mask


@dataclass(frozen=True)
class EveryNLines:
    """Every `n`-th line is missing, from the first: columns (vertical) or rows (horizontal)."""

    n: int = 2
    direction: Direction = "vertical"

    def __post_init__(self) -> None:
        _require(self.n >= 2, f"EveryNLines: n is {self.n}; give 2 or more")
        _require_direction(self)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros((height, width), bool)
        if self.direction == "vertical":
            mask[:, :: self.n] = True
        else:
            mask[:: self.n] = True
        return mask


@dataclass(frozen=True)
class NearestNeighbor:
    """Only the pixels are known whose row and column are both multiples of `scale`."""

    scale: int = 4

    def __post_init__(self) -> None:
        _require(self.scale >= 2, f"NearestNeighbor: scale is {self.scale}; give 2 or more")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        mask = np.ones((height, width), bool)
        mask[:: self.scale, :: self.scale] = False
        return mask


# ---------------------------------------------------------------- boxes and strokes

_Paint = Callable[[ImageDraw.ImageDraw], None]


@dataclass(frozen=True)
class Boxes:
    """Rectangles of any aspect ratio: `count` of them, each side drawn from `size` (both ends included)."""

    count: tuple[int, int] = (1, 4)
    size: tuple[int, int] = (30, 150)

    def __post_init__(self) -> None:
        _require_range("Boxes", "count", self.count)
        _require_range("Boxes", "size", self.size)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        return _paint(height, width, self._rectangles(height, width, rng))

    def _rectangles(self, height: int, width: int, rng: np.random.Generator) -> Iterator[_Paint]:
        for _ in range(_integer(rng, self.count)):
            box_height = min(_pixels(_integer(rng, self.size), height, width), height)
            box_width = min(_pixels(_integer(rng, self.size), height, width), width)
            top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
            corners = (int(left), int(top), int(left) + box_width - 1, int(top) + box_height - 1)
            yield partial(_rectangle, corners=corners)


@dataclass(frozen=True)
class Strokes:
    """Brush strokes as in LaMa's irregular masks; instead of them, with `box_probability`, `boxes`.

    A stroke starts anywhere and has `segments` straight segments, each of its own angle (0…`max_angle` rad,
    the other way round for every second stroke), length and width. Ranges include both ends.
    """

    strokes: tuple[int, int] = (1, 5)
    width: tuple[int, int] = (5, 100)
    length: tuple[int, int] = (10, 200)
    segments: tuple[int, int] = (1, 5)
    max_angle: float = 4.0
    box_probability: float = 0.0
    boxes: Boxes = Boxes()

    def __post_init__(self) -> None:
        name = type(self).__name__
        for field in ("strokes", "width", "length", "segments"):
            _require_range(name, field, getattr(self, field))
        _require(0 <= self.box_probability <= 1, f"{name}: box_probability is not within 0…1")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        if rng.random() < self.box_probability:
            return self.boxes(height, width, rng)
        return _paint(height, width, self._segments(height, width, rng))

    def _segments(self, height: int, width: int, rng: np.random.Generator) -> Iterator[_Paint]:
        for stroke in range(_integer(rng, self.strokes)):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            for _ in range(_integer(rng, self.segments)):
                angle = rng.uniform(0, self.max_angle) * (1 if stroke % 2 else -1)
                length = _pixels(_integer(rng, self.length), height, width)
                brush = _pixels(_integer(rng, self.width), height, width)
                to_x = min(max(x + round(length * math.sin(angle)), 0), width - 1)
                to_y = min(max(y + round(length * math.cos(angle)), 0), height - 1)
                yield partial(_segment, ends=((x, y), (to_x, to_y)), brush=brush)
                x, y = to_x, to_y


@dataclass(frozen=True)
class ThinStrokes(Strokes):
    """Many short and thin strokes: scratches."""

    strokes: tuple[int, int] = (4, 50)
    width: tuple[int, int] = (5, 10)
    length: tuple[int, int] = (10, 40)


@dataclass(frozen=True)
class MediumStrokes(Strokes):
    """A few strokes of medium width, or small boxes."""

    strokes: tuple[int, int] = (4, 5)
    width: tuple[int, int] = (5, 50)
    length: tuple[int, int] = (10, 100)
    box_probability: float = 0.3
    boxes: Boxes = Boxes(count=(1, 5), size=(10, 50))


@dataclass(frozen=True)
class ThickStrokes(Strokes):
    """A few long and wide strokes, or large boxes."""

    box_probability: float = 0.3


def _rectangle(draw: ImageDraw.ImageDraw, corners: tuple[int, int, int, int]) -> None:
    draw.rectangle(corners, fill=1)


def _segment(draw: ImageDraw.ImageDraw, ends: tuple[tuple[int, int], ...], brush: int) -> None:
    """A straight line of width `brush` with round ends."""
    draw.line(ends, fill=1, width=brush)
    if brush > 2:
        radius = (brush - 1) / 2
        for x, y in ends:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)


def _paint(height: int, width: int, pieces: Iterator[_Paint]) -> np.ndarray:
    """The pieces one over the other, up to the first that would cover more than MAX_COVERAGE."""
    known_needed = height * width * (1 - MAX_COVERAGE)
    canvas = Image.new("L", (width, height))
    for piece in pieces:
        grown = canvas.copy()
        piece(ImageDraw.Draw(grown))
        if grown.histogram()[0] < known_needed:
            break
        canvas = grown
    return np.asarray(canvas) > 0


def _integer(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _pixels(length: int, height: int, width: int) -> int:
    """A length of the settings in pixels of this image, at least 1."""
    return max(1, round(length * min(height, width) / REFERENCE_SIDE))


# ---------------------------------------------------------------- mixtures


@dataclass(frozen=True)
class OneOf:
    """One of `parts`, each as likely as any other."""

    parts: tuple[Mask, ...]

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        return self.parts[rng.integers(len(self.parts))](height, width, rng)


@dataclass(frozen=True)
class Union:
    """What any of `count` masks out of `parts` misses; drawn again where nothing would stay known."""

    parts: tuple[Mask, ...]
    count: tuple[int, int] = (2, 3)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        draw = OneOf(self.parts)
        while True:
            masks = [draw(height, width, rng) for _ in range(_integer(rng, self.count))]
            mask = np.logical_or.reduce(masks)
            if not mask.all():
                return mask


#: The types of the paper's tables, with the public settings.
TYPES: dict[str, Mask] = {
    "Completion": Completion(),
    "Expand": Expand(),
    "EveryNLines": EveryNLines(),
    "NearestNeighbor": NearestNeighbor(),
    "ThinStrokes": ThinStrokes(),
    "MediumStrokes": MediumStrokes(),
    "ThickStrokes": ThickStrokes(),
}

_STROKES: tuple[Mask, ...] = (ThinStrokes(), MediumStrokes(), ThickStrokes())
_GRIDS: tuple[Mask, ...] = (
    OneOf((EveryNLines(), EveryNLines(direction="horizontal"))),
    OneOf((NearestNeighbor(2), NearestNeighbor(3), NearestNeighbor(4))),
)
_HALVES: tuple[Mask, ...] = (OneOf((Completion(), Completion(direction="horizontal"))), Expand())

#: What the paper trains with (Table 4: three, five and all seven types) and generalises to (Figure 6).
MIXTURES: dict[str, Mask] = {
    "lama": OneOf(_STROKES),
    "lama-plus": OneOf(_STROKES + _GRIDS),
    "general": OneOf(_STROKES + _GRIDS + _HALVES),
    "unseen": Union((*_STROKES, *_GRIDS, *_HALVES, Boxes())),
}


def by_name(name: str) -> Mask:
    """The type or mixture of that name, with the public settings; of several, joined by +, each as likely as any other
    (`general+EveryNLines`: one half of all seven, one half lines).

    Raises GlamaError for an unknown name, with the name that was probably meant.
    """
    if "+" in name:
        return OneOf(tuple(by_name(part) for part in name.split("+")))
    known = TYPES | MIXTURES
    if name in known:
        return known[name]
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    advice = f"did you mean {by_lower[near[0]]!r}?" if near else f"known are {', '.join(known)}"
    raise GlamaError(f"unknown mask {name!r}; {advice}")
