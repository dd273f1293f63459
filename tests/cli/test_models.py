"""glama-models as a user meets it: tables, JSON, exit codes, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.model_host import Answer, ModelHost
from glama_deploy.cli.models import main

CONTENT = bytes(range(256)) * 100


@pytest.fixture(autouse=True)
def catalogue(model_host: ModelHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [{"name": name, "content": CONTENT + name.encode()} for name in ("one", "two")]
    models.append({"name": "three", "content": b"3", "size_bytes": 205_000_000, "is_size_exact": False})
    monkeypatch.setenv("GLAMA_MODELS_CATALOGUE", str(model_host.write_catalogue(tmp_path / "models.json", *models)))


def read_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main.run(arguments) == 0
    return json.loads(capsys.readouterr().out)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("glama-models: note: ")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("glama-models: ")
    return lines[0].removeprefix("glama-models: ")


def test_the_list_has_each_model_with_its_size_and_state(capsys, model_host):
    assert main.run(["pull", "two"]) == 0
    capsys.readouterr()
    assert main.run(["list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if " MB " in line]
    assert [row[0] for row in rows] == ["one", "two", "three"]
    assert " ".join(rows[0]) == "one 0.0 MB MIT no tests"
    assert " ".join(rows[1]) == "two 0.0 MB MIT downloaded tests"
    assert " ".join(rows[2]) == "three about 205 MB MIT no tests"


def test_the_list_in_json_has_all_fields(capsys, tmp_path):
    main.run(["pull", "two"])
    capsys.readouterr()
    models = {model["name"]: model for model in read_json(capsys, "list", "--json")["models"]}
    assert (models["one"]["state"], models["one"]["path"]) == ("absent", None)
    assert models["two"]["state"] == "downloaded"
    assert Path(models["two"]["path"]).is_relative_to(tmp_path / "cache" / "models")
    assert models["three"]["is_size_exact"] is False
    assert read_json(capsys, "show", "two", "--json") == models["two"]


def test_show_names_licence_page_addresses_and_place(capsys, model_host, tmp_path):
    assert main.run(["show", "one"]) == 0
    shown = capsys.readouterr().out
    for text in ("MIT", f"address  {model_host.url}/one.pt", f"page     {model_host.url}", str(tmp_path / "cache")):
        assert text in shown


def test_pull_prints_the_paths_and_path_finds_them_without_a_connection(capsys, model_host):
    assert main.run(["path", "one"]) == 2
    assert one_line(capsys) == "one is not on this machine; glama-models pull one downloads the file"
    assert main.run(["pull", "one", "two"]) == 0
    pulled = capsys.readouterr().out.splitlines()
    assert [Path(path).read_bytes() for path in pulled] == [CONTENT + b"one", CONTENT + b"two"]
    asked = len(model_host.asked)
    assert main.run(["path", "one"]) == 0
    assert capsys.readouterr().out.splitlines() == pulled[:1]
    assert main.run(["pull", "one"]) == 0
    assert len(model_host.asked) == asked


def test_remove_tells_what_was_removed(capsys, model_host, tmp_path):
    main.run(["pull", "one"])
    shared = tmp_path / "torch" / "hub" / "checkpoints" / "one.pt"
    shared.parent.mkdir(parents=True)
    shared.write_bytes(CONTENT + b"one")
    capsys.readouterr()
    assert main.run(["remove", "one", "two"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "one: removed, 0.0 MB",
        f"one: {shared} stays, because other programs use the file",
        "two: is not in the cache",
    ]
    assert shared.exists()
    assert not list((tmp_path / "cache").rglob("*.pt"))


def test_a_folder_of_the_same_name_does_not_hide_a_model(capsys, tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main.run(["pull", "one"]) == 0


# ---------------------------------------------------------------- bad input: one line, exit code 2, no model written


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pull", "ome"], "no published model is called ome; is one meant? glama-models list shows the names"),
        (["pull", "one", "nothing-like-it"], "no published model is called nothing-like-it; glama-models list shows"),
        (["show", "tow"], "no published model is called tow; is two meant?"),
        (["remove", "ome"], "no published model is called ome; is one meant?"),
        (["path", "s3://bucket/x.pt"], "s3://bucket/x.pt has the scheme s3; a path, a name"),
        (["pull", "https://192.0.2.1/x.pt"], "https://192.0.2.1/x.pt has no SHA-256"),
        (["pull", "http://192.0.2.1/x.pt#sha256=0"], "is not encrypted; use https"),
        (["show", "hf://owner/repo/x.pt"], "is an address; a name that glama-models list shows is expected"),
        (["remove", "hf://owner/repo/x.pt"], "is in the cache of huggingface_hub; remove the file with hf cache"),
        (["get", "one"], "No such command 'get'"),
        ([], "Missing command. (see glama-models --help)"),
        (["list", "--yaml"], "No such option: --yaml"),
    ],
)
def test_bad_input_is_one_line(capsys, model_host, tmp_path, arguments, says):
    assert main.run(arguments) == 2
    assert says in one_line(capsys)
    assert model_host.asked == []
    assert not (tmp_path / "cache").exists()


def test_a_wrong_hash_is_one_line(capsys, model_host, tmp_path):
    model_host.files["/one.pt"] = b"x" * len(CONTENT + b"one")
    assert main.run(["pull", "one"]) == 2
    said = one_line(capsys)
    assert said.startswith("one cannot be downloaded (127.0.0.1:")
    assert "is expected; the file is kept as " in said
    assert not list((tmp_path / "cache").rglob("*.pt"))


def test_no_network_is_one_line_that_says_what_to_do(capsys, model_host, tmp_path):
    model_host.stop()
    assert main.run(["pull", "one"]) == 2
    said = one_line(capsys)
    assert "Connection refused); check the network and the address, set GLAMA_MODELS_MIRROR, or put the file" in said
    assert str(tmp_path / "cache" / "models") in said


def test_offline_is_one_line(capsys, monkeypatch, model_host):
    monkeypatch.setenv("GLAMA_OFFLINE", "1")
    assert main.run(["pull", "one"]) == 2
    assert "one is not on this machine, and GLAMA_OFFLINE=1 forbids downloads; unset the variable, or" in one_line(
        capsys
    )
    assert model_host.asked == []


def test_a_host_without_the_file_is_one_line(capsys, model_host):
    model_host.script["/one.pt"] = [Answer(status=404)]
    assert main.run(["pull", "one"]) == 2
    assert "HTTP 404 Not Found" in one_line(capsys)


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs a folder in which not even root may write")
def test_a_cache_that_cannot_be_written_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("GLAMA_CACHE", "/proc/cache")
    assert main.run(["pull", "one"]) == 2
    assert "cannot write /proc/cache" in one_line(capsys)


def read_terminal(leader: int) -> str:
    """Return all that was written to a pseudo-terminal, once its other end is closed."""
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # Linux reports the closed end so
            chunk = b""
        if not chunk:
            return shown.decode()
        shown += chunk


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(model_host, tmp_path):
    """A pseudo-terminal is standard error; standard output stays the path alone."""
    command = [sys.executable, "-c", "from glama_deploy.cli.start import models; models()", "pull", "one"]
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with (tmp_path / "out").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=follower, env=environment)
    os.close(follower)
    shown = read_terminal(leader)
    os.close(leader)
    assert child.wait() == 0
    assert Path((tmp_path / "out").read_text().strip()).read_bytes() == CONTENT + b"one"
    assert "25.6/25.6 kB" in shown
    piped = subprocess.run([*command[:-1], "two"], capture_output=True, text=True)
    assert piped.stderr == f"glama-models: note: downloading two (0.0 MB) from {model_host.url}/two.pt\n"
