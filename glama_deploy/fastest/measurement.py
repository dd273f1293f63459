"""Measure each precision that an engine offers in turns with fp32, and choose the fastest one.

The inputs are crops of the sample photo, and the reference is fp32 on the same engine, so neither PyTorch nor other
photographs are needed.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import Field

from glama_deploy import catalogue, psnr
from glama_deploy.bundle import Size
from glama_deploy.errors import EngineError
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io import images

log = logging.getLogger("glama_deploy")

#: Least PSNR of the missing pixels against fp32, in dB. This is the bound by which parity judges int8: an error of 2.5
#: of 255 (root mean square), which is not seen. In benchmarks/RESULTS-PRECISION.md bf16 has 48.8 dB or more on average,
#: and int8 44.5 dB or more.
LEAST_PSNR_DB = catalogue.INT8_LEAST_PSNR_DB

#: Precisions whose times differ by less count as equally fast, and the one that is closer to fp32 is chosen. Two
#: measurements of one precision differ by a few percent.
EQUAL_SPEED_RATIO = 1.05

#: Height and width of the measured images in pixels, where the engine takes them. The order of the precisions was the
#: same at 256×256 and 512×512, and a run takes a quarter of the time.
SIZE: Size = (256, 256)

#: Corners (row, column) of the crops of the sample photo, which has 512×768 pixels.
_CORNERS = ((0, 0), (128, 256), (256, 512))

#: Measured rounds of each pair of precisions. The median is taken.
_ROUNDS = 5

_SAMPLE = Path(images.__file__).parents[1] / "assets" / "sample.jpg"


class Measurement(FrozenModel):
    """A precision in comparison with fp32."""

    precision: str
    seconds: float = Field(gt=0, description="of one image")
    decibels: float | None = Field(description="PSNR of the missing pixels against fp32; None: they are the same")


#: Opens a bundle in a precision. Raises EngineError where the engine does not offer the precision.
OpenInpainter = Callable[[str], Inpainter]


def choose_fastest(measurements: tuple[Measurement, ...]) -> Measurement:
    """Choose the fastest precision that is close enough to fp32.

    Args:
        measurements: the precisions, fp32 among them.

    Returns:
        The precision with at least `LEAST_PSNR_DB`. Of equally fast ones, the one with the most decibels.
    """
    close = [one for one in measurements if get_decibels(one) >= LEAST_PSNR_DB]
    least = min(one.seconds for one in close)
    return max((one for one in close if one.seconds <= EQUAL_SPEED_RATIO * least), key=get_decibels)


def measure(open_inpainter: OpenInpainter, size: Size) -> tuple[Measurement, ...]:
    """Measure all precisions that an engine offers, each in turns with fp32.

    Two engines are open at once. A precision that does not run is left out, and a warning has the reason.

    Args:
        open_inpainter: opens the engine in a precision.
        size: height and width of the images.

    Returns:
        fp32, then the other precisions.

    Raises:
        EngineError: the engine does not offer fp32, or fp32 does not run.
        ImageError: the free memory does not suffice.
    """
    reference, samples = open_inpainter("fp32"), list(_read_samples(size))
    all_seconds: list[float] = []
    found: list[tuple[str, float, float | None]] = []
    for precision in [name for name in catalogue.PRECISIONS if name != "fp32"]:
        if (compared := _open_and_compare(open_inpainter, precision, reference, samples)) is None:
            continue
        seconds, ratio, decibels = compared
        all_seconds += seconds
        found.append((precision, ratio, decibels))
    base = statistics.median(all_seconds or _time_rounds(reference, samples))
    others = [Measurement(precision=name, seconds=base * ratio, decibels=dB) for name, ratio, dB in found]
    return Measurement(precision="fp32", seconds=base, decibels=None), *others


Sample = tuple[np.ndarray, np.ndarray]


#: Seconds of the reference, how long a precision takes in proportion, and its PSNR (None: no error).
_Comparison = tuple[list[float], float, float | None]


def _open_and_compare(
    open_inpainter: OpenInpainter, precision: str, reference: Inpainter, samples: list[Sample]
) -> _Comparison | None:
    """Compare a precision with the reference. Return None, and log the reason, where the precision is not measured."""
    try:
        inpainter = open_inpainter(precision)
    except EngineError as error:
        log.info("%s is not measured: %s", precision, error)
        return None
    if inpainter.precision != precision:
        log.info("%s is not measured: this machine computes in %s instead", precision, inpainter.precision)
        return None
    try:
        return _compare(reference, inpainter, samples)
    except EngineError as error:
        log.warning("%s opens but does not run, and is not measured: %s", precision, error)
        return None


def _compare(reference: Inpainter, inpainter: Inpainter, samples: list[Sample]) -> _Comparison:
    squares = []
    for image, missing in samples:  # these runs compile, and are not timed
        expected, result = (each(image, missing, region="full") for each in (reference, inpainter))
        squares.append(psnr.compute_mean_square(result[missing], expected[missing]))
    seconds, ratios = [], []
    for turn in range(_ROUNDS):
        image, missing = samples[turn % len(samples)]
        pair = {
            each: _time(each, image, missing) for each in ((reference, inpainter), (inpainter, reference))[turn % 2]
        }
        seconds.append(pair[reference])
        ratios.append(pair[inpainter] / pair[reference])
    mean_square = statistics.fmean(squares)
    return seconds, statistics.median(ratios), psnr.compute_psnr(mean_square) if mean_square else None


def _time_rounds(inpainter: Inpainter, samples: list[Sample]) -> list[float]:
    """Return the seconds of each round, after one run that compiles."""
    inpainter(*samples[0], region="full")
    return [_time(inpainter, *samples[turn % len(samples)]) for turn in range(_ROUNDS)]


def _time(inpainter: Inpainter, image: np.ndarray, missing: np.ndarray) -> float:
    start = time.perf_counter()
    inpainter(image, missing, region="full")
    return time.perf_counter() - start


def _read_samples(size: Size) -> Iterator[Sample]:
    """Yield crops of the sample photo, in each of which a box in the middle is missing: a quarter of the pixels.

    Where the size exceeds the photo, the photo is mirrored.
    """
    photo = images.read_image(_SAMPLE).rgb
    beyond = [(0, max(0, side - there)) for side, there in zip(size, photo.shape[:2], strict=True)]
    photo = np.pad(photo, (*beyond, (0, 0)), mode="symmetric")
    height, width = size
    missing = np.zeros(size, bool)
    missing[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2] = True
    for corner in _CORNERS:
        top, left = (min(start, there - side) for start, there, side in zip(corner, photo.shape[:2], size, strict=True))
        yield np.ascontiguousarray(photo[top : top + height, left : left + width]), missing


def get_decibels(one: Measurement) -> float:
    """Return the PSNR of a measurement.

    Args:
        one: the measurement.

    Returns:
        dB against fp32, infinity where there is no error.
    """
    return math.inf if one.decibels is None else one.decibels
