"""A signal ends `glama-inpaint` over a folder, also while images are being filled."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

#: The command itself, whose fills last far longer than the test waits.
PROGRAM = """
import time
from glama_deploy.cli.inpaint import main
from glama_deploy.inpainting.inpainter import Inpainter

plain = Inpainter.__call__

def slow(self, image, mask, **options):
    filled = plain(self, image, mask, **options)
    if image[0, 0, 0]:
        print("filling", flush=True)
        time.sleep(600)
    return filled

Inpainter.__call__ = slow
main()
"""


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "pictures that are done are kept: the same command fills the rest"),
        (signal.SIGTERM, 143, "nothing half-written is left"),
    ],
)
def test_a_signal_ends_a_folder_and_what_was_filled_is_written(tiny_bundle, tmp_path, wait_until, number, code, says):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[8:24, 8:24] = 255
    for place in range(4):  # the first is filled at once, the others are not
        Image.fromarray(np.full((48, 64, 3), place, np.uint8)).save(tmp_path / "images" / f"{place}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{place}.png")
    inputs = ["--image", tmp_path / "images", "--mask", tmp_path / "masks", "--model", tiny_bundle.path]
    command = [sys.executable, "-c", PROGRAM, *inputs, "--out", tmp_path / "out", "--threads", "1"]
    said, errors = tmp_path / "said.txt", tmp_path / "errors.txt"
    with said.open("wb") as output, errors.open("wb") as error_output:
        child = subprocess.Popen(command, stdout=output, stderr=error_output)
    try:
        wait_until(lambda: said.read_text() == "filling\n" or child.poll() is not None)
        assert child.poll() is None, errors.read_text()
        child.send_signal(number)
        wait_until(lambda: child.poll() is not None)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == code
    assert says in errors.read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.png"]
