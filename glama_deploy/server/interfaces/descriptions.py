"""What the OpenAPI description says about bodies that are read by hand."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_OPTIONS: dict[str, Any] = {
    "region": {
        "type": "string",
        "enum": ["auto", "full", "crop"],
        "default": "auto",
        "description": "What the network is shown: the whole image, boxes around the holes, or what costs less.",
    },
    "model": {"type": "string", "description": "A name of /v1/info. The server changes to this model for all clients."},
    "precision": {"type": "string", "description": "One of `precisions` of /v1/info, or auto."},
    "format": {"type": "string", "enum": ["png", "jpeg", "webp", "same"], "default": "same"},
    "quality": {
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
        "description": "Of a JPEG or WebP. Without it, a JPEG is as fine as a JPEG that was sent (else 95), and a "
        "WebP is lossless.",
    },
    "id": {
        "type": "string",
        "pattern": "^[A-Za-z0-9_.-]{1,64}$",
        "description": "A name for DELETE /v1/requests/{id}, which no other request in flight has.",
    },
}

_MASK = "As large as the image. A pixel is missing where its largest colour channel is above 127."


def _describe_files(kind: dict[str, str]) -> dict[str, Any]:
    return {"image": {**kind, "description": "A PNG, JPEG or WebP."}, "mask": {**kind, "description": _MASK}}


_BINARY, _BASE64 = {"type": "string", "format": "binary"}, {"type": "string", "format": "byte"}


def _make_schema(files: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "required": ["image", "mask"], "properties": {**files, **_OPTIONS}}}


def describe_json(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a JSON body.

    Args:
        model: the fields.

    Returns:
        The `requestBody` of OpenAPI.
    """
    return {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}


#: The body of `POST /v1/inpaint`.
INPAINT_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": _make_schema(_describe_files(_BINARY)),
        "application/json": _make_schema(_describe_files(_BASE64)),
    },
}

_ARRAYS = {name: {"type": "array", "items": value} for name, value in _describe_files(_BINARY).items()}

#: The body of `POST /v1/batch`.
BATCH_BODY: dict[str, Any] = {"required": True, "content": {"multipart/form-data": _make_schema(_ARRAYS)}}

_ERROR = {
    "application/json": {
        "schema": {"type": "object", "properties": {"error": {"type": "string"}, "code": {"type": "string"}}}
    }
}

_HEADERS = {
    name: {"description": text, "schema": {"type": kind}}
    for name, text, kind in (
        ("X-Glama-Seconds", "Seconds in the network, with the plan and the composite.", "number"),
        ("X-Glama-Queued-Seconds", "Seconds that the request waited for its turn.", "number"),
        ("X-Glama-Total-Seconds", "Seconds from the request's headers to the answer.", "number"),
        ("X-Glama-Engine", "The engine, its version, device and precision.", "string"),
    )
}

#: The answers of `POST /v1/inpaint`.
INPAINT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The filled picture. Known pixels are bit-exact in lossless formats.",
        "content": {media_type: {} for media_type in ("image/png", "image/jpeg", "image/webp")},
        "headers": _HEADERS,
    },
    **{
        status: {"description": text, "content": _ERROR}
        for status, text in (
            (400, "The picture or the mask is damaged, or their sizes differ."),
            (401, "The token is missing or wrong."),
            (413, "The request has too many bytes, or the picture too many pixels."),
            (415, "The body or a file is of another kind."),
            (422, "A field is unknown or has a wrong value."),
            (499, "The request was cancelled by its `id`."),
            (503, "Too many requests wait; `Retry-After` tells when to try again."),
        )
    },
}
