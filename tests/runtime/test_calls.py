"""The end of a process while a thread is inside an engine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading, time
import numpy as np
import glama_deploy

inpainter = glama_deploy.load(sys.argv[1], sys.argv[2])
image, mask = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), bool)
mask[8:200, 8:200] = True
plain, inside = inpainter._runner.run_window, threading.Event()

def run(*arguments):
    inside.set()
    time.sleep(0.2)  # the main thread ends meanwhile
    return plain(*arguments)

def call():
    try:
        while True:
            inpainter(image, mask, region="full")
    except glama_deploy.EngineError as error:
        assert "the process is ending" in str(error), error

inpainter._runner.run_window = run
threading.Thread(target=call, daemon=True).start()
inside.wait()
print("the main thread ends")
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_process_ends_well_while_a_daemon_thread_is_in_a_call(tiny_bundle, backend):
    pytest.importorskip(backend)
    command = [sys.executable, "-c", PROGRAM, str(tiny_bundle.path), backend]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout == "the main thread ends\n"


FORK = """
import os, threading
from glama_deploy.runtime.calls import native_call

inside, end = threading.Event(), threading.Event()

def call():
    with native_call():
        inside.set()
        end.wait()

threading.Thread(target=call).start()
inside.wait()
if child := os.fork():
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    end.set()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_its_parents_calls():
    child = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120)
    assert child.stdout == "0\n", child.stderr
