"""Commands whose output has no room, no reader, or an encoding that lacks characters; real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
NAMES = sorted(script.name for script in distribution("glama-deploy").entry_points)

#: Output is buffered, as it is for a user: PYTHONUNBUFFERED of the machine that tests would hide what fails at the end.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("option", ["--version", "--help"])
@pytest.mark.parametrize("environment", [BUFFERED, {**BUFFERED, "PYTHONUNBUFFERED": "1"}], ids=["buffered", "direct"])
def test_a_full_disk_under_standard_output_is_one_line(option, environment):
    with open("/dev/full", "wb") as full:
        child = subprocess.run(
            [BIN / "glama-masks", option], stdout=full, stderr=subprocess.PIPE, encoding="utf-8", env=environment
        )
    assert child.returncode == 2
    (line,) = child.stderr.splitlines()
    assert line.startswith("glama-masks: cannot ")
    assert "standard output: No space left on device" in line


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("option", ["--version", "--help"])
def test_a_closed_pipe_ends_a_command_with_exit_code_141(option):
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run(
        [BIN / "glama-masks", option], stdout=writing, stderr=subprocess.PIPE, encoding="utf-8", env=BUFFERED
    )
    os.close(writing)
    assert (child.returncode, child.stderr) == (141, "")


#: Each command's help, then a real run, in one process whose terminal can show ASCII alone.
EVERY_HELP = """
import sys
from importlib import import_module
for name in sys.argv[4:]:
    assert import_module("glama_deploy.cli." + name.removeprefix("glama-")).main.run(["--help"]) == 0, name
from glama_deploy.cli.export import main
command = ["--ckpt", sys.argv[1], "--out", sys.argv[2], "--target", "openvino", "--parity-size", "64x64", "--report"]
assert main.run(command) == 0
assert main.run(["--ckpt", sys.argv[3], "--out", sys.argv[2] + "2"]) == 2
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a locale and file names of POSIX")
def test_a_terminal_of_ascii_shows_help_tables_and_errors(tiny, tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    checkpoint = os.fsencode(tmp_path) + b"/photo\n\x1b[31m\xff\xc3\xa4[red].pt"
    child = subprocess.run(
        [sys.executable, "-c", EVERY_HELP, tiny, tmp_path / "b", checkpoint, *NAMES],
        env={**BUFFERED, **ascii_only},
        capture_output=True,
        check=False,
    )
    out, err = child.stdout.decode("ascii"), child.stderr.decode("ascii")  # raises for anything else
    assert child.returncode == 0, err
    assert out.count("Usage: glama") == len(NAMES)
    assert "data.train=[photos]" in out  # brackets in a help text are no markup
    assert "|>= 16x16 |" in out
    assert (tmp_path / "b" / "manifest.json").is_file()
    assert err.splitlines()[-1].startswith("glama-export: no checkpoint at ")
    assert r"/photo\n\x1b[31m\xff\xc3\xa4[red].pt; give a file" in err
