"""Holes that are too large for an engine or the memory: overlapping tiles over a draft of the whole hole.

The rule. The hole with its context is brought down to half its size, or to less of it where it fits then, and filled
there; by this very rule if it still does not fit. Enlarged, that is the draft: it knows what lies on all sides of the
hole, and lacks nothing but detail. Then tiles of one size go over the hole, from its border inwards, and the network
fills each at full size. It sees, around the part that it is to fill, known pixels, what earlier tiles filled, and the
draft where none of these is near: no tile lacks surroundings, and each goes on with what its neighbours began. Tiles
overlap and pass into each other with weights that sum to 1 in every pixel.

Without the draft the first tiles in the middle of a hole have no known pixel to go by, and are black or gray
(benchmarks/quality/tiles.py compares).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from glama_deploy.bundle import SizeRange
from glama_deploy.inpainting.boxes import BOX_SIDES, CELL_PIXELS, MIN_CONTEXT_PIXELS, Span, bounding_box, context_margin
from glama_deploy.network import next_side

#: What a tile shows around the part that it fills, and the width over which two pass into each other, as shares of its
#: side.
RING_SHARE, RAMP_SHARE = 1 / 8, 1 / 16

#: The longest side of a tile, which bounds what tiles take however much there is (benchmarks/speed/scale.py).
MAX_TILE_SIDE = 2048

#: A draft is brought down by this at most at once.
MAX_DRAFT_REDUCTION = 2

#: Bytes that stand beside the engine for each pixel of the image, at most.
BYTES_PER_IMAGE_PIXEL = 40

#: Height and width.
Size = tuple[int, int]

#: An engine on a picture: uint8 H×W×3 and missing bool H×W → uint8 H×W×3.
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tile:
    """What is looked at at once, and how much what is filled there counts: float32 by row and by column, 0…1."""

    span: Span
    rows: np.ndarray
    columns: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """float32 H×W."""
        return self.rows[:, None] * self.columns


def list_tile_sizes(takes: SizeRange, shape: Size) -> list[Size]:
    """The sizes that tiles of an image of `shape` may have in an engine, largest first; none where that takes nothing
    as small as the image."""
    found: list[Size] = []
    for step in (step for step in reversed(BOX_SIDES) if step <= MAX_TILE_SIDE):
        high, wide = (
            min(max(step, least), most, extent) for least, most, extent in zip(takes.min, takes.max, shape, strict=True)
        )
        if takes.covers(next_side(high), next_side(wide)) and (high, wide) not in found:
            found.append((high, wide))
    return found


def list_hole_tile_sizes(takes: SizeRange, hole: Span, shape: Size) -> list[Size]:
    """Return the sizes that the tiles of a hole may have, largest first.

    A tile is no wider than a narrow hole needs, so that a long strip is not shown the whole width of the image.

    Args:
        takes: sizes that the engine takes.
        hole: the hole, in an image of `shape`.
        shape: height and width of the image.

    Returns:
        Heights and widths in pixels; empty where the engine takes nothing as small as the image.
    """
    enough = [
        min((step for step in BOX_SIDES if step >= max(least, side + 2 * MIN_CONTEXT_PIXELS)), default=extent)
        for side, extent, least in zip(hole.size, shape, takes.min, strict=True)
    ]
    return list_tile_sizes(takes, (min(enough[0], shape[0]), min(enough[1], shape[1])))


def count_runs(missing: np.ndarray, hole: Span, size: Size) -> int:
    """Return how many tiles of a size are run at most for a hole: those with missing pixels of the hole, and as many
    for the drafts, each of which is half as long and as wide.

    Args:
        missing: bool H×W, the missing pixels of the image.
        hole: the hole.
        size: height and width of the tiles.
    """
    inside = missing[hole.slices]
    tiles = (tile.span.within(hole) for tile in cover_hole(hole, missing.shape, size))
    return 2 * sum(
        bool(inside[max(0, tile.top) : max(0, tile.bottom), max(0, tile.left) : max(0, tile.right)].any())
        for tile in tiles
    )


def cover_hole(hole: Span, shape: Size, size: Size) -> list[Tile]:
    """Tiles of `size` in an image of `shape`, which is no smaller: their weights sum to 1 in every pixel of the hole,
    and are 0 outside of it."""
    rows = _cover_axis(hole.top, hole.bottom, shape[0], size[0])
    columns = _cover_axis(hole.left, hole.right, shape[1], size[1])
    return [
        Tile(Span(top, left, top + size[0], left + size[1]), by_row, by_column)
        for top, by_row in rows
        for left, by_column in columns
    ]


def _cover_axis(start: int, stop: int, extent: int, side: int) -> list[tuple[int, np.ndarray]]:
    """Along an axis: where tiles begin that hold start…stop and a ring, as far as the image goes; their weights."""
    ring, ramp = int(side * RING_SHARE), max(1, int(side * RAMP_SHARE))
    low, high = max(0, start - ring), min(extent, stop + ring)
    if high - low <= side:
        low = min(max(0, (start + stop - side) // 2), extent - side)
        high = low + side
    overlap = 2 * ring + ramp
    count = max(1, -(-(high - low - overlap) // (side - overlap)))
    firsts = np.linspace(low, high - side, count).round().astype(int).tolist()
    places = np.arange(extent) + 0.5
    middles = [(first + side + following) / 2 for first, following in pairwise(firsts)]
    # what is behind each meeting place, from 0 to 1; a tile has what is behind its first and not behind its last
    behind = [np.clip((places - middle) / ramp + 0.5, 0, 1) for middle in middles]
    behind = [np.ones(extent), *behind, np.zeros(extent)]
    within = (places > start) & (places < stop)
    shares = [(one - following) * within for one, following in pairwise(behind)]
    return [
        (first, share[first : first + side].astype(np.float32)) for first, share in zip(firsts, shares, strict=True)
    ]


def fill_hole(image: np.ndarray, missing: np.ndarray, hole: Span, size: Size, run: Run) -> np.ndarray:
    """uint8 H×W×3 of the hole's box alone, with its missing pixels filled and the others as they are.

    image: uint8 H×W×3; missing: bool H×W; `size` is no larger than they are. `run` is given pictures of that size."""
    tiles = cover_hole(hole, missing.shape, size)
    span = tiles[0].span if len(tiles) == 1 else _surroundings(hole, missing.shape, size)
    image, missing, hole = image[span.slices], missing[span.slices], hole.within(span)
    if len(tiles) == 1:
        picture = np.where(missing[..., None], run(image, missing), image)
    else:
        draft = np.where(missing[..., None], _make_draft(image, missing, size, run), image)
        picture = _fill_by_tiles(draft, missing, hole, size, run)
    return picture[hole.slices]


def _surroundings(hole: Span, shape: Size, size: Size) -> Span:
    """The hole with its context, and no less than a tile."""
    around, ends = context_margin(hole), []
    for start, stop, extent, least in zip((hole.top, hole.left), (hole.bottom, hole.right), shape, size, strict=True):
        side = min(extent, max(least, stop - start + 2 * around))
        first = min(max(0, (start + stop - side) // 2), extent - side)
        ends.append((first, first + side))
    (top, bottom), (left, right) = ends
    return Span(top, left, bottom, right)


def _fill_by_tiles(draft: np.ndarray, missing: np.ndarray, hole: Span, size: Size, run: Run) -> np.ndarray:
    """The draft with the hole's missing pixels filled by tiles: uint8 H×W×3."""
    drafted = _find_drafted(missing, min(size))
    shown = ~missing | drafted
    middle = np.array([hole.top + hole.bottom, hole.left + hole.right]) / 2

    def turn(tile: Tile) -> tuple[float, float]:
        """The least drafted first, then those farthest from the middle."""
        span = tile.span
        centre = np.array([span.top + span.bottom, span.left + span.right]) / 2
        return float(drafted[span.slices].mean()), -float(np.abs(centre - middle).max())

    picture = draft.astype(np.float32)
    for tile in sorted(cover_hole(hole, missing.shape, size), key=turn):
        here = tile.span.slices
        weights = tile.weights * missing[here]
        own = weights > 0
        if own.any():
            filled = run(_round_to_bytes(picture[here].copy()), missing[here] & (own | ~shown[here]))
            # all weights together leave nothing of the draft
            picture[here] += weights[..., None] * (filled.astype(np.float32) - draft[here])
            shown[here] |= own
    return _round_to_bytes(picture)


def _find_drafted(missing: np.ndarray, side: int) -> np.ndarray:
    """Where no known pixel is near, bool H×W: cells that are missing as a whole. They are small enough for the ring of
    a tile to hold some."""
    cell = max(1, min(CELL_PIXELS, int(side * RING_SHARE) // 2))
    height, width = missing.shape
    padded = np.pad(missing, ((0, -height % cell), (0, -width % cell)), constant_values=True)
    cells = padded.reshape(padded.shape[0] // cell, cell, -1, cell).all(axis=(1, 3))
    return np.asarray(cells.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width])


def _make_draft(image: np.ndarray, missing: np.ndarray, size: Size, run: Run) -> np.ndarray:
    """uint8 H×W×3: the image as it looks when all that is missing in it is filled at a smaller size."""
    (height, width), (most_high, most_wide) = missing.shape, size
    scale = min(MAX_DRAFT_REDUCTION, max(height / most_high, width / most_wide))
    high, wide = round(height / scale), round(width / scale)
    small, gone = _reduce(image, missing, (high, wide))
    pads = (0, max(0, most_high - high)), (0, max(0, most_wide - wide))
    small, gone = np.pad(small, (*pads, (0, 0)), mode="symmetric"), np.pad(gone, pads, mode="symmetric")
    if gone.any() and gone.shape == size:
        small = np.where(gone[..., None], run(small, gone), small)
    elif gone.any():
        everything = bounding_box(gone)  # other holes and mirrored ones, too: what stays empty would be seen
        small[everything.slices] = fill_hole(small, gone, everything, size, run)
    return _enlarge(small[:high, :wide], (height, width))


def _reduce(image: np.ndarray, missing: np.ndarray, shape: Size) -> tuple[np.ndarray, np.ndarray]:
    """Image and missing at a smaller shape: means of the known pixels, and where there are none."""
    rows, columns = (
        np.linspace(0, there, wanted, endpoint=False).round().astype(int)
        for there, wanted in zip(missing.shape, shape, strict=True)
    )

    def sums(values: np.ndarray) -> np.ndarray:
        by_row = np.add.reduceat(values, rows, axis=0, dtype=np.float32)
        return np.asarray(np.add.reduceat(by_row, columns, axis=1))

    known = sums(~missing)
    means = sums(np.where(missing[..., None], np.uint8(0), image)) / np.maximum(known, 1)[..., None]
    return _round_to_bytes(means), known == 0


def _enlarge(image: np.ndarray, shape: Size) -> np.ndarray:
    """A uint8 picture at a larger shape, linear between its pixels."""
    values = image.astype(np.float32)
    for axis, wanted in enumerate(shape):
        there = values.shape[axis]
        places = ((np.arange(wanted) + 0.5) * there / wanted - 0.5).clip(0, there - 1)
        before = places.astype(int)
        share = (places - before).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first, values = values.take(before, axis), values.take(np.minimum(before + 1, there - 1), axis)
        values -= first
        values *= share
        values += first
        del first
    return _round_to_bytes(values)


def _round_to_bytes(values: np.ndarray) -> np.ndarray:
    """float32 as uint8; it is taken over and changed."""
    return np.rint(values, out=values).clip(0, 255, out=values).astype(np.uint8)
