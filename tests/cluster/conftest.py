"""A real Ray cluster of this machine, one for all tests, and a server that speaks S3's interface."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

#: Logical CPUs of the cluster: two workers of one CPU, and two for Ray Data.
CLUSTER_CPUS = 4

#: The credentials of the S3 server of these tests, which accepts any.
S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


#: Ray's own credentials, for which Ray otherwise writes a file into the home folder.
SECRET = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def find_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the first of its processes."""

    address: str
    process: psutil.Process

    def find_workers(self) -> list[psutil.Process]:
        """Return the processes that fill pictures."""
        found = []
        for each in self.process.children(recursive=True):
            try:
                if "PictureWorker" in " ".join(each.cmdline()):
                    found.append(each)
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """The address of a server that need not run. It is known before the cluster starts, whose workers inherit it."""
    address = f"http://127.0.0.1:{find_port()}"
    before = {name: os.environ.get(name) for name in ("AWS_ENDPOINT_URL", *S3_VARIABLES, *SECRET)}
    os.environ.update({**S3_VARIABLES, **SECRET, "AWS_ENDPOINT_URL": address})
    yield address
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def cluster(s3_address) -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="glama-test-", dir="/tmp")  # Ray's sockets need a short path
    port = find_port()
    options = ["--head", "--block", f"--port={port}", f"--num-cpus={CLUSTER_CPUS}", "--include-dashboard=false"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, f"--temp-dir={folder}"]
    limits = {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **SECRET}
    with (Path(folder) / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **limits})
    try:
        wait_for_port(process, port, Path(folder) / "log.txt")
        yield Cluster(f"127.0.0.1:{port}", psutil.Process(process.pid))
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        for each in family:
            if each.is_running():
                each.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(process: subprocess.Popen, port: int, log: Path) -> None:
    import time

    for _ in range(600):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0 and "Ray runtime started" in log.read_text(encoding="utf-8"):
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text(encoding="utf-8"))


@pytest.fixture
def make_pictures(tmp_path) -> Callable[..., tuple[Path, Path]]:
    """A function that writes folders of pictures and masks, in several sizes and formats."""

    def make(
        count: int, size: int = 64, suffixes: tuple[str, ...] = ("png", "jpg", "tif", "webp")
    ) -> tuple[Path, Path]:
        rng = np.random.default_rng(0)
        images, masks = tmp_path / "images", tmp_path / "masks"
        images.mkdir()
        masks.mkdir()
        for number in range(count):
            height, width = (size, size + 24) if number % 2 else (size + 16, size)
            y, x = np.mgrid[0:height, 0:width]
            pixels = np.stack([2 * y, x + y, 255 - 2 * x], axis=2) + rng.normal(0, 8, (height, width, 3))
            suffix = suffixes[number % len(suffixes)]
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(images / f"{number:03}.{suffix}")
            mask = np.zeros((height, width), bool)
            mask[10:30, 10:40] = True
            Image.fromarray(mask).save(masks / f"{number:03}.png")
        return images, masks

    return make


@pytest.fixture
def fill(tiny_bundle, cluster) -> Callable[..., int]:
    """A function that runs glama-inpaint with the tiny network on the cluster."""
    from glama_deploy.cli.inpaint import main

    def run(*given: object, ray: bool = True) -> int:
        options = ["--model", tiny_bundle.path, "--compile-sizes", "never", "--threads", "1", "--backend", "openvino"]
        on_cluster = ["--ray", "--ray-address", cluster.address, "--workers", "2"] if ray else []
        return main.run([str(each) for each in (*options, *on_cluster, *given)])

    return run


def read_outputs(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "glama-run.json"
    }
