"""Merge boxes by agglomerative clustering. Each step saves as much cost as any step can.

Many boxes are first merged within square blocks of the image, from the smallest blocks upwards. Then pairs of
neighbours are merged, the pair that saves most first, until no pair saves anything.

A box is compared only with its MAX_NEIGHBOURS nearest boxes, which a grid finds. The number of comparisons grows
linearly with the number of boxes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush, nsmallest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glama_deploy.inpainting.boxes import Box, Span

#: The greatest number of boxes that a box is compared with.
MAX_NEIGHBOURS = 8

#: Above this many boxes, boxes of one block are merged first.
MAX_BOXES_WITHOUT_BLOCKS = 1000

#: Three ways of nesting blocks, with their sides in pixels. The cheapest way is taken. With a context of 64 pixels and
#: some pixels that stick out, the largest blocks need boxes of 1024, 768 and 512 pixels.
NESTED_BLOCK_SIDES = (52, 104, 208, 416, 832), (72, 144, 288, 576), (40, 80, 160, 320)

#: Side in pixels of the grid's buckets.
BUCKET_PIXELS = 256

#: Returns the box of several boxes; None if they cost less apart.
Merge = Callable[[Sequence["Box"]], "Box | None"]


def merge_boxes(boxes: Sequence[Box], merge: Merge, reach: int) -> list[Box]:
    """Merge boxes that cost less as one box.

    Args:
        boxes: the boxes of an image.
        merge: returns the box of several boxes, or None if they cost less apart.
        reach: distance in pixels up to which boxes are neighbours.

    Returns:
        The merged boxes and the boxes that are left. Their order is arbitrary, and the same in each run.
    """
    if len(boxes) > MAX_BOXES_WITHOUT_BLOCKS:
        boxes = min((_merge_nested(boxes, merge, sides) for sides in NESTED_BLOCK_SIDES), key=_cost)
    return _Clusters(boxes, merge, reach).merge_all()


def _cost(boxes: Sequence[Box]) -> float:
    """Return the cost of running all boxes, in pixels."""
    return sum(box.cost for box in boxes)


def _merge_nested(boxes: Sequence[Box], merge: Merge, sides: Sequence[int]) -> Sequence[Box]:
    """Merge the boxes of each block where one box costs less, from the smallest blocks upwards."""
    for side in sides:
        boxes = _merge_blocks(boxes, merge, side)
    return boxes


def _merge_blocks(boxes: Sequence[Box], merge: Merge, side: int) -> list[Box]:
    """Merge the boxes of each block of one size where one box costs less."""
    blocks: dict[tuple[int, int], list[Box]] = defaultdict(list)
    for box in boxes:
        hole = box.hole
        blocks[(hole.top + hole.bottom) // (2 * side), (hole.left + hole.right) // (2 * side)].append(box)
    found: list[Box] = []
    for block in blocks.values():
        merged = merge(block) if len(block) > 1 else None
        found += block if merged is None else [merged]
    return found


class _Clusters:
    """Boxes by number, whose neighbours are merged. A merged box gets a new number."""

    def __init__(self, boxes: Sequence[Box], merge: Merge, reach: int) -> None:
        """Give each box a number.

        Args:
            boxes: the boxes of an image.
            merge: returns the box of several boxes, or None if they cost less apart.
            reach: distance in pixels up to which boxes are neighbours.
        """
        self._boxes: dict[int, Box] = {}
        self._merge, self._reach = merge, reach
        self._buckets: dict[tuple[int, int], set[int]] = defaultdict(set)
        #: The change of cost by merging a pair, which is below 0, and the pair. Pairs of boxes that are gone stay in.
        self._pairs: list[tuple[float, int, int]] = []
        #: Pairs that were compared, with or without success.
        self._compared: set[tuple[int, int]] = set()
        self._count = 0
        for box in boxes:
            self._add(box)

    def merge_all(self) -> list[Box]:
        """Merge neighbours until no pair saves cost.

        Returns:
            The merged boxes and the boxes that are left.
        """
        # the largest first: they absorb the boxes within them, which are then compared with nothing
        for number in sorted(self._boxes, key=lambda number: (-self._boxes[number].pixels, number)):
            if number in self._boxes:
                self._compare(number)
        while self._pairs:
            _, one, other = heappop(self._pairs)
            if one in self._boxes and other in self._boxes:
                merged = self._merge([self._boxes[one], self._boxes[other]])
                assert merged is not None  # absorbed boxes change neither the need nor the cost of a box
                self._remove(one)
                self._remove(other)
                self._compare(self._add(merged))
        return list(self._boxes.values())

    def _compare(self, number: int) -> None:
        """Absorb the boxes within a box, and note the neighbours with which the box costs less."""
        box = self._boxes[number]
        near = [other for other in self._near(box.span) if other != number]
        inside = [other for other in near if box.need.contains(self._boxes[other].need)]
        whole = self._merge([box, *(self._boxes[other] for other in inside)]) if inside else None
        if whole is not None:
            for other in inside:
                self._remove(other)
            box = self._boxes[number] = whole
        distances = ((_gap(box.span, self._boxes[other].span), other) for other in near if other in self._boxes)
        for distance, other in nsmallest(MAX_NEIGHBOURS, distances):
            pair = (min(number, other), max(number, other))
            if distance > self._reach or pair in self._compared:
                continue
            self._compared.add(pair)
            merged = self._merge([box, self._boxes[other]])
            if merged is not None:
                heappush(self._pairs, (merged.cost - box.cost - self._boxes[other].cost, *pair))

    def _near(self, span: Span) -> list[int]:
        """Return the numbers of the boxes in the buckets within reach of a rectangle, smallest first."""
        return sorted(set().union(*(self._buckets[bucket] for bucket in _covered(span.grown(self._reach)))))

    def _add(self, box: Box) -> int:
        """Add a box and return its number."""
        number = self._count
        self._count += 1
        self._boxes[number] = box
        for bucket in _covered(box.span):
            self._buckets[bucket].add(number)
        return number

    def _remove(self, number: int) -> None:
        """Remove a box by its number."""
        for bucket in _covered(self._boxes.pop(number).span):
            self._buckets[bucket].discard(number)


def _covered(span: Span) -> Iterator[tuple[int, int]]:
    """Yield the row and column of each bucket that a rectangle touches."""
    for row in range(span.top // BUCKET_PIXELS, (span.bottom - 1) // BUCKET_PIXELS + 1):
        for column in range(span.left // BUCKET_PIXELS, (span.right - 1) // BUCKET_PIXELS + 1):
            yield row, column


def _gap(one: Span, other: Span) -> int:
    """Return the pixels between two rectangles along the axis with the larger gap; negative if they overlap."""
    return max(one.top - other.bottom, other.top - one.bottom, one.left - other.right, other.left - one.right)
