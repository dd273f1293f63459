"""Connections that a slow client cannot hold open: uvicorn bounds neither the headers of a request nor idle readers.

A connection is cut in two cases. The headers of a request are not complete within some seconds. An answer, which waits
in memory, is not taken by the client for some seconds.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the headers of a request must arrive.
HEADER_SECONDS = 15.0

#: Seconds between two looks at what a client has taken.
_LOOK_SECONDS = 5.0


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 for a connection that is cut where its client is too slow. A subclass has the seconds."""

    header_seconds = HEADER_SECONDS
    answer_seconds = 60.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request.

        Args:
            transport: the connection.
        """
        super().connection_made(transport)
        self._header_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all waiting.

        Args:
            exc: why the connection was lost.
        """
        for timer in (self._header_timer, self._answer_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data, and wait for the rest of the headers where they are not complete.

        Args:
            data: the bytes.
        """
        super().data_received(data)
        if not self._is_idle():
            self._stop_header_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            self._wait_for_headers()

    def pause_writing(self) -> None:
        """Watch whether the client takes the answer, of which much waits."""
        super().pause_writing()
        if self._answer_timer is None:
            self._watch_answer(self.transport.get_write_buffer_size(), 0.0)

    def _is_idle(self) -> bool:
        """Return whether no request is being received or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._cut)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _watch_answer(self, left: int, idle_seconds: float) -> None:
        """Cut the connection if nothing of the answer was taken for `answer_seconds`.

        Args:
            left: the bytes of the answer that wait.
            idle_seconds: the seconds in which this number did not change.
        """
        self._answer_timer = None
        if left == 0:
            return
        if idle_seconds >= self.answer_seconds:
            self._cut()
            return
        pause = min(_LOOK_SECONDS, self.answer_seconds)

        def look() -> None:
            now = self.transport.get_write_buffer_size()
            self._watch_answer(now, idle_seconds + pause if now >= left else 0.0)

        self._answer_timer = self.loop.call_later(pause, look)

    def _cut(self) -> None:
        self.transport.abort()


def make_protocol(answer_timeout: float) -> type[Any]:
    """Return the protocol with the seconds of a server.

    Args:
        answer_timeout: seconds in which a client must take a part of an answer.

    Returns:
        The class for uvicorn's option `http`.
    """
    header_timeout = min(HEADER_SECONDS, answer_timeout)
    return type(
        "ImpatientProtocol", (ImpatientProtocol,), {"header_seconds": header_timeout, "answer_seconds": answer_timeout}
    )
