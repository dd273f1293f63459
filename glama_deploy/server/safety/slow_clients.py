"""Connections that a slow client cannot hold open: uvicorn bounds neither the headers of a request nor idle readers.

A connection is cut in two cases: the headers of a request are not complete within some seconds, or the client does not
take a part of the answer within some seconds. The parts have at most 256 KiB (`interfaces/answers.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the headers of a request must arrive.
HEADER_SECONDS = 15.0


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
        """Begin to wait until the client has taken the part of the answer that was written."""
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self.answer_seconds, self._cut)

    def resume_writing(self) -> None:
        """End the wait, because the client has taken the part."""
        super().resume_writing()
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _is_idle(self) -> bool:
        """Return whether no request is being received or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_headers(self) -> None:
        self._header_timer = self.loop.call_later(self.header_seconds, self._cut)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

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
