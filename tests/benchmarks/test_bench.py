"""glama-bench: real subjects in turns, and tables that say what was not measured, and why."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from glama_deploy.benchmarks import bench, machine, results
from glama_deploy.benchmarks.bench import Results, Row
from glama_deploy.cli.bench import main


@pytest.fixture(scope="module")
def folder(tiny, make_bundle, tmp_path_factory):
    """What a run over two engines, a peer and what cannot run here writes."""
    out = tmp_path_factory.mktemp("bench") / "out"
    bundle = make_bundle(tiny)
    names = ["torchscript", "openvino", "onnxruntime", "tensorrt", "openvino:int8"]
    subjects = [part for name in names for part in ("--subject", name)]
    settings = ["--size", "64x72", "--batch", "1", "--batch", "2", "--threads", "1", "--runs", "3"]
    arguments = ["--model", bundle.path, "--ckpt", tiny, "--out", out, *settings, *subjects]
    assert main.run([str(argument) for argument in arguments]) in (0, None)
    return out


@pytest.mark.slow
def test_each_engine_is_measured_in_turns_with_torchscript(folder):
    found = Results.model_validate_json((folder / "results.json").read_text())
    assert {(row.subject, row.batch) for row in found.rows if row.seconds} == {
        (name, batch) for name in ("torchscript", "openvino", "onnxruntime") for batch in (1, 2)
    }
    for row in found.rows:
        if row.seconds:
            assert len(row.seconds) == 3
            assert row.ratio == 1 if row.subject == "torchscript" else row.ratio > 0
            assert 0 < row.share < 2  # (a machine that is busy while its limit is measured may be beaten)
            assert row.peak_bytes > 10e6
        else:
            assert row.reason
    assert found.machine["CPU"]
    assert found.peaks["fp32"][1] > 1e9


@pytest.mark.slow
def test_what_is_not_here_is_a_row_that_says_so(folder):
    text = (folder / "RESULTS.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "not measured: " in rows["tensorrt"]
    assert "has no TensorRT engine" in rows["tensorrt"]
    assert "GPU: not measured." in text
    assert Image.open(folder / "results.png").size[0] > 400


def row(**changes: object) -> Row:
    values = {"subject": "openvino", "size": (8, 8), "batch": 1, "threads": 2, "description": "OpenVINO fp32"}
    return Row(**{**values, "precision": "fp32", **changes})


def test_the_table_has_medians_ratios_and_shares():
    rows = (row(seconds=(0.2, 0.1, 0.3), ratio=1.5, share=0.8, peak_bytes=2 * 10**9), row(subject="x", reason="no GPU"))
    text = results.markdown(Results(network="n", machine={"CPU": "c"}, runs=3, peaks={"fp32": {2: 1e11}}, rows=rows))
    assert "| OpenVINO fp32 | 200 ms | 100…300 | 1.50× | 80% | 2.00 GB |" in text
    assert "| x | not measured: no GPU |" in text
    assert "100 GFLOP/s in fp32 with 2 threads" in text


def test_the_share_is_the_graphs_flops_against_the_machines_limit(tiny, make_bundle):
    bundle = make_bundle(tiny)
    work = 2 * sum(bench.cost.multiply_adds(bundle.manifest.network, (64, 64), "matmul").values())
    found = bench._with_share(row(size=(64, 64), batch=3, seconds=(0.5,)), bundle, {"fp32": {2: 1e9}})
    assert found.share == pytest.approx(3 * work / 0.5 / 1e9)
    assert bench._with_share(row(seconds=(0.5,)), bundle, {"bf16": {2: 1e9}}).share is None


def test_the_machines_limit_is_of_the_order_of_its_clock():
    assert 1e9 < machine.peak("fp32", 1, 0.2) < 1e13
    assert json.dumps(machine.describe())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--subject", "openvin"], "--subject is 'openvin'; expected torchscript, "),
        (["--size", "64"], "--size"),
        (["--model", "/no/such"], "no checkpoint at /no/such"),
    ],
)
def test_bad_input_is_one_line(arguments, says, capsys):
    assert main.run(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
