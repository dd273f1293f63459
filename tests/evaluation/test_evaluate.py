"""The way from photographs and models to a folder of results, on real engines."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.cli.eval import main
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import protocol
from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.records import Folder, Record
from glama_deploy.evaluation.summary import statistic
from glama_deploy.evaluation.tables import markdown

MASKS = ("EveryNLines", "ThickStrokes")
PLAIN = ("l1", "psnr", "ssim", "spectrum")


def ask(photos: Path, out: Path, *models: str, **changes: object) -> Request:
    settings = {"masks": MASKS, "metrics": PLAIN, "processes": 1}
    return Request([f"photos={photos}"], models, out, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def evaluated(photos, tiny_bundle, tmp_path_factory):
    """A network on two engines and classical inpainting, in one process: its folder and summary."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    models = (f"net={tiny_bundle.path}@openvino", f"ort={tiny_bundle.path}@onnxruntime:cpu", "telea")
    return out, evaluate(ask(photos, out, *models, reference="net"))


def test_every_method_has_a_figure_for_every_mask_metric_and_region(evaluated):
    out, summary = evaluated
    places = {(c.method, c.mask, c.metric, c.region) for c in summary.cells}
    regions = 2 * 3 + 1  # of L1, PSNR and SSIM two, of the spectrum one
    assert len(places) == len(summary.cells) == 3 * len(MASKS) * regions
    assert all(np.isfinite(cell.value.mean) and cell.value.n == 3 for cell in summary.cells)
    assert summary.failures == ()
    with (out / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(summary.cells)
    assert float(lines[0]["mean"]) == summary.cells[0].value.mean
    assert json.loads((out / "results.json").read_text()) == json.loads(summary.model_dump_json())


def test_two_engines_of_one_network_agree_and_the_change_says_so(evaluated):
    _, summary = evaluated
    changes = [c.change for c in summary.cells if c.method == "ort" and c.metric == "psnr"]
    assert all(abs(change.mean) < 0.01 for change in changes)  # a few values round to the next of 8 bits
    assert all(c.change is None for c in summary.cells if c.method == "net")
    telea = summary.cell("photos", "telea", "EveryNLines", "psnr", "missing")
    net = summary.cell("photos", "net", "EveryNLines", "psnr", "missing")
    assert telea.change.mean == pytest.approx(telea.value.mean - net.value.mean)


def test_the_page_of_text_has_the_paper_s_layout(evaluated):
    out, summary = evaluated
    text = (out / "RESULTS.md").read_text()
    assert text == markdown(summary)
    lines = text.splitlines()
    start = lines.index("**PSNR (dB), missing pixels (more is better)**")
    assert lines[start + 2] == "| dataset | method | EveryNLines | ThickStrokes |"
    rows = [line.split(" | ")[:2] for line in lines[start + 4 : start + 7]]
    assert rows == [["| photos", "net"], ["| photos", "ort"], ["| photos", "telea"]]
    best = lines[start + 4 : start + 7]
    assert sum("**" in line for line in best) >= 1
    assert "PSNR (dB), missing pixels: change against net" in text


def test_a_sheet_shows_what_each_method_made(evaluated):
    out, summary = evaluated
    sheet = np.asarray(Image.open(out / "sheet-photos.png"))
    assert sheet.shape[1] == 5 * (80 + 4)  # known, three methods, truth; the widest is 80
    items = protocol.items(summary.protocol)
    folder = Folder(out)
    known, found, truth = (np.asarray(Image.open(folder.picture(items[0], n))) for n in ("known", "0", "truth"))
    mask = protocol.missing(items[0].shown, items[0].image, *truth.shape[:2], 0)
    np.testing.assert_array_equal(found[~mask], truth[~mask])
    assert (known[mask] == 128).all()
    assert (found[mask] != 128).any()
    np.testing.assert_array_equal(sheet[18 : 18 + 64, 4 * 84 : 4 * 84 + 72], truth)
    for name in ("spectra-photos.png", "rings-photos.png"):
        assert Image.open(out / name).size[0] > 400


def test_two_processes_find_what_one_does_to_the_last_bit(evaluated, photos, tiny_bundle, tmp_path):
    out, _ = evaluated
    models = (f"net={tiny_bundle.path}@openvino", f"ort={tiny_bundle.path}@onnxruntime:cpu", "telea")
    evaluate(ask(photos, tmp_path / "two", *models, reference="net", processes=2))
    for name in ("records.jsonl", "results.csv", "RESULTS.md", "sheet-photos.png"):
        assert (tmp_path / "two" / name).read_bytes() == (out / name).read_bytes()


def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(photos, tmp_path):
    arguments = ["--data", f"photos={photos}", "--model", "telea", "--model", "interpolation", "--processes", "1"]
    arguments += [*(part for name in MASKS for part in ("--masks", name)), "--metric", "psnr", "--metric", "ssim"]
    code = "from glama_deploy.cli.eval import main; main()"
    cut = tmp_path / "cut"
    child = subprocess.Popen([sys.executable, "-c", code, *arguments, "--out", str(cut)], stderr=subprocess.DEVNULL)
    records, ends = cut / "records.jsonl", time.monotonic() + 120
    while not (records.exists() and records.stat().st_size) and time.monotonic() < ends:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    done = records.read_bytes()
    assert done
    with records.open("ab") as file:  # and the line after was cut off
        file.write(b'{"dataset":"photos","image":"b.')
    assert main.run([*arguments, "--out", str(cut)]) == 0
    assert main.run([*arguments, "--out", str(tmp_path / "straight")]) == 0
    assert records.read_bytes().startswith(done)
    for name in ("records.jsonl", "results.csv", "RESULTS.md"):
        assert (cut / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_what_is_done_is_not_done_again(photos, tmp_path, monkeypatch):
    from glama_deploy.evaluation import methods

    asked = ask(photos, tmp_path / "out", "telea")
    first = evaluate(asked)

    def fail(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        raise AssertionError("evaluated again")

    monkeypatch.setitem(methods.BASELINES, "telea", fail)
    assert evaluate(asked) == first


@pytest.mark.slow
def test_lpips_and_fid_come_out_where_their_weights_are(photos, weights, tmp_path):
    metrics = ("psnr", "lpips-alex", "lpips-vgg", "fid")
    models = ("telea", "navier-stokes")
    asked = ask(photos, tmp_path / "out", *models, metrics=metrics, weights=weights, masks=MASKS[:1], reference="telea")
    summary = evaluate(asked)
    assert summary.not_computed == ()
    for metric in metrics[1:]:
        for method in models:
            cell = summary.cell("photos", method, MASKS[0], metric, "whole")
            assert cell.value.n == 3
            assert np.isfinite(cell.value.mean)
        assert cell.change.mean != 0
    truth, found = Folder(asked.out).features(Record(dataset="photos", image="more/c.png"))
    assert truth.shape == (2048,)
    assert found.shape == (1, 2, 2048)


def test_a_metric_without_its_weights_is_a_line_and_the_others_come_out(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    summary = evaluate(ask(photos, tmp_path / "out", "telea", metrics=("psnr", "lpips-alex", "lpips-vgg", "fid")))
    assert {cell.metric for cell in summary.cells} == {"psnr"}
    assert [line.partition(" ")[0] for line in summary.not_computed] == ["lpips-alex", "lpips-vgg", "fid"]
    assert all("not computed" in line and "\n" not in line for line in summary.not_computed)
    assert "lpips-alex is not computed: alexnet-owt-7be5be79.pth" in (tmp_path / "out" / "RESULTS.md").read_text()
    with pytest.raises(GlamaError, match="fid is not computed"):
        evaluate(ask(photos, tmp_path / "none", "telea", metrics=("fid",)))
    assert not (tmp_path / "none").exists()


def test_a_broken_image_and_one_too_small_are_named_and_looked_at_again(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (40, 12)).save(folder / "small.png")
    asked = ask(folder, tmp_path / "out", "telea")
    summary = evaluate(asked)
    assert summary.images == {"photos": 3}
    assert len(summary.failures) == 2
    assert f"{folder / 'broken.jpg'} is damaged or no image" in summary.failures[0]
    assert f"{folder / 'small.png'}: the image is 12x40; both sides must be from 16" in summary.failures[1]
    shutil.copy(folder / "a.png", folder / "broken.jpg")  # mended (a PNG by another name is read)
    assert evaluate(asked).images == {"photos": 4}


def test_nothing_is_left_where_no_image_can_be_used(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    with pytest.raises(GlamaError, match=r"none of the 1 images can be used; the first: .*broken\.png"):
        evaluate(ask(tmp_path / "photos", tmp_path / "out", "telea"))
    assert not (tmp_path / "out").exists()


def test_a_method_that_fails_on_one_size_says_so_and_has_the_others(photos, tiny, make_bundle, tmp_path):
    fixed = make_bundle(tiny, ("onnx",), size=(64, 72))
    summary = evaluate(ask(photos, tmp_path / "out", f"fixed={fixed.path}@onnxruntime:cpu", "telea"))
    (failure,) = summary.failures
    assert failure.startswith("photos/more/c.png, EveryNLines, ThickStrokes: fixed: the image is 56x80")
    counts = {c.method: c.value.n for c in summary.cells}
    assert counts == {"fixed": 2, "telea": 3}


def test_a_method_that_cannot_run_here_is_a_line(photos, tiny_bundle, tmp_path):
    models = (f"gpu={tiny_bundle.path}@tensorrt", f"half={tiny_bundle.path}@emulated/fp16", "telea")
    summary = evaluate(ask(photos, tmp_path / "out", *models))
    assert [method.label for method in summary.protocol.methods] == ["telea"]
    assert summary.not_computed[0].startswith("gpu is not computed: ")
    assert "has no fp16 graph" in summary.not_computed[1]


def test_a_half_graph_is_emulated(photos, tiny, make_bundle, tmp_path):
    half = make_bundle(tiny, ("onnx",), precision="fp16")
    asked = ask(photos, tmp_path / "out", f"fp32={tiny}@torch", f"fp16={half.path}@emulated", reference="fp32")
    summary = evaluate(asked)
    assert summary.protocol.methods[1].description == "fp16 emulated on a CPU"
    changes = [c.change.mean for c in summary.cells if c.method == "fp16" and c.metric == "psnr"]
    assert max(map(abs, changes)) < 0.5  # untrained and small; some values round otherwise
    assert any(changes)


def test_results_of_another_configuration_stay_unless_told_otherwise(photos, tmp_path):
    out = tmp_path / "out"
    evaluate(ask(photos, out, "telea", seed=0))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(GlamaError, match=r"results of another configuration \(seed 0, not 1\).*--overwrite"):
        evaluate(ask(photos, out, "telea", seed=1))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert evaluate(ask(photos, out, "telea", seed=1, overwrite=True)).protocol.seed == 1
    assert len((out / "records.jsonl").read_text().splitlines()) == 3


def test_a_folder_of_something_else_is_left_alone(photos, tmp_path):
    (tmp_path / "thesis.txt").write_text("my own")
    for overwrite in (False, True):
        with pytest.raises(GlamaError, match="has files that are no evaluation's"):
            evaluate(ask(photos, tmp_path, "telea", overwrite=overwrite))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_another_run_writes_is_refused(photos, tmp_path):
    summary = evaluate(ask(photos, tmp_path / "out", "telea"))
    with (
        Folder(tmp_path / "out").held(summary.protocol),
        pytest.raises(GlamaError, match="is being written by another run"),
    ):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_a_damaged_record_is_said(photos, tmp_path):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    records = tmp_path / "out" / "records.jsonl"
    records.write_bytes(b"{}\n" + records.read_bytes())
    with pytest.raises(GlamaError, match=r"records.jsonl is damaged at line 1; pass --overwrite"):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_an_interval_holds_the_mean_and_narrows_with_more_images():
    rng = np.random.default_rng(0)
    few, many = (statistic(rng.normal(20, 3, count).tolist()) for count in (10, 1000))
    for found in (few, many):
        assert found.low < found.mean < found.high
    # of normal values the interval is ±1.96·σ/√n; the bootstrap of 1000 resamples is within some 10 % of that
    assert many.high - many.low == pytest.approx(2 * 1.96 * 3 / 1000**0.5, rel=0.15)
    assert few.high - few.low > 5 * (many.high - many.low)
    assert statistic([3.0]).low is None
    assert (statistic([3.0, 3.0]).low, statistic([3.0, 3.0]).std) == (3.0, 0.0)


# ---------------------------------------------------------------- the command


def test_the_command_prints_the_table_and_says_what_is_not_there(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ["--data", str(photos), "--model", "telea", "--masks", "Expand", "--out", str(tmp_path / "out")]
    assert main.run([*arguments, "--size", "32x40", "--limit", "2", "--processes", "1"]) == 0
    out = capsys.readouterr().out
    assert "PSNR (dB), missing pixels" in out
    assert "fid is not computed" in out
    assert "index.html" in out


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--masks", "Expandd"], "did you mean 'Expand'"),
        (["--metric", "mse"], "unknown metric 'mse'"),
        (["--model", "gone.pt"], "no bundle or checkpoint at gone.pt"),
        (["--reference", "gone"], "one of the methods is expected: telea"),
        (["--weights", "gone"], "--weights gone is no folder"),
        (["--region", "half"], "region is 'half'"),
        (["--size", "30x30"], "multiples of 8"),
        (["--data", "gone"], "--data gone is no folder"),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, capsys, changes, says):
    arguments = ["--data", str(photos), "--model", "telea", "--out", str(tmp_path / "out")]
    assert main.run([*arguments, *changes]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("glama-eval:")]
    assert len(err) == 1
    assert says in err[0]
    assert not (tmp_path / "out").exists()
