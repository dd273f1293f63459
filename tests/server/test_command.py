"""glama-serve in a process of its own: what it prints, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from glama_deploy.cli.serve import main

Start = Callable[..., "Process"]


class Process:
    """A server in a process of its own, and what it printed so far."""

    def __init__(self, *options: str, model: str, command: Sequence[str] = (), **environment: str) -> None:
        command = command or [sys.executable, "-c", "from glama_deploy.cli.start import serve; serve()"]
        self.child = subprocess.Popen(
            [*command, "--model", model, "--no-open", "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.said = ""
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.said += line
            if line.startswith("page: "):
                break
        # the pipe must not fill up
        self._rest = threading.Thread(target=self._read_rest)
        self._rest.start()

    def _read_rest(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.said += line

    @property
    def url(self) -> str:
        return re.search(r"listening at (\S+)", self.said)[1]  # type: ignore[index]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and the log of requests."""
        self.child.send_signal(number)
        assert self.child.stdout is not None
        log = self.child.stdout.read()
        code = self.child.wait(600)
        self._rest.join()
        return code, log


@pytest.fixture
def start(tiny_bundle) -> Iterator[Start]:
    started: list[Process] = []

    def begin(*options: str, model: str = f"tiny={tiny_bundle.path}", **more: Any) -> Process:
        started.append(Process(*options, model=model, **more))
        return started[-1]

    yield begin
    for process in started:
        if process.child.poll() is None:
            process.end(signal.SIGKILL)


def test_it_tells_the_address_and_the_engine_and_ends_at_sigterm(start):
    process = start()
    assert process.url.startswith("http://127.0.0.1:")
    assert "warning" not in process.said
    info = httpx.get(f"{process.url}/v1/info").json()
    assert (info["model"], info["models"]) == ("tiny", ["tiny"])
    assert f"ready: {info['engine']}" in process.said
    code, log = process.end()
    assert (code, process.said.splitlines()[-1]) == (0, "ended; all requests were answered")
    assert json.loads(log)["path"] == "/v1/info"


def test_a_published_model_is_downloaded_and_served_under_its_name(start, tiny, model_host, tmp_path):
    model = {"name": "little", "content": tiny.read_bytes(), "file": "little.safetensors"}
    catalogue = model_host.write_catalogue(tmp_path / "models.json", model)
    process = start(model="little", GLAMA_MODELS_CATALOGUE=str(catalogue))
    assert httpx.get(f"{process.url}/v1/info").json()["model"] == "little"
    assert "glama-serve: note: downloading little (" in process.said
    assert len(model_host.asked) == 1


def test_the_line_that_starts_iopaint_starts_the_server_with_iopaints_own_model(start, tiny, tmp_path):
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    shutil.copy(tiny, tmp_path / "torch/hub/checkpoints/big-lama.pt")
    glama = [sys.executable, "-m", "glama_deploy", "start"]
    process = start("--host", "127.0.0.1", "--device", "cpu", model="lama", command=glama, XDG_CACHE_HOME=str(tmp_path))
    info = httpx.get(f"{process.url}/v1/info").json()
    assert (info["model"], info["device"]) == ("lama", "cpu")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_begun_is_finished_and_streams_of_events_end(start, number, encode, wait_until):
    process = start("--queue", "2")
    photo = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    hole = np.zeros((600, 800), bool)
    hole[100:400, 100:500] = True
    files = {"image": ("a", encode(photo)), "mask": ("b", encode(hole))}
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(httpx.post(f"{process.url}/v1/inpaint", files=files, data={"region": "full"}, timeout=600))

    def have_begun() -> bool:
        done = len(answers)  # before the others are counted, so that no request counts twice
        queue = httpx.get(f"{process.url}/v1/info", timeout=600).json()["queue"]
        return done + queue["running"] + queue["length"] == 3

    with httpx.stream("GET", f"{process.url}/v1/events", timeout=600) as events:
        lines = (json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line.startswith("data"))
        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_until(have_begun)
        code, _ = process.end(number)
        assert all("queue" in state for state in lines)  # until the stream ends
    for thread in threads:
        thread.join()
    assert code == 0
    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_a_second_signal_ends_it_without_waiting_and_says_so(start, encode):
    process = start("--timeout", "86400")
    photo = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    hole = np.zeros((1500, 1500), bool)
    hole[100:1400, 100:1400] = True
    files = {"image": ("a", encode(photo)), "mask": ("b", encode(hole))}

    def send() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{process.url}/v1/inpaint", files=files, timeout=600)

    address = process.url.removeprefix("http://").split(":")
    with (
        socket.create_connection((address[0], int(address[1]))) as connection,
        httpx.stream("GET", f"{process.url}/v1/events", timeout=600) as events,
    ):
        # the body of this request never arrives, so that the server would wait for a day
        head = "POST /v1/inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10"
        connection.sendall(f"{head}\r\n\r\n".encode())
        lines = (json.loads(line.removeprefix("data: ")) for line in events.iter_lines() if line.startswith("data"))
        next(state for state in lines if state["queue"]["length"] == 1)
        thread = threading.Thread(target=send)
        thread.start()
        next(state for state in lines if state["queue"]["running"] == 1)
        process.child.send_signal(signal.SIGINT)
        assert all("queue" in state for state in lines)  # the stream ends with the first signal
        code, _ = process.end(signal.SIGINT)
        thread.join()
    assert code == 130
    assert process.said.splitlines()[-1] == "ended without waiting; requests that were begun are not answered"
    assert "Traceback" not in process.said


def test_the_space_ends_at_sigterm_while_a_client_follows_the_events():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = Path(__file__).parents[2] / "examples" / "space" / "app.py"
    command = [sys.executable, str(script)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PORT": str(port)})
    try:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready: ")
        with httpx.stream("GET", f"http://127.0.0.1:{port}/v1/events", timeout=600) as events:
            lines = events.iter_lines()
            assert next(lines).startswith("data: ")
            child.send_signal(signal.SIGTERM)
            assert all(line.startswith(("data: ", ":")) or not line for line in lines)  # until the stream ends
        assert child.wait(600) == 0
    finally:
        child.kill()


def test_it_warns_where_others_can_reach_it_without_a_token(start):
    assert "warning: other machines can use this server" in start("--host", "0.0.0.0").said
    assert "warning" not in start("--host", "0.0.0.0", GLAMA_TOKEN="secret").said


def test_the_address_of_the_page_has_the_token(start):
    process = start("--token", "a&b+c")
    page = re.search(r"page: (\S+)", process.said)[1]
    with httpx.Client(follow_redirects=False) as browser:
        assert browser.get(page).status_code == 303
        assert browser.get(f"{process.url}/v1/info").json()["token_required"]
    assert httpx.get(f"{process.url}/v1/info").status_code == 401
    _, log = process.end()
    assert "a&b" not in log
    assert "a%26b" not in log


def test_a_model_that_does_not_open_ends_the_server(start, tmp_path):
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    process = start(model=str(tmp_path / "damaged.pt"))
    assert process.child.wait(600) == 2
    process._rest.join()
    assert "damaged, truncated or not a checkpoint" in process.said.splitlines()[-1]


def refuse(capsys: pytest.CaptureFixture[str], *options: str | Path) -> str:
    """The one line with which the command refuses options."""
    assert main.run(["--no-open", *map(str, options)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_model_that_is_not_there_is_told_before_the_server_listens(capsys, tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("GLAMA_OFFLINE", "1")
    assert "no published model of this name" in refuse(capsys, "--model", "nosuch")
    assert "big-lama is not on this machine, and GLAMA_OFFLINE=1" in refuse(capsys, "--model", "big-lama")
    gone = tmp_path / "gone"
    assert f"no checkpoint at {gone}, and no bundle" in refuse(capsys, "--model", gone)
    assert f"no checkpoint at {gone}" in refuse(capsys, "--model", f"tiny={tiny_bundle.path}", "--model", f"b={gone}")


def test_what_cannot_work_is_refused_in_one_line(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = refuse(capsys, "--port", str(other.getsockname()[1]))
        assert re.search("cannot listen at 127.0.0.1 port .* in use; choose another --port", line)
    assert "check --host and --port" in refuse(capsys, "--host", "no.such.host.invalid")
    (tmp_path / "file").write_text("")
    assert "--output-dir" in refuse(capsys, "--output-dir", tmp_path / "file")
    assert "no picture or folder at --input" in refuse(capsys, "--input", tmp_path / "gone")
    assert "--token has spaces" in refuse(capsys, "--token", "a b")
    assert "has the name a of another model" in refuse(capsys, "--model", "a=x", "--model", "a=y")
    assert "has no name or no path" in refuse(capsys, "--model", "a=")


def test_without_its_packages_it_says_what_to_install(tmp_path):
    block = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "fastapi":
            raise ModuleNotFoundError("No module named 'fastapi' (blocked)", name=name)
sys.meta_path.insert(0, Block())
from glama_deploy.cli.start import serve
serve()
"""
    child = subprocess.run([sys.executable, "-c", block, "--no-open"], capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (
        2,
        "glama-serve: FastAPI is not installed; pip install 'glama-deploy[serve]'\n",
    )


def test_the_server_runs_without_pytorch(tiny_bundle):
    """Where bundles are served, PyTorch and ONNX are not installed."""
    code = """
import asyncio, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked)", name=name)
sys.meta_path.insert(0, Block())
from glama_deploy.server.app import make_app
from glama_deploy.server.settings import Settings
app = make_app(Settings(models={"tiny": sys.argv[1]}), on_ready=lambda text: print("ready:", text))
async def run():
    async with app.router.lifespan_context(app):
        while not app.state.server.engine.is_ready:
            await asyncio.sleep(0.01)
asyncio.run(run())
"""
    child = subprocess.run([sys.executable, "-c", code, str(tiny_bundle.path)], capture_output=True, text=True)
    assert child.stdout.startswith("ready: "), child.stderr
