"""Read the fields of a request: multipart forms, or JSON with files in base64.

`safety/guards.py` bounds the bytes and the seconds of every body while it is received. Here the number of parts, and of
bytes in a text field, is bounded. Files of a form above one megabyte are kept in a temporary file without a name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from glama_deploy.errors import GlamaError
from glama_deploy.server.errors import ApiError, ClientGoneError
from glama_deploy.text import base64_files

#: Text fields in a form, and bytes in each. lama-cleaner's clients send 40 short ones.
MAX_TEXT_FIELDS = 100
MAX_TEXT_BYTES = 64 << 10

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class File:
    """A file that a client sent.

    Attributes:
        name: the name that the client gave it; empty if none. The name is never used as a path.
        data: the bytes.
    """

    name: str
    data: bytes


def find_media_type(request: Request) -> str:
    """Return the media type of a body, without parameters and in lower case.

    Args:
        request: the request.

    Returns:
        The media type; empty if the client did not say.
    """
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request, max_files: int) -> FormData:
    """Read a multipart form. The caller closes the form.

    Args:
        request: the request.
        max_files: the number of files that the form may have.

    Returns:
        The form.

    Raises:
        ApiError: the body is not a form, is damaged, or has too many parts.
        ClientGoneError: the client left.
    """
    if find_media_type(request) != "multipart/form-data":
        raise ApiError(415, "media_type", "the body is of another kind; multipart/form-data or JSON is expected")
    return await _read_any_form(request, max_files)


async def _read_any_form(request: Request, max_files: int) -> FormData:
    try:
        return await request.form(max_files=max_files, max_fields=MAX_TEXT_FIELDS, max_part_size=MAX_TEXT_BYTES)
    except ClientDisconnect as error:
        raise ClientGoneError from error
    except HTTPException as error:
        raise ApiError(400, "form", f"the form cannot be read: {error.detail}") from error


async def read_text_field(request: Request, name: str) -> str:
    """Read a text field of a form of either kind, which has no files.

    Args:
        request: the request.
        name: the name of the field.

    Returns:
        The value; empty if the field is missing.

    Raises:
        ApiError: the form cannot be read.
        ClientGoneError: the client left.
    """
    if find_media_type(request) != "application/x-www-form-urlencoded":
        form = await read_form(request, max_files=0)
    else:
        form = await _read_any_form(request, max_files=0)
    return find_texts(form).get(name, "")


async def read_upload(form: FormData, name: str) -> File:
    """Read a file of a form.

    Args:
        form: the form.
        name: the name of the field.

    Returns:
        The file.

    Raises:
        ApiError: the field is missing, or is not a file.
    """
    value = form.get(name)
    if not isinstance(value, UploadFile):
        found = "is text" if isinstance(value, str) else "is missing"
        raise ApiError(422, "fields", f"the field `{name}` {found}; a file (with a file name) is expected")
    return File(value.filename or "", await value.read())


def find_texts(form: FormData) -> dict[str, str]:
    """Return the text fields of a form.

    Args:
        form: the form.

    Returns:
        The values by name. Of several fields of one name, the last.
    """
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


async def read_json(request: Request, model: type[_Model]) -> _Model:
    """Read a JSON body.

    Args:
        request: the request.
        model: the fields that are expected.

    Returns:
        The fields.

    Raises:
        ApiError: the body is not JSON, or has other fields.
        ClientGoneError: the client left.
    """
    if find_media_type(request) not in ("application/json", ""):  # clients of IOPaint may say nothing
        raise ApiError(415, "media_type", "the body is of another kind; application/json is expected")
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise ClientGoneError from error
    return await asyncio.to_thread(_parse_json, body, model)


def _parse_json(body: bytes, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise describe_invalid(error) from error


def validate(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Check the text fields of a form.

    Args:
        model: the fields that are expected.
        values: the values by name.

    Returns:
        The fields.

    Raises:
        ApiError: a field is unknown or has a wrong value.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise describe_invalid(error) from error


def describe_invalid(error: ValidationError | RequestValidationError) -> ApiError:
    """Describe the first fault of a request's fields in one line.

    Args:
        error: the error of pydantic, or of FastAPI.

    Returns:
        The error for the client. The values of the request are left out.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    place = f"the field `{where}`" if where else "the body"
    return ApiError(422, "fields", f"{place}: {first['msg'].lower()}; the server's /docs lists the fields")


def decode_base64(text: str, name: str) -> bytes:
    """Decode a file that a client sent as text.

    Args:
        text: base64, bare or as a data URL. Line breaks do not matter.
        name: the name of the field.

    Returns:
        The bytes.

    Raises:
        ApiError: the text is not base64.
    """
    try:
        return base64_files.decode_base64(text, name)
    except GlamaError as error:
        raise ApiError(400, name, str(error)) from error


def dump_line(values: Mapping[str, Any]) -> bytes:
    """Return values as one line of JSON.

    Args:
        values: the values.

    Returns:
        The line with its line break, in UTF-8.
    """
    return json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
