"""The memory of one engine, which keeps what its runs took and serves several pictures at once.

Each stream of the engine holds the memory of its largest run so far, and uses that memory again. A picture in flight
needs memory that it may or may not have taken already. The memory that it has taken is missing from the free memory, so
the loss of free memory since the last picture was admitted is counted as taken, up to what the pictures in flight need.

The engine chooses the stream of a run. A new picture is assumed to go to the idle stream that holds least.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from glama_deploy.errors import EngineError
from glama_deploy.inpainting.planner import Plan
from glama_deploy.runtime.base import Runner


@dataclass(frozen=True)
class Budget:
    """The memory that one more picture may use.

    Attributes:
        stream: number of the stream that is assumed to run the picture.
        free_bytes: free memory that no picture in flight needs; below 0 where pictures in flight need more than is
            free. None if the free memory is not known.
        held_bytes: memory that the stream holds, or will hold once the pictures before this one have run.
        total_bytes: free memory together with all that the engine holds; None if the free memory is not known.
    """

    stream: int
    free_bytes: int | None
    held_bytes: int
    total_bytes: int | None


class Picture:
    """A picture in flight: its stream, its need of memory, and the memory that there was when it was admitted."""

    def __init__(self, budget: Budget, plan: Plan) -> None:
        """Count a picture as in flight.

        Args:
            budget: the memory that the picture was planned with.
            plan: the plan of the picture.
        """
        self.stream, self.total_bytes = budget.stream, budget.total_bytes
        self.engine_bytes, self.beside_bytes = plan.engine_bytes, plan.beside_bytes
        #: Whether another picture was in flight at any time since this one was admitted.
        self.had_company = False


class EngineMemory:
    """Accounts for the memory of one engine."""

    def __init__(self, runner: Runner) -> None:
        """Account for an engine that has not run yet.

        Args:
            runner: the engine.
        """
        self._runner = runner
        self._lock = threading.Lock()
        #: What held the memory after the last run.
        self._holder = runner.holder
        #: Bytes that each stream holds since it ran.
        self._held = [0] * runner.streams
        self._pictures: list[Picture] = []

    @contextmanager
    def admit(self, make_plan: Callable[[Budget], Plan]) -> Iterator[tuple[Plan, Picture]]:
        """Plan a picture with the memory that is left for it, and count what it needs until the block ends.

        One picture is planned at a time, so that no two plans use the same free memory.

        Args:
            make_plan: returns the plan for a budget, or raises ImageError where the picture does not fit.

        Yields:
            The plan, and the picture that :meth:`run` takes.
        """
        picture = None
        try:
            with self._lock:
                budget = self._compute_budget()
                plan = make_plan(budget)
                picture = Picture(budget, plan)
                self._pictures.append(picture)
                if len(self._pictures) > 1:
                    for other in self._pictures:
                        other.had_company = True
            yield plan, picture
        finally:
            # Without the lock: an interrupt while this thread waits would leave the picture in flight for ever.
            if picture in self._pictures:
                self._pictures.remove(picture)

    @contextmanager
    def run(self, picture: Picture, needed: int) -> Iterator[None]:
        """Note what the engine holds after a run, which is the block.

        After EngineError the engine counts as holding nothing, because it may have given its memory back.

        Args:
            picture: the picture that the run belongs to.
            needed: bytes that the run needs.
        """
        before = self._holder
        try:
            yield
        except EngineError:
            with self._lock:
                self._held = [0] * len(self._held)
            raise
        with self._lock:
            after = self._runner.holder
            if after != self._holder:  # what the streams held was given back
                self._held = [0] * len(self._held)
                self._holder = after
            # with company, a holder that changed may be that of another picture's run
            if after == before or not picture.had_company:
                self._held[picture.stream] = max(self._held[picture.stream], needed)

    def _compute_budget(self) -> Budget:
        """Return the memory that is left for one more picture."""
        pictures = [*self._pictures]  # a picture may end meanwhile
        free, held = self._runner.memory_available(), sum(self._held)
        expected = self._expect_held(pictures)
        waiting = [sum(picture.stream == stream for picture in pictures) for stream in range(len(expected))]
        stream = min(range(len(expected)), key=lambda number: (waiting[number], expected[number]))
        if free is None:
            return Budget(stream, None, expected[stream], None)
        growth = sum(expected) - held + sum(picture.beside_bytes for picture in pictures)
        taken = 0
        if pictures and (total := pictures[-1].total_bytes) is not None:
            taken = min(max(total - free - held, 0), growth)
        return Budget(stream, free - (growth - taken), expected[stream], free + held + taken)

    def _expect_held(self, pictures: list[Picture]) -> list[int]:
        """Return the bytes that each stream will hold once the pictures in flight have run."""
        expected = [*self._held]
        for picture in pictures:
            expected[picture.stream] = max(expected[picture.stream], picture.engine_bytes)
        return expected
