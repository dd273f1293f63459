"""Boxes around the holes of an image: what a network must look at to fill them.

The rule. Missing pixels whose 16×16 cells touch are one hole, with its bounding box. A box is a hole with context on
each side: as much as the hole's longer side, at least LEAST_CONTEXT pixels, as far as the image goes. Its sides are
rounded up to the steps of STEPS, so that few sizes occur, and the box is moved so that it lies within the image. Boxes
that overlap become one where that one is cheaper than both. Every missing pixel belongs to exactly one box.
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

#: Context on each side of a hole, as a share of its longer side, and in pixels at least.
CONTEXT, LEAST_CONTEXT = 1.0, 64

#: Sides of boxes.
STEPS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)

#: What running a box costs beside its pixels, in pixels.
OVERHEAD = 64 * 64

#: Boxes are worth it where they cost less than this share of the whole image.
WORTH = 0.75

#: Pixels that run in one batch at most.
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


@dataclass(frozen=True)
class Box:
    """A hole, and the part of the image that is looked at for it."""

    hole: Span
    span: Span


def boxes(missing: np.ndarray, sizes: SizeRange, *, context: float = CONTEXT) -> list[Box] | None:
    """The boxes for the missing pixels (bool H×W) of an image, on an engine of these sizes; None where a hole with its
    context does not fit it. Empty where nothing is missing."""
    found: list[Box] = []
    for hole in holes(missing):
        box = _around(hole, missing.shape, sizes, context)
        if box is None:
            return None
        found.append(box)
    return _joined(found, missing.shape, sizes, context)


def cost(found: Sequence[Box]) -> int:
    """Of running them, in pixels."""
    return sum(height * width + OVERHEAD for height, width in (box.span.size for box in found))


def pay(found: Sequence[Box], height: int, width: int) -> bool:
    """Whether the boxes cost clearly less than the whole image."""
    return cost(found) < WORTH * height * width


def alike(found: Sequence[Box], most: int | None) -> Iterator[list[Box]]:
    """The boxes in groups of one size, as many together as a batch holds and as MOST_TOGETHER allows."""
    by_size: dict[tuple[int, int], list[Box]] = {}
    for box in found:
        by_size.setdefault(box.span.size, []).append(box)
    for (height, width), group in by_size.items():
        count = max(1, min(most or len(group), MOST_TOGETHER // (height * width)))
        for start in range(0, len(group), count):
            yield group[start : start + count]


def holes(missing: np.ndarray) -> list[Span]:
    """Bounding boxes of the missing pixels, those in cells that touch (also at a corner) together; none overlap. The
    cells are larger where there would be more than MOST_HOLES."""
    cell = CELL
    while len(spans := _disjoint(_components(missing, cell))) > MOST_HOLES:
        cell *= 2
    return spans


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
    part = missing[top : cells.bottom * cell, left : cells.right * cell]
    rows, columns = np.nonzero(part.any(axis=1))[0], np.nonzero(part.any(axis=0))[0]
    return Span(top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1)


def _disjoint(spans: list[Span]) -> list[Span]:
    """The same with those that overlap joined, until none do."""
    while True:
        pair = next((p for p in combinations(spans, 2) if p[0].overlaps(p[1])), None)
        if pair is None:
            return spans
        spans = [span for span in spans if span not in pair] + [pair[0].union(pair[1])]


def _around(hole: Span, shape: tuple[int, ...], sizes: SizeRange, context: float) -> Box | None:
    """The hole's box, or None where no box of these sizes holds it."""
    margin = max(LEAST_CONTEXT, round(context * max(hole.size)))
    ends = []
    for axis, (start, stop) in enumerate(((hole.top, hole.bottom), (hole.left, hole.right))):
        extent, least, most = shape[axis], sizes.min[axis], sizes.max[axis]
        wanted = min(extent, stop - start + 2 * margin)
        steps = [least] if sizes.static else [step for step in STEPS if step >= least]
        side = next((step for step in steps if wanted <= step <= extent), extent)
        if not least <= next_side(side) <= most:
            return None
        first = min(max(0, (start + stop - side) // 2), extent - side)
        ends.append((first, first + side))
    (top, bottom), (left, right) = ends
    return Box(hole, Span(top, left, bottom, right))


def _joined(found: list[Box], shape: tuple[int, ...], sizes: SizeRange, context: float) -> list[Box]:
    """The same with boxes that overlap as one wherever that is cheaper."""
    for one, other in combinations(found, 2):
        if not one.span.overlaps(other.span):
            continue
        rest = [box.hole for box in found if box not in (one, other)]
        fewer = [_around(h, shape, sizes, context) for h in _disjoint([*rest, one.hole.union(other.hole)])]
        whole = [box for box in fewer if box is not None]
        if len(whole) == len(fewer) and cost(whole) < cost(found):
            return _joined(whole, shape, sizes, context)
    return found
