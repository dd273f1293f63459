"""Grow and shrink holes by a number of pixels, and blend a filled picture over the rim of its holes.

A mask that follows an object tightly leaves the object's edge, its shadow and JPEG's ringing in the picture. The
network then continues them into the hole. A hole that is a few pixels larger contains them.

Distances are Euclidean, between the centres of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.transparency import Fill

#: The largest number of pixels by which holes grow or shrink, or over which their rim is blended.
MAX_REACH_PIXELS = 256


@dataclass(frozen=True)
class MaskEdits:
    """What is done to the holes of a mask before they are filled, and to the picture afterwards.

    Attributes:
        grow: pixels by which holes grow.
        shrink: pixels by which holes shrink before they grow. Smaller holes vanish.
        feather: pixels of the rim of a grown hole over which the filled picture is blended with the picture. At most
            `grow`: farther inside, the blend would show what the hole is to remove.

    Raises:
        GlamaError: a value is out of its range.
    """

    grow: int = 0
    shrink: int = 0
    feather: int = 0

    def __post_init__(self) -> None:
        for name in ("grow", "shrink", "feather"):
            value = getattr(self, name)
            if not 0 <= value <= MAX_REACH_PIXELS:
                raise GlamaError(f"`{name}` is {value}; 0 to {MAX_REACH_PIXELS} pixels are expected")
        if self.feather > self.grow:
            raise GlamaError(
                f"`feather` is {self.feather} and `grow` is {self.grow}: the blend would show what the hole is to "
                f"remove; set `grow` to {self.feather} or more"
            )

    def edit(self, mask: np.ndarray) -> np.ndarray:
        """Return the mask with its holes shrunk, then grown.

        Args:
            mask: bool H×W, True = missing.

        Returns:
            bool H×W.
        """
        return grow_holes(shrink_holes(mask, self.shrink), self.grow)

    def blend(self, fill: Fill) -> Fill:
        """Return an inpainter that blends its result over the rim of the holes.

        Args:
            fill: the inpainter.

        Returns:
            The inpainter itself if nothing is blended.
        """
        if not self.feather:
            return fill
        return lambda image, mask: blend_rim(image, fill(image, mask), mask, self.feather)


#: Holes stay as they are.
NO_EDITS = MaskEdits()


def grow_holes(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Add the pixels that are at most so far from a hole.

    Args:
        mask: bool H×W, True = missing.
        pixels: the distance in pixels.

    Returns:
        bool H×W.
    """
    if not pixels:
        return mask
    return measure_squared_distances(mask, pixels) <= pixels**2


def shrink_holes(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Remove the pixels of a hole that are at most so far from a known pixel.

    A hole does not shrink where it reaches the border of the picture.

    Args:
        mask: bool H×W, True = missing.
        pixels: the distance in pixels.

    Returns:
        bool H×W.
    """
    if not pixels:
        return mask
    return measure_squared_distances(~mask, pixels) > pixels**2


def blend_rim(image: np.ndarray, filled: np.ndarray, mask: np.ndarray, pixels: int) -> np.ndarray:
    """Blend a filled picture with the picture over the rim of the holes.

    A missing pixel at a distance d from the nearest known pixel has a share of min(1, d / (pixels + 1)) of the filled
    picture. Known pixels stay exact.

    Args:
        image: uint8, uint16 or float H×W×3, the picture.
        filled: H×W×3 of the same type, the filled picture.
        mask: bool H×W, True = missing.
        pixels: width of the rim.

    Returns:
        H×W×3 of the same type. Whole numbers are rounded.
    """
    distances = np.sqrt(measure_squared_distances(~mask, pixels), dtype=np.float32)
    rim = mask & (distances <= pixels)
    share = (distances[rim] / np.float32(pixels + 1))[:, None]
    blended = filled.copy()
    mixed = share * filled[rim] + (1 - share) * image[rim]
    blended[rim] = mixed if image.dtype.kind == "f" else mixed.round()
    return blended


def measure_squared_distances(seeds: np.ndarray, reach: int) -> np.ndarray:
    """Measure the squared distance from each pixel to the nearest seed, up to a distance.

    The distance along the row is measured first. The square of the distance in the plane is the minimum, over the rows
    within reach, of the square along that row plus the square of the rows between (Saito and Toriwaki, 1994).

    Args:
        seeds: bool H×W.
        reach: the greatest distance, in pixels, that is told exactly.

    Returns:
        int32 H×W. Where the distance is greater than `reach`, a value greater than `reach**2`.
    """
    squares = np.full(seeds.shape, (reach + 1) ** 2, np.int32)
    rows = np.flatnonzero(seeds.any(axis=1))
    if not rows.size:
        return squares
    columns = np.flatnonzero(seeds.any(axis=0))
    left, right = max(0, columns[0] - reach), columns[-1] + reach + 1
    top, bottom = max(0, rows[0] - reach), rows[-1] + reach + 1
    part = seeds[top:bottom, left:right]
    along_row = np.minimum(_measure_to_the_left(part), _measure_to_the_left(part[:, ::-1])[:, ::-1])
    along_row = np.minimum(along_row, reach + 1) ** 2
    nearest = squares[top:bottom, left:right]
    for step in range(min(reach, len(part) - 1) + 1):
        first, last = slice(None, len(part) - step), slice(step, None)
        for to, source in ((first, last), (last, first)):
            np.minimum(nearest[to], along_row[source] + step**2, out=nearest[to])
    return squares


def _measure_to_the_left(seeds: np.ndarray) -> np.ndarray:
    """Return the number of pixels (int32 H×W) to the nearest seed at or left of each pixel."""
    width = seeds.shape[1]
    places = np.arange(width, dtype=np.int32)
    last = np.maximum.accumulate(np.where(seeds, places, np.int32(-2 * MAX_REACH_PIXELS - 2)), axis=1)
    return np.asarray(places - last)
