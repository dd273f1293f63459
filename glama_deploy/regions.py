"""Boxes around the holes of an image: what a network must look at to fill them.

The rule. Missing pixels whose 16×16 cells touch are one hole, with its bounding box. A box is a hole with context on
each side: half of the hole's longer side, at least LEAST_CONTEXT pixels, as far as the image goes. Its sides are
rounded up to STEPS (beyond them to thousands), so that few sizes occur, but not beyond the image or what the engine
takes, and the box is moved so that it lies within the image. Boxes that overlap become one where that one is cheaper
than both. Every missing pixel belongs to exactly one box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from glama_deploy.bundle import SizeRange
from glama_deploy.network import next_side

#: Side of the cells in which holes are looked for; two holes that are closer than that are one.
CELL = 16

#: Context on each side of a hole, as a share of its longer side, and in pixels at least (benchmarks/regions.py).
CONTEXT, LEAST_CONTEXT = 0.5, 64

#: Sides of boxes.
STEPS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)

#: What running a box costs beside its pixels, in pixels.
OVERHEAD = 64 * 64

#: Boxes are worth it where they cost less than this share of the whole image.
WORTH = 0.75

#: Pixels that run in one batch at most, with what boxes cost beside theirs.
MOST_TOGETHER = 512 * 512

#: More holes than these are looked at in larger cells.
MOST_HOLES = 24


@dataclass(frozen=True)
class Span:
    """A rectangle of pixels: rows top ≤ y < bottom, columns left ≤ x < right."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def overlaps(self, other: Span) -> bool:
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )

    def union(self, other: Span) -> Span:
        return Span(
            min(self.top, other.top),
            min(self.left, other.left),
            max(self.bottom, other.bottom),
            max(self.right, other.right),
        )

    def within(self, frame: Span) -> Span:
        """The same pixels, counted from the frame's corner."""
        top, left = frame.top, frame.left
        return Span(self.top - top, self.left - left, self.bottom - top, self.right - left)


@dataclass(frozen=True)
class Box:
    """A hole, and the part of the image that is looked at for it."""

    hole: Span
    span: Span
    #: What it costs beside its pixels, in pixels.
    extra: int = OVERHEAD

    @property
    def cost(self) -> int:
        height, width = self.span.size
        return height * width + self.extra


@dataclass(frozen=True)
class Rule:
    """What boxes are made by: the engine's sizes, the context as a share of a hole's longer side, whether they are
    square (so that fewer sizes occur), and what a box costs beside its pixels, in pixels."""

    sizes: SizeRange
    context: float = CONTEXT
    square: bool = False
    extra: int = OVERHEAD

    def boxes(self, missing: np.ndarray) -> list[Box] | None:
        """The boxes for the missing pixels (bool H×W) of an image; None where a hole with its context does not fit the
        engine. Empty where nothing is missing."""
        fitting, large = self.parted(missing)
        return None if large else self._joined(fitting, missing.shape)

    def parted(self, missing: np.ndarray) -> tuple[list[Box], list[Span]]:
        """A box for each hole that fits the engine with its context, and the holes that do not."""
        around = [(hole, self._around(hole, missing.shape)) for hole in holes(missing)]
        return [box for _, box in around if box is not None], [hole for hole, box in around if box is None]

    def _around(self, hole: Span, shape: tuple[int, ...]) -> Box | None:
        """The hole's box, or None where no box of these sizes holds it."""
        around = 2 * margin(hole, self.context)
        sides = [self._side(axis, side + around, shape[axis]) for axis, side in enumerate(hole.size)]
        if self.square and not self.sizes.static:
            most = self.sizes.max
            wanted = [max(side, min(max(sides), most[axis])) for axis, side in enumerate(sides)]
            sides = [self._side(axis, wanted[axis], extent) for axis, extent in enumerate(shape)]
        spans = []
        for axis, (start, stop) in enumerate(((hole.top, hole.bottom), (hole.left, hole.right))):
            if not self.sizes.min[axis] <= next_side(sides[axis]) <= self.sizes.max[axis]:
                return None
            first = min(max(0, (start + stop - sides[axis]) // 2), shape[axis] - sides[axis])
            spans.append((first, first + sides[axis]))
        (top, bottom), (left, right) = spans
        return Box(hole, Span(top, left, bottom, right), self.extra)

    def _side(self, axis: int, wanted: int, extent: int) -> int:
        """The smallest of the sides that a box may have that shows as much as is wanted, or all that there is."""
        least, most = self.sizes.min[axis], self.sizes.max[axis]
        wanted = min(wanted, extent)
        steps = [least] if self.sizes.static else [*STEPS, -(-wanted // 1024) * 1024, most]
        return min((step for step in steps if max(least, wanted) <= step <= min(most, extent)), default=extent)

    def _joined(self, found: list[Box], shape: tuple[int, ...]) -> list[Box]:
        """The same with boxes that overlap as one wherever that is cheaper."""
        for one, other in combinations(found, 2):
            if not one.span.overlaps(other.span):
                continue
            rest = [box.hole for box in found if box not in (one, other)]
            fewer = [self._around(hole, shape) for hole in _disjoint([*rest, one.hole.union(other.hole)])]
            whole = [box for box in fewer if box is not None]
            if len(whole) == len(fewer) and cost(whole) < cost(found):
                return self._joined(whole, shape)
        return found


def margin(hole: Span, context: float = CONTEXT) -> int:
    """Pixels of context on each side of a hole."""
    return max(LEAST_CONTEXT, round(context * max(hole.size)))


def whole(height: int, width: int) -> Box:
    """The image as one box."""
    image = Span(0, 0, height, width)
    return Box(image, image)


def cost(found: Sequence[Box]) -> int:
    """Of running them, in pixels."""
    return sum(box.cost for box in found)


def pay(found: Sequence[Box], height: int, width: int) -> bool:
    """Whether the boxes cost clearly less than the whole image."""
    return cost(found) < WORTH * height * width


def alike(found: Sequence[Box], most: int | None) -> Iterator[list[Box]]:
    """The boxes in groups of one size, as many together as a batch holds and as MOST_TOGETHER allows."""
    by_size: dict[tuple[int, int], list[Box]] = {}
    for box in found:
        by_size.setdefault(box.span.size, []).append(box)
    for group in by_size.values():
        count = max(1, min(most or len(group), MOST_TOGETHER // group[0].cost))
        for start in range(0, len(group), count):
            yield group[start : start + count]


def holes(missing: np.ndarray) -> list[Span]:
    """Bounding boxes of the missing pixels, those in cells that touch (also at a corner) together; none overlap. The
    cells are larger where there would be more than MOST_HOLES."""
    cell = CELL
    while True:
        spans = _components(missing, cell)
        if len(spans) <= 4 * MOST_HOLES and len(spans := _disjoint(spans)) <= MOST_HOLES:
            return spans
        cell *= 2


def bounds(missing: np.ndarray) -> Span:
    """The bounding box of the missing pixels (bool H×W), of which there are some."""
    rows, columns = np.nonzero(missing.any(axis=1))[0], np.nonzero(missing.any(axis=0))[0]
    return Span(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _components(missing: np.ndarray, cell: int) -> list[Span]:
    height, width = missing.shape
    padded = np.pad(missing, ((0, -height % cell), (0, -width % cell)))
    cells = np.asarray(padded.reshape(padded.shape[0] // cell, cell, -1, cell).any(axis=(1, 3)))
    spans = []
    for row, column in zip(*(axis.tolist() for axis in np.nonzero(cells)), strict=True):
        if cells[row, column]:  # none of those that were found before
            spans.append(_tight(missing, _taken(cells, row, column), cell))
    return spans


def _taken(cells: np.ndarray, row: int, column: int) -> Span:
    """The bounding box, in cells, of what hangs together with a cell; all of that is taken out of `cells`."""
    cells[row, column] = False
    todo, span = [(row, column)], Span(row, column, row + 1, column + 1)
    while todo:
        row, column = todo.pop()
        span = span.union(Span(row, column, row + 1, column + 1))
        top, left = max(row - 1, 0), max(column - 1, 0)
        around = cells[top : row + 2, left : column + 2]
        rows, columns = np.nonzero(around)
        todo += zip((rows + top).tolist(), (columns + left).tolist(), strict=True)
        around[:] = False
    return span


def _tight(missing: np.ndarray, cells: Span, cell: int) -> Span:
    """The bounding box of the missing pixels themselves within one in cells."""
    top, left = cells.top * cell, cells.left * cell
    span = bounds(missing[top : cells.bottom * cell, left : cells.right * cell])
    return Span(top + span.top, left + span.left, top + span.bottom, left + span.right)


def _disjoint(spans: list[Span]) -> list[Span]:
    """The same with those that overlap joined, until none do."""
    while True:
        pair = next((p for p in combinations(spans, 2) if p[0].overlaps(p[1])), None)
        if pair is None:
            return spans
        spans = [span for span in spans if span not in pair] + [pair[0].union(pair[1])]
