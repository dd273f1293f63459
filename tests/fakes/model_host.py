"""A host of model files with real HTTP: ETags, ranges, and answers that a test scripts."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: The commit of every repository of a host that is a hub.
HUB_COMMIT = "0123456789abcdef" * 2 + "01234567"


@dataclass(frozen=True)
class Answer:
    """How one request is answered, in place of the ordinary answer.

    Attributes:
        status: the status; 200 stands for an ordinary answer, with or without a range.
        headers: more headers.
        cut_after: bytes of the body after which the connection is closed; None: the whole body is sent.
        takes_ranges: whether the request's range is obeyed.
        names_mark: whether the answer has an ETag.
        waits: an event that is waited for once the (cut) body is sent.
        pauses: seconds between the first pieces of the body, which have 1,000 bytes each.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    takes_ranges: bool = True
    names_mark: bool = True
    waits: threading.Event | None = None
    pauses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Request:
    """A request that came.

    Attributes:
        path: the path.
        headers: the headers.
    """

    path: str
    headers: dict[str, str]


class ModelHost:
    """Serves files from memory until it is stopped. The answers of a path's script come before ordinary answers.

    With `is_hub`, answers have the headers of the Hugging Face Hub.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[Answer]] = {}
        self.asked: list[Request] = []
        self.is_hub = False
        handler = type("Handler", (_Handler,), {"host": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def ranges(self) -> list[str | None]:
        """The range of each request that came."""
        return [request.headers.get("range") for request in self.asked]

    def write_catalogue(self, path: Path, *models: dict[str, Any]) -> Path:
        """Write a catalogue. A model needs a name and its content; a file of the name is served."""
        records = []
        for model in models:
            content = model["content"]
            file = model.get("file", f"{model['name']}.pt")
            self.files[f"/{file}"] = content
            record = {
                "name": model["name"],
                "good_at": "tests",
                "licence": "MIT",
                "page": self.url,
                "file": file,
                "size_bytes": len(content),
                "is_size_exact": True,
                "sha256": hashlib.sha256(content).hexdigest(),
                "urls": [f"{self.url}/{file}"],
            }
            records.append(record | {name: model[name] for name in record if name in model})
        path.write_text(json.dumps({"models": records}), encoding="utf-8")
        return path


class _Handler(BaseHTTPRequestHandler):
    host: ModelHost
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.host.asked.append(Request(self.path, headers))
        answers = self.host.script.get(self.path, [])
        answer = answers.pop(0) if answers else Answer()
        content = self.host.files.get(self.path)
        if answer.status != 200 or content is None:
            missing = {"X-Error-Code": "EntryNotFound"} if self.host.is_hub else {}
            self._send_status(answer.status if answer.status != 200 else 404, missing | answer.headers)
            return
        mark = f'"{hashlib.sha256(content).hexdigest()}"'
        begin = 0
        found = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        if found and answer.takes_ranges and headers.get("if-range", mark) == mark:
            begin = int(found[1])
            if begin >= len(content):
                self._send_status(416, {"Content-Range": f"bytes */{len(content)}"})
                return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if answer.names_mark:
            self.send_header("ETag", mark)
        if self.host.is_hub:
            self.send_header("X-Repo-Commit", HUB_COMMIT)
        for name, value in {"Content-Length": str(len(content) - begin), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(content[begin:], answer)

    do_HEAD = do_GET

    def _send_body(self, body: bytes, answer: Answer) -> None:
        try:
            sent = 0
            for pause in answer.pauses:
                self.wfile.write(body[sent : sent + 1000])
                self.wfile.flush()
                sent += 1000
                time.sleep(pause)
            self.wfile.write(body[sent : answer.cut_after])
            self.wfile.flush()
        except ConnectionError:  # the client gave up
            pass
        if answer.waits is not None:
            answer.waits.wait()
        if answer.cut_after is not None:
            self.close_connection = True

    def _send_status(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Write no line for each request."""
