"""glama-serve's application with real HTTP, which a test can hold, refuse and stop, and whose requests are kept."""

from __future__ import annotations

import json
import threading
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import numpy as np
import uvicorn

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.server.app import make_app
from glama_deploy.server.run import make_config, open_socket
from glama_deploy.server.settings import Settings


class RecordingServer:
    """A server that fills with real engines and remembers what it was asked.

    Runs of the engine wait until `hold` is set. `refuse` has answers that are given first: status, headers, JSON.
    """

    def __init__(self, port: int = 0) -> None:
        self.asked: list[dict[str, bytes]] = []
        self.cancelled: list[str] = []
        self.refuse: list[tuple[int, dict[str, str], dict[str, str]]] = []
        self.hold = threading.Event()
        self.hold.set()
        settings = Settings(models={"default": "default"}, backend="openvino", precision="fp32")
        listener = open_socket("127.0.0.1", port)
        self.port = listener.getsockname()[1]
        is_open = threading.Event()
        self._app = make_app(settings, open_model=self._open_model, on_ready=lambda _: is_open.set())
        self._uvicorn = uvicorn.Server(make_config(self, settings))  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._uvicorn.run, args=([listener],))
        self._thread.start()
        while not is_open.wait(1):
            assert self._thread.is_alive(), "the server did not start"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def precision(self) -> str:
        """The precision of the open engine."""
        return str(self._app.state.server.engine.current.inpainter.precision)

    @property
    def precisions(self) -> list[str]:
        """The precisions of the open engine, which depend on the CPU."""
        return list(self._app.state.server.engine.current.inpainter.precisions)

    def forget(self) -> None:
        """Forget what was asked, and answer again."""
        self.asked.clear()
        self.cancelled.clear()
        self.refuse.clear()
        self.hold.set()

    def stop(self) -> None:
        self.hold.set()
        self._app.state.server.close()
        self._uvicorn.should_exit = True
        self._thread.join()

    def _open_model(self, model: str, precision: str) -> Inpainter:
        inner = glama_deploy.load(model, "openvino", precision)
        return _HeldInpainter(inner, self.hold)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on to the application, and keep the form of a picture."""
        if scope["type"] == "http" and scope["method"] == "DELETE":
            self.cancelled.append(scope["path"].rpartition("/")[2])
        if scope["type"] != "http" or scope["path"] != "/v1/inpaint":
            return await self._app(scope, receive, send)
        if self.refuse:
            return await _answer(send, *self.refuse.pop())
        body = bytearray()

        async def receive_and_keep() -> dict[str, Any]:
            message: dict[str, Any] = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self.asked.append(_read_form(scope, bytes(body)))
            return message

        return await self._app(scope, receive_and_keep, send)


class _HeldInpainter(Inpainter):
    """An inpainter whose runs wait until an event is set."""

    def __init__(self, inner: Inpainter, hold: threading.Event) -> None:
        super().__init__(inner._runner, inner.network)
        self._hold = hold

    def __call__(self, image: np.ndarray, mask: np.ndarray, **options: Any) -> np.ndarray:
        assert self._hold.wait(600)
        return super().__call__(image, mask, **options)


async def _answer(send: Any, status: int, headers: dict[str, str], told: dict[str, str]) -> None:
    fields = {"Content-Type": "application/json", **headers}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def _read_form(scope: Any, body: bytes) -> dict[str, bytes]:
    kind = dict(scope["headers"])[b"content-type"]
    parts = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + kind + b"\r\n\r\n" + body).iter_parts()
    return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}
