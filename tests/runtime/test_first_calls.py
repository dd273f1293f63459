"""The first calls of an engine in two threads at once, each time in a fresh process.

One process in three waited for ever where the first call of OpenVINO came from two threads at once. GLAMA_STARTS sets
how many processes are started of each kind (`make starts`: 100, which took 2 to 11 minutes a kind on 2 busy cores).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from glama_deploy.network import NetworkConfig

#: A process that takes no CPU time for so many seconds waits for ever. A busy machine only makes a process slow.
SECONDS_WITHOUT_CPU = 60

#: Two threads that meet, and then call: one inpainter, or one each that they open first.
PROGRAM = """
import sys, threading
import numpy as np
import glama_deploy

path, *backends, opened = sys.argv[1:]
image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
mask[8:24, 8:24] = True
meeting, done = threading.Barrier(2), []
shared = glama_deploy.load(path, backends[0], streams=2) if opened == "before" else None

def call(backend):
    meeting.wait()
    inpainter = shared or glama_deploy.load(path, backend)
    inpainter(image, mask)
    done.append(backend)

threads = [threading.Thread(target=call, args=[backend]) for backend in backends]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(done) == 2
"""


#: Two threads with a size each, which compile their sizes under each other.
COMPILING_PROGRAM = """
import sys, threading
import numpy as np
import glama_deploy
from glama_deploy.runtime.openvino import compile_rule

compile_rule.FIRST_COMPILE_SECONDS = 1e-9  # a size is due at its second run
compile_rule.CompileRule.note_compile = lambda *_: None
compile_sizes = {"True": True, "None": None}[sys.argv[2]]
inpainter = glama_deploy.load(sys.argv[1], "openvino", threads=1, streams=2, compile_sizes=compile_sizes)
meeting, done = threading.Barrier(2), []

def is_compiled(side):
    return any(key and side in key for key in [*inpainter._runner._compiled])

def call(side):
    image, mask = np.full((64, side, 3), side, np.uint8), np.zeros((64, side), bool)
    mask[8:24, 8:24] = True
    meeting.wait()
    for _ in range(200):  # a thread does not wait for the other's compilation
        inpainter(image, mask, region="full")
        if is_compiled(side):
            done.append(side)
            return

threads = [threading.Thread(target=call, args=[side]) for side in (72, 80)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(done) == [72, 80]
"""


def starts(default: int) -> int:
    return int(os.environ.get("GLAMA_STARTS", default))


def is_hung(command: Sequence[str]) -> bool:
    """Run a command, which must succeed, and return whether the command had to be killed."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    process, cpu_seconds, since = psutil.Process(child.pid), -1.0, time.monotonic()
    while True:
        try:
            said = child.communicate(timeout=1)[1]
        except subprocess.TimeoutExpired:
            taken = process.cpu_times().user + process.cpu_times().system
            if taken > cpu_seconds:
                cpu_seconds, since = taken, time.monotonic()
            elif time.monotonic() - since > SECONDS_WITHOUT_CPU:
                child.kill()
                child.communicate()
                return True
        else:
            assert child.returncode == 0, said
            return False


def hung(commands: Sequence[Sequence[str]]) -> int:
    """Run the commands, two at a time, and return how many had to be killed. Each other one must succeed."""

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(is_hung, commands))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backends", "opened", "count"),
    [
        (("openvino", "openvino"), "before", 8),
        (("openvino", "openvino"), "in the thread", 4),
        (("onnxruntime", "onnxruntime"), "before", 3),
        (("onnxruntime", "onnxruntime"), "in the thread", 3),
        (("openvino", "onnxruntime"), "in the thread", 2),
        (("torch", "torch"), "in the thread", 2),
    ],
)
def test_two_threads_make_their_first_calls_at_once(tiny_bundle, tiny, backends, opened, count):
    pytest.importorskip(backends[0])
    pytest.importorskip(backends[1])
    model = tiny if "torch" in backends else tiny_bundle.path
    command = [sys.executable, "-c", PROGRAM, str(model), *backends, opened]
    assert hung([command] * starts(count)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("compile_sizes", [None, True])
def test_two_threads_compile_their_first_sizes_under_each_other(make_checkpoint, make_bundle, compile_sizes):
    pytest.importorskip("openvino")
    bundle = make_bundle(make_checkpoint(NetworkConfig(ngf=32, n_blocks=1)))
    command = [sys.executable, "-c", COMPILING_PROGRAM, str(bundle.path), str(compile_sizes)]
    assert hung([command] * starts(4)) == 0


@pytest.mark.slow
def test_a_folder_is_inpainted_in_a_fresh_process(tiny_bundle, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[8:24, 8:24] = 255
    for number in range(4):
        Image.fromarray(np.full((48, 64, 3), 60 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    program = "import sys; from glama_deploy.cli.inpaint import main; main()"
    inputs = ["--image", str(tmp_path / "images"), "--mask", str(tmp_path / "masks"), "--model", str(tiny_bundle.path)]
    outputs = [tmp_path / f"out-{number}" for number in range(starts(4))]
    assert hung([[sys.executable, "-c", program, *inputs, "--out", str(out)] for out in outputs]) == 0
    assert all(len(list(out.glob("*.png"))) == 4 for out in outputs)
