"""Our own interface, `/v1`: one picture, a batch of pictures, the model, and the state of the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response, StreamingResponse

import glama_deploy
from glama_deploy.server import bodies
from glama_deploy.server.errors import ApiError
from glama_deploy.server.interfaces import batch
from glama_deploy.server.interfaces.answers import make_response
from glama_deploy.server.interfaces.descriptions import (
    BATCH_BODY,
    INPAINT_BODY,
    INPAINT_RESPONSES,
    describe_json,
)
from glama_deploy.server.interfaces.options import Options
from glama_deploy.server.server import Server, get_server
from glama_deploy.server.settings import BATCH_BODIES, MAX_BATCH_PAIRS
from glama_deploy.server.work.engine import Choice

router = APIRouter(prefix="/v1", tags=["glama"])

#: Seconds between two looks at the state, for a stream of events, and between two signs of life.
_LOOK_SECONDS = 0.25
_HEARTBEAT_SECONDS = 15.0

#: Streams of events that are served at once.
_MAX_EVENT_STREAMS = 64


class InpaintBody(Options):
    """A picture and its mask in base64."""

    image: str
    mask: str


class ModelBody(BaseModel):
    """The model to change to."""

    model_config = ConfigDict(extra="forbid")

    model: str
    precision: str | None = None


@router.get("/info", summary="Describe the server, its models, its limits and its queue")
async def info(request: Request) -> JSONResponse:
    """Describe the server.

    Args:
        request: the request.

    Returns:
        The description. `engine`, `backend`, `precision` and `device` are null until the engine is open.
    """
    return JSONResponse(_describe(get_server(request)))


def _describe(server: Server) -> dict[str, Any]:
    settings, opened = server.settings, server.engine.current
    inpainter = opened.inpainter if opened else None
    return {
        "version": glama_deploy.__version__,
        "ready": server.engine.is_ready,
        "model": opened.model if opened else server.engine.first_model,
        "models": server.engine.models,
        "engine": inpainter.description if inpainter else None,
        "backend": inpainter.backend if inpainter else None,
        "precision": inpainter.precision if inpainter else None,
        "precisions": list(inpainter.precisions) if inpainter else [],
        "device": inpainter.device if inpainter else None,
        "network": inpainter.network.model_dump() if inpainter else None,
        "sizes": inpainter.sizes.model_dump() if inpainter else None,
        "max_pixels": settings.max_pixels,
        "max_bytes": settings.max_bytes,
        "max_batch_bytes": settings.max_bytes * BATCH_BODIES,
        "max_batch_pairs": MAX_BATCH_PAIRS,
        "queue": {"length": server.line.length, "running": server.line.running, "capacity": server.line.capacity},
        "token_required": settings.token is not None,
        "output_dir": settings.output_dir is not None,
    }


@router.post(
    "/model", summary="Change the model or its precision", openapi_extra={"requestBody": describe_json(ModelBody)}
)
async def change_model(request: Request) -> JSONResponse:
    """Change the model for all clients. Requests that run are finished before, others wait.

    Args:
        request: the request, JSON with `model` and `precision`.

    Returns:
        The description of the server, as `/v1/info`.
    """
    server = get_server(request)
    with server.line.place() as place:
        body = await bodies.read_json(request, ModelBody)
        await server.change_engine(Choice(body.model, body.precision), place)
    return JSONResponse(_describe(server))


@router.post(
    "/inpaint",
    summary="Fill the missing pixels of a picture",
    responses=INPAINT_RESPONSES,
    openapi_extra={"requestBody": INPAINT_BODY},
)
async def inpaint(request: Request) -> Response:
    """Fill the missing pixels of a picture.

    Args:
        request: the request, a form or JSON.

    Returns:
        The picture's file.
    """
    server, start = get_server(request), time.perf_counter()
    async with AsyncExitStack() as held:
        place = held.enter_context(server.line.place())
        options, image, mask = await _read_inpaint(request)
        if options.id is not None:
            server.line.name(place, options.id)
        filled = await server.answer(request, options.make_task(image, mask), place)
        return make_response(filled, start, held.pop_all())


async def _read_inpaint(request: Request) -> tuple[Options, bytes, bytes]:
    if bodies.find_media_type(request) == "application/json":
        body = await bodies.read_json(request, InpaintBody)
        return body, bodies.decode_base64(body.image, "image"), bodies.decode_base64(body.mask, "mask")
    form = await bodies.read_form(request, max_files=2)
    try:
        options = bodies.validate(Options, bodies.find_texts(form))
        return options, (await bodies.read_upload(form, "image")).data, (await bodies.read_upload(form, "mask")).data
    finally:
        await form.close()


@router.delete("/requests/{name}", summary="Cancel a request in flight", status_code=204)
async def cancel(request: Request, name: str) -> Response:
    """Cancel the request whose field `id` has this name.

    A request that waits is dropped. Of a request that runs, the answer is sent at once, and the work stops at its next
    check.

    Args:
        request: the request.
        name: the `id` of the request to cancel.

    Returns:
        An empty answer.
    """
    if not get_server(request).line.cancel(name):
        raise ApiError(404, "id", "no request in flight has this id; it may be done")
    return Response(status_code=204)


@router.post(
    "/batch",
    summary="Fill many pictures; the results come as they are done",
    openapi_extra={"requestBody": BATCH_BODY},
    response_class=Response,
    responses={200: {"description": "One line of JSON for each pair.", "content": {"application/x-ndjson": {}}}},
)
async def run_batch(request: Request) -> Response:
    """Fill many pictures. One bad file does not fail the rest.

    Args:
        request: the request: a form with as many files `image` as files `mask`, paired in order.

    Returns:
        A stream of JSON lines in the order of the pairs.
    """
    return await batch.start(request, get_server(request))


@router.get("/events", summary="Follow the queue and the model (server-sent events)", response_class=StreamingResponse)
async def events(request: Request) -> StreamingResponse:
    """Send the state of the server whenever it changes.

    Args:
        request: the request.

    Returns:
        A stream of server-sent events with the fields `ready`, `model`, `precision`, `engine` and `queue`.
    """
    server = get_server(request)
    if server.event_streams >= _MAX_EVENT_STREAMS:
        raise ApiError(503, "events", f"{_MAX_EVENT_STREAMS} clients follow the events already; ask /v1/info instead")
    return StreamingResponse(_follow(server), media_type="text/event-stream")


async def _follow(server: Server) -> AsyncIterator[bytes]:
    server.event_streams += 1
    try:
        last, last_time = b"", 0.0
        while not server.is_closing:
            described = _describe(server)
            shown = {name: described[name] for name in ("ready", "model", "precision", "engine", "queue")}
            line, now = b"data: " + bodies.dump_line(shown) + b"\n", time.monotonic()
            if line != last:
                yield line
                last, last_time = line, now
            elif now - last_time > _HEARTBEAT_SECONDS:
                yield b": alive\n\n"
                last_time = now
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        server.event_streams -= 1
