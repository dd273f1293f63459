"""No engine reports its use: no connection is opened, and nothing is written outside of the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INPAINT = """
import sys
import numpy as np
import glama_deploy

image, mask = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), bool)
mask[8:24, 8:24] = True
glama_deploy.load(sys.argv[1], sys.argv[2])(image, mask)
"""

#: NNCF keeps silent under pytest alone; the program here is not under pytest.
IMPORT_NNCF = "import glama_deploy, nncf"


def run(program: str, *arguments: str, home: Path, trace: Path | None = None) -> None:
    """Run a program with an empty home folder, in which the folder of temporary files is, too.

    With `trace`, the program runs under strace, which writes the program's calls to that file.
    """
    (home / "tmp").mkdir(parents=True)
    dropped = ("GLAMA_CACHE", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "CI", "TF_BUILD", "JENKINS_URL")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    watched = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace)] if trace else []
    command = [*watched, sys.executable, "-c", program, *arguments]
    env |= {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run(command, capture_output=True, text=True, env=env)
    assert child.returncode == 0, child.stderr


def written(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())


def internet(trace: Path) -> list[str]:
    """The traced calls that name an internet address family."""
    return re.findall(r".*AF_INET.*", trace.read_text(encoding="utf-8", errors="replace"))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_home_folder_stays_empty_but_for_the_cache(tiny_bundle, tmp_path, backend):
    pytest.importorskip(backend)
    run(INPAINT, str(tiny_bundle.path), backend, home=tmp_path / "home")
    assert [name for name in written(tmp_path / "home") if not name.startswith(".cache/glama-deploy/")] == []


def test_nncf_leaves_the_home_folder_empty(tmp_path):
    pytest.importorskip("nncf")
    run(IMPORT_NNCF, home=tmp_path / "home")
    assert written(tmp_path / "home") == []


def can_trace() -> bool:
    """Return whether strace is installed and may trace a process here."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_no_internet_socket_is_opened(tiny_bundle, tmp_path, backend):
    pytest.importorskip(backend)
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace processes here")
    trace = tmp_path / "trace"
    run(INPAINT, str(tiny_bundle.path), backend, home=tmp_path / "home", trace=trace)
    assert internet(trace) == []


def test_nncf_opens_no_internet_socket(tmp_path):
    pytest.importorskip("nncf")
    if not can_trace():
        pytest.skip("strace is not installed, or may not trace processes here")
    trace = tmp_path / "trace"
    run(IMPORT_NNCF, home=tmp_path / "home", trace=trace)
    assert internet(trace) == []


def test_huggingface_hub_reports_nothing():
    pytest.importorskip("huggingface_hub")
    program = "import glama_deploy, huggingface_hub.constants as c; print(c.HF_HUB_DISABLE_TELEMETRY)"
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    child = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "True"
