"""A static host, as `python -m http.server` is one: files as they are, without headers of its own."""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class StaticHost:
    """Serves a folder until it is stopped. A CDN lets pages of other hosts read its files."""

    def __init__(self, folder: Path, *, is_cdn: bool = False) -> None:
        self.hold = threading.Event()  # clear it, and WebAssembly files wait
        self.hold.set()
        kind = type("Handler", (_OpenHandler if is_cdn else _QuietHandler,), {"hold": self.hold})
        handler = functools.partial(kind, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    hold: threading.Event

    def do_GET(self) -> None:
        if self.path.endswith(".wasm"):
            self.hold.wait()
        super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        """Write no line for each request."""


class _OpenHandler(_QuietHandler):
    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()
