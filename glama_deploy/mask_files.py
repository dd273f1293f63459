"""Read mask files: which pixels are missing, by the values in the file and never by its format.

The rule, for each pixel's largest colour channel:

1. Black is the commonest value up to MAX_BLACK, white the largest value. So 3 and 255, 16 and 235 (video range), 0 and
   1 are black and white. A mask without black, or with one value other than 0, is refused.
2. Where hardly any pixel lies in the middle between black and white, the mask has hard edges. It is cut halfway. The
   ringing of a JPEG or a lossy WebP stays on its side of the cut, so all formats give the same mask.
3. Other masks have soft edges (a soft brush, antialiasing). Every pixel clearly above black is missing, because a faint
   edge still covers a part of what is to be removed. Ringing beside soft edges is weaker than that.

The shares were measured with shapes, strokes, text, lines and noise, in JPEG of quality 30 to 95 and WebP of quality 50
to 80: of hard edges at most 0.005 of the pixels beside them lie in the middle, of antialiased ones at least 0.09.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from glama_deploy.decoding import decode_file
from glama_deploy.errors import ImageError

#: Values from 0 to 255. The largest that may be black; the least that may be white, where there are more than two.
MAX_BLACK = 32
MIN_WHITE = 64

#: A pixel of a soft mask is missing above this much more than black: ringing beside soft edges is below.
SOFT_ABOVE_BLACK = 16

#: The middle between black (0) and white (1), and the largest share of pixels in it, of those beside an edge, in a mask
#: with hard edges.
MIDDLE = (0.375, 0.625)
MAX_MIDDLE_SHARE = 0.03

#: A mask with more values between black and white, in more than half of its pixels, is a photo.
_MAX_GRAY_VALUES, _NEARLY = 16, 8


def read_mask(path: Path) -> np.ndarray:
    """Read a mask file.

    Args:
        path: a file of any supported format. Black is known and white is missing.

    Returns:
        bool H×W, True = missing; at least one pixel is known.

    Raises:
        ImageError: the file cannot be read, has transparent pixels (which may mean either), or values that
            :func:`find_missing` refuses.
    """
    image = decode_file(path)
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise ImageError(
                f"{path}: the mask has transparent pixels, which may mean missing or known; "
                "save it as black (known) and white (missing)"
            )
    if image.mode in ("1", "L"):
        brightest = image.convert("L")
    else:
        red, green, blue = image.convert("RGB").split()
        brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    return find_missing(np.asarray(brightest), str(path))


def find_missing(values: np.ndarray, name: str) -> np.ndarray:
    """Return the missing pixels of a mask, bool H×W, by the rule of this module.

    Args:
        values: uint8 H×W.
        name: what errors call the mask.

    Raises:
        ImageError: the mask has no black, no white, looks like a photo, or marks every pixel as missing.
    """
    counts = np.array(Image.fromarray(values).histogram())
    levels = np.flatnonzero(counts).tolist()
    if levels == [0]:
        return np.zeros(values.shape, bool)
    darkest, white = levels[0], levels[-1]
    _check_levels(levels, name)
    black = int(counts[: MAX_BLACK + 1].argmax()) if len(levels) > 2 else darkest
    _check_no_photo(counts, black, white, name)
    contrast = white - black
    halfway = values > black + contrast / 2
    first, last = (round(black + contrast * share) for share in MIDDLE)
    in_middle = int(counts[first + 1 : last].sum())
    if in_middle <= MAX_MIDDLE_SHARE * _count_beside_edges(halfway):
        return halfway
    return values > black + SOFT_ABOVE_BLACK


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
    between = counts[black + _NEARLY + 1 : max(black, white - _NEARLY)]
    if between.sum() > counts.sum() / 2 and np.count_nonzero(between) > _MAX_GRAY_VALUES:
        raise ImageError(
            f"{name} looks like a photo, not a mask (most of it is neither black nor white); "
            "are image and mask exchanged?"
        )


def _count_beside_edges(bright: np.ndarray) -> int:
    """Return how many pixels (bool H×W) have a neighbour on the other side of an edge."""
    beside = np.zeros_like(bright)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        edge = bright[here] != bright[there]
        beside[here] |= edge
        beside[there] |= edge
    return int(np.count_nonzero(beside))
