"""The way from photographs and models to a folder of results, on real engines."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from glama_deploy.cli.eval import main
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import methods, protocol
from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.methods import telea
from glama_deploy.evaluation.metrics.pairs import REGIONS
from glama_deploy.evaluation.metrics.perceptual import compute_fid
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.records import Folder, Record
from glama_deploy.evaluation.report import pictures, tables
from glama_deploy.evaluation.report.summary import compute_statistic
from glama_deploy.evaluation.report.tables import format_markdown
from glama_deploy.evaluation.run import Evaluator

MASKS = ("EveryNLines", "ThickStrokes")
PLAIN = ("l1", "psnr", "ssim", "spectrum")


def ask(photos: Path, out: Path, *models: str, **changes: object) -> Request:
    """PSNR in one process: the fastest evaluation there is. Tests of other metrics and of figures name their own."""
    settings = {"masks": MASKS, "metrics": ("psnr",), "processes": 1}
    return Request([f"photos={photos}"], models, out, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def evaluated(photos, tiny_bundle, tmp_path_factory):
    """A network on two engines and classical inpainting, in one process: its folder and summary."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    models = (f"net={tiny_bundle.path}@openvino", f"ort={tiny_bundle.path}@onnxruntime:cpu", "telea")
    return out, evaluate(ask(photos, out, *models, reference="net", metrics=PLAIN))


def test_every_method_has_a_figure_for_every_mask_metric_and_region(evaluated):
    out, summary = evaluated
    places = {(c.method, c.mask, c.metric, c.region) for c in summary.cells}
    assert len(places) == len(summary.cells) == 3 * len(MASKS) * len(PLAIN) * len(REGIONS)
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
    assert text == format_markdown(summary)
    lines = text.splitlines()
    start = lines.index("**PSNR (dB), missing pixels (more is better)**")
    assert lines[start + 2] == "| dataset | method | EveryNLines | ThickStrokes |"
    rows = [line.split(" | ")[:2] for line in lines[start + 4 : start + 7]]
    assert rows == [["| photos", "net"], ["| photos", "ort"], ["| photos", "telea"]]
    best = lines[start + 4 : start + 7]
    assert sum("**" in line for line in best) >= 1
    assert "PSNR (dB), missing pixels: change against net" in text


def test_rings_are_means_over_images_of_each_region(evaluated):
    out, summary = evaluated
    records = [Record.model_validate_json(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert len(summary.rings) == 3 * len(MASKS) * len(REGIONS)
    for ring in summary.rings:
        theirs = [record.results[ring.mask][ring.method].rings[ring.region] for record in records]
        assert ring.errors == pytest.approx(tuple(np.mean(theirs, axis=0)))


def test_a_sheet_shows_what_each_method_made(evaluated):
    out, summary = evaluated
    sheet = np.asarray(Image.open(out / "sheet-photos.png"))
    assert sheet.shape[1] == 6 * (80 + 4)  # known, mask, three methods, truth; the widest is 80
    items = protocol.list_items(summary.protocol)
    folder = Folder(out)
    names = ("known", "mask", "0", "truth")
    known, holes, found, truth = (np.asarray(Image.open(folder.picture_path(items[0], name))) for name in names)
    mask = protocol.draw_missing(items[0].shown, items[0].image, *truth.shape[:2], 0)
    np.testing.assert_array_equal(found[~mask], truth[~mask])
    assert (known[mask] == 128).all()
    np.testing.assert_array_equal(holes, np.where(mask[..., None], [255] * 3, 0))
    assert (found[mask] != 128).any()
    np.testing.assert_array_equal(sheet[18 : 18 + 64, 5 * 84 : 5 * 84 + 72], truth)
    for name in ("spectra-photos.png", "rings-photos.png"):
        assert Image.open(out / name).size[0] > 400


def test_the_names_of_the_rings_are_in_the_picture_with_one_mask_too(photos, tmp_path):
    names = [f"the-network-of-last-month-{number}" for number in range(5)]
    settings = {"masks": ("Expand",), "metrics": ("spectrum",), "size": (32, 40), "limit": 1}
    summary = evaluate(ask(photos, tmp_path / "out", *(f"{name}=telea" for name in names), **settings))
    figure = pictures.draw_rings(summary, "photos")
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    there = legend.get_window_extent()
    assert [text.get_text() for text in legend.get_texts()] == names
    assert figure.bbox.x0 <= there.x0 < there.x1 <= figure.bbox.x1
    assert there.y0 >= max(axis.get_window_extent().y1 for axis in figure.axes)


def test_two_processes_find_what_one_does_to_the_last_bit(evaluated, photos, tiny_bundle, tmp_path):
    out, _ = evaluated
    models = (f"net={tiny_bundle.path}@openvino", f"ort={tiny_bundle.path}@onnxruntime:cpu", "telea")
    evaluate(ask(photos, tmp_path / "two", *models, reference="net", processes=2, metrics=PLAIN))
    for name in ("records.jsonl", "results.csv", "RESULTS.md", "sheet-photos.png"):
        assert (tmp_path / "two" / name).read_bytes() == (out / name).read_bytes()


def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(photos, tmp_path, wait_until):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(20):
        shutil.copy(photos / "a.png", folder / f"{n:02}.png")
    arguments = ["--data", f"photos={folder}", "--model", "telea", "--model", "interpolation", "--processes", "1"]
    arguments += [*(part for name in MASKS for part in ("--masks", name)), "--metric", "psnr", "--metric", "l1"]
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


def test_what_is_done_is_not_done_again(photos, tmp_path, monkeypatch):
    asked = ask(photos, tmp_path / "out", "telea")
    first = evaluate(asked)

    def fail(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        raise AssertionError("evaluated again")

    monkeypatch.setitem(methods.BASELINES, "telea", fail)
    assert evaluate(asked) == first


@pytest.fixture(scope="module")
def perceived(photos, weights, tmp_path_factory):
    """Two classical methods by the metrics that need weights: the request and its summary."""
    out = tmp_path_factory.mktemp("perceived") / "out"
    metrics = ("psnr", "lpips-alex", "lpips-vgg", "fid")
    asked = ask(photos, out, "telea", "navier-stokes", metrics=metrics, weights=weights, reference="telea")
    return asked, evaluate(asked)


def test_lpips_and_fid_come_out_where_their_weights_are(perceived):
    asked, summary = perceived
    assert summary.remarks == ()
    for metric, region, method in product(asked.metrics[1:], REGIONS, asked.models):
        cell = summary.cell("photos", method, MASKS[0], metric, region)
        assert cell.value.n == 3
        assert np.isfinite(cell.value.mean)
        assert method == "telea" or cell.change.mean != 0


def test_fid_is_of_the_features_of_results_and_photographs(perceived, weights):
    _asked, summary = perceived
    judge = Judge(("fid",), {"fid": weights / "weights-inception-2015-12-05-6726825d.pth"})
    mask = MASKS[1]
    seen = np.empty((2, len(REGIONS), 3, 2048), np.float32)  # of truth and result
    for row, item in enumerate(protocol.list_items(summary.protocol)):
        image = protocol.read_truth(item.path, None)
        missing = protocol.draw_missing(mask, item.image, *image.shape[:2], 0)
        filled = telea(np.where(missing[..., None], np.uint8(0), image), missing)
        seen[:, :, row] = [judge.extract_features(each, [missing])[0] for each in (image, filled)]
    for number, region in enumerate(REGIONS):
        value = summary.cell("photos", "telea", mask, "fid", region).value.mean
        # float32, in other batches
        assert value == pytest.approx(compute_fid(seen[1, number], seen[0, number]), rel=1e-3)


def test_features_that_are_lost_are_made_again_and_damaged_ones_are_named(perceived):
    asked, summary = perceived
    lost, damaged = (asked.out / "features" / "photos" / f"{image}.npz" for image in ("a.png", "b.png"))
    before = lost.read_bytes()
    lost.unlink()
    assert evaluate(asked) == summary
    assert lost.read_bytes() == before
    whole = damaged.read_bytes()
    damaged.write_bytes(b"cut off")
    with pytest.raises(GlamaError, match=r"b\.png\.npz is damaged; remove it"):
        evaluate(asked)
    damaged.write_bytes(whole)


def test_what_the_truth_cannot_be_scored_for_is_an_error_of_that_image(photos, weights, tmp_path, monkeypatch):
    asked = ask(photos, tmp_path / "out", "telea", metrics=("psnr", "fid"), weights=weights)
    evaluation = Evaluator._extract_features

    def full(self: Evaluator, truth: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if truth.shape[:2] == (56, 80):
            raise RuntimeError("out of memory")
        return evaluation(self, truth, masks)

    monkeypatch.setattr(Evaluator, "_extract_features", full)
    summary = evaluate(asked)
    reason = "photos/more/c.png, EveryNLines, ThickStrokes: telea: the metrics failed: out of memory"
    assert summary.failures == (reason,)
    assert {cell.value.n for cell in summary.cells} == {2}


def test_a_metric_without_its_weights_is_a_line_and_the_others_come_out(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    summary = evaluate(ask(photos, tmp_path / "out", "telea", metrics=("psnr", "lpips-alex", "lpips-vgg", "fid")))
    assert {cell.metric for cell in summary.cells} == {"psnr"}
    assert [line.partition(" ")[0] for line in summary.remarks] == ["lpips-alex", "lpips-vgg", "fid"]
    assert all("not computed" in line and "\n" not in line for line in summary.remarks)
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert "**LPIPS (AlexNet): not computed**: alexnet-owt-7be5be79.pth is neither in --weights nor" in text
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
    assert f"{folder / 'broken.jpg'} is not a supported image, or is damaged" in summary.failures[0]
    assert f"{folder / 'small.png'}: the image is 12x40; both sides must be from 16" in summary.failures[1]
    shutil.copy(folder / "a.png", folder / "broken.jpg")  # mended (a PNG by another name is read)
    assert evaluate(asked).images == {"photos": 4}


def test_no_picture_is_shown_of_an_image_as_it_was_before(photos, tmp_path, monkeypatch):
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


def test_nothing_is_left_where_no_image_can_be_used(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    with pytest.raises(GlamaError, match=r"none of the 1 images can be used; the first: .*broken\.png"):
        evaluate(ask(tmp_path / "photos", tmp_path / "out", "telea"))
    assert not (tmp_path / "out").exists()


def test_a_file_whose_name_is_no_text_is_named(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    for processes in (1, 2):
        summary = evaluate(ask(folder, tmp_path / f"out{processes}", "telea", processes=processes))
        assert summary.images == {"photos": 3}
        assert summary.failures == (f"{folder}/caf\\xe9.png has a name that is not UTF-8; rename it",)


def test_an_image_that_changed_or_is_new_is_evaluated_and_shown(photos, tmp_path):
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


def test_more_images_may_be_asked_for_and_metrics_in_any_order(photos, tmp_path):
    evaluate(ask(photos, tmp_path / "out", "telea", metrics=("l1", "psnr"), limit=1, shown=0))
    before = (tmp_path / "out" / "records.jsonl").read_bytes()
    summary = evaluate(ask(photos, tmp_path / "out", "telea", metrics=("psnr", "l1")))
    assert summary == evaluate(ask(photos, tmp_path / "straight", "telea", metrics=("l1", "psnr")))
    assert (tmp_path / "out" / "records.jsonl").read_bytes().startswith(before)
    assert (tmp_path / "out" / "protocol.json").read_bytes() == (tmp_path / "straight" / "protocol.json").read_bytes()


def test_what_failed_is_tried_again(photos, tmp_path, monkeypatch):
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


@pytest.mark.parametrize("processes", [1, 2])
def test_weights_of_another_network_leave_the_results_that_are_there(photos, weights, tmp_path, capfd, processes):
    out = tmp_path / "out"
    evaluate(ask(photos, out, "telea"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "weights").mkdir()
    shutil.copy(weights / "vgg16-397923af.pth", tmp_path / "weights" / "alexnet-owt-7be5be79.pth")
    changes = {"metrics": ("lpips-alex",), "weights": tmp_path / "weights", "processes": processes}
    with pytest.raises(GlamaError, match="holds the weights of another network"):
        evaluate(ask(photos, out, "telea", overwrite=True, **changes))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_process_cannot_open_is_said_by_the_first(photos, tmp_path, monkeypatch, capfd):
    """As it comes to lie between the opening here and there."""
    from glama_deploy.evaluation.methods import Spec, open_method
    from glama_deploy.evaluation.run import Setting, evaluate_items

    asked = evaluate(ask(photos, tmp_path / "out", "telea")).protocol
    setting = Setting(asked, (Spec("gone", str(tmp_path / "gone")),), {}, tmp_path)
    methods = [open_method(Spec("telea", "telea"), 1)]
    with pytest.raises(GlamaError, match="gone"):
        list(evaluate_items(setting, protocol.list_items(asked), 2, methods, Judge(PLAIN, {})))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_first(photos, tmp_path, ending, wait_until):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(60):
        shutil.copy(photos / "a.png", folder / f"{n:02}.png")
    arguments = ["--data", f"photos={folder}", "--model", "interpolation", "--processes", "2", "--out", tmp_path / "o"]
    arguments += ["--metric", "psnr"]
    # as in a terminal: what a shell starts in the background is made deaf to interrupts
    code = (
        "import signal\nfrom glama_deploy.cli.eval import main\n"
        "if __name__ == '__main__':\n    signal.signal(signal.SIGINT, signal.default_int_handler)\n    main()\n"
    )
    (tmp_path / "go.py").write_text(code)
    child = subprocess.Popen(
        [sys.executable, tmp_path / "go.py", *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    records = tmp_path / "o" / "records.jsonl"
    wait_until(lambda: records.exists() and records.stat().st_size)
    workers = [p for p in psutil.Process(child.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(workers) == 2
    child.send_signal(ending)
    _, said = child.communicate(timeout=600)
    _, alive = psutil.wait_procs(workers, timeout=600)
    assert not alive
    assert "Traceback" not in said
    if ending == signal.SIGINT:
        assert child.returncode == 130
        assert "interrupted" in said


def test_other_weights_are_another_configuration(photos, weights, tmp_path):
    asked = {"metrics": ("lpips-alex",), "weights": tmp_path / "weights"}
    file = tmp_path / "weights" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir()
    shutil.copy(weights / file.name, file)
    evaluate(ask(photos, tmp_path / "out", "telea", **asked))
    state = torch.load(file)
    state["features.0.bias"] += 1
    torch.save(state, file)
    with pytest.raises(GlamaError, match=r"another configuration \(weights lpips-alex \("):
        evaluate(ask(photos, tmp_path / "out", "telea", **asked))


def test_names_that_mean_something_to_a_renderer_are_names(photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos / "a.png", folder / "a$_$[b].png")
    models = ("[/]|$_$=telea", "interpolation")
    metrics = ("psnr", "spectrum")  # the figures of the spectrum have names in them
    summary = evaluate(ask(folder, tmp_path / "out", *models, reference="[/]|$_$", shown=1, metrics=metrics))
    tables.print_tables(Console(width=200), summary)
    assert "change against [/]|$_$" in capsys.readouterr().out
    assert r"| photos | [/]\|$_$ |" in (tmp_path / "out" / "RESULTS.md").read_text()


def test_there_are_as_many_processes_as_the_memory_holds(photos, tmp_path, monkeypatch):
    from glama_deploy.evaluation import run

    summary = evaluate(ask(photos, tmp_path / "out", "telea"))
    opened = [methods.open_method(methods.Spec("telea", "telea"), 1)]
    items = [item for item in protocol.list_items(summary.protocol) for _ in range(4)]
    monkeypatch.setattr(run, "count_processors", lambda: 8)
    for metric, gigabytes, expected in (("psnr", 64, 8), ("psnr", 3.5, 3), ("lpips-vgg", 7, 3), ("psnr", 0.1, 1)):
        monkeypatch.setattr(run.memory, "available", lambda free=gigabytes: int(free * 1e9))
        asked = summary.protocol.model_copy(update={"metrics": (metric,)})
        assert run.count_processes(items, asked, opened) == expected
    large = summary.protocol.model_copy(update={"metrics": ("spectrum",), "size": (5000, 5000)})  # 3.75 GB each
    monkeypatch.setattr(run.memory, "available", lambda: 10_000_000_000)
    assert run.count_processes(items, large, opened) == 2


def test_interpolation_takes_known_pixels_on_one_line():
    from glama_deploy.evaluation.methods import interpolation

    image = np.full((16, 16, 3), 9, np.uint8)
    missing = np.ones((16, 16), bool)
    missing[3] = False
    np.testing.assert_array_equal(interpolation(np.where(missing[..., None], np.uint8(0), image), missing), image)


def test_a_method_that_fails_on_one_size_says_so_and_has_the_others(photos, tiny, make_bundle, tmp_path):
    fixed = make_bundle(tiny, ("onnx",), size=(64, 72))
    summary = evaluate(ask(photos, tmp_path / "out", f"fixed={fixed.path}@onnxruntime:cpu", "telea"))
    (failure,) = summary.failures
    assert failure.startswith("photos/more/c.png, EveryNLines, ThickStrokes: fixed: the image is 56x80")
    counts = {c.method: c.value.n for c in summary.cells}
    assert counts == {"fixed": 2, "telea": 3}
    for table in tables.make_tables(summary):  # a mean of other images is no better or worse
        assert [entry.best for _, _, entries in table.rows for entry in entries] == [False] * 4
        assert all(entry.text.endswith(" (2 of 3 images)") for entry in table.rows[0][2])


def test_a_method_that_cannot_run_here_is_a_line(photos, tiny_bundle, tmp_path):
    models = (f"gpu={tiny_bundle.path}@tensorrt", f"half={tiny_bundle.path}@emulated/fp16", "telea")
    summary = evaluate(ask(photos, tmp_path / "out", *models))
    assert [method.label for method in summary.protocol.methods] == ["telea"]
    assert list(summary.refused) == ["gpu", "half"]
    assert "has no fp16 graph" in summary.refused["half"]
    assert summary.remarks[0].startswith("gpu is not computed: ")
    row = "| photos | gpu | not computed | not computed |"
    assert (tmp_path / "out" / "RESULTS.md").read_text().count(row) == len(REGIONS)
    with pytest.raises(GlamaError, match="--reference gpu does not run here"):
        evaluate(ask(photos, tmp_path / "none", *models, reference="gpu"))
    assert not (tmp_path / "none").exists()


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
    with pytest.raises(GlamaError, match=rf"\(datasets photos={photos}, not new={photos}\)"):
        evaluate(replace(ask(photos, out, "telea"), data=[f"new={photos}"]))
    assert evaluate(ask(photos, out, "telea", seed=1, overwrite=True)).protocol.seed == 1
    assert len((out / "records.jsonl").read_text().splitlines()) == 3


def test_results_by_other_definitions_of_the_metrics_are_another_configuration(photos, tmp_path):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    path = tmp_path / "out" / "protocol.json"
    there = json.loads(path.read_text())
    del there["definitions"]  # as the first had it
    path.write_text(json.dumps(there))
    with pytest.raises(GlamaError, match=r"another configuration \(definitions 1, not 2\)"):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_results_by_other_masks_of_the_same_names_are_another_configuration(photos, tmp_path):
    """Those of version 0.1 had no such field."""
    evaluate(ask(photos, tmp_path / "out", "telea"))
    path = tmp_path / "out" / "protocol.json"
    there = json.loads(path.read_text(encoding="utf-8"))
    del there["mask_definitions"]
    path.write_text(json.dumps(there), encoding="utf-8")
    with pytest.raises(GlamaError, match=r"another configuration \(mask_definitions 1, not 2\)"):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_a_folder_of_something_else_is_left_alone(photos, tmp_path):
    (tmp_path / "thesis.txt").write_text("my own")
    for overwrite in (False, True):
        with pytest.raises(GlamaError, match="has files that are no evaluation's"):
            evaluate(ask(photos, tmp_path, "telea", overwrite=overwrite))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_of_records_that_is_not_ours_is_left_alone(photos, tmp_path):
    (tmp_path / "records.jsonl").write_text("my own")
    for overwrite in (False, True):
        with pytest.raises(GlamaError, match="has files that are no evaluation's"):
            evaluate(ask(photos, tmp_path, "telea", overwrite=overwrite))
    assert (tmp_path / "records.jsonl").read_text() == "my own"


def test_overwriting_leaves_nothing_of_the_run_before(photos, tmp_path):
    asked = ask(photos, tmp_path / "out", "telea", metrics=("psnr", "spectrum"))
    evaluate(asked)
    renamed = replace(asked, data=[f"new={photos}"])
    evaluate(replace(renamed, overwrite=True))
    evaluate(replace(renamed, out=tmp_path / "straight"))
    names = [sorted(p.relative_to(o) for p in o.rglob("*")) for o in (tmp_path / "out", tmp_path / "straight")]
    assert names[0] == names[1]


def test_nothing_is_overwritten_by_a_run_that_has_no_image(photos, tmp_path):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    with pytest.raises(GlamaError, match="none of the 1 images can be used"):
        evaluate(ask(tmp_path / "broken", tmp_path / "out", "telea", overwrite=True))
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_folder_that_another_run_writes_is_refused(photos, tmp_path):
    summary = evaluate(ask(photos, tmp_path / "out", "telea"))
    with (
        Folder(tmp_path / "out").hold(summary.protocol),
        pytest.raises(GlamaError, match="is being written by another run"),
    ):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_a_damaged_record_is_said(photos, tmp_path):
    evaluate(ask(photos, tmp_path / "out", "telea"))
    records = tmp_path / "out" / "records.jsonl"
    records.write_bytes(b"{}\n" + records.read_bytes())
    with pytest.raises(GlamaError, match=r"records.jsonl is damaged, or of another version, at line 1; choose"):
        evaluate(ask(photos, tmp_path / "out", "telea"))


def test_an_interval_holds_the_mean_and_narrows_with_more_images():
    rng = np.random.default_rng(0)
    few, many = (compute_statistic(rng.normal(20, 3, count).tolist()) for count in (10, 1000))
    for found in (few, many):
        assert found.low < found.mean < found.high
    # of normal values the interval is ±1.96·σ/√n; the bootstrap of 1000 resamples is within some 10 % of that
    assert many.high - many.low == pytest.approx(2 * 1.96 * 3 / 1000**0.5, rel=0.15)
    assert few.high - few.low > 5 * (many.high - many.low)
    assert compute_statistic([3.0]).low is None
    assert (compute_statistic([3.0, 3.0]).low, compute_statistic([3.0, 3.0]).std) == (3.0, 0.0)


# ---------------------------------------------------------------- the command


def test_the_command_prints_the_table_and_says_what_is_not_there(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = ["--data", str(photos), "--model", "telea", "--masks", "Expand", "--out", str(tmp_path / "out")]
    assert main.run([*arguments, "--size", "32x40", "--limit", "2", "--processes", "1"]) == 0
    said = capsys.readouterr()
    assert "PSNR (dB), missing pixels" in said.out
    assert "index.html" in said.out
    assert "glama-eval: fid is not computed" in said.err


def test_what_failed_is_said_where_errors_are(photos, tmp_path, capsys):
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
        (["--region", "half"], "region is 'half'"),
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


def test_what_cannot_be_read_of_results_is_one_line(photos, tmp_path, capsys):
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
