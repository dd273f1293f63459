"""A client of KServe's protocol, version 2, which Triton and OpenVINO Model Server speak, with its binary extension.

A request is a JSON header, whose length stands in the header `Inference-Header-Content-Length`, and the bytes of the
tensors behind it. The response has the same form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from glama_deploy.errors import EngineError
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.remote.connection import Answer, Connection
from glama_deploy.remote.description import DESCRIPTION, MODEL_INFO, ModelDescription
from glama_deploy.remote.runner import RemoteRunner
from glama_deploy.remote.triton_model import REGION
from glama_deploy.text.excerpts import excerpt

#: The header with the length of the JSON before the bytes.
_JSON_LENGTH = "Inference-Header-Content-Length"

#: The platform of a model that runs this package, which would cut boxes by itself.
_PYTHON = "python"

#: Names of models that an error lists.
_MAX_NAMES = 8

#: The dimensions of images: number, height, width and channel.
_IMAGE_DIMENSIONS = 4

#: The greatest number of digits of a length that is read.
_MAX_DIGITS = 12


class _Parameters(BaseModel):
    """The parameters of a tensor that this client reads."""

    binary_data_size: int = Field(default=0, ge=0)


class _Tensor(BaseModel):
    """A tensor in a server's answer."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = _Parameters()


class _IndexedModel(BaseModel):
    """A model in Triton's index of its repositories."""

    name: str
    state: str = ""


_TENSORS = TypeAdapter(list[_Tensor])
_INDEX = TypeAdapter(list[_IndexedModel])


def is_kserve(connection: Connection) -> bool:
    """Tell whether a server speaks the protocol.

    Args:
        connection: The server.

    Returns:
        True if the server describes itself as the protocol demands.

    Raises:
        EngineError: No server answers.
    """
    answer = connection.get("/v2")
    return answer.status == 200 and isinstance(answer.read_json().get("name"), str)


class KServeRunner(RemoteRunner):
    """Runs a model of a server. The server computes, and the client cuts boxes."""

    backend = "kserve"

    def __init__(self, connection: Connection, name: str | None, streams: int) -> None:
        """Find a model, and read what the client must know of it.

        Args:
            connection: The server.
            name: The name of the model; None for the only model of the server.
            streams: Requests that are sent at once.

        Raises:
            EngineError: The server does not have the model, or the model was not written by `glama package`.
        """
        self.connection = connection
        server = connection.get("/v2").read_json()
        self._name = name or _find_only_model(connection)
        self._path = f"/v2/models/{quote(self._name, safe='')}"
        metadata = self._read_metadata()
        described = _read_description(connection, self._path, metadata)
        try:
            found = ModelDescription.model_validate_json(described)
        except ValidationError as error:
            raise EngineError(
                f"model {self._name} at {connection.url} has no description that this version reads; write its "
                "repository again with `package(BUNDLE)`"
            ) from error
        self.sizes, self.precision, self.streams = found.sizes, found.precision, streams
        self.network = found.network
        self._is_bgr = found.color == "bgr"
        self._mask_dimensions = self._check_tensors(metadata)
        self._parameters = {REGION: "full"} if metadata.get("platform") == _PYTHON else {}
        self.description = (
            f"{excerpt(server.get('name'), 40)} {excerpt(server.get('version'), 40)} at {connection.url}: {self._name} "
            f"{found.precision}"
        )

    def _read_metadata(self) -> dict[str, Any]:
        """Return the server's description of the model."""
        answer = self.connection.get(f"{self._path}/ready")
        if answer.status != 200:
            there = ", ".join(_list_models(self.connection)[:_MAX_NAMES])
            raise EngineError(
                f"model {excerpt(self._name)} at {self.connection.url} is not ready ({answer.reason}); the server "
                f"has {there or 'no model'}: give a name in `model`, or read the server's log"
            )
        return self.connection.get(self._path).read_json()

    def _check_tensors(self, metadata: Mapping[str, Any]) -> int:
        """Check the model's tensors, and return the number of dimensions of the mask."""
        inputs, outputs = (_read_tensors(metadata.get(key)) for key in ("inputs", "outputs"))
        needed = (inputs.get(IMAGE), inputs.get(MASK), outputs.get(INPAINTED))
        if any(tensor is None or tensor.datatype != "UINT8" for tensor in needed):
            raise EngineError(
                f"model {self._name} at {self.connection.url} has the inputs {_list_names(inputs)} and the outputs "
                f"{_list_names(outputs)}; {IMAGE}, {MASK} and {INPAINTED} of bytes are expected: write its repository "
                "again with `package(BUNDLE)`"
            )
        return len(inputs[MASK].shape)

    def fill(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Send images and masks as tensors of one request.

        Args:
            images: uint8 [B, H, W, 3], RGB.
            masks: uint8 [B, H, W], above 0 where a pixel is missing.

        Returns:
            The output `inpainted` of the server, RGB.

        Raises:
            EngineError: the server does not answer, refuses, or does not answer in bytes.
        """
        sent = images[..., ::-1] if self._is_bgr else images
        marked = masks[..., None] if self._mask_dimensions > masks.ndim else masks
        body, headers = encode_request({IMAGE: sent, MASK: marked}, INPAINTED, self._parameters)
        answer = self.connection.post(f"{self._path}/infer", body, headers)
        if answer.status != 200:
            raise EngineError(f"{self.connection.url} did not fill the picture: {answer.reason}")
        filled = decode_response(answer, INPAINTED)
        if filled is None:
            raise EngineError(
                f"{self.connection.url} did not answer with the bytes of {INPAINTED}; the server must support the "
                "binary tensor extension of KServe's protocol: upgrade the server"
            )
        return filled[..., ::-1] if self._is_bgr else filled


def encode_request(
    tensors: Mapping[str, np.ndarray], output: str, parameters: Mapping[str, str]
) -> tuple[bytes, dict[str, str]]:
    """Encode a request.

    Args:
        tensors: uint8 arrays by the names of the inputs.
        output: The name of the output that is asked for.
        parameters: Parameters of the request.

    Returns:
        The body and the headers.
    """
    parts = {name: np.ascontiguousarray(values).tobytes() for name, values in tensors.items()}
    header: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "shape": list(values.shape),
                "datatype": "UINT8",
                "parameters": {"binary_data_size": len(parts[name])},
            }
            for name, values in tensors.items()
        ],
        "outputs": [{"name": output, "parameters": {"binary_data": True}}],
    }
    if parameters:
        header["parameters"] = dict(parameters)
    text = json.dumps(header).encode()
    headers = {"Content-Type": "application/octet-stream", _JSON_LENGTH: str(len(text))}
    return b"".join((text, *parts.values())), headers


def decode_response(answer: Answer, output: str) -> np.ndarray | None:
    """Decode a response.

    Args:
        answer: The response.
        output: The name of the output.

    Returns:
        The output, uint8 with four dimensions; None if the response does not have these bytes.
    """
    length = answer.headers.get(_JSON_LENGTH, "")
    if not length.isdecimal() or len(length) > _MAX_DIGITS:
        return None
    start = int(length)
    header = Answer(answer.status, answer.headers, answer.body[:start]).read_json()
    for tensor in _read_tensors(header.get("outputs")).values():
        size = tensor.parameters.binary_data_size
        if tensor.name == output:
            data = answer.body[start : start + size]
            is_shape = len(tensor.shape) == _IMAGE_DIMENSIONS and min(tensor.shape) > 0
            is_whole = tensor.datatype == "UINT8" and len(data) == size == math.prod(tensor.shape) and is_shape
            return np.frombuffer(data, np.uint8).reshape(tensor.shape) if is_whole else None
        start += size
    return None


def _find_only_model(connection: Connection) -> str:
    """Return the name of the server's model. Raises EngineError if the server does not have one model."""
    names = _list_models(connection)
    if len(names) != 1:
        raise EngineError(
            f"{connection.url} has {len(names)} models ({', '.join(names[:_MAX_NAMES])}); give the name of one in "
            "`model`"
        )
    return names[0]


def _list_models(connection: Connection) -> list[str]:
    """Return the names of the models that are ready; empty if the server does not list them."""
    answer = connection.post("/v2/repository/index", b"{}", {"Content-Type": "application/json"})  # Triton
    if answer.status == 200:
        with suppress(ValidationError):
            return [model.name for model in _INDEX.validate_json(answer.body) if model.state == "READY"]
    return list(connection.get("/v1/config").read_json())  # OpenVINO Model Server


def _read_description(connection: Connection, path: str, metadata: Mapping[str, Any]) -> str:
    """Return the description that `glama package` wrote into the model; empty if there is none."""
    info = metadata.get("rt_info")  # of OpenVINO Model Server
    found = _walk(info, MODEL_INFO, DESCRIPTION)
    if found is None:
        config = connection.get(f"{path}/config").read_json()  # of Triton
        found = _walk(config, "parameters", DESCRIPTION, "string_value")
    return found if isinstance(found, str) else ""


def _walk(tree: object, *keys: str) -> object:
    """Return a value deep in a tree of objects; None if a key is missing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _read_tensors(listed: object) -> dict[str, _Tensor]:
    """Return the tensors of an answer by their names; empty if the answer is not of this protocol."""
    try:
        return {tensor.name: tensor for tensor in _TENSORS.validate_python(listed)}
    except ValidationError:
        return {}


def _list_names(tensors: Mapping[str, object]) -> str:
    return ", ".join(excerpt(name, 40) for name in list(tensors)[:_MAX_NAMES]) or "(none)"
