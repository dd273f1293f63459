"""Answers of KServe's protocol, of which nothing is trusted."""

from __future__ import annotations

import json
import socket
from email.message import Message

import numpy as np
import pytest

from glama_deploy.errors import EngineError
from glama_deploy.remote import connection
from glama_deploy.remote.connect import connect
from glama_deploy.remote.connection import Answer
from glama_deploy.remote.kserve import KServeRunner, decode_response, encode_request

PIXELS = bytes(range(12))


def respond(header: object, data: bytes = PIXELS, length: str | None = None) -> Answer:
    text = json.dumps(header).encode()
    headers = Message()
    headers["inference-header-content-length"] = str(len(text)) if length is None else length  # a proxy's spelling
    return Answer(200, headers, text + data)


def describe(name: str = "inpainted", **changes: object) -> dict[str, object]:
    return {"name": name, "datatype": "UINT8", "shape": [1, 2, 2, 3], "parameters": {"binary_data_size": 12}} | changes


def test_a_request_is_a_header_and_the_bytes_of_its_tensors():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)[..., ::-1]  # not contiguous
    body, headers = encode_request(
        {"image": image, "mask": np.ones((1, 2, 2), np.uint8)}, "inpainted", {"region": "full"}
    )
    length = int(headers["Inference-Header-Content-Length"])
    header = json.loads(body[:length])
    assert [tensor["shape"] for tensor in header["inputs"]] == [[1, 2, 2, 3], [1, 2, 2]]
    assert header["parameters"] == {"region": "full"}
    assert body[length:] == image.tobytes() + b"\1\1\1\1"


def test_an_output_is_found_behind_others():
    other = {"name": "predicted", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
    found = decode_response(respond({"outputs": [other, describe()]}, b"0000" + PIXELS), "inpainted")
    assert found is not None
    assert found.tobytes() == PIXELS
    assert found.shape == (1, 2, 2, 3)


@pytest.mark.parametrize(
    "answer",
    [
        respond({"outputs": [describe()]}, PIXELS[:-1]),
        respond({"outputs": [describe(shape=[1, 2, 2])]}),
        respond({"outputs": [describe(shape=[-1, -2, 2, 3])]}),
        respond({"outputs": [describe(shape=["a"])]}),
        respond({"outputs": [describe(shape=[1] * 99 + [12])]}),
        respond({"outputs": [describe(shape=[0, 10**30, 1, 3], parameters={"binary_data_size": 0})]}),
        respond({"outputs": [describe(shape=[12])]}),
        respond({"outputs": [describe(datatype="FP32")]}),
        respond({"outputs": [describe(parameters={"binary_data_size": -12})]}),
        respond({"outputs": [describe("other")]}),
        respond({"outputs": [describe(parameters={}, data=[0] * 12)]}, b""),
        respond({"outputs": "all"}),
        respond([]),
        respond({"outputs": [describe()]}, length="9" * 5000),
        respond({"outputs": [describe()]}, length="-1"),
        respond({"outputs": [describe()]}, length=""),
    ],
    ids=[
        *(
            "few bytes",
            "three sides",
            "negative sides",
            "a side in letters",
            "100 sides",
            "a huge side",
            "one side",
            "another type",
            "negative size",
            "no output",
        ),
        *("values as text", "outputs as text", "a list", "a long length", "a negative length", "an empty length"),
    ],
)
def test_another_answer_is_not_read(answer):
    assert decode_response(answer, "inpainted") is None


class Told:
    """A connection whose answers are told by their paths."""

    url = "http://host"

    def __init__(self, **answers: object) -> None:
        self._answers = answers

    def get(self, path: str) -> Answer:
        name = path.rpartition("/")[2]
        return Answer(200, Message(), json.dumps(self._answers.get(name, {})).encode())

    def post(self, path: str, body: bytes, headers: object) -> Answer:
        return self.get(path)


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({"index": [{"name": 3}], "config": {}}, "has 0 models"),
        ({"index": {}, "config": {}}, "has 0 models"),
        ({"index": [{"name": "m", "state": "READY"}], "m": []}, "model m at http://host has no description"),
        ({"index": [{"name": "m", "state": "READY"}], "config": {"parameters": 3}}, "has no description"),
        ({"index": [{"name": "m", "state": "READY"}], "m": {"rt_info": {"model_info": "x"}}}, "has no description"),
    ],
)
def test_a_server_that_describes_no_model_is_refused(answers, says):
    with pytest.raises(EngineError) as caught:
        KServeRunner(Told(**answers), None, 1)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_a_model_with_other_tensors_is_refused():
    network = {"ngf": 8, "n_blocks": 1}
    sizes = {"min": [16, 16], "opt": [64, 64], "max": [64, 64]}
    described = json.dumps({"software": "x", "network": network, "sizes": sizes, "precision": "fp32"})
    metadata = {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 3, 64, 64]}],
        "outputs": [{"name": "out", "datatype": "FP32", "shape": [1, 3, 64, 64]}],
        "rt_info": {"model_info": {"glama_deploy": described}},
    }
    with pytest.raises(
        EngineError, match=r"has the inputs image and the outputs out; image, mask and inpainted of byt"
    ):
        KServeRunner(Told(m=metadata), "m", 1)  # type: ignore[arg-type]


def test_a_server_that_accepts_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(connection, "_GET_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"^no server answers at {address} .*timed out.*; start it, or check"):
            connect(address)
