"""The copies of a run between host and device, and their times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import RunTimes
from glama_deploy.runtime.cuda.interface import Device


class Copier(Protocol):
    """The part of a :class:`Device` that copies between host and device."""

    def upload(self, address: int, block: np.ndarray) -> None:
        """Enqueue a copy to the device.

        Args:
            address: The device address to copy to.
            block: The page-locked host memory, uint8.
        """
        ...

    def download(self, block: np.ndarray, address: int) -> None:
        """Enqueue a copy to the host.

        Args:
            block: The page-locked host memory to copy to, uint8.
            address: The device address to copy from.
        """
        ...


class NoCopier:
    """The :class:`Copier` of a GPU that uses the host's memory where the memory lies."""

    def upload(self, address: int, block: np.ndarray) -> None:
        pass

    def download(self, block: np.ndarray, address: int) -> None:
        pass


class TimedCopier:
    """A :class:`Copier` that marks the start and the end of each copy with an event in the device's stream.

    A run uploads its inputs, computes, and downloads its output. Its computation is between the last upload and the
    download. The host fills page-locked memory between two uploads, so the time between two uploads counts for neither.
    """

    def __init__(self, device: Device, copier: Copier) -> None:
        """Time copies.

        Args:
            device: The device, in whose stream the copies are.
            copier: What copies.
        """
        self._device, self._copier = device, copier
        self._uploads: list[tuple[Any, Any]] = []
        self._download: tuple[Any, Any] | None = None
        #: Events that earlier runs have used, which later runs record again.
        self._unused: list[Any] = []

    def upload(self, address: int, block: np.ndarray) -> None:
        if self._download is not None:  # the first copy of another run
            self._unused += [event for pair in (*self._uploads, self._download) for event in pair]
            self._uploads, self._download = [], None
        self._uploads.append(self._time(lambda: self._copier.upload(address, block)))

    def download(self, block: np.ndarray, address: int) -> None:
        self._download = self._time(lambda: self._copier.download(block, address))

    def read_times(self) -> RunTimes:
        """Read the times of the last run, whose work in the stream is done.

        Returns:
            The times.

        Raises:
            EngineError: there was no run with an upload and a download.
        """
        if not self._uploads or self._download is None:
            raise EngineError("no run has copied its inputs and its output yet; run an image in main memory first")
        measure = self._device.measure_seconds
        with self._device.active():
            return RunTimes(
                upload=sum(measure(start, end) for start, end in self._uploads),
                compute=measure(self._uploads[-1][1], self._download[0]),
                download=measure(*self._download),
            )

    def _time(self, copy: Callable[[], None]) -> tuple[Any, Any]:
        start, end = (self._unused.pop() if self._unused else self._device.make_event() for _ in range(2))
        self._device.record(start)
        copy()
        self._device.record(end)
        return start, end
