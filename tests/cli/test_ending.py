"""The end of a command's process: what still runs, and what does not."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: A command whose module is `command`, and what it leaves for the end of the process.
PROGRAM = """
import atexit, sys, threading, time, types
from glama_deploy.cli.start import start

class Left:
    def __del__(self):
        print("taken apart", flush=True)

def finish():
    time.sleep(0.2)
    print("thread")

def main(*arguments):
    atexit.register(print, "handler")
    threading.Thread(target=finish).start()
    print("printed")
    END

left = Left()
sys.modules["glama_deploy.cli.command"] = types.SimpleNamespace(main=main)
start("command")
"""


def run(end: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM.replace("END", end)], capture_output=True, text=True)


@pytest.mark.parametrize(("end", "code"), [("sys.exit(0)", 0), ("sys.exit()", 0), ("sys.exit(3)", 3)])
def test_threads_handlers_and_output_are_waited_for_and_nothing_is_taken_apart(end, code):
    ended = run(end)
    assert (ended.returncode, ended.stdout.split("\n"), ended.stderr) == (
        code,
        ["printed", "thread", "handler", ""],
        "",
    )


def test_a_fault_of_the_command_ends_as_python_does():
    ended = run("raise ValueError('a fault')")
    assert ended.returncode == 1
    assert ended.stderr.endswith("ValueError: a fault\n")
    assert ended.stdout.endswith("handler\ntaken apart\n")
