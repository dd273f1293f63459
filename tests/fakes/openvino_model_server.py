"""A stand-in for OpenVINO Model Server, whose program cannot be installed here: KServe's protocol around real OpenVINO.

Written after the server's documents and sources of 2026: `docs/model_server_rest_api_kfs.md`,
`docs/binary_input_kfs.md`, and the decoding by OpenCV (`IMREAD_UNCHANGED`, no conversion of channels, an error for
another number of channels).
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from glama_deploy.runtime.openvino.core import core

_LENGTH = "Inference-Header-Content-Length"


class RefusalError(Exception):
    """What the server refuses, with its message."""


class OpenVINOModelServer:
    """Serves a repository on a free port.

    `images` has the shape of each image that was received. After `max_answers` pictures, connections are cut.
    """

    def __init__(self, repository: Path, port: int = 0) -> None:
        (entry,) = json.loads((repository / "config.json").read_text(encoding="utf-8"))["model_config_list"]
        config = entry["config"]
        self.name = config["name"]
        (file,) = (repository / config["base_path"]).glob("1/*.xml")
        # A core of its own would end with the last reference, perhaps in a thread of the server, and take away the
        # signal stack of the thread that made the core.
        self.model = core().read_model(file)
        self.compiled = core().compile_model(self.model, config["target_device"], config["plugin_config"])
        self.images: list[tuple[int, ...]] = []
        self.max_answers: int | None = None
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _make_handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def describe(self) -> dict[str, Any]:
        """The model's metadata."""
        types = {"u8": "UINT8", "f32": "FP32"}
        tensors = {
            kind: [
                {
                    "name": port.get_any_name(),
                    "datatype": types[port.get_element_type().get_type_name()],
                    "shape": [side.get_length() if side.is_static else -1 for side in port.get_partial_shape()],
                }
                for port in ports
            ]
            for kind, ports in (("inputs", self.model.inputs), ("outputs", self.model.outputs))
        }
        stored = self.model.get_rt_info(["model_info"]).value
        info = {key: value if isinstance(value, str) else value.astype(str) for key, value in stored.items()}
        return {"name": self.name, "platform": "OpenVINO", **tensors, "rt_info": {"model_info": info}}

    def infer(self, header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Run a request; raises RefusalError."""
        inputs, start = {}, 0
        for tensor in header["inputs"]:
            part = data[start : start + tensor["parameters"]["binary_data_size"]]
            start += len(part)
            channels = self.model.input(tensor["name"]).get_partial_shape()[-1].get_length()
            inputs[tensor["name"]] = _read(tensor, part, channels)
        self.images.append(inputs["image"].shape)
        filled = self.compiled(inputs)["inpainted"]
        output = {"name": "inpainted", "shape": list(filled.shape), "datatype": "UINT8"}
        output["parameters"] = {"binary_data_size": filled.nbytes}
        return {"model_name": self.name, "outputs": [output]}, filled.tobytes()


def _read(tensor: dict[str, Any], part: bytes, channels: int) -> np.ndarray:
    if tensor["datatype"] == "UINT8":
        return np.frombuffer(part, np.uint8).reshape(tensor["shape"])
    length = int.from_bytes(part[:4], "little")
    image = cv2.imdecode(np.frombuffer(part[4 : 4 + length], np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or length + 4 != len(part):
        raise RefusalError("Image parsing failed")
    image = image.reshape(*image.shape[:2], -1)
    if image.shape[2] != channels:
        raise RefusalError("Invalid number of channels in binary input")
    return image[None]


def _make_handler(server: OpenVINOModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = f"/v2/models/{server.name}"
            answers: dict[str, Any] = {
                "/v2": {"name": "OpenVINO Model Server", "version": "2026.3.0"},
                "/v1/config": {server.name: {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}},
                path: None,
                f"{path}/ready": {},
            }
            if self.path in answers:
                self._answer(200, answers[self.path] if self.path != path else server.describe())
            else:
                self._answer(404, {"error": "Model with requested name is not found"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != f"/v2/models/{server.name}/infer":
                return self._answer(404, {"error": "Invalid request URL"})
            if server.max_answers is not None and len(server.images) >= server.max_answers:
                return None
            length = int(self.headers[_LENGTH])
            try:
                return self._answer(200, *server.infer(json.loads(body[:length]), body[length:]))
            except RefusalError as error:
                return self._answer(400, {"error": str(error)})

        def _answer(self, status: int, tree: dict[str, Any], data: bytes = b"") -> None:
            text = json.dumps(tree, separators=(",", ":")).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text) + len(data)))
            if data:
                self.send_header(_LENGTH, str(len(text)))
            self.end_headers()
            self.wfile.write(text + data)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler
