"""The seven mask types of GLaMa (section 3.2), the challenge's random settings of them, and LaMa's: numpy only.

A mask is a callable `(height, width, rng) -> bool H×W`, True where pixels are missing. The same state of the
generator gives the same mask.

The truth of the settings is the code of the NTIRE 2022 challenge (affromero/NTIRE22_Inpainting, `mask_generation`) and
of LaMa (advimman/lama, `saicinpainting/training/data/masks.py`). Both draw lengths in pixels, whatever the image's
size. Here lengths grow with the image's smaller side: a mask at 128×128 is a mask at 256×256 made half as large.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glama_deploy.errors import GlamaError

Mask = Callable[[int, int, np.random.Generator], np.ndarray]
Direction = Literal["vertical", "horizontal"]

#: The version of what the names below draw. Runs and results of other versions are not continued. Version 1, of
#: glama-deploy 0.1, had strokes of its own, and mixtures whose lines, grids, halves and squares were always the same.
DEFINITIONS = 2

#: A mask is drawn anew so many times before the image counts as too small for it. Of the strokes' masks six in ten or
#: more are accepted, from 16×16 to 512×512.
MAX_DRAWS = 100

_DIRECTIONS: tuple[Direction, ...] = ("vertical", "horizontal")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GlamaError(message)


def _require_direction(mask: Completion | EveryNLines) -> None:
    _require(
        mask.direction in _DIRECTIONS,
        f"{type(mask).__name__}: direction is {mask.direction!r}; give 'vertical' or 'horizontal'",
    )


def _require_range(name: str, field: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    _require(1 <= low <= high, f"{name}: {field} is {low}…{high}; give two numbers from 1, the smaller first")


# ---------------------------------------------------------------- the four exact types


@dataclass(frozen=True)
class Completion:
    """The first `int(ratio·H)` rows (vertical) or `int(ratio·W)` columns (horizontal) are missing.

    With `reverse` these rows or columns are known, and all others are missing.
    """

    ratio: float = 0.5
    direction: Direction = "vertical"
    reverse: bool = False

    def __post_init__(self) -> None:
        _require(0 < self.ratio < 1, f"Completion: ratio is {self.ratio}; give a number between 0 and 1")
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
        _require(0 < self.share < 1, f"Expand: share is {self.share}; give a number between 0 and 1")

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
        _require(self.n >= 2, f"EveryNLines: n is {self.n}; give 2 or more")
        _require(0 <= self.offset < self.n, f"EveryNLines: offset is {self.offset}; give 0 to {self.n - 1}")
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
        _require(self.scale >= 2, f"NearestNeighbor: scale is {self.scale}; give 2 or more")
        fits = all(0 <= each < self.scale for each in self.offset)
        _require(fits, f"NearestNeighbor: offset is {self.offset}; give two numbers from 0 to {self.scale - 1}")

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        row, column = self.offset
        mask = np.ones((height, width), bool)
        mask[row :: self.scale, column :: self.scale] = False
        return mask


# ---------------------------------------------------------------- the same four with random settings


@dataclass(frozen=True)
class RandomCompletion:
    """:class:`Completion` with a ratio from `ratio` (uniform), in either direction, from either side."""

    ratio: tuple[float, float] = (0.2, 0.8)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        drawn = Completion(rng.uniform(*self.ratio), _direction(rng), reverse=bool(rng.integers(2)))
        return drawn(height, width, rng)


@dataclass(frozen=True)
class RandomExpand:
    """:class:`Expand` with one of `shares`."""

    shares: tuple[float, ...] = (1 / 4, 1 / 3, 1 / 2)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        return Expand(self.shares[rng.integers(len(self.shares))])(height, width, rng)


@dataclass(frozen=True)
class RandomEveryNLines:
    """:class:`EveryNLines` with an n from `n` (both ends included), in either direction, from any line on."""

    n: tuple[int, int] = (2, 5)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        n = _integer(rng, self.n)
        return EveryNLines(n, _direction(rng), int(rng.integers(n)))(height, width, rng)


@dataclass(frozen=True)
class RandomNearestNeighbor:
    """:class:`NearestNeighbor` with a scale from `scale` (both ends included), from any row and column on."""

    scale: tuple[int, int] = (2, 4)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        scale = _integer(rng, self.scale)
        return NearestNeighbor(scale, (int(rng.integers(scale)), int(rng.integers(scale))))(height, width, rng)


def _direction(rng: np.random.Generator) -> Direction:
    return _DIRECTIONS[rng.integers(len(_DIRECTIONS))]


# ---------------------------------------------------------------- strokes and boxes

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
            _require_range("Strokes", field, getattr(self, field))

    def paint(self, mask: np.ndarray, scale: float, rng: np.random.Generator) -> None:
        """Add the strokes to a mask, bool H×W, with all lengths multiplied by `scale`."""
        height, width = mask.shape
        for stroke in range(_integer(rng, self.count)):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            for _ in range(_integer(rng, (1, MAX_SEGMENTS))):
                angle = STROKE_ANGLES[rng.integers(len(STROKE_ANGLES))] * (1 if stroke % 2 else -1)
                length = _integer(rng, self.length) * scale
                reach = ((_integer(rng, self.width) + 1) // 2 + LINE_EDGE_PIXELS) * scale
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
        _require_range("Boxes", "count", self.count)
        _require_range("Boxes", "size", self.size)
        _require(self.margin >= 0, f"Boxes: margin is {self.margin}; give 0 or more")

    def paint(self, mask: np.ndarray, scale: float, rng: np.random.Generator) -> None:
        """Add the boxes to a mask, bool H×W, with all lengths multiplied by `scale`."""
        height, width = mask.shape
        margin = min(round(self.margin * scale), (min(height, width) - 1) // 2)
        for _ in range(_integer(rng, self.count)):
            box_width = self._side(width - 2 * margin, scale, rng)
            box_height = self._side(height - 2 * margin, scale, rng)
            left = _integer(rng, (margin, width - margin - box_width))
            top = _integer(rng, (margin, height - margin - box_height))
            mask[top : top + box_height, left : left + box_width] = True

    def _side(self, room: int, scale: float, rng: np.random.Generator) -> int:
        return min(max(1, round(_integer(rng, self.size) * scale)), room)


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

        return _draw_until(paint, lambda mask: mask.mean() <= self.max_coverage and not mask.all())


@dataclass(frozen=True)
class BySide:
    """Of several settings those made for the side that is nearest (by ratio) to the image's smaller side."""

    settings: tuple[Painted, ...]

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        smaller = min(height, width)
        nearest = min(self.settings, key=lambda painted: abs(math.log(smaller / painted.side)))
        return nearest(height, width, rng)


def _draw_until(draw: Callable[[], np.ndarray], is_accepted: Callable[[np.ndarray], bool]) -> np.ndarray:
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


def _integer(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


# ---------------------------------------------------------------- mixtures


@dataclass(frozen=True)
class OneOf:
    """One of `parts`, each as likely as any other."""

    parts: tuple[Mask, ...]

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        return self.parts[rng.integers(len(self.parts))](height, width, rng)


@dataclass(frozen=True)
class Union:
    """The pixels that any of `count` masks out of `parts` misses, drawn anew until a pixel stays known."""

    parts: tuple[Mask, ...]
    count: tuple[int, int] = (2, 3)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        one = OneOf(self.parts)

        def draw() -> np.ndarray:
            return np.logical_or.reduce([one(height, width, rng) for _ in range(_integer(rng, self.count))])

        return _draw_until(draw, lambda mask: not mask.all())


# ---------------------------------------------------------------- names

#: The weights of strokes and boxes in the challenge's medium and thick strokes.
_STROKES_WEIGHT, _BOXES_WEIGHT = 1.0, 0.3

_THIN = BySide(
    (
        Painted(((Strokes((4, 51), (5, 14), (10, 49)), 1.0),)),
        Painted(((Strokes((4, 71), (5, 24), (10, 109)), 1.0),), side=512),
    )
)
_MEDIUM = BySide(
    (
        Painted(
            (
                (Strokes((4, 6), (5, 54), (10, 109)), _STROKES_WEIGHT),
                (Boxes((1, 5), (10, 50)), _BOXES_WEIGHT),
            )
        ),
        Painted(
            (
                (Strokes((4, 11), (5, 104), (10, 209)), _STROKES_WEIGHT),
                (Boxes((1, 5), (30, 150)), _BOXES_WEIGHT),
            ),
            side=512,
        ),
    )
)
_THICK = BySide(
    (
        Painted(
            (
                (Strokes((1, 6), (5, 104), (10, 209)), _STROKES_WEIGHT),
                (Boxes((1, 3), (30, 150), margin=10), _BOXES_WEIGHT),
            )
        ),
        Painted(
            (
                (Strokes((1, 6), (5, 254), (10, 459)), _STROKES_WEIGHT),
                (Boxes((1, 4), (30, 300), margin=10), _BOXES_WEIGHT),
            ),
            side=512,
        ),
    )
)

#: What LaMa's own networks are trained with at 256×256 (`abl-04-256-mh-dist.yaml`): strokes and boxes in equal shares.
#: LaMa also keeps a mask that covers all of the image, which 20,000 draws did not bring; here it is drawn anew.
_LAMA = Painted(
    (
        (Strokes((1, 6), (5, 104), (10, 209)), 1.0),
        (Boxes((1, 4), (30, 150), margin=10), 1.0),
    ),
    max_coverage=1.0,
)

#: Rectangles of any aspect ratio, for the combinations of Figure 6. The paper gives no settings of theirs.
_RECTANGLES = Painted(((Boxes((1, 4), (30, 150)), 1.0),))

_STROKES: dict[str, Mask] = {"ThinStrokes": _THIN, "MediumStrokes": _MEDIUM, "ThickStrokes": _THICK}

#: The types of the paper's tables, with the public settings.
TYPES: dict[str, Mask] = {
    "Completion": Completion(),
    "Expand": Expand(),
    "EveryNLines": EveryNLines(),
    "NearestNeighbor": NearestNeighbor(),
    **_STROKES,
}

#: The same types as the challenge's `RandomAttribute` draws them. Its lines and grids begin at the first pixel. Here
#: they begin at any, since a network that has seen one phase alone fills the others worse.
RANDOM_TYPES: dict[str, Mask] = {
    "RandomCompletion": RandomCompletion(),
    "RandomExpand": RandomExpand(),
    "RandomEveryNLines": RandomEveryNLines(),
    "RandomNearestNeighbor": RandomNearestNeighbor(),
    **_STROKES,
}

_RANDOM_GRIDS: tuple[Mask, ...] = (RandomEveryNLines(), RandomNearestNeighbor())
_RANDOM_SEVEN = tuple(RANDOM_TYPES.values())

#: What LaMa trains with, what the paper trains with (Table 4: five and all seven types), and what it generalizes to
#: (Figure 6). `random-attribute` is `general` by the name that the challenge's code gives to its settings.
MIXTURES: dict[str, Mask] = {
    "lama": _LAMA,
    "lama-plus": OneOf((*_STROKES.values(), *_RANDOM_GRIDS)),
    "general": OneOf(_RANDOM_SEVEN),
    "random-attribute": OneOf(_RANDOM_SEVEN),
    "unseen": Union((*_RANDOM_SEVEN, _RECTANGLES)),
}

#: Every mask that has a name.
NAMED: dict[str, Mask] = TYPES | RANDOM_TYPES | MIXTURES


def by_name(name: str) -> Mask:
    """Return the type or mixture of a name.

    Args:
        name: A key of :data:`NAMED`, or several joined by +, each as likely as any other
            (`general+RandomEveryNLines`: one half of all seven, one half lines).

    Returns:
        The mask.

    Raises:
        GlamaError: The name is unknown. The message has the name that was probably meant.
    """
    if "+" in name:
        return OneOf(tuple(by_name(part) for part in name.split("+")))
    if name in NAMED:
        return NAMED[name]
    by_lower = {candidate.lower(): candidate for candidate in NAMED}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    advice = f"did you mean {by_lower[near[0]]!r}?" if near else f"known are {', '.join(NAMED)}"
    raise GlamaError(f"unknown mask {name!r}; {advice}")
