"""Fill holes that are too large for the engine or the memory: overlapping tiles over a draft of the whole hole.

The draft. The hole with its context is reduced to half of its size, or less if it then fits into one tile, and filled
at that size. A reduced hole that still does not fit is filled by tiles in the same way. Enlarged, the result is the
draft. The draft knows what lies on all sides of the hole, and lacks only detail.

The tiles. Tiles of one size cover the hole, from its border inwards, and the network fills each at full size. Around
the part that a tile fills, the network is shown known pixels and what earlier tiles filled. It is shown the draft where
neither is near. So each tile has surroundings, and continues what its neighbours began. Tiles overlap, and pass into
each other with weights that sum to 1 in every pixel.

Without the draft, the first tiles in the middle of a hole are shown no known pixel, and are filled black or gray
(benchmarks/quality/tiles.py compares).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from glama_deploy.bundle import SizeRange
from glama_deploy.inpainting.boxes import CELL_PIXELS, MIN_CONTEXT_PIXELS, Span, bounding_box
from glama_deploy.network import next_side

#: Sides of tiles, in pixels.
TILE_SIDES = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)

#: What a draft is shown on each side of a hole, as a share of the hole's longer side. A draft is reduced to few pixels,
#: so its context must grow with the hole.
SURROUNDINGS_SHARE = 0.5

#: Width of the ring that a tile shows around the part that it fills, as a share of the tile's side.
RING_SHARE = 1 / 8

#: Width over which two tiles pass into each other, as a share of the tile's side.
RAMP_SHARE = 1 / 16

#: The factor by which a draft is reduced at most in one step.
MAX_DRAFT_REDUCTION = 2

#: Bytes that are needed beside the engine for each pixel of the image, at most.
BYTES_PER_IMAGE_PIXEL = 40

#: Height and width in pixels.
Size = tuple[int, int]

#: Runs the network on one picture: uint8 H×W×3 and missing bool H×W → uint8 H×W×3.
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tile:
    """A part of the image that is filled at once, and the weights of its pixels.

    Attributes:
        span: the pixels that the network is shown.
        rows: weight of each row, float32 H, from 0 to 1.
        columns: weight of each column, float32 W, from 0 to 1.
    """

    span: Span
    rows: np.ndarray
    columns: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The weight of each pixel, float32 H×W, from 0 to 1."""
        return self.rows[:, None] * self.columns


def list_tile_sizes(takes: SizeRange, shape: Size) -> list[Size]:
    """List the sizes that the tiles of an image may have, largest first.

    Args:
        takes: sizes that the engine takes.
        shape: height and width of the image in pixels.

    Returns:
        Heights and widths in pixels; empty if the engine takes nothing as small as the image.
    """
    found: list[Size] = []
    for step in reversed(TILE_SIDES):
        high, wide = (
            min(max(step, least), most, extent) for least, most, extent in zip(takes.min, takes.max, shape, strict=True)
        )
        if takes.covers(next_side(high), next_side(wide)) and (high, wide) not in found:
            found.append((high, wide))
    return found


def list_hole_tile_sizes(takes: SizeRange, hole: Span, shape: Size) -> list[Size]:
    """List the sizes that the tiles of a hole may have, largest first.

    A tile is no wider than a narrow hole needs, so that the tiles of a long strip do not show the whole width of the
    image.

    Args:
        takes: sizes that the engine takes.
        hole: the hole, in an image of `shape`.
        shape: height and width of the image in pixels.

    Returns:
        Heights and widths in pixels; empty if the engine takes nothing as small as the image.
    """
    enough = [
        min((step for step in TILE_SIDES if step >= max(least, side + 2 * MIN_CONTEXT_PIXELS)), default=extent)
        for side, extent, least in zip(hole.size, shape, takes.min, strict=True)
    ]
    return list_tile_sizes(takes, (min(enough[0], shape[0]), min(enough[1], shape[1])))


def count_runs(missing: np.ndarray, hole: Span, size: Size) -> int:
    """Count the tiles of a size that are run at most for a hole.

    The count is twice the number of tiles with missing pixels of the hole. The second half is for the drafts, each of
    which is half as long and half as wide.

    Args:
        missing: bool H×W, the missing pixels of the image.
        hole: the hole.
        size: height and width of the tiles in pixels.

    Returns:
        The number of runs.
    """
    inside = missing[hole.slices]
    tiles = (tile.span.within(hole) for tile in cover_hole(hole, missing.shape, size))
    return 2 * sum(
        bool(inside[max(0, tile.top) : max(0, tile.bottom), max(0, tile.left) : max(0, tile.right)].any())
        for tile in tiles
    )


def cover_hole(hole: Span, shape: Size, size: Size) -> list[Tile]:
    """Cover a hole with tiles.

    Args:
        hole: the hole, in an image of `shape`.
        shape: height and width of the image in pixels.
        size: height and width of the tiles in pixels, at most those of the image.

    Returns:
        Tiles whose weights sum to 1 in every pixel of the hole, and to 0 outside of the hole.
    """
    rows = _cover_axis(hole.top, hole.bottom, shape[0], size[0])
    columns = _cover_axis(hole.left, hole.right, shape[1], size[1])
    return [
        Tile(Span(top, left, top + size[0], left + size[1]), by_row, by_column)
        for top, by_row in rows
        for left, by_column in columns
    ]


def _cover_axis(start: int, stop: int, extent: int, side: int) -> list[tuple[int, np.ndarray]]:
    """Cover a range of one axis with tiles, and with a ring around the range as far as the image goes.

    Args:
        start: first pixel of the hole.
        stop: pixel after the last of the hole.
        extent: side of the image in pixels.
        side: side of the tiles in pixels.

    Returns:
        For each tile its first pixel, and the weight of each of its pixels, float32.
    """
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
    # 0 before each meeting place and 1 behind; a tile has the pixels behind its first place and before its last
    behind = [np.clip((places - middle) / ramp + 0.5, 0, 1) for middle in middles]
    behind = [np.ones(extent), *behind, np.zeros(extent)]
    within = (places > start) & (places < stop)
    shares = [(one - following) * within for one, following in pairwise(behind)]
    return [
        (first, share[first : first + side].astype(np.float32)) for first, share in zip(firsts, shares, strict=True)
    ]


def fill_hole(image: np.ndarray, missing: np.ndarray, hole: Span, size: Size, run: Run) -> np.ndarray:
    """Fill a hole by tiles.

    Args:
        image: uint8 H×W×3.
        missing: bool H×W, True where a pixel is missing.
        hole: the hole in the image.
        size: height and width of the tiles in pixels, at most those of the image.
        run: runs the network on pictures of that size.

    Returns:
        The bounding box of the hole, uint8 h×w×3. Missing pixels are filled, and the others are those of the image.
    """
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
    """Return the hole with its context, which is at least as large as a tile."""
    around, ends = max(MIN_CONTEXT_PIXELS, round(SURROUNDINGS_SHARE * max(hole.size))), []
    for start, stop, extent, least in zip((hole.top, hole.left), (hole.bottom, hole.right), shape, size, strict=True):
        side = min(extent, max(least, stop - start + 2 * around))
        first = min(max(0, (start + stop - side) // 2), extent - side)
        ends.append((first, first + side))
    (top, bottom), (left, right) = ends
    return Span(top, left, bottom, right)


def _fill_by_tiles(draft: np.ndarray, missing: np.ndarray, hole: Span, size: Size, run: Run) -> np.ndarray:
    """Fill the missing pixels of a hole by tiles over a draft.

    Args:
        draft: uint8 H×W×3, the image with its draft.
        missing: bool H×W, True where a pixel is missing.
        hole: the hole in the image.
        size: height and width of the tiles in pixels.
        run: runs the network on one tile.

    Returns:
        uint8 H×W×3.
    """
    drafted = _find_drafted(missing, min(size))
    shown = ~missing | drafted
    middle = np.array([hole.top + hole.bottom, hole.left + hole.right]) / 2

    def turn(tile: Tile) -> tuple[float, float]:
        """Return the order of a tile: the share of its pixels that are drafted, then its nearness to the middle."""
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
    """Find the pixels without a known pixel near by, which the draft shows.

    Args:
        missing: bool H×W, True where a pixel is missing.
        side: shorter side of the tiles in pixels.

    Returns:
        bool H×W, True in cells that are missing as a whole. A cell is at most half as wide as the ring of a tile.
    """
    cell = max(1, min(CELL_PIXELS, int(side * RING_SHARE) // 2))
    height, width = missing.shape
    padded = np.pad(missing, ((0, -height % cell), (0, -width % cell)), constant_values=True)
    cells = padded.reshape(padded.shape[0] // cell, cell, -1, cell).all(axis=(1, 3))
    return np.asarray(cells.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width])


def _make_draft(image: np.ndarray, missing: np.ndarray, size: Size, run: Run) -> np.ndarray:
    """Return the image with all missing pixels filled at a smaller size.

    Args:
        image: uint8 H×W×3.
        missing: bool H×W, True where a pixel is missing.
        size: height and width of the tiles in pixels.
        run: runs the network on one tile.

    Returns:
        uint8 H×W×3, of the image's size and blurred.
    """
    (height, width), (most_high, most_wide) = missing.shape, size
    scale = min(MAX_DRAFT_REDUCTION, max(height / most_high, width / most_wide))
    high, wide = round(height / scale), round(width / scale)
    small, gone = _reduce(image, missing, (high, wide))
    pads = (0, max(0, most_high - high)), (0, max(0, most_wide - wide))
    small, gone = np.pad(small, (*pads, (0, 0)), mode="symmetric"), np.pad(gone, pads, mode="symmetric")
    if gone.any() and gone.shape == size:
        small = np.where(gone[..., None], run(small, gone), small)
    elif gone.any():
        everything = bounding_box(gone)  # other holes and mirrored ones, too: an empty part would be visible
        small[everything.slices] = fill_hole(small, gone, everything, size, run)
    return _enlarge(small[:high, :wide], (height, width))


def _reduce(image: np.ndarray, missing: np.ndarray, shape: Size) -> tuple[np.ndarray, np.ndarray]:
    """Reduce an image to a smaller shape by the means of known pixels.

    Args:
        image: uint8 H×W×3.
        missing: bool H×W, True where a pixel is missing.
        shape: height and width in pixels, at most those of the image.

    Returns:
        The means of the known pixels, uint8 h×w×3, and where no pixel is known, bool h×w.
    """
    known = _resize(~missing, shape, Image.Resampling.BOX)
    bands = [
        _resize(np.where(missing, np.uint8(0), image[..., band]), shape, Image.Resampling.BOX) for band in range(3)
    ]
    means = np.stack(bands, axis=-1) / np.where(known > 0, known, 1)[..., None]
    return _round_to_bytes(means), known == 0


def _enlarge(image: np.ndarray, shape: Size) -> np.ndarray:
    """Return a picture (uint8 h×w×3) at a larger height and width, interpolated linearly."""
    bands = [_resize(image[..., band], shape, Image.Resampling.BILINEAR) for band in range(3)]
    return _round_to_bytes(np.stack(bands, axis=-1))


def _resize(values: np.ndarray, shape: Size, filter: Image.Resampling) -> np.ndarray:
    """Resize one band in float32, because Pillow rounds uint8 after each axis, which brightens a picture.

    Args:
        values: bool or uint8 H×W.
        shape: height and width of the result in pixels.
        filter: Pillow's filter. BOX gives the means of cells, and each pixel counts in one cell.

    Returns:
        float32 h×w.
    """
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((shape[1], shape[0]), filter))


def _round_to_bytes(values: np.ndarray) -> np.ndarray:
    """Round float32 values to uint8. The values are changed."""
    return np.rint(values, out=values).clip(0, 255, out=values).astype(np.uint8)
