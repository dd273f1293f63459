"""Bytes in, bytes out: check a picture and a mask, decode them, fill the picture, and encode the result.

Formats and sizes are read from the headers and checked before anything is decoded.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainting.inpainter import Region, check_sides
from glama_deploy.inpainting.transparency import fill_picture
from glama_deploy.io.decoding import identify_format, parse_size
from glama_deploy.io.images import decode_image, encode_image
from glama_deploy.io.mask_files import decode_mask
from glama_deploy.server.errors import ApiError, describe_image_error
from glama_deploy.server.work.engine import Choice, Engine
from glama_deploy.server.work.waiting_line import Job

#: The format of a result: `same` is the picture's own.
Format = Literal["png", "jpeg", "webp", "same"]

#: Formats that are read and written, by Pillow's names, each with its media type. Readers of other formats are kept
#: from what strangers send.
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

#: The model that is open, in the precision that it has.
_ANY_CHOICE = Choice()

#: Reads a mask: its bytes → bool H×W, True = missing.
ReadMask = Callable[[bytes], np.ndarray]


@dataclass(frozen=True)
class Task:
    """A picture to fill.

    Attributes:
        image: the bytes of the picture's file.
        mask: the bytes of the mask's file.
        region: what the network is shown.
        choice: the model and the precision.
        format: the format of the result.
        quality: the quality of a JPEG or WebP, from 1 to 100; None: 95 for JPEG, lossless for WebP.
        read_mask: reads the mask.
    """

    image: bytes
    mask: bytes
    region: Region = "auto"
    choice: Choice = _ANY_CHOICE
    format: Format = "same"
    quality: int | None = None
    read_mask: ReadMask = lambda data: decode_mask(data, "mask")


@dataclass(frozen=True)
class Filled:
    """A filled picture.

    Attributes:
        data: the bytes of the file.
        media_type: the media type of the file.
        description: the engine, for people.
        size: height and width in pixels.
        seconds: seconds of each stage: `queue`, `decode`, `network` and `encode`.
    """

    data: bytes
    media_type: str
    description: str
    size: tuple[int, int]
    seconds: dict[str, float]


def check_task(task: Task, max_pixels: int) -> None:
    """Check the formats and sizes of a picture and its mask by their headers.

    Args:
        task: the task.
        max_pixels: the largest picture, in pixels.

    Raises:
        ApiError: a file is damaged, of another format, or too large, or the sizes differ.
    """
    sizes = {name: check_file(name, data, max_pixels) for name, data in (("image", task.image), ("mask", task.mask))}
    try:
        check_sides(*sizes["image"])
    except ImageError as error:
        raise ApiError(400, "size", str(error)) from error
    if sorted(sizes["image"]) != sorted(sizes["mask"]):
        raise _describe_mismatch(sizes["image"], sizes["mask"])


def check_file(name: str, data: bytes, max_pixels: int) -> tuple[int, int]:
    """Check the format and the size of a picture or a mask by its header.

    Args:
        name: the name of the field.
        data: the bytes of the file.
        max_pixels: the largest picture, in pixels.

    Returns:
        Height and width in the header.

    Raises:
        ApiError: the file is damaged, of another format, or too large.
    """
    check_format(name, data)
    try:
        height, width = parse_size(io.BytesIO(data), name)
    except ImageError as error:
        raise ApiError(400, name, str(error)) from error
    if height * width > max_pixels:
        raise ApiError(
            413,
            "pixels",
            f"`{name}` is {height}x{width}; this server takes up to {max_pixels} pixels: scale or crop the picture",
        )
    return height, width


def check_format(name: str, data: bytes) -> None:
    """Check the format of a picture by its first bytes.

    Args:
        name: the name of the field.
        data: the bytes of the file.

    Raises:
        ApiError: the file is empty or of another format.
    """
    if not data:
        raise ApiError(400, name, f"`{name}` is empty; a PNG, JPEG or WebP is expected")
    if identify_format(data[:16]) not in MEDIA_TYPES:
        raise ApiError(415, name, f"`{name}` is of another format; a PNG, JPEG or WebP is expected")


def fill(task: Task, engine: Engine, job: Job) -> Filled:
    """Fill a picture.

    Args:
        task: the task, which :func:`check_task` has checked.
        engine: the engine.
        job: the job, which may be cancelled meanwhile.

    Returns:
        The filled picture.

    Raises:
        ApiError: a file is damaged, the picture does not fit the engine or the memory, or the job was cancelled.
    """
    try:
        return _fill(task, engine, job)
    except ImageError as error:
        raise describe_image_error(error, "picture") from error
    except EngineError as error:
        raise ApiError(500, "engine", str(error)) from error
    except MemoryError as error:
        raise ApiError(503, "memory", "not enough memory is free for this picture; scale or crop it") from error


def _fill(task: Task, engine: Engine, job: Job) -> Filled:
    start = time.perf_counter()
    picture = decode_image(task.image, "image")
    mask = task.read_mask(task.mask)
    if mask.shape != picture.rgb.shape[:2]:
        raise _describe_mismatch(picture.rgb.shape[:2], (mask.shape[0], mask.shape[1]))
    decoded = time.perf_counter()
    network_seconds = 0.0
    with engine.use(task.choice) as opened:
        used = time.perf_counter()

        def run(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
            nonlocal network_seconds
            job.check()
            begin = time.perf_counter()
            result = opened.inpainter(image, missing, region=task.region)
            network_seconds += time.perf_counter() - begin
            return result

        filled = fill_picture(run, picture, mask)
        description = opened.inpainter.description
    job.check()
    begin = time.perf_counter()
    encoder = identify_format(task.image[:16]) if task.format == "same" else task.format.upper()
    assert encoder is not None  # check_task has identified it
    data = encode_image(filled, encoder, "image", task.quality)
    seconds = {
        "queue": job.queued_seconds + used - decoded,  # a change of the engine is waited for, too
        "decode": decoded - start,
        "network": network_seconds,
        "encode": time.perf_counter() - begin,
    }
    return Filled(data, MEDIA_TYPES[encoder], description, (mask.shape[0], mask.shape[1]), seconds)


def _describe_mismatch(image: tuple[int, ...], mask: tuple[int, ...]) -> ApiError:
    return ApiError(
        400,
        "size",
        f"`image` is {image[0]}x{image[1]}, `mask` {mask[0]}x{mask[1]}; they must be of one size, after their EXIF "
        "orientation is applied",
    )
