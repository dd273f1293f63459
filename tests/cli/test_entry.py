from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import glama_deploy
from glama_deploy.cli.build import main as glama_build
from glama_deploy.cli.entry import Command
from glama_deploy.cli.export import main as glama_export
from glama_deploy.cli.masks import main as glama_masks
from glama_deploy.errors import GlamaError

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


#: Runs first in a process: a SIGINT arrives when the module whose name is in the environment is imported.
INTERRUPT = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("module", "codes"),
    [
        ("glama_deploy.cli.entry", [-signal.SIGINT]),  # the imports of the command
        ("numpy", [-signal.SIGINT]),
        ("glama_deploy.export.graph.network", [130]),  # imports that the command makes at work
        ("openvino", [130]),
    ],
)
@pytest.mark.parametrize("command", [["glama-export"], ["glama", "export"]], ids=" ".join)
def test_an_interrupt_during_imports_prints_no_traceback(tiny, tmp_path, module, codes, command):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT, encoding="utf-8")
    command = [Path(sys.executable).parent / command[0], *command[1:], "--ckpt", tiny, "--out", tmp_path / "b"]
    child = subprocess.run(
        [*command, "--no-parity", "--target", "openvino"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "INTERRUPTED": module},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert child.returncode in codes, child.stderr
    assert "Traceback" not in child.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sitecustomize.py"]


@pytest.mark.parametrize(
    "error", [ImportError("numpy._core failed"), RuntimeError("interrupted"), KeyboardInterrupt(), GlamaError("wrong")]
)
def test_an_interrupt_that_a_library_turns_into_an_error_stays_an_interrupt(capsys, error):
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    assert Command("glama-test", command).run([]) == 130
    assert capsys.readouterr().err == "glama-test: interrupted; nothing half-written is left\n"


def test_a_path_of_thousands_of_characters_is_one_short_line(capsys):
    for command, option in ((glama_export, "--ckpt"), (glama_export, "--out"), (glama_masks, "--out")):
        others = ["--ckpt", "default", "--out", "b"] if command is glama_export else []
        assert command.run([*others, option, "p" * 5000 + ".png"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "p..." in error or "p…" in error
        assert len(error) < 300
    assert glama_build.run(["p" * 5000, "--target", "openvino"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(GlamaError, match="File name too long"):
        glama_deploy.load("p" * 5000)
