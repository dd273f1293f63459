"""Errors that a client sees: a status, a short name for programs, and one line for people."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from glama_deploy.errors import ImageError, MemoryShortageError
from glama_deploy.text.escapes import escape_controls

#: The status of a request that its client left or cancelled, as nginx logs it. No client sees the status of the former.
CLIENT_CLOSED_REQUEST = 499

#: Paths of lama-cleaner, whose clients expect errors as text.
_TEXT_PATHS = re.compile(r"/(inpaint|model|server_config|model_downloaded/.*|is_desktop|run_plugin)")


class ApiError(Exception):
    """An answer that is not the one asked for.

    Args:
        status: the HTTP status.
        code: a short name that programs can compare.
        message: one line: what was found, what is expected, what to do.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, escape_controls(message)
        self.headers = dict(headers or {})


def describe_image_error(error: ImageError, code: str) -> ApiError:
    """Return the error that a client sees of a picture or a mask.

    Args:
        error: the error.
        code: the short name of an error in the file.

    Returns:
        503 where memory is short, because the file may be good, else 400.
    """
    if isinstance(error, MemoryShortageError):
        return ApiError(503, "memory", str(error))
    return ApiError(400, code, str(error))


class ClientGoneError(Exception):
    """The client closed its connection, so nobody waits for the answer."""


def make_error_response(path: str, error: ApiError) -> Response:
    """Return an error in the form that an interface's clients read.

    Args:
        path: the path of the request, which names the interface.
        error: the error.

    Returns:
        Our own JSON (`error`, `code`), for IOPaint's paths IOPaint's JSON (`error`, `detail`, `body`, `errors`), and
        for lama-cleaner's paths text.
    """
    if path.startswith("/api/v1/"):
        content: dict[str, object] = {"error": error.code, "detail": error.message, "body": "", "errors": error.message}
        return JSONResponse(content, error.status, error.headers)
    if _TEXT_PATHS.fullmatch(path):
        return PlainTextResponse(error.message, error.status, error.headers)
    return JSONResponse({"error": error.message, "code": error.code}, error.status, error.headers)
