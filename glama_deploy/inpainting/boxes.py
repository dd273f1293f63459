"""Find boxes around the holes of an image: the parts that a network is shown to fill the holes.

A hole is a set of missing pixels whose 16×16 cells touch, with its bounding box. A hole needs context on each side, as
far as the image goes: half of its longer side, but at least MIN_CONTEXT_PIXELS, and not more than MAX_CONTEXT_PIXELS or
a quarter of its shorter side. The pixels of a long strip are near its longer edges. The edges of the context are moved
to the nearest multiples of 8 pixels of the image. The network then reduces the same squares of pixels as in the whole
image.

A box is a hole with its context. Sides are rounded up to multiples of 8. For an engine that compiles each size, sides
are rounded up to BOX_SIDES, and boxes are square unless they are long. A box is not larger than the image or the
engine's largest size, and is moved to lie within the image. Its corner is a multiple of 8, except where the box ends
with an image whose side is not one.

Holes share a box where one box costs less than two (:mod:`glama_deploy.inpainting.clusters`). A shared box shows the
context of each of its holes. Boxes and bounding boxes of holes may overlap: a pixel is filled with the first hole that
contains the pixel. The network is shown every missing pixel in a box as missing, whichever hole the pixel belongs to.

Boxes of nearly one size become boxes of one size where the added pixels cost less than one more size
(:mod:`glama_deploy.inpainting.common_sizes`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from glama_deploy.bundle import SizeRange
from glama_deploy.inpainting.clusters import merge_boxes
from glama_deploy.inpainting.common_sizes import choose_common_sizes
from glama_deploy.inpainting.components import find_components
from glama_deploy.network import SIZE_MULTIPLE, next_side

#: Side of the cells in which holes are found, in pixels. Missing pixels in cells that touch are one hole.
CELL_PIXELS = 16

#: Context on each side of a hole, as a share of the hole's longer side (benchmarks/quality/boxes.py).
CONTEXT_SHARE = 0.5

#: The least context on each side of a hole, in pixels.
MIN_CONTEXT_PIXELS = 64

#: The most context on each side of a hole, in pixels, unless the hole's shorter side is long.
MAX_CONTEXT_PIXELS = 128

#: The most context of a hole whose shorter side is long, as a share of that side.
MAX_CONTEXT_SHARE = 0.25

#: Sides of boxes for an engine that compiles each size, in pixels; above them multiples of 1024.
BOX_SIDES = (
    *(128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024),
    *(1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096),
)

#: A box for a compiled size is square, unless one side is more than this many times the other.
MAX_SQUARE_RATIO = 2

#: Cost of a size that an engine has not run yet, in pixels. Measured by benchmarks/speed/new_sizes.py.
NEW_SIZE_PIXELS = 128 * 128

#: Cost of a size that an engine compiles, in pixels. Measured by benchmarks/speed/new_sizes.py.
COMPILED_SIZE_PIXELS = 2 * 512 * 512

#: Cost of a box beside its pixels, in pixels.
BOX_OVERHEAD_PIXELS = 64 * 64

#: Boxes are taken where they cost at most this share of the whole image.
MAX_COST_SHARE = 0.75

#: A box of more pixels is large: a network needs about 1 GB for one. Holes share a large box only where a hole needs
#: one as large. A larger image is shown by boxes as soon as the boxes cost less.
LARGE_BOX_PIXELS = 1024 * 1024

#: An image of more pixels is huge: a network needs several GB for one, which many machines do not have free.
HUGE_IMAGE_PIXELS = 4 * LARGE_BOX_PIXELS

#: Boxes of a huge image may cost this many times as much as the image, because they save nearly all of the memory.
HUGE_IMAGE_MAX_COST_SHARE = 2.0

#: The share of a huge image that the largest box may have so that boxes save the memory.
HUGE_IMAGE_MAX_BOX_SHARE = 0.25

#: The greatest cost of the boxes of one batch, in pixels.
MAX_BATCH_COST_PIXELS = 512 * 512

#: Returns whether a box of this height and width fits the engine and the memory.
Fits = Callable[[int, int], bool]


@dataclass(frozen=True)
class Span:
    """A rectangle of pixels: rows top ≤ y < bottom and columns left ≤ x < right."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns, as an index of an array H×W."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def batch_slices(self) -> tuple[slice, slice, slice]:
        """All images, the rows and columns, as an index of an array B×H×W."""
        return slice(None), *self.slices

    def contains(self, other: Span) -> bool:
        """Return whether all pixels of another rectangle are in this one.

        Args:
            other: the other rectangle.

        Returns:
            True if this rectangle contains the other.
        """
        return (
            self.top <= other.top
            and self.left <= other.left
            and other.bottom <= self.bottom
            and other.right <= self.right
        )

    def grown(self, pixels: int) -> Span:
        """Return the rectangle with more pixels on each side.

        Args:
            pixels: number of pixels that are added to each side.

        Returns:
            A rectangle that may leave the image.
        """
        return Span(self.top - pixels, self.left - pixels, self.bottom + pixels, self.right + pixels)

    def moved(self, rows: int, columns: int) -> Span:
        """Return the rectangle elsewhere.

        Args:
            rows: number of pixels downwards.
            columns: number of pixels to the right.

        Returns:
            A rectangle of the same size.
        """
        return Span(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)

    def within(self, frame: Span) -> Span:
        """Return the same pixels, counted from the top left corner of a frame.

        Args:
            frame: the frame in the image.

        Returns:
            The rectangle in the frame.
        """
        return self.moved(-frame.top, -frame.left)


@dataclass(frozen=True)
class Box:
    """A part of the image that the network is shown to fill one or more holes.

    Attributes:
        hole: bounding box of the holes.
        need: bounding box of the needs of the holes (:func:`find_need`), which may leave the image.
        span: the pixels that are shown. They contain the hole, and the need as far as the image goes.
        cost: cost of running the box, in pixels.
    """

    hole: Span
    need: Span
    span: Span
    cost: float

    @property
    def pixels(self) -> int:
        """The number of pixels that are shown."""
        height, width = self.span.size
        return height * width


@dataclass(frozen=True)
class Rule:
    """The rule by which boxes are made for an engine and a network.

    Attributes:
        sizes: sizes that the engine takes.
        context: context on each side of a hole, as a share of the hole's longer side, within the bounds of
            :func:`context_margin`.
        compiles_sizes: whether the engine compiles each size. Boxes then have sides of BOX_SIDES, and are square
            unless they are long.
        overhead_pixels: cost of a box beside its pixels, in pixels.
        fourier_cost: cost of the network's Fourier transforms for each pixel of a box and each pixel of (width +
            2·height), as a share of the rest's cost for a pixel.
    """

    sizes: SizeRange
    context: float = CONTEXT_SHARE
    compiles_sizes: bool = False
    overhead_pixels: int = BOX_OVERHEAD_PIXELS
    fourier_cost: float = 0.0

    def find_boxes(self, missing: np.ndarray) -> tuple[list[Box], list[Span]]:
        """Find a box for each hole of an image.

        Args:
            missing: bool H×W, True where a pixel is missing.

        Returns:
            A box for each hole that fits the engine with its context, and the holes that do not fit.
        """
        around = [(hole, self._make_hole_box(hole, missing.shape)) for hole in find_holes(missing)]
        return [box for _, box in around if box is not None], [hole for hole, box in around if box is None]

    def merge_boxes(self, found: Sequence[Box], shape: tuple[int, ...], fits: Fits | None = None) -> list[Box]:
        """Merge boxes that cost less as one box.

        Args:
            found: boxes of an image of `shape`.
            shape: height and width of the image.
            fits: whether a merged box may have a height and width. By default any size that the engine takes is fine.

        Returns:
            Boxes that contain every hole of `found` with its context, from the top of the image to its bottom. They
            cost no more than `found`. A merged box has no more pixels than LARGE_BOX_PIXELS or the largest of `found`.
        """
        most = max([LARGE_BOX_PIXELS, *(box.pixels for box in found)])

        def merge(boxes: Sequence[Box]) -> Box | None:
            box = self._make_box(unite([box.hole for box in boxes]), unite([box.need for box in boxes]), shape)
            if box is None or box.pixels > most or box.cost >= total_cost(boxes):
                return None
            return box if fits is None or fits(*box.span.size) else None

        merged = merge_boxes(found, merge, reach=round(self.overhead_pixels**0.5))
        return sorted(merged, key=lambda box: (box.hole.top, box.hole.left))

    def whole_image(self, shape: tuple[int, ...]) -> Box:
        """Return the image as one box.

        Args:
            shape: height and width of the image in pixels.

        Returns:
            A box whose hole is the whole image.
        """
        image = Span(0, 0, shape[0], shape[1])
        return Box(image, image, image, self.cost_of(*image.size))

    def is_better_than_whole(self, cost: float, shape: tuple[int, ...], largest: int) -> bool:
        """Return whether an image is better filled by boxes and tiles than as a whole.

        Boxes of a small image must be clearly cheaper (MAX_COST_SHARE). Above LARGE_BOX_PIXELS they must be cheaper,
        because they need less memory. Above HUGE_IMAGE_PIXELS they may cost more
        (HUGE_IMAGE_MAX_COST_SHARE), if they need far less memory.

        Args:
            cost: cost of all boxes and tiles, in pixels.
            shape: height and width of the image in pixels.
            largest: number of pixels of the largest box or tile.

        Returns:
            True if boxes and tiles are to be taken.
        """
        image = self.whole_image(shape)
        if image.pixels <= LARGE_BOX_PIXELS:
            max_share = MAX_COST_SHARE
        elif image.pixels <= HUGE_IMAGE_PIXELS or largest > HUGE_IMAGE_MAX_BOX_SHARE * image.pixels:
            max_share = 1.0
        else:
            max_share = HUGE_IMAGE_MAX_COST_SHARE
        return cost < max_share * image.cost

    @overload
    def cost_of(self, height: int, width: int) -> float: ...

    @overload
    def cost_of(self, height: np.ndarray, width: np.ndarray) -> np.ndarray: ...

    def cost_of(self, height: int | np.ndarray, width: int | np.ndarray) -> float | np.ndarray:
        """Return the cost of running a box, or of running boxes.

        Args:
            height: height of the box in pixels, or the heights of boxes.
            width: width of the box in pixels, or the widths of boxes.

        Returns:
            The cost in pixels, or an array of costs.
        """
        return height * width * (1 + self.fourier_cost * (width + 2 * height)) + self.overhead_pixels

    def share_sizes(self, found: Sequence[Box], shape: tuple[int, ...], fits: Fits | None = None) -> list[Box]:
        """Enlarge boxes to sizes that several boxes share, where the added pixels cost less than one more size.

        Args:
            found: boxes of an image of `shape`.
            shape: height and width of the image.
            fits: whether a box may have a height and width. By default any size that the engine takes is fine.

        Returns:
            The boxes in their order. Each contains the hole and the need of the box before.
        """
        if len(found) < 2 or self.sizes.static:
            return list(found)
        most = min(self.sizes.max[0], shape[0]), min(self.sizes.max[1], shape[1])
        sizes = choose_common_sizes(
            [box.span.size for box in found],
            most,
            self.cost_of,
            COMPILED_SIZE_PIXELS if self.compiles_sizes else NEW_SIZE_PIXELS,
            fits or (lambda height, width: True),
        )
        return [self._place_box(box.hole, box.need, size, shape) for box, size in zip(found, sizes, strict=True)]

    def _make_hole_box(self, hole: Span, shape: tuple[int, ...]) -> Box | None:
        """Return the box of one hole; None if the engine takes no box that contains the hole with its context."""
        return self._make_box(hole, find_need(hole, self.context), shape)

    def _make_box(self, hole: Span, need: Span, shape: tuple[int, ...]) -> Box | None:
        """Return the box that shows a hole and a need; None if the engine takes no such box."""
        high, wide = (self._round_side(axis, side, shape[axis]) for axis, side in enumerate(need.size))
        if self.compiles_sizes and not self.sizes.static and max(high, wide) <= MAX_SQUARE_RATIO * min(high, wide):
            square = max(high, wide)
            high = self._round_side(0, max(high, min(square, self.sizes.max[0])), shape[0])
            wide = self._round_side(1, max(wide, min(square, self.sizes.max[1])), shape[1])
        if not self.sizes.covers(next_side(high), next_side(wide)):
            return None
        return self._place_box(hole, need, (high, wide), shape)

    def _place_box(self, hole: Span, need: Span, size: tuple[int, int], shape: tuple[int, ...]) -> Box:
        """Return the box of a size that shows a hole and a need, moved to lie within the image."""
        (high, wide), (tall, broad) = size, shape[:2]
        top, left = (
            min(max(0, (start + stop - side) // 2 // SIZE_MULTIPLE * SIZE_MULTIPLE), extent - side)
            for start, stop, side, extent in ((need.top, need.bottom, high, tall), (need.left, need.right, wide, broad))
        )
        return Box(hole, need, Span(top, left, top + high, left + wide), self.cost_of(high, wide))

    def _round_side(self, axis: int, wanted: int, extent: int) -> int:
        """Return the smallest side of a box that shows as many pixels as are wanted, or all of the image's.

        Args:
            axis: 0 for the height, 1 for the width.
            wanted: pixels that are to be shown.
            extent: side of the image in pixels.
        """
        least, most = self.sizes.min[axis], self.sizes.max[axis]
        needed = max(least, min(wanted, extent))
        steps: tuple[int, ...]
        if self.sizes.static:
            steps = (least,)
        elif self.compiles_sizes:  # the smallest of BOX_SIDES that is large enough, the next thousand, the largest
            steps = (*BOX_SIDES[(first := bisect_left(BOX_SIDES, needed)) : first + 1], -(-needed // 1024) * 1024, most)
        else:
            steps = (next_side(needed),)
        return min((step for step in steps if needed <= step <= min(most, extent)), default=extent)


def context_margin(hole: Span, context: float = CONTEXT_SHARE) -> int:
    """Return the pixels of context on each side of a hole.

    Args:
        hole: bounding box of the hole.
        context: context as a share of the hole's longer side.

    Returns:
        Pixels, at least MIN_CONTEXT_PIXELS, and at most MAX_CONTEXT_PIXELS or a quarter of the shorter side.
    """
    most = max(MAX_CONTEXT_PIXELS, round(MAX_CONTEXT_SHARE * min(hole.size)))
    return max(MIN_CONTEXT_PIXELS, min(most, round(context * max(hole.size))))


def find_need(hole: Span, context: float = CONTEXT_SHARE) -> Span:
    """Return a hole with its context, between multiples of 8 pixels.

    Args:
        hole: bounding box of the hole.
        context: context as a share of the hole's longer side.

    Returns:
        A rectangle that may leave the image. On each side the context is at most 4 pixels more or less than
        :func:`context_margin`.
    """
    around = hole.grown(context_margin(hole, context))
    edges = (around.top, around.left, around.bottom, around.right)
    return Span(*((edge + SIZE_MULTIPLE // 2) // SIZE_MULTIPLE * SIZE_MULTIPLE for edge in edges))


def total_cost(found: Sequence[Box]) -> float:
    """Return the cost of running boxes.

    Args:
        found: the boxes.

    Returns:
        The cost of all boxes in pixels.
    """
    return sum(box.cost for box in found)


def group_by_size(found: Sequence[Box], most: int | None) -> Iterator[list[Box]]:
    """Group boxes of one size.

    Args:
        found: boxes of an image.
        most: the greatest number of boxes in a group; None for any number.

    Yields:
        Boxes of one size, which together cost at most MAX_BATCH_COST_PIXELS or are a single box.
    """
    by_size: dict[tuple[int, int], list[Box]] = {}
    for box in found:
        by_size.setdefault(box.span.size, []).append(box)
    for group in by_size.values():
        count = max(1, min(most or len(group), int(MAX_BATCH_COST_PIXELS // group[0].cost)))
        for start in range(0, len(group), count):
            yield group[start : start + count]


def find_holes(missing: np.ndarray) -> list[Span]:
    """Find the holes of an image.

    Args:
        missing: bool H×W, True where a pixel is missing.

    Returns:
        The bounding box of each hole, in the order of their first cells, row by row.
    """
    return [Span(*corners) for corners in find_components(missing, CELL_PIXELS).tolist()]


def bounding_box(missing: np.ndarray) -> Span:
    """Return the bounding box of the missing pixels.

    Args:
        missing: bool H×W, at least one True.

    Returns:
        The smallest rectangle that contains all missing pixels.
    """
    rows, columns = np.nonzero(missing.any(axis=1))[0], np.nonzero(missing.any(axis=0))[0]
    return Span(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def unite(spans: Sequence[Span]) -> Span:
    """Return the smallest rectangle that contains all rectangles.

    Args:
        spans: the rectangles, at least one.

    Returns:
        The rectangle.
    """
    return Span(
        min(span.top for span in spans),
        min(span.left for span in spans),
        max(span.bottom for span in spans),
        max(span.right for span in spans),
    )
