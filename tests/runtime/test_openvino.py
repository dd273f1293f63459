"""What OpenVINO does to the process that it runs in."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

LET_GO_IN_ANOTHER_THREAD = """
import gc, os, signal, sys, threading
import numpy, glama_deploy
signal.signal(signal.SIGUSR1, lambda *_: print("survived"))
held = [glama_deploy.load(sys.argv[1], "openvino")]
held[0](numpy.zeros((16, 16, 3), numpy.uint8), numpy.ones((16, 16), bool))
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is about POSIX signals, on Linux's signal stacks")
def test_a_signal_is_survived_after_another_thread_let_the_engine_go(tiny_bundle):
    child = subprocess.run(
        [sys.executable, "-c", LET_GO_IN_ANOTHER_THREAD, str(tiny_bundle.path)], capture_output=True, text=True
    )
    assert (child.returncode, child.stdout) == (0, "survived\n"), child.stderr
