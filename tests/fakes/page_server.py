"""A small server with the interface that the page speaks, for tests of the page: real inpainter, real HTTP."""

from __future__ import annotations

import io
import json
import threading
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

import glama_deploy
from glama_deploy.inpainting.transparency import fill_picture
from glama_deploy.io.images import Picture

PAGE = Path(glama_deploy.__file__).parent / "server" / "page"
CSP = "default-src 'self'; img-src 'self' blob: data:; worker-src 'self' blob:"
MEDIA_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".html": "text/html",
    ".jpg": "image/jpeg",
}


class PageServer(ThreadingHTTPServer):
    """A server that fills with an inpainter and remembers what it was asked.

    Requests wait until `hold` is set. `refuse` has answers that are given first: status, headers, JSON.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, inpainter: glama_deploy.Inpainter, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.inpainter = inpainter
        self.asked: list[dict[str, bytes]] = []
        self.cancelled: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.refuse: list[tuple[int, dict[str, str], dict[str, str]]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def stop(self) -> None:
        self.hold.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/v1/info":
            return self._answer_json(self._info())
        file = PAGE / ("index.html" if path == "/" else path.removeprefix("/page/"))
        if not file.resolve().is_relative_to(PAGE) or not file.is_file():
            return self._answer_json({"error": f"no {path}", "code": "not_found"}, 404)
        return self._answer(file.read_bytes(), MEDIA_TYPES[file.suffix], headers={"Content-Security-Policy": CSP})

    def do_DELETE(self) -> None:
        self.server.cancelled.append(self.path.rpartition("/")[2])
        self._answer_json({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/model":
            return self._answer_json(self._info())
        if self.server.refuse:
            status, headers, told = self.server.refuse.pop()
            return self._answer_json(told, status, headers)
        form = self._read_form(body)
        self.server.asked.append(form)
        self.server.hold.wait()
        started = time.perf_counter()
        filled = fill(self.server.inpainter, form["image"], form["mask"], form["region"].decode())
        seconds = f"{time.perf_counter() - started:.4f}"
        engine = self.server.inpainter.description
        return self._answer(filled, "image/png", headers={"X-Glama-Seconds": seconds, "X-Glama-Engine": engine})

    def _read_form(self, body: bytes) -> dict[str, bytes]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        parts = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
        return {part.get_param("name", header="content-disposition"): part.get_payload(decode=True) for part in parts}

    def _info(self) -> dict[str, object]:
        inpainter = self.server.inpainter
        return {
            "version": "0", "model": "default", "models": ["default"], "engine": inpainter.description,
            "backend": inpainter.backend, "precision": inpainter.precision, "precisions": ["fp32", "bf16"],
            "device": inpainter.device, "max_pixels": 10**8, "max_bytes": 10**8, "queue": 16,
            "token_required": False, "output_dir": False,
        }  # fmt: skip

    def _answer_json(self, told: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(json.dumps(told).encode(), "application/json", status, headers)

    def _answer(self, body: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def fill(inpainter: glama_deploy.Inpainter, image: bytes, mask: bytes, region: str) -> bytes:
    """Return a PNG of the filled picture, in the mode of the picture."""
    with Image.open(io.BytesIO(image)) as opened, Image.open(io.BytesIO(mask)) as masked:
        pixels = np.asarray(opened.convert("RGBA"))
        mode, missing = opened.mode, np.asarray(masked.convert("L")) > 127
    alpha = np.ascontiguousarray(pixels[..., 3]) if mode.endswith("A") else None
    picture = Picture(np.ascontiguousarray(pixels[..., :3]), alpha, mode.startswith("L"), None)
    filled = fill_picture(lambda rgb, hole: inpainter(rgb, hole, region=region), picture, missing)
    result = Image.fromarray(filled.rgb)
    if filled.alpha is not None:
        result.putalpha(Image.fromarray(filled.alpha))
    out = io.BytesIO()
    result.convert(mode).save(out, "PNG")
    return out.getvalue()
