"""A metric is one record: what reads the records shows a new metric without another change."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glama_deploy.cli.output.console import Console
from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.metrics.pairs import Measurement, Pair
from glama_deploy.evaluation.metrics.registry import DEFAULT_METRICS, METRICS, ImageMetric, SetMetric
from glama_deploy.evaluation.report import tables


def measure_bias(pair: Pair) -> Measurement:
    error = pair.found.astype(float) - pair.truth
    return Measurement(float(error[pair.missing].mean()), float(error.mean()))


def extract_means(image: np.ndarray, masks: list[np.ndarray]) -> np.ndarray:
    """One feature: the mean of the pixels."""
    return np.array([[[image[missing].mean()], [image.mean()]] for missing in masks], np.float32)


#: A metric of each image, and one of all images together.
BIAS = ImageMetric(
    name="bias",
    label="bias (steps of 8 bits)",
    decimals=1,
    higher_is_better=True,
    region="missing",
    open=lambda path, device: measure_bias,
)
SHIFT = SetMetric(
    name="shift",
    label="shift of the mean",
    decimals=2,
    higher_is_better=False,
    region="whole",
    open=lambda path, device: extract_means,
    feature_count=1,
    compare=lambda found, truth: float(abs(found.mean() - truth.mean())),
)


@pytest.fixture
def toys(monkeypatch) -> None:
    for metric in (BIAS, SHIFT):
        monkeypatch.setitem(METRICS, metric.name, metric)


def test_a_new_metric_is_in_every_table_and_file_by_its_record_alone(toys, photos, tmp_path, capsys):
    out: Path = tmp_path / "out"
    models = ("telea", "navier-stokes")
    metrics = ("shift", "psnr", "bias")
    asked = Request([f"photos={photos}"], models, out, masks=("ThickStrokes",), metrics=metrics, processes=1)
    summary = evaluate(asked)
    assert summary.protocol.metrics == ("psnr", "bias", "shift")
    with (out / "results.csv").open() as file:
        rows = {(row["method"], row["metric"], row["region"]): float(row["mean"]) for row in csv.DictReader(file)}
    assert len(rows) == 2 * 3 * 2  # methods, metrics, regions
    shifts = {region: rows["telea", "shift", region] for region in ("missing", "whole")}
    assert 0 < shifts["whole"] < shifts["missing"]
    assert rows["telea", "bias", "missing"] != rows["navier-stokes", "bias", "missing"]
    tables.print_tables(Console(width=120), summary)
    texts = {"terminal": capsys.readouterr().out}
    texts |= {name: (out / name).read_text(encoding="utf-8") for name in ("RESULTS.md", "index.html")}
    for text in texts.values():
        assert "bias (steps of 8 bits), missing pixels (more is better)" in text
        assert "shift of the mean, whole image (less is better)" in text
        assert f"{shifts['whole']:.2f}" in text
    better = max(rows[model, "bias", "missing"] for model in models)
    assert f"**{better:.1f}" in texts["RESULTS.md"]
    stored = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert {cell["metric"] for cell in stored["cells"]} == {"psnr", "bias", "shift"}


def test_results_with_a_metric_that_no_record_describes_are_refused(toys, photos, tmp_path, monkeypatch):
    asked = Request([str(photos)], ["telea"], tmp_path / "out", masks=("Expand",), metrics=("bias",), processes=1)
    summary = evaluate(asked)
    monkeypatch.delitem(METRICS, "bias")
    with pytest.raises(ValueError, match="unknown metric 'bias'"):
        type(summary).model_validate_json(summary.model_dump_json())


def test_metrics_that_resemble_others_are_computed_only_where_they_are_named():
    assert set(METRICS) - set(DEFAULT_METRICS) == {"ssim-lama", "st-lpips", "clean-fid", "fid-lama"}
    assert Request(["photos"], ["telea"], Path("out")).metrics == DEFAULT_METRICS


def test_the_records_are_read_without_pytorch():
    """The command's help names the metrics; PyTorch takes seconds to import."""
    code = "import sys, glama_deploy.evaluation.metrics.registry; print({'torch', 'torchmetrics'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
