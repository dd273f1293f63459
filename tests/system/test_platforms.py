"""Windows and macOS lack what Linux has: the package is imported and fills an image without those pieces."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Takes away what other systems lack. Third-party packages are imported first, because on this system they use it.
WITHOUT = """
import importlib, os, pkgutil, signal, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for module, names in ((os, ("fork", "sched_getaffinity", "getloadavg", "getuid", "geteuid")),
                      (signal, ("SIGHUP", "pthread_sigmask", "SIGKILL", "SIGUSR1"))):
    for name in names:
        delattr(module, name)
import psutil
del psutil.Process.cpu_affinity  # macOS has none

def refuse(event, arguments):
    path = arguments[0] if event in ("open", "os.listdir") else None
    if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(("/proc", "/sys")):
        frame = sys._getframe(1)
        while frame and "psutil" not in frame.f_code.co_filename:  # which has its own way on each system
            frame = frame.f_back
        if frame is None:
            raise FileNotFoundError(path)
sys.addaudithook(refuse)

import glama_deploy
for module in pkgutil.walk_packages(glama_deploy.__path__, "glama_deploy."):
    importlib.import_module(module.name)
"""

#: Third-party packages that the package's modules import.
THIRD_PARTY = """
cv2 filelock jinja2 lightning_fabric matplotlib.figure ml_dtypes nncf numpy onnx onnxruntime openvino PIL.Image
platformdirs psutil pydantic rich.progress scipy.interpolate torch.utils.data torch.utils.tensorboard
torch_fidelity torchmetrics.image torchvision typer yaml concurrent.futures.process
"""

RUN = """
import numpy as np
from glama_deploy import memory
from glama_deploy.system import processors
from glama_deploy.benchmarks.bench import machine
from glama_deploy.benchmarks.bench import contenders
from glama_deploy.cli.inpaint import main
from PIL import Image

folder = sys.argv[1]
image, mask = np.full((40, 48, 3), 128, np.uint8), np.zeros((40, 48), np.uint8)
mask[8:16, 8:16] = 255
Image.fromarray(image).save(f"{folder}/image.png")
Image.fromarray(mask).save(f"{folder}/mask.png")
command = ["--image", f"{folder}/image.png", "--mask", f"{folder}/mask.png", "--out", f"{folder}/out.png"]
assert main.run([*command, "--model", os.environ["BUNDLE"]]) == 0
assert (np.asarray(Image.open(f"{folder}/out.png"))[mask == 0] == 128).all()
assert memory.available() > 0
assert processors.count_processors() == psutil.cpu_count()
assert "cores" in machine.describe_machine()
assert contenders.read_peak_bytes() >= 0
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there the pieces are missing anyway")
def test_every_module_is_imported_and_an_image_filled_without_the_pieces_of_linux(tiny_bundle, tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", WITHOUT + RUN, str(tmp_path), *THIRD_PARTY.split()],
        env={**os.environ, "BUNDLE": str(tiny_bundle.path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert (tmp_path / "out.png").is_file()
