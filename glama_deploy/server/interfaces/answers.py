"""The answer with a filled picture, which all interfaces give.

A request keeps its place in the waiting line until its answer is sent, so that the answers in memory are bounded, too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glama_deploy.server.work.filling import Filled

#: Bytes that are given to a connection at once. `safety/slow_clients.py` cuts a client that does not take them in time.
PART_BYTES = 256 << 10


class HeldAnswer(Response):
    """An answer that is sent in parts, and gives back what its request holds when it was sent.

    Args:
        content: the body.
        media_type: the media type of the body.
        headers: further headers.
        held: what the request holds, such as its place in the waiting line.
    """

    def __init__(self, content: bytes, media_type: str, headers: Mapping[str, str], held: AsyncExitStack) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Args:
            scope: the request.
            receive: receives the body, which was read.
            send: sends the answer.
        """
        async with self._held:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send_in_parts(send, bytes(self.body))


async def send_in_parts(send: Send, body: bytes, is_last: bool = True) -> None:
    """Send a body in parts, each when the client has taken most of the one before.

    Args:
        send: sends the answer.
        body: the bytes.
        is_last: whether the answer ends with these bytes.
    """
    for start in range(0, len(body), PART_BYTES):
        part, is_more = body[start : start + PART_BYTES], start + PART_BYTES < len(body)
        await send({"type": "http.response.body", "body": part, "more_body": is_more or not is_last})


def make_response(
    filled: Filled, start: float, held: AsyncExitStack, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a filled picture, with headers that tell how it was filled.

    Args:
        filled: the filled picture.
        start: the time at which the request came, of `time.perf_counter()`.
        held: what the request holds until the answer is sent.
        headers: further headers.

    Returns:
        The answer. `X-Glama-Seconds` are those of the network.
    """
    told = {
        "X-Glama-Seconds": f"{filled.seconds['network']:.4f}",
        "X-Glama-Queued-Seconds": f"{filled.seconds['queue']:.4f}",
        "X-Glama-Total-Seconds": f"{time.perf_counter() - start:.4f}",
        "X-Glama-Engine": filled.description.encode("ascii", "replace").decode(),
    }
    return HeldAnswer(filled.data, filled.media_type, {**told, **(headers or {})}, held)
