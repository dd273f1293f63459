"""The files of IOPaint's interface: the offered picture or folder, and saving.

A name that a client sends is looked up among the names in a folder, and never joined to a path. A picture is saved
under its base name, below the output folder.
"""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from PIL import Image
from starlette.responses import FileResponse, JSONResponse, Response

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io import images
from glama_deploy.io.decoding import decode_file, identify_format, read_size
from glama_deploy.io.files import atomic_file
from glama_deploy.server import bodies
from glama_deploy.server.errors import ApiError
from glama_deploy.server.server import Server, get_server
from glama_deploy.server.work.filling import check_format

router = APIRouter(prefix="/api/v1", tags=["IOPaint"])

#: A folder of IOPaint's file manager.
Tab = Literal["input", "output", "mask"]

#: Names that are saved: no path, no hidden file, nothing that a shell or a page would read as something else.
_SAVED_NAME = re.compile(r"[\w(][\w ().,+@=-]{0,199}")

#: Names of devices, whatever follows a dot. Windows writes such a file to the device.
_DEVICE_NAME = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9])\s*(?:\..*)?", re.IGNORECASE)

#: Bytes of a name in UTF-8, the limit of most file systems.
_MAX_NAME_BYTES = 255

_DEFAULT_THUMBNAIL_SIDE = 256
_MAX_THUMBNAIL_SIDE = 1024


@router.get("/inputimage", summary="Return the picture that the server offers", response_class=Response)
async def show_input(request: Request) -> Response:
    """Return the picture of `--input`.

    Args:
        request: the request.

    Returns:
        The file. Without `--input`, IOPaint's message with status 200.
    """
    offered = get_server(request).settings.input
    if offered is None:
        raise ApiError(200, "HTTPException", "No input image configured")
    if not offered.is_file():
        raise ApiError(404, "not_found", "Input image not found")
    return FileResponse(offered)


@router.post("/save_image", summary="Save a picture into the output folder")
async def save_image(request: Request) -> JSONResponse:
    """Save a picture into the output folder, under its base name. A picture of that name is replaced.

    Args:
        request: the request, a form with a `file`.

    Returns:
        Null, as IOPaint does.
    """
    server = get_server(request)
    with server.line.place():
        form = await bodies.read_form(request, max_files=1)
        try:
            file = await bodies.read_upload(form, "file")
        finally:
            await form.close()
        await asyncio.to_thread(save, server, file.name, file.data)
    return JSONResponse(None)


def save(server: Server, name: str, data: bytes) -> None:
    """Save a picture into the output folder.

    Args:
        server: the server.
        name: the name that the client chose, of which only the last part is used.
        data: the bytes of the picture's file.

    Raises:
        ApiError: there is no output folder, the name or the file is not that of a picture, the two are of different
            formats, or the disk is full.
    """
    folder = server.settings.output_dir
    if folder is None:
        raise ApiError(400, "output_dir", "this server saves nothing; start glama-serve with --output-dir FOLDER")
    base = re.split(r"[/\\]", name)[-1]
    suffix = Path(base).suffix.lower()
    is_usable = _SAVED_NAME.fullmatch(base) and not _DEVICE_NAME.fullmatch(base)
    if not is_usable or len(base.encode()) > _MAX_NAME_BYTES or suffix not in images.ENCODERS:
        raise ApiError(422, "name", "the name of the file is not supported; a name such as photo-1.png is expected")
    check_format("file", data)
    found, named = identify_format(data[:16]), images.ENCODERS[suffix]
    if found != named:
        raise ApiError(422, "name", f"the file is a {found}, and its name ends with {suffix}; one format is expected")
    try:
        with atomic_file(folder / base) as temporary:
            temporary.write_bytes(data)
    except GlamaError as error:
        reason = str(error).replace(str(folder / base), base)  # the folder is the operator's matter
        raise ApiError(507, "disk", f"the picture was not saved: {reason}") from error


def _find_folder(server: Server, tab: Tab) -> Path:
    """Return the folder of a tab. Raises ApiError where the server offers none."""
    folders = {"input": server.settings.input, "output": server.settings.output_dir, "mask": None}
    folder = folders[tab]
    if server.settings.input is None or not server.settings.input.is_dir() or folder is None:
        raise ApiError(404, "not_found", f"this server offers no folder {tab}; start glama-serve with --input FOLDER")
    return folder


def _list_files(folder: Path) -> dict[str, Path]:
    """Return the pictures in a folder by name. Links are left out, because they may lead elsewhere."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in images.SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
        and not path.is_symlink()
    }


def _find_file(server: Server, tab: Tab, filename: str) -> Path:
    found = _list_files(_find_folder(server, tab)).get(filename)
    if found is None:
        raise ApiError(422, "not_found", f"the folder {tab} has no such picture")
    return found


@router.get("/medias", summary="List the pictures of a folder")
async def list_media(request: Request, tab: Tab) -> JSONResponse:
    """List the pictures of a folder.

    Args:
        request: the request.
        tab: the folder.

    Returns:
        A list of IOPaint's `MediasResponse`.
    """
    return JSONResponse(await asyncio.to_thread(_describe_files, _find_folder(get_server(request), tab)))


def _describe_files(folder: Path) -> list[dict[str, object]]:
    described = []
    for name, path in _list_files(folder).items():
        try:
            height, width = read_size(path)
        except ImageError:
            continue  # a file of another kind
        times = path.stat()
        described.append(
            {"name": name, "height": height, "width": width, "ctime": times.st_ctime, "mtime": times.st_mtime}
        )
    return described


@router.get("/media_file", summary="Return a picture of a folder", response_class=Response)
async def show_media(request: Request, tab: Tab, filename: str) -> FileResponse:
    """Return a picture of a folder.

    Args:
        request: the request.
        tab: the folder.
        filename: the name of the picture.

    Returns:
        The file.
    """
    return FileResponse(_find_file(get_server(request), tab, filename))


@router.get("/media_thumbnail_file", summary="Return a small form of a picture", response_class=Response)
async def show_thumbnail(request: Request, tab: Tab, filename: str, width: int = 0, height: int = 0) -> Response:
    """Return a small form of a picture.

    Args:
        request: the request.
        tab: the folder.
        filename: the name of the picture.
        width: the width in pixels; 0 for any.
        height: the height in pixels, if there is no width.

    Returns:
        A JPEG, with its size in `X-Width` and `X-Height`.
    """
    server = get_server(request)
    path = _find_file(server, tab, filename)
    if max(width, height) > _MAX_THUMBNAIL_SIDE or min(width, height) < 0:
        raise ApiError(422, "fields", f"`width` and `height` must be from 0 to {_MAX_THUMBNAIL_SIDE}")
    with server.line.place() as place:
        data, size = await place.run(lambda job: _draw_thumbnail(server, path, width, height))
    return Response(data, media_type="image/jpeg", headers={"X-Width": str(size[0]), "X-Height": str(size[1])})


def _draw_thumbnail(server: Server, path: Path, width: int, height: int) -> tuple[bytes, tuple[int, int]]:
    """Return a JPEG, and its width and height."""
    try:
        stored = read_size(path)
        if stored[0] * stored[1] > server.settings.max_pixels:
            raise ApiError(413, "pixels", "the picture has more pixels than this server takes")
        image = decode_file(path)
    except ImageError as error:
        raise ApiError(422, "picture", f"{path.name} cannot be read") from error
    if not width and not height:
        width = _DEFAULT_THUMBNAIL_SIDE
    scale = width / image.width if width else height / image.height
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    file = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2).save(file, "JPEG", quality=90)
    return file.getvalue(), size
