"""The interface of lama-cleaner up to 1.2, from before IOPaint: forms in, pictures and plain text out."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from glama_deploy.server import bodies
from glama_deploy.server.errors import ApiError
from glama_deploy.server.interfaces.answers import make_response
from glama_deploy.server.interfaces.iopaint import draw_seed, find_model, read_form_task
from glama_deploy.server.server import get_server
from glama_deploy.server.work.engine import Choice

router = APIRouter(tags=["lama-cleaner"])


@router.post("/inpaint", summary="Fill a picture", response_class=Response)
async def inpaint(request: Request) -> Response:
    """Fill a picture. The answer has the format of the picture, and the header `X-Seed`.

    Args:
        request: a form with the files `image` and `mask`. `hdStrategy` and `sdSeed` are read; other fields are for
            other models.

    Returns:
        The picture's file.
    """
    server, start = get_server(request), time.perf_counter()
    async with AsyncExitStack() as held:
        place = held.enter_context(server.line.place())
        task, seed = await read_form_task(request, "hdStrategy", "sdSeed")
        filled = await server.answer(request, task, place)
        return make_response(filled, start, held.pop_all(), {"X-Seed": str(draw_seed(seed))})


@router.get("/model", summary="Return the name of the open model")
async def show_model(request: Request) -> PlainTextResponse:
    """Return the name of the open model.

    Args:
        request: the request.

    Returns:
        The name, as text.
    """
    return PlainTextResponse(find_model(get_server(request)))


@router.post("/model", summary="Change the model")
async def change_model(request: Request) -> PlainTextResponse:
    """Change the model for all clients.

    Args:
        request: a form with the field `name`.

    Returns:
        A text that says so.
    """
    server = get_server(request)
    with server.line.place() as place:
        name = await bodies.read_text_field(request, "name")
        if name == find_model(server):
            return PlainTextResponse("Same model")
        await server.change_engine(Choice(name), place)
    return PlainTextResponse(f"ok, switch to {name}")


@router.get("/model_downloaded/{name}", summary="Tell whether a model is there")
async def is_downloaded(request: Request, name: str) -> PlainTextResponse:
    """Tell whether a model is there.

    Args:
        request: the request.
        name: the name of the model.

    Returns:
        `True` or `False`.
    """
    return PlainTextResponse(str(name in get_server(request).engine.models))


@router.get("/is_desktop", summary="Tell that this is no desktop program")
async def is_desktop() -> PlainTextResponse:
    """Tell that this is no desktop program.

    Returns:
        `False`.
    """
    return PlainTextResponse("False")


@router.get("/server_config", summary="Describe the server as lama-cleaner does")
async def describe_server(request: Request) -> JSONResponse:
    """Describe the server.

    Args:
        request: the request.

    Returns:
        lama-cleaner's description.
    """
    return JSONResponse(
        {
            "isControlNet": False,
            "controlNetMethod": None,
            "isDisableModelSwitchState": False,
            "isEnableAutoSaving": False,
            "enableFileManager": False,
            "plugins": [],
        }
    )


@router.post("/run_plugin", summary="Refused: this server has no plugins", response_class=Response)
async def refuse_plugin() -> None:
    """Refuse a plugin.

    Raises:
        ApiError: always.
    """
    raise ApiError(422, "plugin", "Plugin not found; this server fills pictures and has no plugins")
