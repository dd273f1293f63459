"""`POST /v1/batch`: many pairs in, a stream of results out, one line of JSON for each pair.

A batch has one place in the waiting line. Its pairs run one after the other, each in its turn among other requests.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import AsyncExitStack
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glama_deploy.server import bodies
from glama_deploy.server.errors import ApiError
from glama_deploy.server.interfaces.answers import send_in_parts
from glama_deploy.server.interfaces.options import Options
from glama_deploy.server.server import Server, watch_client
from glama_deploy.server.settings import MAX_BATCH_PAIRS
from glama_deploy.server.work.filling import Filled
from glama_deploy.server.work.waiting_line import Place

#: A picture and its mask.
_Pair = tuple[UploadFile, UploadFile]


async def start(request: Request, server: Server) -> Response:
    """Read a batch.

    Args:
        request: the request.
        server: the server.

    Returns:
        The answer, which fills the pictures while it is sent.

    Raises:
        ApiError: the form cannot be read, its files do not pair, other batches run, or all places are taken.
        ClientGoneError: the client left.
    """
    async with AsyncExitStack() as held:
        place = held.enter_context(server.line.place())
        held.enter_context(server.count_batch())
        form = await bodies.read_form(request, max_files=2 * MAX_BATCH_PAIRS)
        held.push_async_callback(form.close)
        options = bodies.validate(Options, bodies.find_texts(form))
        pairs = _pair_files(form)
        if options.id is not None:
            server.line.name(place, options.id)
        return _ResultLines(request, server, place, options, pairs, held.pop_all())


def _pair_files(form: FormData) -> list[_Pair]:
    images, masks = (
        [value for value in form.getlist(name) if isinstance(value, UploadFile)] for name in ("image", "mask")
    )
    if not images or len(images) != len(masks):
        raise ApiError(
            422,
            "fields",
            f"the form has {len(images)} files `image` and {len(masks)} files `mask`; one mask for each image is "
            "expected, in the same order",
        )
    return list(zip(images, masks, strict=True))


class _ResultLines(Response):
    """The answer to a batch. It gives back what the batch holds when it ends, however it ends.

    Args:
        request: the request.
        server: the server.
        place: the place of the request in the waiting line.
        options: the options of all pairs.
        pairs: the pictures and their masks.
        held: what the batch holds: its place and its files.
    """

    media_type = "application/x-ndjson"

    def __init__(
        self, request: Request, server: Server, place: Place, options: Options, pairs: list[_Pair], held: AsyncExitStack
    ) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._request, self._server, self._place = request, server, place
        self._options, self._pairs, self._held = options, pairs, held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Fill the pictures, and send each result when it is done.

        Args:
            scope: the request.
            receive: receives the body, which was read.
            send: sends the answer.
        """
        gone = asyncio.create_task(watch_client(self._request, self._place))
        async with self._held:
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                for index, pair in enumerate(self._pairs):
                    line = await self._fill_pair(index, *pair)
                    if gone.done():
                        return
                    await send_in_parts(send, line, is_last=False)
                await send({"type": "http.response.body", "body": b""})
            finally:
                gone.cancel()

    async def _fill_pair(self, index: int, image: UploadFile, mask: UploadFile) -> bytes:
        told: dict[str, Any] = {"index": index, "name": image.filename or ""}
        try:
            task = self._options.make_task(await image.read(), await mask.read())
            filled = await self._server.fill(task, self._place)
        except ApiError as error:
            return bodies.dump_line({**told, "status": error.status, "error": error.message, "code": error.code})
        return await asyncio.to_thread(_dump_filled, told, filled)


def _dump_filled(told: dict[str, Any], filled: Filled) -> bytes:
    """Return the line of a filled picture."""
    seconds = {stage: round(value, 4) for stage, value in filled.seconds.items()}
    image = base64.b64encode(filled.data).decode()
    result = {"status": 200, "media_type": filled.media_type, "engine": filled.description, "seconds": seconds}
    return bodies.dump_line({**told, **result, "image": image})
