"""Read and write mask files. The values of the pixels, and never the file's format, decide which pixels are missing.

A mask that was painted on a transparent layer, in one colour that is not black, is read by its opacity. Other masks
with transparent pixels are refused, unless the caller says what transparency means.

The rule, for each pixel's largest colour channel, or for the channel that the caller names:

1. Black is the most frequent value up to MAX_BLACK, and white is the largest value. Black and white may for example be
   3 and 255, 16 and 235 (video range), or 0 and 1. In a file whose pixels all have one value up to MAX_BLACK, no pixel
   is missing. A mask without black is refused.
2. Every pixel more than halfway from black to white is missing.
3. A gray pixel is below halfway, but more than SOFT_ABOVE_BLACK above black. Gray pixels are missing, too: they belong
   to a class of their own, to a soft brush, or to the faint edge of an object. Rule 4 is the exception.
4. Gray pixels beside a hard edge are the ringing of a JPEG or a lossy WebP. They are known, so that all formats give
   the same mask. An edge is where neighbours lie on different sides of halfway. Ringing ends within 8 pixels of an
   edge, is not flat, and rarely reaches the middle between black and white.

Rule 4 is applied by square cells with sides of CELL_PIXELS. Gray pixels are missing in and near a cell that

- contains gray pixels and lies farther from an edge than one cell,
- contains 3x3 gray pixels of nearly one value, or
- contains gray pixels and lies beside a soft edge: of the pixels beside the edges around the cell, many are in the
  middle, or about half are gray.

If more than MAX_MIDDLE_SHARE of the pixels beside all other edges are in the middle, these edges are soft, too. A file
with few values (MAX_CLASSES) was drawn and has no ringing: all its gray pixels are missing.

The numbers were measured with shapes, strokes, text, lines and noise, in JPEG of quality 30 to 95 and WebP of quality
50 to 80. Black and white were 128 to 255 apart.

| share of the pixels beside edges | hard edges, JPEG 75 or better, WebP | antialiased edges |
|---|---|---|
| in the middle, in the file | at most 0.009 | at least 0.09 |
| in the middle, around a cell | at most 0.09, and 0.01 from LOW_CONTRAST on | 0.13 (median) |
| gray, around a cell | at most 0.37 | 0.5 (of edges along an axis, which may have no middle) |

No ringing above SOFT_ABOVE_BLACK lies 8 pixels or more from an edge. Ringing may be taken for a soft edge in small
parts of a JPEG of lower quality, and beside specks of a few pixels where black and white differ by less than
LOW_CONTRAST. There the hole grows by less than 8 pixels.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageChops

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io.decoding import decode, decode_file
from glama_deploy.io.edges import count_in_cells, find_edges, sum_around
from glama_deploy.io.files import atomic_file
from glama_deploy.io.pipes import Source

#: The largest value (0 to 255) that may be black.
MAX_BLACK = 32

#: The smallest value (0 to 255) that may be white in a mask of more than two values.
MIN_WHITE = 64

#: Values more than this above black are gray. Lossy formats round black to values below.
SOFT_ABOVE_BLACK = 16

#: The range of the middle between black (0) and white (1).
MIDDLE = (0.375, 0.625)

#: Largest share in the middle of the pixels beside hard edges, in a whole file.
MAX_MIDDLE_SHARE = 0.03

#: The same share around one cell, if black and white differ by less than LOW_CONTRAST: ringing does not shrink with the
#: contrast.
MAX_LOCAL_MIDDLE_SHARE = 0.1
LOW_CONTRAST = 192

#: Largest gray share of the pixels beside the hard edges around a cell.
MAX_LOCAL_GRAY_SHARE = 0.45

#: Side of the cells of rule 4 in pixels. The ringing of JPEG ends within a block of this size.
CELL_PIXELS = 8

#: Gray pixels are missing up to this distance, in cells, from a cell with soft or flat gray. A gray region beside a
#: hard edge is found two cells from the edge, and reaches back to the edge.
_SOFT_REACH_CELLS = 2

#: Largest difference of the values of 3x3 pixels that count as flat.
_MAX_FLAT_DIFFERENCE = 2

#: A file with at most this many values has no gray ringing. Ringing at an edge along one axis has up to 16 values, and
#: is not gray in a JPEG of quality 75 or more.
MAX_CLASSES = 8

#: A mask is a photo if more than half of its pixels lie between black and white and have more values than this.
_MAX_GRAY_VALUES = 16

#: In a mask that a program sent, a pixel above this value is missing, as in IOPaint.
SENT_THRESHOLD = 127

#: Values at most this far from black or white do not count as between black and white.
_NEARLY_BLACK_OR_WHITE = 8

#: Colours of a painted layer differ at most this much in each channel.
_MAX_PAINT_DIFFERENCE = 32

#: A pixel of a painted layer shows its colour from this alpha on. Editors round colours below.
_PAINT_ALPHA = 128

#: What tells the missing pixels of a mask. auto: the largest colour channel, or the opacity of a painted layer. alpha:
#: opaque pixels are missing. inverse-alpha: transparent pixels are missing. luma, red: bright pixels are missing.
MaskSource = Literal["auto", "alpha", "inverse-alpha", "luma", "red"]


@dataclass(frozen=True)
class MaskRule:
    """How the pixels of a mask file are read.

    Attributes:
        source: what tells the missing pixels.
        threshold: pixels above this value, 0 to 254, are missing. None: by the rule of this module.
        invert: whether the bright pixels are the known ones.

    Raises:
        GlamaError: a value is not one of these.
    """

    source: MaskSource = "auto"
    threshold: int | None = None
    invert: bool = False

    def __post_init__(self) -> None:
        if self.source not in get_args(MaskSource):
            raise GlamaError(f"`mask_from` is {self.source!r}; expected {', '.join(get_args(MaskSource))}")
        if self.threshold is not None and not 0 <= self.threshold < 255:
            raise GlamaError(f"`threshold` is {self.threshold}; 0 to 254 is expected: pixels above are missing")


#: The rule of this module.
BY_VALUES = MaskRule()


def read_mask(path: Source, rule: MaskRule = BY_VALUES) -> np.ndarray:
    """Read a mask file.

    Args:
        path: An image file of a supported format. Black is known and white is missing.
        rule: How the pixels are read.

    Returns:
        bool H×W, True = missing. At least one pixel is known.

    Raises:
        ImageError: The file cannot be read, has transparent pixels whose meaning is open, has no transparent pixels
            where the rule reads them, or has values that :func:`find_missing` refuses.
    """
    values = np.asarray(_take_source(decode_file(path), rule.source, path))
    if rule.invert:
        values = 255 - values
    if rule.threshold is None:
        return find_missing(values, str(path))
    missing = values > rule.threshold
    if missing.all():
        raise ImageError(
            f"{path} marks every pixel as missing: all values are above the `threshold` of {rule.threshold}; known "
            "pixels are needed"
        )
    return missing


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask file: a gray PNG, black where pixels are known and white where pixels are missing.

    Args:
        path: the file. Its folder must exist.
        mask: bool H×W, True = missing.

    Raises:
        GlamaError: the file cannot be written.
    """
    with atomic_file(path) as temporary:
        Image.fromarray(np.where(mask, np.uint8(255), np.uint8(0))).save(temporary, format="PNG")


def _take_source(image: Image.Image, source: MaskSource, name: object) -> Image.Image:
    """Return the values (mode L) that tell the missing pixels, bright where a pixel is missing."""
    if source in ("alpha", "inverse-alpha"):
        if not _has_alpha(image):
            raise ImageError(f"{name} has no transparency, and `mask_from` is {source}; leave `mask_from` out")
        alpha = image.convert("RGBA").getchannel("A")
        return alpha if source == "alpha" else ImageChops.invert(alpha)
    if source == "luma":
        return image.convert("RGB").convert("L")
    if source == "red":
        return image.convert("RGB").getchannel("R")
    if _has_alpha(image) and (painted := _find_paint(image.convert("RGBA"))) is not None:
        return painted
    return _find_brightest(image, name, ", or set `mask_from` to alpha or inverse-alpha")


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.mode or "transparency" in image.info


def _find_paint(image: Image.Image) -> Image.Image | None:
    """Return the opacity (mode L) of a layer that was painted in one colour; None for other images (mode RGBA)."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() > 0:
        return None
    paint = np.asarray(image)[alpha >= _PAINT_ALPHA][:, :3]
    if not len(paint) or paint.max() < MIN_WHITE or np.ptp(paint, axis=0).max() > _MAX_PAINT_DIFFERENCE:
        return None
    return image.getchannel("A")


def decode_mask(data: bytes, name: object) -> np.ndarray:
    """Decode a mask that a program sent. A pixel is missing where its largest colour channel is above 127.

    The rule of this module is for files of unknown origin. A program that sends a mask knows this threshold.

    Args:
        data: The bytes of an image file of a supported format.
        name: Name of the mask in error messages.

    Returns:
        bool H×W, True = missing.

    Raises:
        ImageError: The file cannot be read, or has transparent pixels.
    """
    return np.asarray(_find_brightest(decode(io.BytesIO(data), name), name)) > SENT_THRESHOLD


def _find_brightest(image: Image.Image, name: object, other_remedy: str = "") -> Image.Image:
    """Return the largest colour channel of a mask, mode L. Raises ImageError for transparent pixels."""
    if _has_alpha(image):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise ImageError(
                f"{name}: the mask has transparent pixels, which may mean missing or known; "
                f"save it as black (known) and white (missing){other_remedy}"
            )
    if image.mode in ("1", "L"):
        return image.convert("L")
    red, green, blue = image.convert("RGB").split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def find_missing(values: np.ndarray, name: str) -> np.ndarray:
    """Find the missing pixels of a mask by the rule of this module.

    Args:
        values: uint8 H×W, black is known and white is missing.
        name: Name of the mask in error messages.

    Returns:
        bool H×W, True = missing.

    Raises:
        ImageError: The mask has no black, no white, looks like a photo, or marks every pixel as missing.
    """
    counts = np.array(Image.fromarray(values).histogram())
    levels = np.flatnonzero(counts).tolist()
    if len(levels) == 1 and levels[0] <= MAX_BLACK:
        return np.zeros(values.shape, bool)
    darkest, white = levels[0], levels[-1]
    _check_levels(levels, name)
    black = int(counts[: MAX_BLACK + 1].argmax()) if len(levels) > 2 else darkest
    _check_no_photo(counts, black, white, name)
    halfway = values > black + (white - black) / 2
    if len(levels) == 2:
        return halfway
    above = values > black + SOFT_ABOVE_BLACK
    if len(levels) <= MAX_CLASSES:
        return above | halfway
    gray = above & ~halfway
    if not gray.any():
        return halfway
    first, last = (round(black + (white - black) * share) for share in MIDDLE)
    in_middle = (values > first) & (values < last)
    local_share = MAX_MIDDLE_SHARE if white - black >= LOW_CONTRAST else MAX_LOCAL_MIDDLE_SHARE
    soft = _find_soft_cells(gray & _find_flat(values), gray, in_middle, find_edges(halfway), local_share)
    return halfway | (gray & _enlarge(soft, values.shape))


def _find_soft_cells(
    flat: np.ndarray, gray: np.ndarray, in_middle: np.ndarray, beside: np.ndarray, middle_share: float
) -> np.ndarray:
    """Return the cells (bool h×w) in which gray pixels are missing, by rule 4 of this module.

    Args:
        flat: bool H×W, the gray pixels in a neighbourhood of nearly one value.
        gray: bool H×W, the gray pixels.
        in_middle: bool H×W, the pixels in the middle between black and white.
        beside: bool H×W, the pixels beside an edge.
        middle_share: Largest share in the middle of the pixels beside hard edges, around a cell.
    """
    edges = count_in_cells(beside, CELL_PIXELS)
    middle, gray_beside = (count_in_cells(where & beside, CELL_PIXELS) for where in (in_middle, gray))
    has_gray = count_in_cells(gray, CELL_PIXELS) > 0
    away = has_gray & (sum_around(edges) == 0)
    around, middle_around, gray_around = (sum_around(sum_around(counts)) for counts in (edges, middle, gray_beside))
    beside_soft = (middle_around > middle_share * around) | (gray_around > MAX_LOCAL_GRAY_SHARE * around)
    soft = _spread(away | (count_in_cells(flat, CELL_PIXELS) > 0) | (has_gray & beside_soft))
    if middle[~soft].sum() > MAX_MIDDLE_SHARE * edges[~soft].sum():
        return np.ones_like(soft)
    return soft


def _spread(cells: np.ndarray) -> np.ndarray:
    """Return these cells (bool h×w) and those within _SOFT_REACH_CELLS of them."""
    for _ in range(_SOFT_REACH_CELLS):
        cells = sum_around(cells.astype(np.int64)) > 0
    return cells


def _find_flat(values: np.ndarray) -> np.ndarray:
    """Return the pixels (bool H×W) whose 3x3 neighbourhood in `values` (uint8 H×W) has nearly one value."""
    width = values.shape[1]
    low = high = np.pad(values, 1, mode="edge")
    low = np.minimum(np.minimum(low[:-2], low[1:-1]), low[2:])
    high = np.maximum(np.maximum(high[:-2], high[1:-1]), high[2:])
    low = np.minimum(np.minimum(low[:, :width], low[:, 1:-1]), low[:, 2:])
    high = np.maximum(np.maximum(high[:, :width], high[:, 1:-1]), high[:, 2:])
    return np.asarray(high - low <= _MAX_FLAT_DIFFERENCE)


def _enlarge(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels (bool, of `shape`) of these cells (bool h×w)."""
    return cells.repeat(CELL_PIXELS, axis=0)[: shape[0]].repeat(CELL_PIXELS, axis=1)[:, : shape[1]]


def _check_levels(levels: list[int], name: str) -> None:
    darkest, brightest = levels[0], levels[-1]
    expected = "0 (black) is expected where pixels are known and 255 (white) where they are missing"
    if darkest >= 255 - MAX_BLACK:
        raise ImageError(f"{name} marks every pixel as missing (its darkest value is {darkest}); {expected}")
    if len(levels) == 1:
        raise ImageError(f"{name} has a single value, {darkest}; {expected}")
    if darkest > MAX_BLACK:
        raise ImageError(f"{name} has no black pixel (its darkest value is {darkest}); {expected}")
    if len(levels) > 2 and brightest < MIN_WHITE:
        raise ImageError(f"{name} has no white pixel ({len(levels)} values from {darkest} to {brightest}); {expected}")


def _check_no_photo(counts: np.ndarray, black: int, white: int, name: str) -> None:
    between = counts[black + _NEARLY_BLACK_OR_WHITE + 1 : max(black, white - _NEARLY_BLACK_OR_WHITE)]
    if between.sum() > counts.sum() / 2 and np.count_nonzero(between) > _MAX_GRAY_VALUES:
        raise ImageError(
            f"{name} looks like a photo, not a mask (most of it is neither black nor white); "
            "are image and mask exchanged?"
        )
