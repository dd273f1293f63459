"""No helper process runs a file of the current folder."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from glama_deploy.bundle import Bundle
from glama_deploy.engines.tensorrt import builder as tensorrt
from glama_deploy.errors import GlamaError
from glama_deploy.system.spawning import check_folder, protect_worker_start

#: Modules that helper processes import first: of Python, of the dependencies, and the project itself.
NAMES = (
    "json",
    "secrets",
    "inspect",
    "signal",
    "pickle",
    "socket",
    "multiprocessing",
    "pydantic",
    "numpy",
    "tensorrt_rtx",
)

#: Starts a process as glama-eval and glama-bench do.
SPAWN = """
import multiprocessing
from glama_deploy.system.spawning import outside_current_folder
if __name__ == "__main__":
    with outside_current_folder():
        process = multiprocessing.get_context("spawn").Process(target=print, args=("it ran",))
        process.start()
    process.join()
    print("exit code", process.exitcode)
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder with modules that tell that they were run, and with an empty package of the project's name."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in NAMES:
        text = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit('ran {name}')\n"
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "glama_deploy").mkdir()
    (folder / "glama_deploy" / "__init__.py").write_text("", encoding="utf-8")
    return folder


def test_the_process_that_builds_an_engine_runs_no_file_of_the_current_folder(tiny, make_bundle, trap, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, trap / "b")
    command = [Path(sys.executable).parent / "glama-build", "b", "--target", "trt-rtx", "--max-size", "512x512"]
    done = subprocess.run(command, cwd=trap, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tensorrt-rtx" in Bundle.open(trap / "b").manifest.engines
    assert not (tmp_path / "ran").exists()


def test_a_process_of_multiprocessing_runs_no_file_of_the_current_folder(trap, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "program.py").write_text(SPAWN, encoding="utf-8")
    command = [sys.executable, tmp_path / "elsewhere" / "program.py"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=trap, env=environment, capture_output=True, text=True, check=False)
    if sys.version_info < (3, 11):
        assert "has the name of a module of Python" in done.stderr
    else:
        assert done.stdout.splitlines() == ["it ran", "exit code 0"], done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_python_3_10_would_run_files_of_is_refused(trap, tmp_path):
    with pytest.raises(GlamaError, match=r"inspect\.py has the name of a module of Python, and helper processes"):
        check_folder(trap)
    (tmp_path / "json").mkdir()  # no package: Python prefers its own module
    (tmp_path / "signal.txt").write_text("", encoding="utf-8")
    check_folder(tmp_path)


@pytest.mark.parametrize(("method", "count"), [("spawn", 0), ("fork", 2), ("spawn", 2)])
def test_a_folder_is_refused_only_where_workers_look_for_modules(trap, monkeypatch, method, count):
    monkeypatch.chdir(trap)
    monkeypatch.setattr(sys, "version_info", (3, 10))
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    refused = pytest.raises(GlamaError, match="has the name of a module of Python")
    with refused if (method, count) == ("spawn", 2) else nullcontext(), protect_worker_start(count):
        pass


def test_the_builder_finds_modules_where_this_process_does_and_last_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "/first", str(tmp_path), "/it's second"])
    found = ["/first", "/it's second", str(tmp_path)]
    assert tensorrt._child_program().startswith(f"import sys; sys.path[:] = {found!r}; ")
    monkeypatch.setattr(sys, "path", ["/first"])
    assert "sys.path[:] = ['/first'];" in tensorrt._child_program()
