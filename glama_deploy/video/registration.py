"""Find by how much the camera moved between two frames, and sample a frame that is moved by a part of a pixel.

The movement is a translation. Phase correlation (Kuglin and Hines, 1975) finds the movement roughly, from the slopes of
reduced frames: flat colours would hold the result at no movement (Argyriou and Vlachos, 2003). Then the steps of Lucas
and Kanade (1981) refine the movement with the known pixels around the hole, so the movement is that of what lies around
the hole. A frame whose pixels around the hole still differ is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.mask_edits import grow_holes

#: Frames are reduced to at most this many pixels a side for phase correlation.
_MAX_SIDE = 256

#: Frequencies that are weaker than this share of the mean count less: they are noise, which says nothing about the
#: movement.
_WEAK_SHARE = 0.1

#: Steps of the refinement, and the movement in pixels below which it ends.
_STEPS = 8
_LEAST_STEP = 0.01

#: The farthest that the refinement may move from its start, in reduced pixels.
_MAX_CORRECTION = 4.0

#: A part of a pixel below this is taken for a movement by whole pixels, whose samples are exact.
_WHOLE = 0.03

#: Pixels that the cubic kernel reads before and behind a pixel.
_REACH = 2


@dataclass(frozen=True)
class Reduced:
    """A frame that is reduced for phase correlation.

    Attributes:
        spectrum: complex, of the slopes between known pixels, faded out at the border.
        shape: height and width of the reduced frame.
        factor: pixels of the frame for each reduced pixel, along each side.
    """

    spectrum: np.ndarray
    shape: tuple[int, int]
    factor: int


def reduce_frame(luma: np.ndarray, known: np.ndarray) -> Reduced:
    """Reduce a frame for phase correlation.

    Args:
        luma: H×W.
        known: bool H×W; other pixels are not looked at.

    Returns:
        The reduced frame.
    """
    factor = max(1, -(-max(luma.shape) // _MAX_SIDE))
    high, wide = (side // factor for side in luma.shape)
    cut = slice(0, high * factor), slice(0, wide * factor)
    cells = high, factor, wide, factor
    small = luma[cut].reshape(cells).mean(axis=(1, 3), dtype=np.float32)
    unknown = ~np.asarray(known[cut].reshape(cells).all(axis=(1, 3)))
    rows, columns = np.gradient(small)
    slopes = columns + 1j * rows
    slopes[grow_holes(unknown, 1)] = 0
    window = np.hanning(high + 2)[1:-1, None] * np.hanning(wide + 2)[None, 1:-1]
    return Reduced(np.fft.fft2(slopes * window), (high, wide), factor)


def correlate(one: Reduced, other: Reduced) -> tuple[float, float]:
    """Find the movement between two frames by phase correlation.

    Args:
        one: a frame.
        other: the other frame.

    Returns:
        Rows and columns d in pixels, so that `one` at x shows what `other` shows at x + d.
    """
    product = np.conj(one.spectrum) * other.spectrum
    strength = np.abs(product)
    product /= strength + max(_WEAK_SHARE * float(strength.mean()), 1e-9)
    surface = np.fft.ifft2(product).real
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    moved = []
    for axis, (place, side) in enumerate(zip(peak, surface.shape, strict=True)):
        line = np.take(surface, peak[1 - axis], axis=1 - axis)
        before, at, after = (float(line[(place + step) % side]) for step in (-1, 0, 1))
        curve = before - 2 * at + after
        part = 0.5 * (before - after) / curve if curve < 0 else 0.0
        moved.append(((place + part + side / 2) % side - side / 2) * one.factor)
    return moved[0], moved[1]


def sample(values: np.ndarray, span: Span, shift: tuple[float, float]) -> np.ndarray:
    """Return the pixels of a rectangle that is moved.

    Between pixels, values are interpolated with the cubic kernel of Keys (1981). Outside of the image, the border is
    repeated.

    Args:
        values: H×W or H×W×C.
        span: the rectangle.
        shift: rows and columns by which the rectangle is moved.

    Returns:
        float32 h×w or h×w×C.
    """
    result = values
    for axis, (start, stop, moved) in enumerate(((span.top, span.bottom, shift[0]), (span.left, span.right, shift[1]))):
        result = _sample_axis(result, axis, start, stop, moved)
    return result.astype(np.float32, copy=False)


def _sample_axis(values: np.ndarray, axis: int, start: int, stop: int, moved: float) -> np.ndarray:
    """Return pixels `start` to `stop` along an axis, moved."""
    whole, part = split_shift(moved)
    places = np.arange(start, stop) + whole
    last = values.shape[axis] - 1
    if not part:
        return np.take(values, places.clip(0, last), axis)
    weights = (
        ((-0.5 * part + 1.0) * part - 0.5) * part,
        (1.5 * part - 2.5) * part * part + 1.0,
        ((-1.5 * part + 2.0) * part + 0.5) * part,
        (0.5 * part - 0.5) * part * part,
    )
    return np.asarray(
        sum(
            np.take(values, (places + step).clip(0, last), axis).astype(np.float32) * np.float32(weight)
            for step, weight in zip((-1, 0, 1, 2), weights, strict=True)
        )
    )


def split_shift(moved: float) -> tuple[int, float]:
    """Split a movement into whole pixels and a part of a pixel.

    Args:
        moved: the movement in pixels.

    Returns:
        Whole pixels, and 0 or a part from 0 to 1.
    """
    nearest = round(moved)
    if abs(moved - nearest) < _WHOLE:
        return nearest, 0.0
    whole = int(np.floor(moved))
    return whole, moved - whole


def sample_known(known: np.ndarray, span: Span, shift: tuple[float, float]) -> np.ndarray:
    """Return which pixels of a moved rectangle are known, with all pixels that they are interpolated from.

    Args:
        known: bool H×W.
        span: the rectangle.
        shift: rows and columns by which the rectangle is moved.

    Returns:
        bool h×w. Pixels outside of the image are not known.
    """
    result = known
    for axis, (start, stop, moved) in enumerate(((span.top, span.bottom, shift[0]), (span.left, span.right, shift[1]))):
        whole, part = split_shift(moved)
        steps = (-1, 0, 1, 2) if part else (0,)
        places = np.arange(start, stop) + whole
        last = known.shape[axis] - 1
        taken = [np.take(result, (places + step).clip(0, last), axis) for step in steps]
        inside = np.logical_and.reduce([(places + step >= 0) & (places + step <= last) for step in steps])
        result = np.logical_and.reduce(taken) & (inside[:, None] if axis == 0 else inside[None, :])
    return np.asarray(result)


def refine(
    one: np.ndarray,
    other: np.ndarray,
    span: Span,
    around: np.ndarray,
    known: np.ndarray,
    shift: tuple[float, float],
    factor: int,
) -> tuple[tuple[float, float], float]:
    """Refine a movement with the pixels around a hole.

    Args:
        one: H×W, the luma of the frame with the hole.
        other: H×W, the luma of the other frame.
        span: the rectangle that contains the hole and its surroundings.
        around: bool h×w, the pixels of the rectangle that are compared.
        known: bool H×W, the known pixels of the other frame.
        shift: rows and columns of the movement, roughly.
        factor: pixels of a reduced pixel of the phase correlation.

    Returns:
        The refined rows and columns, and the mean difference of the pixels that are compared. The difference is
        infinite where none can be compared.
    """
    here = one[span.slices].astype(np.float32)
    first = best = shift
    least = np.inf
    current = shift
    for _ in range(_STEPS):
        valid = around & sample_known(known, span, current)
        if valid.sum() < around.sum() // 2 or not valid.any():
            break
        there = sample(other, span, current)
        difference = here - there
        error = float(np.abs(difference[valid]).mean())
        if error >= least:
            break
        least, best = error, current
        rows, columns = (np.asarray(slope)[valid] for slope in np.gradient(there))
        slopes = np.stack([rows, columns], axis=1).astype(np.float64)
        matrix = slopes.T @ slopes
        if np.linalg.cond(matrix) > 1e6:
            break
        step = np.linalg.solve(matrix, slopes.T @ difference[valid])
        current = (current[0] + float(step[0]), current[1] + float(step[1]))
        if max(abs(now - before) for now, before in zip(current, first, strict=True)) > _MAX_CORRECTION * factor:
            break
        if np.abs(step).max() < _LEAST_STEP:
            break
    return best, least
