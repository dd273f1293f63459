"""What an installation takes on the disk, and how long it takes to a first picture: this package against PyTorch.

    python benchmarks/speed/footprint.py [--runs 5]

Each way in a virtual environment of its own, with the versions of constraints.txt, made anew by pip (it needs an
index, some minutes and 15 GB). The first picture is 256×256, by LaMa with 9 blocks, from the start of a process that
ran before: a bundle on OpenVINO, or a TorchScript file, which is how the popular inpainting apps ship it. The ways run
in turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from glama_deploy.benchmarks.bench.contenders import compose_network, trace_network
from glama_deploy.benchmarks.speed import cold_start
from glama_deploy.checkpoints import formats
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NAMED
from glama_deploy.reference.random_weights import untrained

ROOT = Path(__file__).resolve().parents[2]

#: The program of cold_start.py, for a TorchScript file.
TORCHSCRIPT = """
import sys
import numpy as np
import torch
network = torch.jit.load(sys.argv[1])
mask = np.zeros((256, 256), bool)
mask[100:150, 80:170] = True
image = torch.from_numpy(np.full((256, 256, 3), 128, np.uint8)).permute(2, 0, 1)[None].float() / 255
with torch.inference_mode():
    result = network(image, torch.from_numpy(mask)[None, None].float())
(result[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
"""


@dataclass(frozen=True)
class Way:
    """What is installed, and the program that is timed.

    Args:
        name: name in the results.
        packages: what pip installs.
        program: Python source; its argument is the network's file. Empty where only the disk is measured.
        kind: the kind of the network's file: `bundle` or `torchscript`.
    """

    name: str
    packages: tuple[str, ...]
    program: str = ""
    kind: str = ""


WAYS = (
    Way("glama-deploy[openvino]", (f"{ROOT}[openvino]",), cold_start.PROGRAM, "bundle"),
    Way("PyTorch, as pip installs it", ("torch", "numpy", "pillow"), TORCHSCRIPT, "torchscript"),
    Way("simple-lama-inpainting", ("simple-lama-inpainting",)),
)


def install_way(way: Way, folder: Path) -> Path:
    """Install a way in a new virtual environment.

    Args:
        way: what to install.
        folder: the folder of the environment.

    Returns:
        The path of its Python.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    # (an app's own pins are the app's)
    pins = ["--constraint", str(ROOT / "constraints.txt")] if way.program else []
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins, *way.packages]
    subprocess.run(command, check=True)
    return python


def measure_disk_bytes(folder: Path) -> int:
    """Measure the files of an environment, without pip.

    Args:
        folder: the folder of the environment.

    Returns:
        The bytes on the disk.
    """
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    pips = {path.name for path in folder.glob("lib/python*/site-packages/pip*")}
    return sum(path.stat().st_size for path in paths if pips.isdisjoint(path.parts))


def write_models(folder: Path) -> dict[str, Path]:
    """Write one network as a bundle and as TorchScript.

    Args:
        folder: gets both files.

    Returns:
        The paths by kind.
    """
    source = folder / "network.safetensors"
    formats.save(source, NAMED["lama"], untrained(NAMED["lama"]))
    export(Request(source, folder / "bundle", ("openvino",), parity=False))
    example = torch.rand(1, 3, 256, 256), torch.zeros(1, 1, 256, 256)
    (folder / "network.pt").write_bytes(trace_network(compose_network(source), *example))
    return {"bundle": folder / "bundle", "torchscript": folder / "network.pt"}


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GLAMA_CACHE"] = str(folder / "cache")
        pythons = {}
        for number, way in enumerate(WAYS):
            try:
                pythons[way] = install_way(way, folder / str(number))
            except subprocess.CalledProcessError:
                print(f"{way.name}: pip could not install it")
                continue
            print(f"{way.name}: {measure_disk_bytes(folder / str(number)) / 1e6:.0f} MB", flush=True)
        given = write_models(folder)
        seconds: dict[str, list[float]] = {}
        for _ in range(options.runs + 1):
            for way, python in pythons.items():
                if not way.program:
                    continue
                start = time.perf_counter()
                subprocess.run(
                    [str(python), "-W", "ignore", "-c", way.program, str(given[way.kind])], check=True, cwd=folder
                )
                seconds.setdefault(way.name, []).append(time.perf_counter() - start)
        for way_name, times in seconds.items():
            print(
                f"{way_name}: {statistics.median(times[1:]):.2f} s to the first picture (first start {times[0]:.2f} s)"
            )


if __name__ == "__main__":
    main()
