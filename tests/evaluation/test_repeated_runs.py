"""A second run over results that are there: what it keeps, does again, or refuses to overwrite."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from glama_deploy.cli.eval import main
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import methods
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.records import Folder


def test_a_killed_run_continues_and_ends_with_the_same_bytes(photos, tmp_path, wait_until):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(20):
        shutil.copy(photos / "a.png", folder / f"{n:02}.png")
    arguments = ["--data", f"photos={folder}", "--model", "telea", "--model", "interpolation", "--processes", "1"]
    arguments += ["--masks", "EveryNLines", "--masks", "ThickStrokes", "--metric", "psnr", "--metric", "l1"]
    code = "from glama_deploy.cli.eval import main; main()"
    cut = tmp_path / "cut"
    child = subprocess.Popen([sys.executable, "-c", code, *arguments, "--out", str(cut)], stderr=subprocess.DEVNULL)
    records = cut / "records.jsonl"
    wait_until(lambda: records.exists() and records.stat().st_size)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = records.read_bytes()
    assert 0 < done.count(b"\n") < 20
    with records.open("ab") as file:  # and the line after was cut off
        file.write(b'{"dataset":"photos","image":"1')
    assert main.run([*arguments, "--out", str(cut)]) == 0
    assert main.run([*arguments, "--out", str(tmp_path / "straight")]) == 0
    assert records.read_bytes().startswith(done)
    for name in ("records.jsonl", "results.csv", "RESULTS.md"):
        assert (cut / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_finished_images_are_not_evaluated_again(photos, tmp_path, monkeypatch, ask):
    asked = ask(photos, tmp_path / "out", "telea")
    first = evaluate(asked)

    def fail(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        raise AssertionError("evaluated again")

    monkeypatch.setitem(methods.BASELINES, "telea", fail)
    assert evaluate(asked) == first


def test_a_broken_image_and_one_too_small_are_named_and_looked_at_again(photos, tmp_path, ask):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 12)).save(folder / "small.png")
    asked = ask(folder, tmp_path / "out", "telea")
    summary = evaluate(asked)
    assert summary.images == {"photos": 3}
    assert len(summary.failures) == 2
    assert f"{folder / 'broken.jpg'} is not a supported image, or is damaged" in summary.failures[0]
    assert f"{folder / 'small.png'}: the image is 12x40; both sides must be from 16" in summary.failures[1]
    shutil.copy(folder / "a.png", folder / "broken.jpg")  # mended (a PNG by another name is read)
    assert evaluate(asked).images == {"photos": 4}


def test_no_picture_is_shown_of_an_image_as_it_was_before(photos, tmp_path, monkeypatch, ask):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    asked = ask(folder, tmp_path / "out", "telea", "interpolation")
    evaluate(asked)
    kept = tmp_path / "out" / "pictures" / "photos"
    assert (kept / "a.png" / "EveryNLines-0.png").exists()
    shutil.copy(photos / "more" / "c.png", folder / "a.png")
    (folder / "b.png").write_bytes(b"no image")

    def full(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        raise MemoryError

    monkeypatch.setitem(methods.BASELINES, "telea", full)
    evaluate(asked)
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*.png") if path.is_file()}
    left = {"a.png": ("known", "mask", "1", "truth"), "more/c.png": ("known", "mask", "0", "1", "truth")}
    assert names == {f"{image}/EveryNLines-{name}.png" for image in left for name in left[image]}


def test_nothing_is_left_where_no_image_can_be_used(tmp_path, ask):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    with pytest.raises(GlamaError, match=r"none of the 1 images can be used; the first: .*broken\.png"):
        evaluate(ask(tmp_path / "photos", tmp_path / "out", "telea"))
    assert not (tmp_path / "out").exists()


def test_an_image_that_changed_or_is_new_is_evaluated_and_shown(photos, tmp_path, ask):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    asked = ask(folder, tmp_path / "out", "telea", shown=1)
    first = evaluate(asked)
    shutil.copy(folder / "a.png", folder / "0.png")  # the first by name, and so the one that is shown
    shutil.copy(folder / "b.png", folder / "a.png")
    again = evaluate(asked)
    assert again == evaluate(ask(folder, tmp_path / "straight", "telea", shown=1))
    names = [sorted(p.relative_to(o) for p in o.rglob("*.png")) for o in (tmp_path / "out", tmp_path / "straight")]
    assert names[0] == names[1]  # and nothing is left of what was shown before
    assert again.images == {"photos": 4} != first.images
    for name in ("sheet-photos.png", "RESULTS.md"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_more_images_may_be_asked_for_and_metrics_in_any_order(photos, tmp_path, ask):
    evaluate(ask(photos, tmp_path / "out", "telea", metrics=("l1", "psnr"), limit=1, shown=0))
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    summary = evaluate(ask(photos, tmp_path / "out", "telea", metrics=("psnr", "l1")))
    assert summary == evaluate(ask(photos, tmp_path / "straight", "telea", metrics=("l1", "psnr")))
    assert (tmp_path / "out" / "records.jsonl").read_bytes().startswith(before)
    assert (tmp_path / "out" / "protocol.json").read_bytes() == (tmp_path / "straight" / "protocol.json").read_bytes()


def test_a_failed_image_is_evaluated_again(photos, tmp_path, monkeypatch, ask):
    asked = ask(photos, tmp_path / "out", "telea", "navier-stokes")

    def full(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setitem(methods.BASELINES, "telea", full)
        failed = evaluate(asked)
        assert failed.failures[0] == "photos/a.png, EveryNLines, ThickStrokes: telea: MemoryError: no reason is given"
        assert {c.method for c in failed.cells} == {"navier-stokes"}
    again = evaluate(asked)
    assert again.failures == ()
    assert again == evaluate(ask(photos, tmp_path / "straight", "telea", "navier-stokes"))


def test_results_of_another_configuration_are_kept_without_overwrite(photos, tmp_path, ask):
    out = tmp_path / "out"
    evaluate(ask(photos, out, "telea", seed=0))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(GlamaError, match=r"results of another configuration \(seed 0, not 1\).*`overwrite=True`"):
        evaluate(ask(photos, out, "telea", seed=1))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    with pytest.raises(GlamaError, match=rf"\(datasets photos={photos}, not new={photos}\)"):
        evaluate(replace(ask(photos, out, "telea"), data=[f"new={photos}"]))
    assert evaluate(ask(photos, out, "telea", seed=1, overwrite=True)).protocol.seed == 1
    assert len((out / "records.jsonl").read_text().splitlines()) == 3


def test_results_by_other_definitions_of_the_metrics_are_another_configuration(photos, tmp_path, ask):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    path = tmp_path / "out" / "protocol.json"
    there = json.loads(path.read_text())
    del there["definitions"]  # as the first had it
    path.write_text(json.dumps(there))
    with pytest.raises(GlamaError, match=r"another configuration \(definitions 1, not 2\)"):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_results_by_other_masks_of_the_same_names_are_another_configuration(photos, tmp_path, ask):
    """Those of version 0.1 had no such field."""
    evaluate(ask(photos, tmp_path / "out", "telea"))
    path = tmp_path / "out" / "protocol.json"
    there = json.loads(path.read_text(encoding="utf-8"))
    del there["mask_definitions"]
    path.write_text(json.dumps(there), encoding="utf-8")
    with pytest.raises(GlamaError, match=r"another configuration \(mask_definitions 1, not 2\)"):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_a_folder_with_foreign_files_is_never_overwritten(photos, tmp_path, ask):
    (tmp_path / "thesis.txt").write_text("my own")
    for overwrite in (False, True):
        with pytest.raises(GlamaError, match="has files that are no evaluation's"):
            evaluate(ask(photos, tmp_path, "telea", overwrite=overwrite))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_foreign_records_file_is_never_overwritten(photos, tmp_path, ask):
    (tmp_path / "records.jsonl").write_text("my own")
    for overwrite in (False, True):
        with pytest.raises(GlamaError, match="has files that are no evaluation's"):
            evaluate(ask(photos, tmp_path, "telea", overwrite=overwrite))
    assert (tmp_path / "records.jsonl").read_text() == "my own"


def test_overwriting_leaves_nothing_of_the_run_before(photos, tmp_path, ask):
    asked = ask(photos, tmp_path / "out", "telea", metrics=("psnr", "spectrum"))
    evaluate(asked)
    renamed = replace(asked, data=[f"new={photos}"])
    evaluate(replace(renamed, overwrite=True))
    evaluate(replace(renamed, out=tmp_path / "straight"))
    names = [sorted(p.relative_to(o) for p in o.rglob("*")) for o in (tmp_path / "out", tmp_path / "straight")]
    assert names[0] == names[1]


def test_nothing_is_overwritten_by_a_run_that_has_no_image(photos, tmp_path, ask):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    with pytest.raises(GlamaError, match="none of the 1 images can be used"):
        evaluate(ask(tmp_path / "broken", tmp_path / "out", "telea", overwrite=True))
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_folder_that_another_run_writes_is_refused(photos, tmp_path, ask):
    summary = evaluate(ask(photos, tmp_path / "out", "telea"))
    with (
        Folder(tmp_path / "out").hold(summary.protocol),
        pytest.raises(GlamaError, match="is being written by another run"),
    ):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_a_damaged_record_is_refused_with_its_line_number(photos, tmp_path, ask):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    records = tmp_path / "out" / "records.jsonl"
    records.write_bytes(b"{}\n" + records.read_bytes())
    with pytest.raises(GlamaError, match=r"records.jsonl is damaged, or of another version, at line 1; choose"):
        evaluate(ask(photos, tmp_path / "out", "telea"))
