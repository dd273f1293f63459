from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_an_export_leaves_nothing_behind(tiny, tmp_path, ending, wait_until):
    """As a time limit, a service manager or a closed terminal sends it."""
    command = ["--ckpt", tiny, "--target", "trt-rtx", "--precision", "fp16", "--out", tmp_path / "b", "--no-parity"]
    code = "import sys; from glama_deploy.cli.export import main; main(sys.argv[1:])"
    child = subprocess.Popen([sys.executable, "-c", code, *map(str, command)], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(tmp_path.glob(".glama-*")))
    time.sleep(0.3)
    child.send_signal(ending)
    _, said = child.communicate(timeout=600)
    assert child.returncode == 128 + ending
    assert f"ended by {ending.name}; nothing half-written is left" in said
    assert not list(tmp_path.iterdir())
