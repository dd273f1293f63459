"""Fill image files: one image and its mask, or the jobs of a folder."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from glama_deploy import memory
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting.components import find_components
from glama_deploy.inpainting.in_order import wait_for
from glama_deploy.inpainting.in_place import Signature, check_origin, check_replaceable, keep_original, sign
from glama_deploy.inpainting.inpainter import check_sides
from glama_deploy.inpainting.mask_edits import NO_EDITS, MaskEdits
from glama_deploy.inpainting.pairing import Job
from glama_deploy.inpainting.transparency import Fill, fill_picture
from glama_deploy.io import decoding, images
from glama_deploy.io.files import remove_leftovers_once, write_error
from glama_deploy.io.images import Picture
from glama_deploy.io.mask_files import BY_VALUES, MaskRule, read_mask
from glama_deploy.io.pipes import Source
from glama_deploy.marking.marks import NO_MARKS, Marks
from glama_deploy.marking.rectangles import Rectangle
from glama_deploy.network import NetworkConfig
from glama_deploy.system.processors import count_processors

log = logging.getLogger("glama_deploy")

#: An image, and its mask as bool H×W.
_Inputs = tuple[Picture, np.ndarray]

#: The greatest number of images that are read or written while others are filled. Each is held in memory.
MAX_FILES_AT_ONCE = 4

#: Images of a folder that an engine fills at once where the memory allows.
MAX_STREAMS = 2

#: This many times the memory of the images must be free, because engines keep the memory of earlier sizes.
_FREE_MEMORY_FACTOR = 4

#: The share of the free memory that images may take that are read ahead.
_READ_AHEAD_SHARE = 0.5

#: A mask that marks a larger share of its image as missing is logged, because it may be inverted.
_MAX_MISSING_SHARE = 0.9

#: Holes that are nearer to each other than about this many pixels have one rectangle in a report.
_REPORT_CELL_PIXELS = 16


@dataclass(frozen=True)
class Masks:
    """How masks are made: what marks missing pixels, and what is done to the holes.

    Attributes:
        rule: how mask files are read.
        edits: what is done to the holes, after mask files and marks are joined.
        marks: what marks missing pixels beside mask files.
    """

    rule: MaskRule = BY_VALUES
    edits: MaskEdits = NO_EDITS
    marks: Marks = NO_MARKS


#: Masks as they are.
AS_THEY_ARE = Masks()


@dataclass
class Work:
    """What was done for a job.

    Attributes:
        seconds: time of reading, filling and writing, without the waits between them.
        boxes: rectangles that contain the missing pixels, after the holes were edited. Near holes share a rectangle.
    """

    seconds: float = 0.0
    boxes: tuple[Rectangle, ...] = ()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the time of a block. The blocks of a job run one after the other."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


@dataclass(frozen=True)
class Result:
    """The outcome of a job.

    Attributes:
        job: the job.
        state: whether the output was written, existed before, or could not be made.
        reason: one line that explains a failure.
        work: what was done; of a skipped job, nothing.
    """

    job: Job
    state: Literal["written", "skipped", "failed"]
    reason: str = ""
    work: Work = field(default_factory=Work)


def run_jobs(
    fill: Fill,
    jobs: Iterable[Job],
    *,
    overwrite: bool = False,
    at_once: int = 1,
    masks: Masks = AS_THEY_ARE,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[Result]:
    """Run jobs, and yield their results in the same order.

    A bad file is a result like the others. Images are read and written in threads beside the fills: as many as there
    are processors, and at most MAX_FILES_AT_ONCE.

    A run that is cut short writes the images that were filled. The fills under way are abandoned, because one fill can
    take minutes. Their threads end by themselves, and write nothing. The next run continues where this one stopped,
    because it skips outputs that exist.

    Args:
        fill: the inpainter.
        jobs: the jobs.
        overwrite: whether outputs that exist are replaced. Otherwise they are skipped.
        at_once: number of images that are filled at once, each in a thread.
        masks: how masks are read, and what is done to their holes.
        is_over: tells whether no other image is filled. Images that are being filled are still written. The function is
            called from several threads.

    Yields:
        The result of each job. Jobs that are left because the run is over have no result.
    """
    todo = iter(jobs)
    job: Job | None = None
    under_way: deque[_UnderWay] = deque()
    fills = ThreadPoolExecutor(at_once, "glama-fill")
    beside = min(MAX_FILES_AT_ONCE, count_processors())
    files = ThreadPoolExecutor(beside, "glama-files")
    try:
        while True:
            job = job or next(todo, None)
            while job is not None and len(under_way) < at_once + beside and not is_over() and _has_room(under_way, job):
                skip = not overwrite and job.is_done()
                under_way.append(_begin_job(fill, job, masks, fills, files, is_over, skip=skip))
                job = next(todo, None)
            if not under_way:
                break
            try:
                result = under_way.popleft().end()
            except _RunIsOverError:
                continue
            yield result
    finally:
        for begun in under_way:
            begun.cancel()
        fills.shutdown(wait=False)
        files.shutdown()  # what was filled is written


class _RunIsOverError(Exception):
    """The run was over before an image was filled."""


@dataclass(frozen=True)
class _UnderWay:
    """A job that was begun.

    Attributes:
        job: the job.
        read: the image and its mask; None for a job that is skipped.
        filled: the fill, whose result is the writing of the output; None for a job that is skipped.
        work: what was done.
    """

    job: Job
    read: Future[_Inputs] | None = None
    filled: Future[Future[None]] | None = None
    work: Work = field(default_factory=Work)

    def end(self) -> Result:
        """Wait for the job.

        Returns:
            The result of the job.

        Raises:
            _RunIsOverError: the run was over before the image was filled.
        """
        if self.filled is None:
            return Result(self.job, "skipped")
        try:
            wait_for(wait_for(self.filled))
        except FAILURES as error:
            return make_failure(self.job, error, self.work)
        return Result(self.job, "written", work=self.work)

    def cancel(self) -> None:
        """Cancel the steps that have not begun."""
        for future in (self.filled, self.read):
            if future is not None:
                future.cancel()


def _begin_job(
    fill: Fill, job: Job, masks: Masks, fills: Executor, files: Executor, is_over: Callable[[], bool], *, skip: bool
) -> _UnderWay:
    if skip:
        remove_leftovers_once(job.out.parent)  # no output may be left to write there
        return _UnderWay(job)
    work = Work()
    before: Signature | None = None

    def read() -> _Inputs:
        nonlocal before
        with work.measure():
            before = sign(job.file)
            picture, mask = read_job(job, masks)
            check_unchanged(job, before)
            work.boxes = find_boxes(mask)
            return picture, mask

    def write(picture: Picture) -> None:
        with work.measure():
            if job.backup is not None:
                check_unchanged(job, before)
            write_job(job, picture)

    inputs = files.submit(read)

    def filled() -> Future[None]:
        picture, mask = inputs.result()
        if is_over():
            raise _RunIsOverError
        with work.measure():
            result = fill_inputs(fill, job, picture, mask)
        return files.submit(write, result)

    return _UnderWay(job, inputs, fills.submit(filled), work)


def check_unchanged(job: Job, before: Signature | None) -> None:
    """Check that an image is the file that was read.

    Args:
        job: the job.
        before: the image's signature before it was read.

    Raises:
        ImageError: another program changed or removed the image meanwhile.
    """
    if sign(job.file) != before:
        raise ImageError(f"{job.image} changed while it was read or filled; run again once it is written")


def find_boxes(mask: np.ndarray) -> tuple[Rectangle, ...]:
    """Find rectangles that contain the missing pixels.

    Args:
        mask: bool H×W, True where a pixel is missing.

    Returns:
        The rectangles, in the order of rows. Near holes share a rectangle.
    """
    found = find_components(mask, _REPORT_CELL_PIXELS).tolist()
    return tuple(Rectangle(left, top, right - left, bottom - top) for top, left, bottom, right in found)


def _has_room(under_way: Iterable[_UnderWay], job: Job) -> bool:
    """Return whether the memory has room for one more image beside those under way. A first image always has room."""
    others = [begun.job for begun in under_way if begun.read is not None]
    free = memory.available()
    if not others or free is None:
        return True
    needed = decoding.DECODED_BYTES * sum(_count_pixels(each.image) for each in (*others, job))
    return needed <= _READ_AHEAD_SHARE * free


def _count_pixels(path: Source) -> int:
    """Return the number of pixels in an image file's header; 0 if the header cannot be read."""
    try:
        height, width = decoding.read_size(path, further=True)
    except ImageError:
        return 0
    return height * width


def count_streams(jobs: Sequence[Job], threads: int | None) -> int:
    """Return the number of images to fill at once.

    Two fills at once, with half of the threads each, are faster than one after the other with all threads. The threads
    of one fill wait for one another.

    Args:
        jobs: the jobs of the run.
        threads: threads of the engine; None for one for each processor.

    Returns:
        MAX_STREAMS; 1 for a single job, for a single thread, or if large images could use up the memory.
    """
    if len(jobs) < 2:
        return 1
    return count_streams_of_size(max(_count_pixels(job.image) for job in jobs), threads)


def count_streams_of_size(pixels: int, threads: int | None) -> int:
    """Return the number of images of one size to fill at once.

    Args:
        pixels: pixels of an image.
        threads: threads of the engine; None for one for each processor.

    Returns:
        MAX_STREAMS; 1 for a single thread, or if the images could use up the memory.
    """
    if (threads or count_processors()) < 2:
        return 1
    side = math.isqrt(pixels) + 1
    free = memory.available()
    several = MAX_STREAMS * memory.estimate(side, side, NetworkConfig())  # of LaMa, the widest of the networks
    return MAX_STREAMS if free is None or _FREE_MEMORY_FACTOR * several <= free else 1


#: The exceptions by which a bad file, or a lack of memory, fails a job.
FAILURES = (GlamaError, OSError, MemoryError)


def make_failure(job: Job, error: BaseException, work: Work | None = None) -> Result:
    """Make the result of a job that failed.

    Args:
        job: the job.
        error: one of FAILURES.
        work: what was done; None for nothing that is told.

    Returns:
        The result, whose reason is one line.
    """
    reason = str(error) if isinstance(error, GlamaError) else f"{job.image}: {str(error) or 'not enough memory'}"
    return Result(job, "failed", reason, work or Work())


def read_job(job: Job, masks: Masks = AS_THEY_ARE) -> _Inputs:
    """Read the image of a job, and make its mask. Sizes are checked before anything is decoded.

    A mask of the image's proportions is scaled to the image, and logged. A mask that marks no pixel, or nearly every
    pixel, is logged, too.

    Args:
        job: the job.
        masks: how the mask is made.

    Returns:
        The picture, and the mask as bool H×W, True where a pixel is missing.

    Raises:
        GlamaError: a file cannot be read, the image and the mask have different proportions, or a mark does not fit the
            image.
    """
    if job.backup is not None:
        check_replaceable(job.file)
        check_origin(job.file, job.backup)
    images.check_suffix(job.out)
    if job.lacks_mask:
        raise ImageError(f"{job.image} has no mask: the folder of masks has no {job.expected_mask}")
    if job.mask is None and not masks.marks:
        raise ImageError(f"{job.image} has no mask; give a mask, rectangles, colors or annotations")
    mask_size = decoding.read_size(job.mask) if job.mask is not None else None
    stored = decoding.read_size(job.source, further=True, frame=job.files.frame), mask_size
    _check_sizes(job, *stored)
    picture = images.read_image(job.source, job.files)
    images.check_format(job.out, picture)
    mask = np.zeros(picture.rgb.shape[:2], bool)
    if job.mask is not None:
        mask = _read_mask_file(job, job.mask, masks.rule, picture, stored)
    if masks.marks:
        mask |= masks.marks.find_missing(picture, Path(str(job.image)))
    mask = masks.edits.edit(mask)
    if masks.marks and mask.all():
        raise ImageError(f"{job.image}: every pixel is marked as missing; known pixels are needed")
    _check_share(mask, job.image, job.mask)
    return picture, mask


def read_frame_mask(path: Path, size: tuple[int, int], masks: Masks = AS_THEY_ARE) -> np.ndarray:
    """Read the mask of all frames of a video.

    Args:
        path: the mask.
        size: height and width of the frames in pixels.
        masks: how the mask is read, and what is done to its holes.

    Returns:
        The mask as bool H×W, True where a pixel is missing.

    Raises:
        ImageError: the file cannot be read, or has other proportions than the frames.
    """
    check_sides(*size)
    mask = read_mask(path, masks.rule)
    if not _have_one_shape(mask.shape, size):
        found, expected = (f"{height}x{width}" for height, width in (mask.shape, size))
        raise ImageError(
            f"{path} is {found}, and the frames are {expected} (height x width); give a mask of the frames"
        )
    mask = masks.edits.edit(_fit_mask(mask, size, path))
    _check_share(mask, path, path)
    return mask


def _read_mask_file(
    job: Job, source: Source, rule: MaskRule, picture: Picture, stored: tuple[tuple[int, int], tuple[int, int] | None]
) -> np.ndarray:
    """Read a mask file, and scale the mask to the picture. `stored` has the sizes of both files before they turn."""
    mask, size = read_mask(source, rule), picture.rgb.shape[:2]
    if not _have_one_shape(mask.shape, size):
        turned = [shape != size for shape, size in zip((size, mask.shape), stored, strict=True)]
        raise ImageError(_describe_mismatch(job, size, mask.shape, *turned))
    return _fit_mask(mask, size, source)


def _fit_mask(mask: np.ndarray, size: tuple[int, ...], name: object) -> np.ndarray:
    """Scale a mask to another size of its proportions, and log the scaling."""
    if mask.shape == size:
        return mask
    log.warning("%s is %dx%d, and is scaled to the image's %dx%d", name, *mask.shape, *size)
    return _scale_mask(mask, *size)


def _check_share(mask: np.ndarray, image: object, file: object | None) -> None:
    """Log a mask that marks no pixel, or nearly every pixel. `file` is the name of the mask's file, if it has one."""
    if not mask.any():
        log.warning("%s marks no pixel as missing" if file else "%s: no pixel is marked as missing", file or image)
    elif mask.mean() > _MAX_MISSING_SHARE:
        advice = "; if black is missing, set `invert`" if file else ""
        log.warning("%s marks %.1f %% of the pixels as missing%s", file or image, 100 * mask.mean(), advice)


def _check_sizes(job: Job, image_size: tuple[int, int], mask_size: tuple[int, int] | None) -> None:
    """Raise ImageError for sizes (height, width) that are not supported, or that differ even if one is turned."""
    try:
        check_sides(*image_size)
    except ImageError as error:
        raise ImageError(f"{job.image}: {error}") from error
    if mask_size is not None and not _have_one_shape(sorted(image_size), sorted(mask_size)):
        raise ImageError(_describe_mismatch(job, image_size, mask_size))


def _have_one_shape(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two sizes (height, width) have the same proportions, up to the rounding of the smaller one."""
    small, large = sorted((one, other), key=math.prod)
    scales = [whole / part for whole, part in zip(large, small, strict=True)]
    return abs(large[0] / scales[1] - small[0]) <= 1 or abs(large[1] / scales[0] - small[1]) <= 1


def _scale_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask (bool) at another size. Each pixel takes the value of the nearest pixel."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.intp)
        for new, old in zip((height, width), mask.shape, strict=True)
    )
    return mask[rows][:, columns]


def _describe_mismatch(
    job: Job,
    image_size: Sequence[int],
    mask_size: Sequence[int],
    image_turned: bool = False,
    mask_turned: bool = False,
) -> str:
    """Describe an image and a mask of two sizes. A turned image was turned upright by its EXIF orientation."""
    sizes = [
        f"{height}x{width}{' (turned upright by its EXIF orientation)' if turned else ''}"
        for (height, width), turned in ((mask_size[:2], mask_turned), (image_size[:2], image_turned))
    ]
    remedy = ": make the mask of the upright image" if image_turned or mask_turned else ""
    return f"{job.image}: the mask is {sizes[0]}, the image {sizes[1]}; they must have the same proportions{remedy}"


def fill_job(fill: Fill, job: Job, picture: Picture, mask: np.ndarray, before: Signature | None = None) -> None:
    """Fill a picture and write the output.

    Args:
        fill: the inpainter.
        job: the job, which has the path of the output.
        picture: the picture.
        mask: bool H×W, True where a pixel is missing.
        before: the signature of the image before it was read. An image that changed since is not replaced.

    Raises:
        GlamaError: the picture cannot be filled, or the output cannot be written. Nothing is written then.
    """
    filled = fill_inputs(fill, job, picture, mask)
    if job.backup is not None and before is not None:
        check_unchanged(job, before)
    write_job(job, filled)


def fill_inputs(fill: Fill, job: Job, picture: Picture, mask: np.ndarray) -> Picture:
    """Fill a picture.

    Args:
        fill: the inpainter.
        job: the job, which has the image's name for messages.
        picture: the picture.
        mask: bool H×W, True where a pixel is missing.

    Returns:
        The filled picture.

    Raises:
        GlamaError: the picture cannot be filled.
    """
    try:
        return fill_picture(fill, picture, mask)
    except ImageError as error:
        raise ImageError(f"{job.image}: {error}") from error


def write_job(job: Job, picture: Picture) -> None:
    """Write the output of a job, and make the output's folder if it is missing.

    If the output replaces the image, the original is kept first.

    Args:
        job: the job.
        picture: the filled picture.

    Raises:
        GlamaError: the output cannot be written. The output is as it was before.
    """
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(job.out, error) from error
    if job.backup is not None:
        keep_original(job.file, job.backup)
    images.write_image(job.out, picture, job.files)
