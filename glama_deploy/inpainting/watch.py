"""Fill the images that appear in a folder, until the caller stops.

The folder is listed again and again. (Notices of the file system do not come from every network drive.) An image is
filled once it and its mask have not changed for some listings. An image without a mask waits for its mask. An image
that failed is tried again when the image or its mask changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.folder import Result
from glama_deploy.inpainting.in_place import Signature, sign
from glama_deploy.inpainting.pairing import Job
from glama_deploy.io.pipes import PipedFile

log = logging.getLogger("glama_deploy")

#: Seconds between two listings.
LISTING_SECONDS = 1.0

#: An image is stable if so many listings in a row found the same files.
STABLE_LISTINGS = 3

#: The signatures of an image and its mask; a mask that is not needed has None.
_Files = tuple[Signature, Signature | None]


class Watch:
    """The images of a folder, as listings find them.

    Args:
        list_jobs: lists the jobs of the folder.
    """

    def __init__(self, list_jobs: Callable[[], Sequence[Job]]) -> None:
        self._list_jobs = list_jobs
        self._seen: dict[Path, tuple[_Files, int]] = {}
        self._handled: dict[Path, _Files] = {}
        self._noted: set[str] = set()
        self.waiting: list[Path] = []
        """Images that wait for their masks."""

    def take_stable(self) -> list[Job]:
        """List the folder.

        Returns:
            The jobs whose files are stable and were not handled yet.
        """
        try:
            jobs = self._list_jobs()
        except (GlamaError, OSError) as error:  # such as two masks of one image, or a drive that is not there
            if str(error) not in self._noted:
                log.warning("%s", error)
            self._noted.add(str(error))
            return []
        self.waiting = [job.file for job in jobs if job.lacks_mask]
        seen = self._seen
        self._seen = {}
        stable = []
        for job in jobs:
            files = _sign_files(job)
            if files is None or self._handled.get(job.out) == files:
                continue
            before, times = seen.get(job.out, (None, 0))
            times = times + 1 if before == files else 1
            self._seen[job.out] = files, times
            if times >= STABLE_LISTINGS:
                stable.append(job)
        return stable

    def handle(self, result: Result) -> None:
        """Remember that a job was handled.

        Args:
            result: the result of the job.
        """
        job = result.job
        replaced = _sign_files(job) if job.backup is not None and result.state == "written" else None
        if replaced is not None:
            self._handled[job.out] = replaced
        elif job.out in self._seen:
            self._handled[job.out] = self._seen[job.out][0]


def watch(
    folder: Watch,
    run: partial[Iterator[Result]],
    is_over: Callable[[], bool],
    pause: float = LISTING_SECONDS,
) -> Iterator[Result]:
    """Fill the images that are in a folder and that appear in it.

    Args:
        folder: the folder.
        run: :func:`glama_deploy.inpainting.folder.run_jobs` with an inpainter and its settings.
        is_over: tells whether the watch ends. The images that are being filled are written first.
        pause: seconds between two listings.

    Yields:
        The result of each job.
    """
    while not is_over():
        stable = folder.take_stable()
        for result in run(stable, is_over=is_over):
            folder.handle(result)
            yield result
        time.sleep(pause)


def _sign_files(job: Job) -> _Files | None:
    """Return the signatures of a job's files; None if one is missing."""
    assert not isinstance(job.mask, PipedFile)
    image, mask = sign(job.file), sign(job.mask) if job.mask is not None else None
    if image is None or job.lacks_mask or (job.mask is not None and mask is None):
        return None
    return image, mask
