"""A client of glama-serve: boxes go to `POST /v1/inpaint` as PNG files."""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping

import numpy as np
from PIL import Image
from pydantic import ValidationError

from glama_deploy.bundle import SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.io.decoding import parse_size
from glama_deploy.io.images import decode_image
from glama_deploy.network import NetworkConfig
from glama_deploy.remote.connection import Connection
from glama_deploy.remote.runner import RemoteRunner
from glama_deploy.text.excerpts import excerpt

#: PNG files are compressed for the way of a box over a network, not for a disk.
_PNG_LEVEL = 1


class GlamaServeRunner(RemoteRunner):
    """Runs the model of a glama-serve. The server computes, and the client cuts boxes."""

    backend = "glama-serve"

    def __init__(self, connection: Connection, name: str | None, streams: int) -> None:
        """Find a model, and read what the client must know of it.

        Args:
            connection: The server.
            name: The name of the model; None for the one that is open.
            streams: Requests that are sent at once.

        Raises:
            EngineError: The server does not have the model, is not ready, or is older than this client.
        """
        self.connection, self.streams = connection, streams
        info = connection.get("/v1/info").read_json()
        models = info.get("models")
        if name is not None and name not in (models if isinstance(models, list) else []):
            there = ", ".join(map(str, models)) if isinstance(models, list) else ""
            raise EngineError(f"{connection.url} has no model {excerpt(name)}; give one of these in `model`: {there}")
        if name is not None and name != info.get("model"):
            raise EngineError(
                f"{connection.url} has model {excerpt(info.get('model'))} open; changing it would change the model of "
                "all its clients: ask for it by `POST /v1/model`, or leave `model` out"
            )
        if not info.get("ready"):
            raise EngineError(f"{connection.url} has no open engine; wait until the server is ready")
        try:
            self.network = NetworkConfig.model_validate(info.get("network"))
            self.sizes = SizeRange.model_validate(info.get("sizes")).model_copy(update={"max_batch": 1})
        except ValidationError as error:
            raise EngineError(
                f"{connection.url} is glama-serve {excerpt(info.get('version'), 20)}, which does not describe its "
                "network; upgrade the server"
            ) from error
        self.precision = str(info.get("precision"))
        self.description = (
            f"glama-serve {excerpt(info.get('version'), 20)} at {connection.url}: {excerpt(info.get('model'))}, "
            f"{excerpt(info.get('engine'))}"
        )

    def fill(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Send each image with its mask as PNG files.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            masks: uint8 [B, H, W], above 0 where a pixel is missing.

        Returns:
            uint8 [B, H, W, 3].

        Raises:
            EngineError: the server does not answer, or refuses.
        """
        return np.stack([self._fill_one(*pair) for pair in zip(images, masks, strict=True)])

    def _fill_one(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        files = {"image": _encode(image), "mask": _encode((mask > 0).astype(np.uint8) * np.uint8(255))}
        body, content_type = encode_form({"region": "full", "format": "png"}, files)
        answer = self.connection.post("/v1/inpaint", body, {"Content-Type": content_type})
        if answer.status != 200:
            raise EngineError(f"{self.connection.url} did not fill the picture: {answer.reason}")
        name = f"the answer of {self.connection.url}"
        size = parse_size(io.BytesIO(answer.body), name)  # before a picture of any size is decoded
        if size != image.shape[:2]:
            raise EngineError(f"{name} is {size[0]}x{size[1]}; {image.shape[0]}x{image.shape[1]} is expected")
        return decode_image(answer.body, name).rgb


def _encode(pixels: np.ndarray) -> bytes:
    """Return pixels as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=_PNG_LEVEL)
    return file.getvalue()


def encode_form(fields: Mapping[str, str], files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """Encode a form with files (`multipart/form-data`, RFC 7578).

    Args:
        fields: Texts by name.
        files: The bytes of PNG files by name.

    Returns:
        The body, and the value of `Content-Type`.
    """
    boundary = secrets.token_hex(16)
    parts = []
    for name, text in fields.items():
        parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode())
    for name, data in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}.png"\r\nContent-Type: image/png'
        parts.append(f"{head}\r\n\r\n".encode() + data)
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
