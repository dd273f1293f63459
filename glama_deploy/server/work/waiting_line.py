"""The waiting line: a bounded number of requests, of which some run in threads and the others wait.

A request takes a place before its body is read, so that the bodies in memory are bounded, too. A request that is
cancelled while it waits never runs. A request that is cancelled while it runs stops at its next check, and keeps its
place until then.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from glama_deploy.server.errors import CLIENT_CLOSED_REQUEST, ApiError

_Result = TypeVar("_Result")

#: Seconds after which a client should try again where all places are taken.
RETRY_AFTER_SECONDS = 2


def _make_cancelled() -> ApiError:
    return ApiError(CLIENT_CLOSED_REQUEST, "cancelled", "the request was cancelled")


class Job:
    """The work of one request in a thread.

    Attributes:
        queued_seconds: seconds from the end of the request's body to the start of the work.
    """

    def __init__(self) -> None:
        self.queued_seconds = 0.0
        self._queued_at = time.perf_counter()
        self._is_cancelled = threading.Event()

    def begin(self) -> None:
        """Note that the work begins.

        Raises:
            ApiError: the job was cancelled.
        """
        self.queued_seconds = time.perf_counter() - self._queued_at
        self.check()

    def cancel(self) -> None:
        """Ask the work to stop at its next check."""
        self._is_cancelled.set()

    def check(self) -> None:
        """Stop the work if the job was cancelled.

        Raises:
            ApiError: the job was cancelled.
        """
        if self._is_cancelled.is_set():
            raise _make_cancelled()


class Place:
    """A place in the waiting line.

    Args:
        line: the waiting line.
    """

    def __init__(self, line: WaitingLine) -> None:
        self._line, self._loop = line, asyncio.get_running_loop()
        self._cancelled = asyncio.Event()
        self._future: Future[Any] | None = None
        self.name: str | None = None

    def cancel(self) -> None:
        """Cancel the request that has this place. Call this method in the event loop's thread."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the request was cancelled."""
        return self._cancelled.is_set()

    async def run(self, work: Callable[[Job], _Result]) -> _Result:
        """Run work in a thread, when those before are done.

        Args:
            work: the work.

        Returns:
            What the work returns.

        Raises:
            ApiError: the request was cancelled. The work may still run to its next check.
        """
        if self._cancelled.is_set():
            raise _make_cancelled()
        job = Job()
        future = self._line.submit(work, job)
        self._future = future
        done = asyncio.wrap_future(future)
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait((done, cancelled), return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            raise _make_cancelled()
        finally:
            job.cancel()  # does nothing to work that is done
            done.cancel()
            cancelled.cancel()

    def leave(self) -> None:
        """Give the place back, at once or when the work stops."""
        if self._future is None or self._future.done():
            self._line.remove(self)
        else:
            self._future.add_done_callback(self._leave_later)

    def _leave_later(self, future: Future[Any]) -> None:
        with suppress(RuntimeError):  # the event loop is closed: a second signal ended the server
            self._loop.call_soon_threadsafe(self._line.remove, self)


class WaitingLine:
    """A bounded number of requests in flight. Its methods are called in the event loop's thread."""

    def __init__(self, streams: int, capacity: int) -> None:
        """Start the threads.

        Args:
            streams: requests that run at once.
            capacity: requests that may wait beside them.
        """
        self._streams, self.capacity = streams, capacity
        self._pool = ThreadPoolExecutor(streams, "glama-serve")
        self._places: set[Place] = set()
        self._running = 0
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """The number of requests whose work runs."""
        return self._running

    @property
    def length(self) -> int:
        """The number of requests that wait or that are being received."""
        return max(0, len(self._places) - self._running)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Take a place, and give it back when the block ends.

        Yields:
            The place.

        Raises:
            ApiError: all places are taken.
        """
        if len(self._places) >= self._streams + self.capacity:
            raise ApiError(
                503,
                "queue_full",
                f"{self.capacity} requests wait already, the limit of this server; try again later",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        place = Place(self)
        self._places.add(place)
        try:
            yield place
        finally:
            place.leave()

    def name(self, place: Place, name: str) -> None:
        """Give a place the name by which a client can cancel its request.

        Args:
            place: the place.
            name: the name that the client chose.

        Raises:
            ApiError: another request in flight has the name.
        """
        if any(other.name == name for other in self._places):
            raise ApiError(409, "id", f"`id` is {name}, which another request in flight has; choose another")
        place.name = name

    def cancel(self, name: str) -> bool:
        """Cancel the request of a name.

        Args:
            name: the name.

        Returns:
            Whether a request in flight has the name.
        """
        found = [place for place in self._places if place.name == name]
        for place in found:
            place.cancel()
        return bool(found)

    def submit(self, work: Callable[[Job], _Result], job: Job) -> Future[_Result]:
        """Run work in one of the threads.

        Args:
            work: the work.
            job: what the work gets.

        Returns:
            The result to come.
        """

        def run() -> _Result:
            with self._lock:
                self._running += 1
            try:
                job.begin()
                return work(job)
            finally:
                with self._lock:
                    self._running -= 1

        return self._pool.submit(run)

    def remove(self, place: Place) -> None:
        """Forget a place. :meth:`Place.leave` calls this method.

        Args:
            place: the place.
        """
        self._places.discard(place)

    def close(self) -> None:
        """Wait for the work that was begun."""
        self._pool.shutdown()
