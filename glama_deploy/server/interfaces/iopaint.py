"""IOPaint 1.6's interface, `/api/v1`: its clients work unchanged.

The requests and answers follow IOPaint's `api.py` and `schema.py`. What only diffusion models use is accepted and has
no effect, as with IOPaint's own LaMa. Plugins are refused.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from PIL import Image
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from glama_deploy.errors import ImageError
from glama_deploy.inpainting.inpainter import Region
from glama_deploy.io.decoding import decode
from glama_deploy.io.mask_files import SENT_THRESHOLD
from glama_deploy.server import bodies
from glama_deploy.server.errors import ApiError, describe_image_error
from glama_deploy.server.interfaces.answers import HeldAnswer, make_response
from glama_deploy.server.interfaces.descriptions import describe_json
from glama_deploy.server.server import Server, get_server
from glama_deploy.server.work.engine import Choice
from glama_deploy.server.work.filling import Task, check_file
from glama_deploy.server.work.mask_adjustment import Operation, adjust_mask

router = APIRouter(prefix="/api/v1", tags=["IOPaint"])

#: What the network is shown, by IOPaint's strategies for large pictures. Our own plan crops where that costs less.
REGIONS: dict[str, Region] = {"Original": "full", "Crop": "auto", "Resize": "auto"}

#: The colour of missing pixels in a mask that `adjust_mask` returns, RGBA.
BRUSH = (255, 203, 0, 186)

#: The largest radius by which a mask is grown.
_MAX_RADIUS = 256

#: The seed that IOPaint draws for -1.
_MAX_SEED = 99_999_999


class InpaintBody(BaseModel):
    """The fields of IOPaint's request that mean something here. Others are accepted."""

    image: str
    mask: str
    hd_strategy: str = "Crop"
    sd_seed: int = 42


class ModelBody(BaseModel):
    """The model to change to."""

    name: str


class AdjustMaskBody(BaseModel):
    """A mask, and what is done to it."""

    mask: str
    operate: Operation
    kernel_size: int = Field(5, ge=0, le=_MAX_RADIUS)


@router.post(
    "/inpaint",
    summary="Fill a picture (JSON with base64, or a form)",
    response_class=Response,
    openapi_extra={"requestBody": describe_json(InpaintBody)},
)
async def inpaint(request: Request) -> Response:
    """Fill a picture. The answer has the format of the picture, and the header `X-Seed`.

    Args:
        request: the request. Read are `image`, `mask`, `hd_strategy` and `sd_seed`.

    Returns:
        The picture's file.
    """
    server, start = get_server(request), time.perf_counter()
    async with AsyncExitStack() as held:
        place = held.enter_context(server.line.place())
        if bodies.find_media_type(request) == "multipart/form-data":
            task, seed = await read_form_task(request, "hd_strategy", "sd_seed")
        else:
            body = await bodies.read_json(request, InpaintBody)
            image, mask = bodies.decode_base64(body.image, "image"), bodies.decode_base64(body.mask, "mask")
            task, seed = make_task(image, mask, body.hd_strategy), body.sd_seed
        filled = await server.answer(request, task, place)
        return make_response(filled, start, held.pop_all(), {"X-Seed": str(draw_seed(seed))})


async def read_form_task(request: Request, strategy_name: str, seed_name: str) -> tuple[Task, int]:
    """Read a picture, its mask and the options from a form.

    Args:
        request: the request.
        strategy_name: the field with the strategy for large pictures.
        seed_name: the field with the seed.

    Returns:
        The task, and the seed.

    Raises:
        ApiError: the form cannot be read, or a field has a wrong value.
        ClientGoneError: the client left.
    """
    form = await bodies.read_form(request, max_files=3)  # the third is a picture for a diffusion model
    try:
        texts = bodies.find_texts(form)
        image, mask = await bodies.read_upload(form, "image"), await bodies.read_upload(form, "mask")
    finally:
        await form.close()
    try:
        seed = int(texts.get(seed_name, "42"))
    except ValueError as error:
        raise ApiError(422, "fields", f"the field `{seed_name}` is not a whole number") from error
    return make_task(image.data, mask.data, texts.get(strategy_name, "Crop")), seed


def make_task(image: bytes, mask: bytes, strategy: str) -> Task:
    """Return the task of a picture as IOPaint's clients send it.

    Args:
        image: the bytes of the picture's file.
        mask: the bytes of the mask's file.
        strategy: the strategy for large pictures.

    Returns:
        The task.

    Raises:
        ApiError: the strategy is unknown.
    """
    if strategy not in REGIONS:
        raise ApiError(422, "fields", f"the strategy is {strategy[:40]!r}; expected {', '.join(REGIONS)}")
    return Task(image, mask, REGIONS[strategy], read_mask=lambda data: read_gray(data) > SENT_THRESHOLD)


def read_gray(data: bytes) -> np.ndarray:
    """Read a mask as IOPaint does: as gray, without its transparency.

    Args:
        data: the bytes of the file.

    Returns:
        uint8 H×W.

    Raises:
        ImageError: the file cannot be read.
    """
    return np.asarray(decode(io.BytesIO(data), "mask").convert("L"))


def draw_seed(seed: int) -> int:
    """Return the seed for the header `X-Seed`. Our networks draw no random numbers.

    Args:
        seed: the seed that the client sent; -1 for any.

    Returns:
        The seed.
    """
    return random.randint(1, _MAX_SEED) if seed == -1 else seed


@router.get("/server-config", summary="Describe the server as IOPaint does")
async def describe_server(request: Request) -> JSONResponse:
    """Describe the server. It has no plugins, so the lists of their models are empty.

    Args:
        request: the request.

    Returns:
        IOPaint's `ServerConfigResponse`.
    """
    server = get_server(request)
    folder = server.settings.input is not None and server.settings.input.is_dir()
    return JSONResponse(
        {
            "plugins": [],
            "modelInfos": [describe_model(name) for name in server.engine.models],
            "removeBGModel": "briaai/RMBG-1.4",
            "removeBGModels": [],
            "realesrganModel": "realesr-general-x4v3",
            "realesrganModels": [],
            "interactiveSegModel": "vit_b",
            "interactiveSegModels": [],
            "enableFileManager": folder,
            "enableAutoSaving": server.settings.output_dir is not None,
            "enableControlnet": False,
            "controlnetMethod": None,
            "disableModelSwitch": False,
            "isDesktop": False,
            "samplers": [],
        }
    )


def describe_model(name: str) -> dict[str, Any]:
    """Describe a model as IOPaint does.

    Args:
        name: the name that clients use. The path on this machine is not told.

    Returns:
        IOPaint's `ModelInfo`.
    """
    supports = ["strength", "outpainting", "lcm_lora", "controlnet", "brushnet", "powerpaint_v2"]
    return {
        "name": name,
        "path": name,
        "model_type": "inpaint",
        "is_single_file_diffusers": False,
        "need_prompt": False,
        "controlnets": [],
        "brushnets": [],
        **{f"support_{what}": False for what in supports},
    }


def find_model(server: Server) -> str:
    """Return the name of the open model, or of the one that is being opened first.

    Args:
        server: the server.

    Returns:
        The name.
    """
    opened = server.engine.current
    return opened.model if opened else server.engine.first_model


@router.get("/model", summary="Describe the open model")
async def show_model(request: Request) -> JSONResponse:
    """Describe the open model.

    Args:
        request: the request.

    Returns:
        IOPaint's `ModelInfo`.
    """
    return JSONResponse(describe_model(find_model(get_server(request))))


@router.post("/model", summary="Change the model", openapi_extra={"requestBody": describe_json(ModelBody)})
async def change_model(request: Request) -> JSONResponse:
    """Change the model for all clients.

    Args:
        request: the request, JSON with the `name` of the model.

    Returns:
        IOPaint's `ModelInfo`.
    """
    server = get_server(request)
    with server.line.place() as place:
        body = await bodies.read_json(request, ModelBody)
        await server.change_engine(Choice(body.name), place)
    return JSONResponse(describe_model(body.name))


@router.post(
    "/adjust_mask",
    summary="Grow, shrink or invert a mask",
    response_class=Response,
    openapi_extra={"requestBody": describe_json(AdjustMaskBody)},
)
async def change_mask(request: Request) -> Response:
    """Grow, shrink or invert a mask.

    Args:
        request: the request, JSON with `mask`, `operate` and `kernel_size`.

    Returns:
        A PNG with the missing pixels in the colour of IOPaint's brush, and others transparent.
    """
    server = get_server(request)
    async with AsyncExitStack() as held:
        place = held.enter_context(server.line.place())
        body = await bodies.read_json(request, AdjustMaskBody)
        data = bodies.decode_base64(body.mask, "mask")
        await asyncio.to_thread(check_file, "mask", data, server.settings.max_pixels)
        file = await place.run(lambda job: _draw_adjusted(data, body.operate, body.kernel_size))
        return HeldAnswer(file, "image/png", {}, held.pop_all())


def _draw_adjusted(data: bytes, operation: Operation, radius: int) -> bytes:
    try:
        missing = adjust_mask(read_gray(data) >= SENT_THRESHOLD, operation, radius)
    except ImageError as error:
        raise describe_image_error(error, "mask") from error
    pixels = np.zeros((*missing.shape, 4), np.uint8)
    pixels[missing] = BRUSH
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@router.get("/samplers", summary="List the samplers of diffusion models: none")
async def list_samplers() -> list[str]:
    """List the samplers of diffusion models.

    Returns:
        An empty list.
    """
    return []


@router.post("/gen-info", summary="Return the prompts in a picture's metadata: none are read")
async def show_prompts() -> dict[str, str]:
    """Return the prompts that a diffusion model wrote into a picture. They are not read here.

    Returns:
        Empty prompts.
    """
    return {"prompt": "", "negative_prompt": ""}


@router.post("/run_plugin_gen_mask", summary="Refused: this server has no plugins")
@router.post("/run_plugin_gen_image", summary="Refused: this server has no plugins")
async def refuse_plugin() -> None:
    """Refuse a plugin.

    Raises:
        ApiError: always.
    """
    raise ApiError(422, "plugin", "Plugin not found; this server only fills pictures")


@router.post("/switch_plugin_model", summary="Do nothing: this server has no plugins")
async def ignore_plugin_model() -> None:
    """Do nothing, as IOPaint does for a plugin that it does not have."""
