"""What all interfaces share: the settings, the engine, the waiting line, and how a task goes through them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from glama_deploy.server.errors import ApiError, ClientGoneError
from glama_deploy.server.observing import Metrics, find_record
from glama_deploy.server.settings import MAX_BATCHES, Settings
from glama_deploy.server.work.engine import Choice, Engine
from glama_deploy.server.work.filling import Filled, Task, check_task, fill
from glama_deploy.server.work.waiting_line import RETRY_AFTER_SECONDS, Place, WaitingLine


class Server:
    """The parts of a running server.

    Attributes:
        is_closing: whether the server ends.
        batches: the number of batches in flight.
        event_streams: the number of clients that follow the events.
    """

    def __init__(self, settings: Settings, engine: Engine, line: WaitingLine, metrics: Metrics) -> None:
        """Keep the parts.

        Args:
            settings: the settings.
            engine: the engine.
            line: the waiting line.
            metrics: the metrics.
        """
        self.settings, self.engine, self.line, self.metrics = settings, engine, line, metrics
        self.is_closing = False
        self.batches = self.event_streams = 0

    def close(self) -> None:
        """Note that the server ends. Streams of events end, and `/readyz` says so."""
        self.is_closing = True

    async def fill(self, task: Task, place: Place) -> Filled:
        """Check a task, wait for its turn, and fill its picture.

        Args:
            task: the task.
            place: the request's place in the waiting line.

        Returns:
            The filled picture.

        Raises:
            ApiError: the picture cannot be filled, or the request was cancelled.
        """
        self.engine.check(task.choice)
        await asyncio.to_thread(check_task, task, self.settings.max_pixels)
        return await place.run(lambda job: fill(task, self.engine, job))

    async def change_engine(self, choice: Choice, place: Place) -> None:
        """Change the engine for all clients, when the requests before are done.

        Args:
            choice: the model and the precision.
            place: the request's place in the waiting line.

        Raises:
            ApiError: the model or the precision is not one of this server's, or cannot be opened.
        """
        self.engine.check(choice)
        await place.run(lambda job: self._use(choice))

    def _use(self, choice: Choice) -> None:
        with self.engine.use(choice):
            pass

    @contextmanager
    def count_batch(self) -> Iterator[None]:
        """Count a batch from before its body is read until the block ends.

        Yields:
            Nothing.

        Raises:
            ApiError: other batches run.
        """
        if self.batches >= MAX_BATCHES:
            raise ApiError(
                503,
                "queue_full",
                f"{MAX_BATCHES} batches run already, the limit of this server; try again later",
                {"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self.batches += 1
        try:
            yield
        finally:
            self.batches -= 1

    async def answer(self, request: Request, task: Task, place: Place) -> Filled:
        """Fill the picture of a request, and stop if its client leaves.

        Args:
            request: the request, whose body was read.
            task: the task.
            place: the request's place in the waiting line.

        Returns:
            The filled picture. Its seconds and its size are noted for the log.

        Raises:
            ApiError: the picture cannot be filled, or the request was cancelled.
            ClientGoneError: the client left.
        """
        record = find_record(request.scope)
        gone = asyncio.create_task(watch_client(request, place))
        try:
            filled = await self.fill(task, place)
        except ApiError as error:
            if gone.done():
                raise ClientGoneError from error
            raise
        finally:
            gone.cancel()
        record.seconds.update(filled.seconds)
        record.details.update(size=filled.size, engine=filled.description)
        return filled


async def watch_client(request: Request, place: Place) -> None:
    """Cancel a request when its client leaves. The task of this coroutine is done only then.

    Args:
        request: the request, whose body was read, so that only this news can come.
        place: the place of the request in the waiting line.
    """
    while (await request.receive())["type"] != "http.disconnect":
        pass
    place.cancel()


def get_server(request: Request) -> Server:
    """Return the server that a request came to.

    Args:
        request: the request.

    Returns:
        The server.
    """
    server: Server = request.app.state.server
    return server
