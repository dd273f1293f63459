"""Take what other frames show behind the mask.

Where the camera pans, a logo covers another part of the scene in each frame. Where the camera stands still, an object
that moves uncovers what is behind it. For each frame, the frames around it are registered
(:mod:`glama_deploy.video.registration`), from the phase correlation and from the movement to the frame before. Each
missing pixel gets the median of what the nearest of these frames show at its place. Pixels that no frame shows stay
missing, and the network fills them.

A frame is used only if its pixels around the hole agree with those of the frame that is filled. So another scene, a
zoom, or a fade is not used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glama_deploy.inpainting.boxes import Span, bounding_box
from glama_deploy.inpainting.mask_edits import grow_holes
from glama_deploy.video.registration import Reduced, correlate, reduce_frame, refine, sample, sample_known

#: Samples of a pixel of which the median is taken.
_SAMPLES = 7

#: Pixels around a hole that are compared.
_AROUND_PIXELS = 16

#: Pixels beside a hole that are neither compared nor taken: codecs spread an object's edge so far.
_MARGIN_PIXELS = 2

#: A movement that was expected is taken at once if the pixels around the hole differ by no more than this share.
_GOOD_DIFFERENCE = 0.015

#: Frames up to this distance are all looked at, then every second one, and from twice the distance on every fourth.
_DENSE_FRAMES = 8

#: The greatest mean difference of the pixels around the hole, as a share of white.
_MAX_DIFFERENCE = 0.03


@dataclass(frozen=True)
class Shown:
    """A frame as its neighbours look at it.

    Attributes:
        rgb: uint8 or uint16 H×W×3.
        missing: bool H×W.
        luma: H×W of the same type.
        known: bool H×W, the pixels that may be taken.
        reduced: the frame for phase correlation.
    """

    rgb: np.ndarray
    missing: np.ndarray
    luma: np.ndarray
    known: np.ndarray
    reduced: Reduced


#: A frame around another one: by how many frames it is later, and the frame.
Neighbour = tuple[int, Shown]


def find_known(missing: np.ndarray) -> np.ndarray:
    """Find the pixels of a frame that other frames may take.

    Args:
        missing: bool H×W, True where a pixel is missing.

    Returns:
        bool H×W, True farther from the holes than what a codec spreads of an object's edge.
    """
    return ~grow_holes(missing, _MARGIN_PIXELS)


def count_bytes(size: tuple[int, int], dtype: np.dtype, reach: int) -> int:
    """Return the memory that the frames around a frame take.

    Args:
        size: height and width of the frames.
        dtype: the type of a sample.
        reach: frames before and behind.

    Returns:
        Bytes, where the frames share a mask.
    """
    return (2 * reach + 1) * 4 * dtype.itemsize * size[0] * size[1]  # RGB and luma


def look_at(rgb: np.ndarray, missing: np.ndarray, known: np.ndarray) -> Shown:
    """Prepare a frame for its neighbours.

    Args:
        rgb: uint8 or uint16 H×W×3.
        missing: bool H×W, True where a pixel is missing.
        known: bool H×W, as :func:`find_known` returns it.

    Returns:
        The frame.
    """
    luma = np.rint(rgb @ np.array([0.299, 0.587, 0.114], np.float32)).astype(rgb.dtype)
    return Shown(rgb, missing, luma, known, reduce_frame(luma, known))


def find_background(target: Shown, others: Sequence[Neighbour]) -> tuple[np.ndarray, np.ndarray]:
    """Find what other frames show behind the mask of a frame.

    Args:
        target: the frame.
        others: the other frames, the nearest first.

    Returns:
        The frame with the pixels that were found (H×W×3 of its type), and the pixels that are still missing (bool H×W).
    """
    if not target.missing.any():
        return target.rgb, target.missing
    height, width = target.missing.shape
    hole = bounding_box(target.missing)
    wide = hole.grown(_AROUND_PIXELS)
    span = Span(max(0, wide.top), max(0, wide.left), min(height, wide.bottom), min(width, wide.right))
    missing = target.missing[span.slices]
    around = target.known[span.slices] & grow_holes(missing, _AROUND_PIXELS)
    samples = np.full((_SAMPLES, *missing.shape, 3), np.nan, np.float32)
    counts = np.zeros(missing.shape, np.intp)
    speeds: dict[bool, tuple[float, float]] = {}
    for offset, other in others:
        wanted = missing & (counts < _SAMPLES)
        if not wanted.any():
            break
        shift, difference = _register(target, other, span, around, wanted, _scale(speeds.get(offset > 0), offset))
        if difference > _MAX_DIFFERENCE:
            continue
        speeds[offset > 0] = shift[0] / offset, shift[1] / offset
        found = wanted & sample_known(other.known, span, shift)
        rows, columns = np.nonzero(found)
        samples[counts[found], rows, columns] = sample(other.rgb, span, shift)[found]
        counts[found] += 1
    found = counts > 0
    rgb, left = target.rgb.copy(), target.missing.copy()
    if found.any():
        limit = np.iinfo(rgb.dtype).max
        median = np.nanmedian(samples[:, found], axis=0)
        rgb[span.slices][found] = np.rint(median).clip(0, limit).astype(rgb.dtype)
        left[span.slices][found] = False
    return rgb, left


def _scale(speed: tuple[float, float] | None, offset: int) -> tuple[float, float] | None:
    """Return the movement that a speed gives after a number of frames."""
    return (speed[0] * offset, speed[1] * offset) if speed is not None else None


def _register(
    target: Shown,
    other: Shown,
    span: Span,
    around: np.ndarray,
    wanted: np.ndarray,
    expected: tuple[float, float] | None,
) -> tuple[tuple[float, float], float]:
    """Find the movement to another frame.

    Args:
        target: the frame with the hole.
        other: the other frame.
        span: the rectangle around the hole.
        around: bool h×w, the pixels of the rectangle that are compared.
        wanted: bool h×w, the pixels that are looked for.
        expected: the movement if the camera goes on as before; None if that is not known.

    Returns:
        The movement, and the mean difference of the pixels that are compared, as a share of white. The difference is
        infinite where the other frame shows none of the pixels that are looked for.
    """
    best: tuple[tuple[float, float], float] = ((0.0, 0.0), np.inf)
    white = np.iinfo(target.luma.dtype).max
    for is_expected in (True, False):
        if is_expected and expected is None:
            continue
        start = expected if is_expected and expected is not None else correlate(target.reduced, other.reduced)
        if not (wanted & sample_known(other.known, span, start)).any():
            continue
        shift, difference = refine(target.luma, other.luma, span, around, other.known, start, target.reduced.factor)
        best = min(best, (shift, difference / white), key=lambda each: each[1])
        if is_expected and best[1] <= _GOOD_DIFFERENCE:
            break
    return best


def with_neighbours(frames: Iterable[Shown], reach: int) -> Iterator[tuple[Shown, list[Neighbour]]]:
    """Give each frame the frames around it.

    Args:
        frames: the frames in order.
        reach: frames before and behind a frame.

    Yields:
        Each frame, and the frames around it, the nearest first.
    """
    window: deque[Shown] = deque(maxlen=2 * reach + 1)
    place = 0  # of the next frame in the window
    for frame in frames:
        if len(window) == window.maxlen:
            place -= 1
        window.append(frame)
        if len(window) - 1 - place == reach:
            yield window[place], _sort_by_distance(window, place, reach)
            place += 1
    while place < len(window):
        yield window[place], _sort_by_distance(window, place, reach)
        place += 1


def _sort_by_distance(window: Sequence[Shown], place: int, reach: int) -> list[Neighbour]:
    """Return frames within reach of a frame of the window, the nearest first, and fewer of those that are far."""
    offsets = [
        sign * distance
        for distance in range(1, reach + 1)
        if not distance % (1 if distance <= _DENSE_FRAMES else 2 if distance <= 2 * _DENSE_FRAMES else 4)
        for sign in (-1, 1)
    ]
    return [(offset, window[place + offset]) for offset in offsets if 0 <= place + offset < len(window)]
