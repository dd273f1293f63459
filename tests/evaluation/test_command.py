"""`glama-eval`: what is printed, and bad input."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from glama_deploy.cli.eval import main


def test_the_command_prints_the_table_and_names_metrics_without_weights(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ["--data", str(photos), "--model", "telea", "--masks", "Expand", "--out", str(tmp_path / "out")]
    assert main.run([*arguments, "--size", "32x40", "--limit", "2", "--processes", "1"]) == 0
    said = capsys.readouterr()
    assert "PSNR (dB), missing pixels" in said.out
    assert "index.html" in said.out
    assert "glama-eval: fid is not computed" in said.err


def test_failed_images_are_named_on_standard_error(photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    arguments = ["--data", str(tmp_path / "photos"), "--model", "telea", "--masks", "Expand", "--metric", "l1"]
    assert main.run([*arguments, "--size", "32x40", "--out", str(tmp_path / "out"), "--processes", "1"]) == 2
    said = capsys.readouterr()
    assert_one_line(said.err, "broken.jpg is not a supported image, or is damaged")
    assert "broken.jpg" not in said.out
    assert "L1" in said.out


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--masks", "Expandd"], "did you mean 'Expand'"),
        (["--metric", "mse"], "unknown metric 'mse'"),
        (["--model", "gone.pt"], "no bundle or checkpoint at gone.pt"),
        (["--reference", "gone"], "one of the methods is expected: telea"),
        (["--weights", "gone"], "--weights gone is no folder"),
        (["--region", "half"], "--region is 'half'"),
        (["--size", "30x30"], "multiples of 8"),
        (["--data", "gone"], "--data gone is no folder"),
        (["--data", "z" * 5000], "z… (5000 characters): File name too long"),
        (["--model", "z" * 5000], "z… (5000 characters): File name too long"),
        (["--data", "a/b=."], "is called 'a/b', as no file may be"),
        (["--device", "foo"], "--device is 'foo'; cpu, cuda or cuda:N is expected"),
        (["--device", "cuda:99"], "GPUs; use --device cpu"),
        (["--model", "telea@torch"], "telea runs on no engine"),
        (["--model", "truth=telea"], "a method is called 'truth'"),
        (["--model", "default@"], "--model is 'default@'; [NAME=]MODEL[@BACKEND[/PRECISION]] is expected"),
        (["--model", "=default"], "--model is '=default'; [NAME=]MODEL[@BACKEND[/PRECISION]] is expected"),
        (["--model", "mask=telea"], "a method is called 'mask'"),
        (["--size", "8x8"], "multiples of 8 from 16 to 16384"),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, capsys, changes, says):
    arguments = ["--data", str(photos), "--model", "telea", "--out", str(tmp_path / "out")]
    assert main.run([*arguments, *changes]) == 2
    assert_one_line(capsys.readouterr().err, says)
    assert not (tmp_path / "out").exists()


def assert_one_line(err: str, says: str) -> None:
    """That this is all that was said, but for a note of what was going on."""
    lines = [line for line in err.splitlines() if line.strip() and not line.startswith("opening the models")]
    assert len(lines) == 1
    assert lines[0].startswith("glama-eval: ")
    assert says in lines[0]


def test_results_in_the_data_are_refused(photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    arguments = ["--data", str(tmp_path / "photos"), "--model", "telea", "--out", str(tmp_path / "photos" / "out")]
    assert main.run(arguments) == 2
    assert_one_line(capsys.readouterr().err, "all of which is evaluated; choose another folder")
    assert not (tmp_path / "photos" / "out").exists()


def test_unreadable_results_are_an_error_of_one_line(photos, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--data", str(photos), "--model", "telea", "--masks", "Expand", "--metric", "psnr"]
    arguments += ["--processes", "1", "--out", str(out)]
    assert main.run(arguments) == 0
    capsys.readouterr()
    (out / "protocol.json").write_bytes(b"\xff\xfe")
    assert main.run(arguments) == 2
    assert_one_line(capsys.readouterr().err, "protocol.json is damaged or of another version")
    file = tmp_path / "file"
    file.touch()
    assert main.run([*arguments[:-1], str(file)]) == 2
    assert_one_line(capsys.readouterr().err, "a file of that name is in the way; choose another place")


def test_arguments_are_refused_before_the_imports_that_take_seconds(tmp_path):
    code = """
import sys
from glama_deploy.cli.eval import main
code = main.run(["--data", sys.argv[1], "--model", "default", "--out", sys.argv[2]])
print(code, *({"torch", "scipy", "cv2", "matplotlib", "torchmetrics"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "nothing"), str(tmp_path / "out")]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is no folder" in child.stderr
    assert child.stdout.split() == ["2"]
