"""A real server on a free port, in a thread of the test's process, around a real engine."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.server.app import make_app
from glama_deploy.server.run import make_config, open_socket
from glama_deploy.server.server import Server
from glama_deploy.server.settings import Settings
from glama_deploy.server.work.engine import OpenModel


@dataclass
class Running:
    """A server that runs."""

    port: int
    server: Server
    client: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inpaint(self, image: bytes, mask: bytes, path: str = "/v1/inpaint", **fields: Any) -> httpx.Response:
        return self.client.post(path, files={"image": ("a", image), "mask": ("b", mask)}, data=fields)


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def start_server(tiny_bundle) -> Iterator[Start]:
    """A function that starts a server with settings; all servers end with the session."""
    stops = []

    def start(open_model: OpenModel | None = None, **settings: Any) -> Running:
        chosen = replace(Settings(models={"tiny": str(tiny_bundle.path)}), **settings)
        listener = open_socket("127.0.0.1", 0)
        is_open = threading.Event()
        app = make_app(chosen, open_model=open_model, on_ready=lambda _: is_open.set())
        runner = uvicorn.Server(make_config(app, chosen))
        thread = threading.Thread(target=runner.run, args=([listener],))
        thread.start()
        port = listener.getsockname()[1]
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600)

        def stop() -> None:
            client.close()
            app.state.server.close()
            runner.should_exit = True
            thread.join()

        stops.append(stop)
        assert is_open.wait(600)
        return Running(port, app.state.server, client)

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def running(start_server) -> Running:
    """A server with the defaults and the tiny network."""
    return start_server()


@pytest.fixture(scope="session")
def inpainter(tiny_bundle) -> Inpainter:
    return glama_deploy.load(tiny_bundle.path)


class HeldInpainter(Inpainter):
    """An inpainter whose runs wait until the test lets them go on."""

    def __init__(self, inner: Inpainter, let_go: threading.Event, begun: threading.Semaphore) -> None:
        super().__init__(inner._runner, inner.network)
        self._let_go, self._begun = let_go, begun

    def __call__(self, image: np.ndarray, mask: np.ndarray, **options: Any) -> np.ndarray:
        self._begun.release()
        assert self._let_go.wait(600)
        return super().__call__(image, mask, **options)


@dataclass
class Held:
    """What a test holds an engine with: `begun` counts the runs that began."""

    let_go: threading.Event
    begun: threading.Semaphore

    def open_model(self, model: str, precision: str) -> Inpainter:
        return HeldInpainter(glama_deploy.load(model, precision=precision), self.let_go, self.begun)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held(threading.Event(), threading.Semaphore(0))
    yield held
    held.let_go.set()


def encode(pixels: np.ndarray, encoder: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, encoder, **options)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


@pytest.fixture(scope="session", name="encode")
def _encode() -> Callable[..., bytes]:
    return encode


@pytest.fixture(scope="session", name="decode")
def _decode() -> Callable[[bytes], np.ndarray]:
    return decode


@pytest.fixture
def image_file(photo) -> bytes:
    return encode(photo)


@pytest.fixture
def mask_file(hole) -> bytes:
    return encode(hole)
