"""The parts of a run's time and memory: what the engine takes, and what stands around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.runtime.cuda.device import open_device
from glama_deploy.runtime.cuda.interface import Device

#: The whole run, and its parts in the order in which they run. The host's part is the rest: it plans, converts,
#: composites, and waits. Where an engine does not tell its copies apart, they belong to `compute`.
TOTAL, UPLOAD, COMPUTE, DOWNLOAD, HOST = "total", "upload", "compute", "download", "host"

#: The percentiles of a run's time, each with the fewest runs that tell it.
_FEWEST_RUNS = {"p50": 1, "p90": 10, "p99": 100}


class Percentiles(FrozenModel):
    """The percentiles of a time.

    Attributes:
        p50: seconds; half of the runs took no longer.
        p90: seconds; None for fewer than 10 runs.
        p99: seconds; None for fewer than 100 runs.
    """

    p50: float
    p90: float | None
    p99: float | None


def compute_percentiles(seconds: Sequence[float]) -> Percentiles:
    """Compute the percentiles of a time, interpolated between the two nearest runs.

    Args:
        seconds: the time of each run, at least one.

    Returns:
        The percentiles.
    """
    found = {
        name: float(np.percentile(seconds, int(name[1:]))) if len(seconds) >= fewest else None
        for name, fewest in _FEWEST_RUNS.items()
    }
    return Percentiles.model_validate(found)


class EngineClock:
    """Measures what the engine of an inpainter takes of each call."""

    def __init__(self, inpainter: Inpainter) -> None:
        """Measure from now on.

        Args:
            inpainter: the inpainter, whose calls do not overlap.
        """
        runner = inpainter._runner
        self._read_times = runner.time_copies()
        self._seconds: dict[str, float] = {}
        runner.run = self._measure(runner.run)  # type: ignore[method-assign]
        runner.run_window = self._measure(runner.run_window)  # type: ignore[method-assign]

    def take_parts(self) -> dict[str, float]:
        """Return the seconds of the parts since the last time, and begin anew.

        Returns:
            Seconds by part: `compute`, and where the engine measures its copies `upload` and `download`.
        """
        found, self._seconds = self._seconds, {}
        return found

    def _measure(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = run(*arguments)
            if self._read_times is None:
                self._add(COMPUTE, time.perf_counter() - start)
                return result
            times = self._read_times()
            for part, seconds in ((UPLOAD, times.upload), (COMPUTE, times.compute), (DOWNLOAD, times.download)):
                self._add(part, seconds)
            return result

        return measured

    def _add(self, part: str, seconds: float) -> None:
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds


class GpuMemory:
    """The memory of the GPU that is used since this object was made. CUDA's own memory is not counted.

    A GPU that shares the host's memory, as a Jetson's does, has no memory of its own.
    """

    def __init__(self, index: int | None = None) -> None:
        """Read the free memory, as far as CUDA can be asked here.

        Args:
            index: the GPU's number, from 0; None: the first.
        """
        self._device: Device | None = None
        try:
            device = open_device(index)
        except EngineError:  # the subject that needs a GPU says so itself
            return
        if not device.is_integrated():
            self._device, self._free_before = device, self._read_free(device)

    def read_used(self) -> int | None:
        """Read the memory that is used now and was free before.

        Returns:
            Bytes, with those that other programs have taken meanwhile. None if it is not known.
        """
        return None if self._device is None else max(0, self._free_before - self._read_free(self._device))

    @staticmethod
    def _read_free(device: Device) -> int:
        with device.active():
            return device.free_memory()
