"""The way from photographs and models to a folder of results, on real engines."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from glama_deploy.cli.output.console import Console
from glama_deploy.evaluation import protocol
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.metrics.pairs import REGIONS
from glama_deploy.evaluation.records import Folder, Record
from glama_deploy.evaluation.report import pictures, tables
from glama_deploy.evaluation.report.summary import compute_statistic
from glama_deploy.evaluation.report.tables import format_markdown

MASKS = ("EveryNLines", "ThickStrokes")
PLAIN = ("l1", "psnr", "ssim", "spectrum")


@pytest.fixture(scope="module")
def evaluated(photos, tiny_bundle, tmp_path_factory, ask):
    """A network on two engines and classical inpainting, in one process: its folder and summary."""
    out = tmp_path_factory.mktemp("evaluated") / "out"
    models = (f"net={tiny_bundle.path}@openvino", f"ort={tiny_bundle.path}@onnxruntime:cpu", "telea")
    return out, evaluate(ask(photos, out, *models, reference="net", masks=MASKS, metrics=PLAIN))


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


def test_two_engines_of_one_network_differ_by_less_than_0_01_db(evaluated):
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
    assert lines[start + 2] == "| dataset | method | EveryNLines | ThickStrokes | mean |"
    rows = [line.split(" | ")[:2] for line in lines[start + 4 : start + 7]]
    assert rows == [["| photos", "net"], ["| photos", "ort"], ["| photos", "telea"]]
    best = lines[start + 4 : start + 7]
    assert sum("**" in line for line in best) >= 1
    assert "PSNR (dB), missing pixels: change against net" in text


def test_the_last_column_is_the_mean_over_masks(evaluated):
    _, summary = evaluated
    for table in tables.make_tables(summary):
        assert table.columns == (*MASKS, "mean")
        for _, method, (*entries, mean) in table.rows:
            assert mean.number == pytest.approx(np.mean([entry.number for entry in entries]), rel=1e-12)  # float64
            rounded = float(mean.text)
            assert rounded == pytest.approx(mean.number, abs=0.5 * 10**-table.metric.decimals + 1e-9), method


def test_rings_are_means_over_images_of_each_region(evaluated):
    out, summary = evaluated
    records = [Record.model_validate_json(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert len(summary.rings) == 3 * len(MASKS) * len(REGIONS)
    for ring in summary.rings:
        theirs = [record.results[ring.mask][ring.method].rings[ring.region] for record in records]
        assert ring.errors == pytest.approx(tuple(np.mean(theirs, axis=0)))


def test_a_sheet_shows_the_result_of_each_method(evaluated):
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


def test_the_names_of_the_rings_are_in_the_picture_with_one_mask_too(photos, tmp_path, ask):
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


def test_two_processes_write_the_same_bytes_as_one(evaluated, photos, tiny_bundle, tmp_path, ask):
    out, _ = evaluated
    models = (f"net={tiny_bundle.path}@openvino", f"ort={tiny_bundle.path}@onnxruntime:cpu", "telea")
    evaluate(ask(photos, tmp_path / "two", *models, reference="net", processes=2, metrics=PLAIN))
    for name in ("records.jsonl", "results.csv", "RESULTS.md", "sheet-photos.png"):
        assert (tmp_path / "two" / name).read_bytes() == (out / name).read_bytes()


def test_a_file_whose_name_is_no_text_is_named(photos, tmp_path, ask):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    for processes in (1, 2):
        summary = evaluate(ask(folder, tmp_path / f"out{processes}", "telea", processes=processes))
        assert summary.images == {"photos": 3}
        assert summary.failures == (f"{folder}/caf\\xe9.png has a name that is not UTF-8; rename it",)


def test_markup_in_names_is_shown_as_text(photos, tmp_path, capsys, ask):
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(photos / "a.png", folder / "a$_$[b].png")
    models = ("[/]|$_$=telea", "interpolation")
    metrics = ("psnr", "spectrum")  # the figures of the spectrum have names in them
    summary = evaluate(ask(folder, tmp_path / "out", *models, reference="[/]|$_$", shown=1, metrics=metrics))
    tables.print_tables(Console(width=200), summary)
    assert "change against [/]|$_$" in capsys.readouterr().out
    assert r"| photos | [/]\|$_$ |" in (tmp_path / "out" / "RESULTS.md").read_text()


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
