from __future__ import annotations

import signal
import subprocess
import sys

import pytest

#: An export that gets the signal from itself when the first engine is about to be built.
EXPORT_WITH_SIGNAL = """
import os, sys
from glama_deploy.engines import build
build_engine = build.build
number, folder, *command = sys.argv[1:]
def build_after_signal(*arguments, **options):
    assert any(name.startswith(".glama-") for name in os.listdir(folder))
    os.kill(os.getpid(), int(number))
    return build_engine(*arguments, **options)
build.build = build_after_signal
from glama_deploy.cli.export import main
main(command)
"""


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_an_export_leaves_nothing_behind(tiny, tmp_path, ending):
    """As a time limit, a service manager or a closed terminal sends it."""
    command = ["--ckpt", tiny, "--target", "trt-rtx", "--precision", "fp16", "--out", tmp_path / "b", "--no-parity"]
    started = [sys.executable, "-c", EXPORT_WITH_SIGNAL, str(int(ending)), tmp_path, *command]
    child = subprocess.run([*map(str, started)], stderr=subprocess.PIPE, text=True)
    assert child.returncode == 128 + ending, child.stderr
    assert f"ended by {ending.name}; nothing half-written is left" in child.stderr
    assert not list(tmp_path.iterdir())
