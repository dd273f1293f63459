"""The real Triton Inference Server of `make triton`, with its Python backend, on this machine's CPU."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: The environment that `make triton` makes, or another one with the same packages.
ENVIRONMENT = Path(os.environ.get("GLAMA_TRITON", Path(__file__).parents[1] / "build" / "triton"))

#: How long a server may take to start on a busy machine.
_START_SECONDS = 300


def find_packages() -> Path | None:
    """The folder of the packages of `make triton`."""
    return next(iter(ENVIRONMENT.glob("lib/python3*/site-packages")), None)


def why_absent() -> str:
    """Why the server cannot run here; empty where it can."""
    packages = find_packages()
    if packages is None:
        return f"Triton is not installed in {ENVIRONMENT.name} (make triton)"
    done = subprocess.run(["ldd", _find_stub(packages)], capture_output=True, text=True, env=_environment(packages))
    missing = [line.split()[0] for line in done.stdout.splitlines() if "not found" in line]
    if done.returncode or missing:
        return f"Triton's Python backend does not start here: {', '.join(missing) or done.stderr.strip()}"
    return ""


def _find_stub(packages: Path) -> Path:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return packages / "pytriton/tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"


def _environment(packages: Path) -> dict[str, str]:
    """The server's environment: the interpreter inside the server takes the packages of the first `python3` in PATH."""
    libraries = os.pathsep.join([str(packages / "nvidia_pytriton.libs"), os.environ.get("LD_LIBRARY_PATH", "")])
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "LD_LIBRARY_PATH": libraries, "PATH": path}


def run_in_environment(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python in the environment of `make triton`, which has tritonclient and Triton's messages."""
    command = [ENVIRONMENT / "bin" / "python", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")


def _find_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class TritonServer:
    """A server of repositories. Models that fail to load do not end it."""

    def __init__(self, repositories: Sequence[Path], folder: Path) -> None:
        packages = find_packages()
        assert packages is not None
        triton = packages / "pytriton" / "tritonserver"
        backend = folder / "backends" / "python"
        backend.mkdir(parents=True)
        for file in (*(triton / "backends" / "python").glob("*.*"), _find_stub(packages)):
            shutil.copy(file, backend)
        http, grpc = _find_ports(2)
        self.url, self.grpc = f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"
        command = [triton / "bin" / "tritonserver", *(f"--model-repository={each}" for each in repositories)]
        command += [f"--backend-directory={folder / 'backends'}", f"--http-port={http}", f"--grpc-port={grpc}"]
        command += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--allow-metrics=false"]
        command += ["--exit-on-error=false"]
        self._log = folder / "log.txt"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(packages))
        end = time.monotonic() + _START_SECONDS
        while not self._is_live():
            assert self._process.poll() is None, self.read_log()
            assert time.monotonic() < end, self.read_log()
            time.sleep(0.1)

    def read_log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _is_live(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/v2/health/live", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def list_models(self) -> dict[str, dict[str, Any]]:
        """The state of each model, and the reason of a failure."""
        request = urllib.request.Request(f"{self.url}/v2/repository/index", b"{}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {model["name"]: model for model in json.loads(answer.read())}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
