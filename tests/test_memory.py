"""What an image will take, held against what it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from glama_deploy import memory
from glama_deploy.bundle import Bundle
from glama_deploy.reference import checkpoint

SIDE = 768

#: Peak memory of a process with an open engine, before and after it fills an image.
PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np
import glama_deploy

def held():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

inpainter = glama_deploy.load(sys.argv[1], sys.argv[2], "fp32", 1)
side = int(sys.argv[3])
image, mask = np.zeros((side, side, 3), np.uint8), np.ones((side, side), bool)
mask[:8] = False
inpainter(image[:64, :64], mask[:64, :64])
before = held()
inpainter(image, mask, region="full")
print(held() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_embedded_network_takes_what_is_estimated(make_bundle, backend):
    bundle: Bundle = make_bundle(checkpoint.DEFAULT, ("onnx", "openvino"))
    command = [sys.executable, "-c", PROGRAM, str(bundle.path), backend, str(SIDE)]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    estimated = memory.estimate(SIDE, SIDE, bundle.manifest.network, backend=backend)
    # an estimate that is too low kills a process, one that is too high tiles what need not be
    assert taken <= estimated <= 2 * taken
