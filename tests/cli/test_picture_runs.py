"""Runs of glama-inpaint: in place, until the first failure, reported as JSON, and for a folder that is watched."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.cli.inpaint import main
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import folder as batch
from glama_deploy.io.images import FileRule


@pytest.fixture
def folder(tmp_path, photo) -> Path:
    """A folder of a.png, b.png (empty) and c.png."""
    (tmp_path / "photos").mkdir()
    for name in ("a", "c"):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    return tmp_path / "photos"


@pytest.fixture
def run(tiny_bundle):
    """A function that runs glama-inpaint with the tiny network, and a rectangle as the mask."""
    return lambda *given: main.run(["--model", str(tiny_bundle.path), "--box", "9,9,30,20", *map(str, given)])


def read_lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_has_a_line_for_each_picture_and_a_summary(folder, tmp_path, run, capsys):
    out = tmp_path / "out"
    assert run("--image", folder, "--out", out, "--json") == 2
    *pictures, summary = read_lines(capsys)
    assert [(each["type"], each["state"]) for each in pictures] == [
        ("picture", "written"),
        ("picture", "failed"),
        ("picture", "written"),
    ]
    first, bad, _ = pictures
    assert first.pop("seconds") > 0
    assert first == {
        "type": "picture",
        "image": str(folder / "a.png"),
        "mask": None,
        "out": str(out / "a.png"),
        "backup": None,
        "state": "written",
        "boxes": [[9, 9, 30, 20]],
        "error": None,
    }
    assert "the file is empty" in bad["error"]
    assert summary == {
        "type": "summary",
        "written": 2,
        "skipped": 0,
        "failed": 1,
        "not_begun": 0,
        "without_mask": [],
        "left_out": [],
    }
    assert run("--image", folder, "--out", out, "--json") == 2
    assert [each.get("state") for each in read_lines(capsys)] == ["skipped", "failed", "skipped", None]


def test_json_of_a_single_picture(folder, tmp_path, run, capsys):
    assert run("--image", folder / "a.png", "--out", tmp_path / "a.png", "--json") == 0
    (line,) = read_lines(capsys)
    assert (line["state"], line["out"]) == ("written", str(tmp_path / "a.png"))
    assert run("--image", folder / "b.png", "--out", tmp_path / "b.png", "--json") == 2
    captured = capsys.readouterr()
    line = json.loads(captured.out)
    assert line["state"] == "failed"
    assert captured.err == f"glama-inpaint: {line['error']}\n"


def test_fail_fast_begins_no_other_picture_after_a_failure(folder, tmp_path, run, capsys, monkeypatch):
    for number in range(30):  # more than are begun at once
        Image.new("RGB", (40, 40)).save(folder / f"d{number:02}.png")
    assert run("--image", folder, "--out", tmp_path / "out", "--fail-fast", "--json") == 2
    summary = read_lines(capsys)[-1]
    assert summary["failed"] == 1
    assert summary["not_begun"] > 0
    assert sum(summary[state] for state in ("written", "failed", "not_begun")) == 33
    assert len(list((tmp_path / "out").iterdir())) == summary["written"]


def test_pictures_are_replaced_and_a_second_run_skips_them(folder, run, capsys):
    original = (folder / "a.png").read_bytes()
    assert run("--image", folder, "--in-place") == 2
    assert (folder / "a.orig.png").read_bytes() == original
    assert (folder / "a.png").read_bytes() != original
    assert not (folder / "b.orig.png").exists()  # it failed
    capsys.readouterr()
    assert run("--image", folder, "--in-place") == 2
    err = capsys.readouterr().err
    assert "0 written, 2 skipped, 1 failed" in err
    assert "left out" not in err
    assert run("--image", folder / "a.png", "--in-place") == 2
    assert "a.png was filled already" in capsys.readouterr().err
    assert run("--image", folder / "a.png", "--in-place", "--backup-folder", folder / "second") == 0
    assert (folder / "second" / "a.png").exists()


@pytest.mark.parametrize(("chosen", "expected"), [("always", True), ("never", False), ("auto", None)])
def test_sizes_are_compiled_as_it_is_said(folder, tmp_path, run, monkeypatch, chosen, expected):
    given = []
    plain = glama_deploy.load
    monkeypatch.setattr(
        glama_deploy, "load", lambda *values, **named: given.append((values, named)) or plain(*values, **named)
    )
    assert run("--image", folder / "a.png", "--out", tmp_path / "a.png", "--compile-sizes", chosen) == 0
    ((values, _),) = given
    assert values[4] is expected


def test_jobs_are_the_pictures_that_are_filled_at_once(folder, tmp_path, run, monkeypatch):
    given = []
    plain = batch.run_jobs
    monkeypatch.setattr(batch, "run_jobs", lambda *values, **named: given.append(named) or plain(*values, **named))
    run("--image", folder, "--out", tmp_path / "out", "--jobs", 3)
    assert given[0]["at_once"] == 3


def test_bad_input_is_one_line_and_changes_nothing(folder, tmp_path, run, capsys, hole):
    Image.fromarray(hole).save(tmp_path / "mask.png")
    files = sorted(tmp_path.rglob("*"))
    single, out = folder / "a.png", tmp_path / "out"
    for arguments, says in (
        (["--image", folder], "no output is given; give --out, or --in-place"),
        (["--image", folder, "--out", out, "--in-place"], "--out and --in-place are both given; give one of them"),
        (["--image", folder, "--out", out, "--backup-folder", out], "--backup-folder is given without --in-place"),
        (["--image", folder, "--in-place", "--format", "png"], "--format is png, and --in-place keeps the format"),
        (["--image", folder, "--in-place", "--backup-folder", folder], "is a folder of the inputs; choose another"),
        (["--image", folder, "--in-place", "--watch", "--overwrite"], "--watch with --in-place does not support"),
        (["--image", single, "--out", out / "a.png", "--watch"], "is a file, and --watch needs a folder; leave it out"),
        (["--image", single, "--out", out / "a.png", "--fail-fast"], "is a file, and --fail-fast needs a folder"),
        (["--image", folder, "--out", out, "--compile-sizes", "yes"], "expected auto, always, never"),
        (["--image", folder, "--out", out, "--mask", folder, "--mask-name", "{stem}_m"], "has no mask for any of the"),
        (["--image", folder, "--out", out, "--jobs", "0"], "--jobs"),
    ):
        assert run(*arguments) == 2
        err = capsys.readouterr().err
        assert says in err, err
        assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == files


def test_a_watch_fills_what_appears_and_ends_cleanly(tiny_bundle, tmp_path, photo, wait_until):
    images, masks, out = (tmp_path / name for name in ("images", "masks", "out"))
    images.mkdir()
    masks.mkdir()
    command = [sys.executable, "-c", "from glama_deploy.cli.inpaint import main; main()"]
    files = ["--image", images, "--mask", masks, "--out", out, "--model", tiny_bundle.path]
    said, errors = tmp_path / "said.txt", tmp_path / "errors.txt"
    with said.open("wb") as output, errors.open("wb") as error_output:
        child = subprocess.Popen(
            [*command, *files, "--watch", "--json", "--threads", "1"], stdout=output, stderr=error_output
        )
    mask = np.zeros(photo.shape[:2], bool)
    mask[9:30, 9:40] = True
    try:
        for name in ("a", "b"):  # b appears when a was filled
            Image.fromarray(photo).save(images / f"{name}.png")
            Image.fromarray(mask).save(masks / f"{name}.png")
            wait_until(lambda name=name: f"{name}.png" in said.read_text() or child.poll() is not None)
            assert child.poll() is None, errors.read_text()
        Image.fromarray(photo).save(images / "c.png")  # without a mask
        wait_until(lambda: "watching" in errors.read_text())
        child.send_signal(signal.SIGINT)
        wait_until(lambda: child.poll() is not None)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 0, errors.read_text()
    *pictures, summary = map(json.loads, said.read_text().splitlines())
    assert [(Path(each["image"]).name, each["state"]) for each in pictures] == [
        ("a.png", "written"),
        ("b.png", "written"),
    ]
    assert (summary["type"], summary["written"]) == ("summary", 2)
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    assert "Traceback" not in errors.read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--mask-name", "{stem}_m"], "is a file; --mask-name, --recursive and --format are for folders"),
        (["--recursive"], "is a file; --mask-name, --recursive and --format are for folders"),
        (["--format", "keep"], "is a file; --mask-name, --recursive and --format are for folders"),
        (["--refine", "--backend", "torch", "--device", "cpu"], "--refine computes on the GPU if PyTorch has one"),
    ],
)
@pytest.mark.parametrize("output", ["--out", "--output"])
def test_options_that_would_be_left_out_are_refused(folder, tmp_path, run, capsys, output, options, says):
    assert run("--image", folder / "a.png", output, tmp_path / "out", *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_iopaint_run_gives_pngs_and_other_formats_by_name(folder, tmp_path, run, photo):
    (folder / "b.png").unlink()
    Image.fromarray(photo).save(folder / "d.jpg")
    for options, kind in (["--output"], "png"), (["--format", "webp", "--output"], "webp"), (["--out"], "jpg"):
        assert run("--image", folder, *options, tmp_path / kind) == 0
        assert (tmp_path / kind / f"d.{kind}").exists()


def test_an_empty_folder_may_be_watched_with_a_quality(tmp_path):
    FileRule(quality=80).check_outputs([])
    with pytest.raises(GlamaError, match=r"`quality` is 80, and \.png has no quality"):
        FileRule(quality=80).check_outputs([tmp_path / "a.png"])
