"""glama-mcp in a process of its own, asked by the official SDK's client over standard input and output."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.cli.mcp import main as glama_mcp

mcp = pytest.importorskip("mcp")

COMMAND = [sys.executable, "-c", "from glama_deploy.cli.start import mcp; mcp()"]

#: What a test does with a client.
Talk = Callable[[Any], Awaitable[None]]


def talk(session: Talk, *options: object) -> None:
    """Start a server, connect the SDK's client, and run `session` with the client."""

    async def run() -> None:
        arguments = [*COMMAND[1:], *map(str, options)]
        server = mcp.StdioServerParameters(command=COMMAND[0], args=arguments, env=dict(os.environ))
        async with mcp.Client(mcp.stdio_client(server)) as client:
            await session(client)

    asyncio.run(run())


@pytest.fixture
def files(tmp_path: Path, photo: np.ndarray, hole: np.ndarray) -> dict[str, Path]:
    """A picture and a mask in a folder, and the path of an output."""
    paths = {name: tmp_path / f"{name}.png" for name in ("image", "mask", "output")}
    Image.fromarray(photo).save(paths["image"])
    Image.fromarray(hole).save(paths["mask"])
    return paths


@pytest.fixture
def model(tiny_bundle) -> str:
    return f"tiny={tiny_bundle.path}"


def send(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_a_client_sees_the_tools_and_fills_a_file(files, model, photo, hole, tiny_bundle):
    async def session(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"inpaint", "list_models"}
        assert tools["inpaint"].input_schema["required"] == ["image"]
        arguments = {name: str(path) for name, path in files.items()}
        done = await client.call_tool("inpaint", arguments)
        assert not done.is_error, done.content
        assert done.structured_content["path"] == str(files["output"])
        assert done.structured_content["filled_pixels"] == hole.sum()
        assert [content.type for content in done.content] == ["text"]
        filled = read(files["output"])
        assert np.array_equal(filled[~hole], photo[~hole])
        assert not np.array_equal(filled[hole], photo[hole])
        models = (await client.call_tool("list_models", {})).structured_content["result"]
        assert models == [
            {"name": "tiny", "is_default": True, "engine": done.structured_content["engine"]},
            {"name": "again", "is_default": False, "engine": None},
        ]
        again = {**arguments, "model": "again", "overwrite": True}
        assert not (await client.call_tool("inpaint", again)).is_error
        assert np.array_equal(read(files["output"]), filled)

    talk(session, "--model", model, "--model", f"again={tiny_bundle.path}")


def test_a_picture_that_is_sent_comes_back(files, model, photo, hole):
    async def session(client: Any) -> None:
        await client.call_tool("inpaint", {name: str(path) for name, path in files.items()})
        sent = await client.call_tool("inpaint", {"image": send(files["image"]), "mask": send(files["mask"])})
        picture, text = sent.content
        assert (picture.type, picture.mime_type, text.type) == ("image", "image/png", "text")
        back = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))))
        assert np.array_equal(back, read(files["output"]))
        boxes = await client.call_tool(
            "inpaint", {"image": str(files["image"]), "boxes": [[30, 20, 40, 30]], "grow": 2}
        )
        back = np.asarray(Image.open(io.BytesIO(base64.b64decode(boxes.content[0].data))))
        changed = (back != photo).any(axis=2)
        rows, columns = np.nonzero(changed)
        assert boxes.structured_content["filled_pixels"] >= 40 * 30
        assert rows.min() >= 18
        assert rows.max() < 52
        assert columns.min() >= 28
        assert columns.max() < 72

    talk(session, "--model", model)


def test_bad_input_is_an_error_of_one_line_and_changes_no_file(files, model, tmp_path):
    before = {path: path.read_bytes() for path in (files["image"], files["mask"])}
    image, mask, outside = str(files["image"]), str(files["mask"]), tmp_path.parent / "outside.png"
    link = tmp_path / "link.png"
    link.symlink_to("/etc/passwd")
    circle = tmp_path / "circle.png"
    circle.symlink_to(circle)
    both = {"image": image, "mask": mask}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"image": image}, "neither `mask` nor boxes are given"),
        ({"mask": mask}, "the argument `image` of inpaint: field required"),
        ({**both, "grow": "much"}, "the argument `grow` of inpaint: "),
        ({**both, "output": image}, "exists already"),
        ({**both, "overwrite": True}, "`overwrite` is set without `output`"),
        ({**both, "output": str(tmp_path / "a.gif")}, "has the suffix '.gif'"),
        ({**both, "output": str(tmp_path / "no" / "a.png")}, "a folder that does not exist"),
        ({**both, "output": str(tmp_path)}, "is not a file"),
        ({**both, "output": str(outside)}, "lies outside of"),
        ({**both, "image": str(link)}, "lies outside of"),
        ({**both, "image": str(circle)}, "circle.png"),
        ({**both, "image": f"{image}\nand more"}, "is not a file"),
        ({**both, "image": "image.png"}, "is not an absolute path"),
        ({**both, "image": f"{tmp_path}/../../etc/passwd"}, "lies outside of"),
        ({**both, "image": "/9j/" + "4AAQ" * 2000}, "send a file as a data URL"),
        ({**both, "image": "data:image/png;base64,AAAA"}, "is not a supported image"),
        ({**both, "image": "data:image/png,AAAA"}, "data URL without base64"),
        ({**both, "image": "https://host/a.png"}, "download the file first"),
        ({**both, "image": f"{image}\0"}, "is not a path"),
        ({**both, "feather": 3}, "inpaint has no argument `feather`; it takes image, mask, boxes, grow"),
        ({**both, "model": "other"}, "no `model` is called other"),
        ({"image": image, "boxes": [[500, 500, 5, 5]]}, "lies outside"),
        ({"image": image, "boxes": [[1, 2, 3]]}, "the argument `boxes.0` of inpaint: "),
    ]

    async def session(client: Any) -> None:
        for arguments, fault in cases:
            done = await client.call_tool("inpaint", arguments)
            (content,) = done.content
            assert done.is_error, arguments
            assert fault in content.text, (arguments, content.text)
            assert "\n" not in content.text

    talk(session, "--model", model, "--root", tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle.png", "image.png", "link.png", "mask.png"]
    assert not outside.exists()


def test_a_file_that_appears_during_the_call_is_not_replaced(files, tiny_bundle):
    """Two calls may name one output, and the second waits for the engine."""
    from mcp.server.mcpserver.exceptions import ToolError

    from glama_deploy.integrations.mcp_server import Models, Places, Tools

    class Interrupted(Models):
        @contextmanager
        def use(self, name: str | None) -> Iterator[glama_deploy.Inpainter]:
            with super().use(name) as inpainter:
                files["output"].write_bytes(b"of the other call")
                yield inpainter

    tools = Tools(Interrupted({"tiny": str(tiny_bundle.path)}, glama_deploy.load), Places())
    with pytest.raises(ToolError, match="exists already"):
        tools.inpaint(**{name: str(path) for name, path in files.items()})
    assert files["output"].read_bytes() == b"of the other call"


class Child:
    """A server whose lines a test writes and reads itself."""

    def __init__(self, *options: str) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([*COMMAND, *options], **pipes, encoding="utf-8")  # type: ignore[call-overload]
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self.greeting = self.ask("initialize", hello)
        self.write({"method": "notifications/initialized"})

    def write(self, message: dict[str, Any]) -> None:
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and read one line, which must be the answer."""
        self.write({"id": method, "method": method, "params": params})
        answer = json.loads(self.process.stdout.readline())
        assert answer["id"] == method
        return answer["result"]


def test_standard_output_has_nothing_but_the_protocol(files, model):
    """Notes of the library and of the command go to standard error."""
    child = Child("--model", model, "--verbose")
    assert child.greeting["serverInfo"]["name"] == "glama-deploy"
    arguments = {"image": str(files["image"]), "boxes": [[100, 80, 50, 50]]}
    answer = child.ask("tools/call", {"name": "inpaint", "arguments": arguments})
    assert answer.get("isError") is not True
    rest, said = child.process.communicate(timeout=60)  # closes standard input, and so ends the server
    assert (rest, child.process.returncode) == ("", 0)
    assert "ready for a client on standard input; models: tiny" in said
    assert "is clipped to" in said  # a note of the library


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_server(model, number, code):
    child = Child("--model", model)
    child.process.send_signal(number)
    assert child.process.wait(60) == code
    assert "Traceback" not in child.process.stderr.read()


def test_an_sdk_of_version_1_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)  # version 1 does not have the module
    assert glama_mcp.run([]) == 2
    assert capsys.readouterr().err == (
        "glama-mcp: version 2 of the MCP SDK is not installed; pip install 'glama-deploy[mcp]'\n"
    )


def test_wrong_options_end_before_a_client_waits(tmp_path, capsys):
    for options, fault in (
        (["--root", tmp_path / "absent"], "is not a folder"),
        (["--model", tmp_path / "absent.pt"], "no checkpoint at"),
        (["--model", "a=default", "--model", "a=default"], "has the name a of another model"),
    ):
        assert glama_mcp.run(list(map(str, options))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("glama-mcp: ")
        assert fault in line
