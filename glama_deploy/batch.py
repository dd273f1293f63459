"""Image files in, image files out: one pair, or two folders paired by stem."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from glama_deploy import images, memory
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.files import check_writable, write_error
from glama_deploy.images import Picture
from glama_deploy.inpainter import check
from glama_deploy.network import NetworkConfig

log = logging.getLogger("glama_deploy")

#: An `Inpainter`, with or without a region: image and mask → image.
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: An image, and its mask as bool H×W.
_Inputs = tuple[Picture, np.ndarray]

#: Images that are read or written while others are filled; each is held in memory.
AT_ONCE = min(4, os.cpu_count() or 1)

#: Images of a folder that an engine fills at once where that pays, and how many times the memory that they take must be
#: free: engines keep what earlier sizes took.
STREAMS, _SPARE = 2, 4


@dataclass(frozen=True)
class Job:
    """One image to inpaint; `mask` is None where the folder of masks has none for it."""

    image: Path
    mask: Path | None
    out: Path


@dataclass(frozen=True)
class Result:
    """What became of a job; `reason` is the one line for a failure."""

    job: Job
    state: Literal["written", "skipped", "failed"]
    reason: str = ""


def plan(image: Path, mask: Path, out: Path, *, overwrite: bool = False) -> list[Job]:
    """The jobs for a file and its mask, or for two folders (paired by stem; written as PNG under the image's stem).

    Raises GlamaError for paths that do not exist or do not go together, a folder without images, two images of one
    stem, a place that cannot be written, and a single output that exists already, unless it may be overwritten.
    """
    for path, what in ((image, "image"), (mask, "mask")):
        if not path.exists():
            raise GlamaError(f"no {what} at {path}; check the path")
    if image.is_dir() != mask.is_dir():
        raise GlamaError(f"--image {image} and --mask {mask} must be two files or two folders")
    if not image.is_dir():
        target = out / f"{image.stem}.png" if out.is_dir() else out
        if target.exists() and (target.samefile(image) or target.samefile(mask)):
            raise GlamaError(f"{target} is an input itself; choose another output")
        if target.exists() and not overwrite:
            raise GlamaError(f"{target} exists already; choose another output or pass --overwrite")
        check_writable(target)
        return [Job(image, mask, target)]
    if out.exists() and not out.is_dir():
        raise GlamaError(f"--out {out} is a file; a folder is needed for a folder of images")
    if out.exists() and (out.samefile(image) or out.samefile(mask)):
        raise GlamaError(f"--out {out} is a folder of the inputs; choose another")
    sources, masks = _by_stem(image), _by_stem(mask)
    if not sources:
        raise GlamaError(f"{image} has no images ({', '.join(sorted(images.SUFFIXES))})")
    check_writable(out)
    return [Job(path, masks.get(stem), out / f"{stem}.png") for stem, path in sources.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in images.SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise GlamaError(
                f"{found[path.stem]} and {path.name} have one stem, which pairs images with masks; rename one"
            )
        found[path.stem] = path
    return found


def run(fill: Fill, jobs: Iterable[Job], *, overwrite: bool = False, at_once: int = 1) -> Iterator[Result]:
    """Do the jobs, and give their results in the same order; a bad file is a result like the others. An output that
    exists is skipped, unless `overwrite`: a run that was cut short goes on where it stopped.

    `at_once` images are filled at a time, in threads of their own; beside them AT_ONCE of the next and the last are
    read and written.
    """
    todo = iter(jobs)
    under_way: deque[_UnderWay] = deque()
    fills = ThreadPoolExecutor(at_once, "glama-fill")
    files = ThreadPoolExecutor(AT_ONCE, "glama-files")
    try:
        while True:
            while len(under_way) < at_once + AT_ONCE and (job := next(todo, None)) is not None:
                under_way.append(_begin(fill, job, fills, files, skip=job.out.exists() and not overwrite))
            if not under_way:
                break
            yield under_way.popleft().end()
    finally:
        for begun in under_way:
            begun.cancel()
        fills.shutdown()
        files.shutdown()  # what was filled is written


@dataclass(frozen=True)
class _UnderWay:
    """A job that was begun: what is read, and then filled, which gives what is written; None where it is skipped."""

    job: Job
    read: Future[_Inputs] | None = None
    filled: Future[Future[None]] | None = None

    def end(self) -> Result:
        if self.filled is None:
            return Result(self.job, "skipped")
        try:
            self.filled.result().result()
        except _FAILURES as error:
            return _failed(self.job, error)
        return Result(self.job, "written")

    def cancel(self) -> None:
        for future in (self.filled, self.read):
            if future is not None:
                future.cancel()


def _begin(fill: Fill, job: Job, fills: Executor, files: Executor, *, skip: bool) -> _UnderWay:
    if skip:
        return _UnderWay(job)
    inputs = files.submit(read, job)

    def filled() -> Future[None]:
        picture, mask = inputs.result()
        return files.submit(write, job, picture, _filled(fill, job, picture, mask), mask)

    return _UnderWay(job, inputs, fills.submit(filled))


def streams(jobs: Sequence[Job], threads: int | None) -> int:
    """How many of them to fill at once: two, which with half of the threads each wait for one another less; one where
    there is one image, or one thread, or an image so large that memory could become short."""
    if len(jobs) < 2 or (threads or os.cpu_count() or 1) < 2:
        return 1
    largest = max((images.pixels(job.image) for job in jobs), default=0)
    free = memory.available()
    several = STREAMS * memory.estimate(1, largest, NetworkConfig())  # of LaMa, the widest of the networks
    return STREAMS if free is None or _SPARE * several <= free else 1


#: What a file, or the lack of memory for it, can do to a job.
_FAILURES = (GlamaError, OSError, MemoryError)


def _failed(job: Job, error: BaseException) -> Result:
    if isinstance(error, GlamaError):
        return Result(job, "failed", str(error))
    return Result(job, "failed", f"{job.image}: {str(error) or 'not enough memory'}")


def read(job: Job) -> _Inputs:
    """The job's image and mask (bool H×W), checked against each other. Raises ImageError; a mask that marks nothing,
    or everything, is worth a note."""
    images.check_suffix(job.out)
    if job.mask is None:
        raise ImageError(f"{job.image} has no mask: the folder of masks has no {job.image.stem}.png (or .jpg, …)")
    picture, mask = images.read_image(job.image), images.read_mask(job.mask)
    images.check_takes(job.out, picture)
    try:
        check(picture.rgb, mask)
    except ImageError as error:
        raise ImageError(f"{job.image}: {error}") from error
    if not mask.any() or mask.all():
        log.warning("%s marks %s pixel as missing", job.mask, "every" if mask.any() else "no")
    return picture, mask


def finish(fill: Fill, job: Job, picture: Picture, mask: np.ndarray) -> None:
    """Inpaint and write; raises GlamaError with nothing written."""
    write(job, picture, _filled(fill, job, picture, mask), mask)


def _filled(fill: Fill, job: Job, picture: Picture, mask: np.ndarray) -> np.ndarray:
    try:
        return fill(picture.rgb, mask)
    except ImageError as error:
        raise ImageError(f"{job.image}: {error}") from error


def write(job: Job, picture: Picture, rgb: np.ndarray, mask: np.ndarray) -> None:
    """Write the job's output, and its folder where there is none. Raises GlamaError with nothing written."""
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(job.out, error) from error
    images.write_image(job.out, picture, rgb, mask)
