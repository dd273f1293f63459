"""glama-bench: real subjects in turns, and tables that say what was not measured, and why."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.bench import contenders, layer_times, machine, results, run
from glama_deploy.benchmarks.bench.contenders import Task
from glama_deploy.benchmarks.bench.run import Results, Row
from glama_deploy.cli.bench import main
from glama_deploy.errors import GlamaError
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.system import cpu

#: What runs on a GPU alone.
GPU = (
    "torchscript:cuda",
    "torch:cuda",
    "torch:cuda:fp16",
    "torch:cuda:bf16",
    "onnxruntime:cuda",
    "onnxruntime:cuda:fp16",
    "tensorrt",
)


@pytest.fixture(scope="module")
def folder(tiny, make_bundle, tmp_path_factory):
    """The folder that a run writes, of two engines, a peer, and subjects that cannot run on this machine."""
    out = tmp_path_factory.mktemp("bench") / "out"
    bundle = make_bundle(tiny)
    names = ["torchscript", "openvino", "onnxruntime", "openvino:int8", *GPU]
    subjects = [part for name in names for part in ("--subject", name)]
    settings = ["--size", "64x72", "--batch", "1", "--batch", "2", "--threads", "1", "--runs", "3"]
    arguments = ["--model", bundle.path, "--ckpt", tiny, "--out", out, *settings, *subjects]
    assert main.run([str(argument) for argument in arguments]) in (0, None)
    return out


@pytest.mark.slow
def test_each_engine_is_measured_in_turns_with_torchscript(folder):
    found = Results.model_validate_json((folder / "results.json").read_text())
    assert {(row.subject, row.batch) for row in found.rows if row.seconds and row.subject not in GPU} == {
        (name, batch) for name in ("torchscript", "openvino", "onnxruntime") for batch in (1, 2)
    }
    for row in found.rows:
        if row.seconds and row.subject not in GPU:
            assert len(row.seconds) == 3
            assert row.ratio == 1 if row.subject == "torchscript" else row.ratio > 0
            assert 0 < row.share < np.inf  # no bound: a machine that was busy while its limit was measured is beaten
            assert row.peak_bytes > 10e6
        elif not row.seconds:
            assert row.reason
    assert found.machine["CPU"]
    assert found.peaks["fp32"][1] > 1e9


@pytest.mark.slow
@pytest.mark.without_gpu
def test_a_subject_that_cannot_run_here_has_a_row_with_the_reason(folder):
    text = (folder / "RESULTS.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert "not measured: " in rows["tensorrt"]
    assert "has no TensorRT engine" in rows["tensorrt"]
    assert "PyTorch sees no GPU here" in rows["torch:cuda"]
    assert "PyTorch sees no GPU here" in rows["torchscript:cuda"]
    for precision in ("fp16", "bf16"):
        assert f"computes in {precision} on an NVIDIA GPU alone" in rows[f"torch:cuda:{precision}"]
    assert "this ONNX Runtime has no CUDA provider" in rows["onnxruntime:cuda"]
    assert "this ONNX Runtime has no CUDA provider" in rows["onnxruntime:cuda:fp16"]
    assert "GPU: not measured." in text
    assert Image.open(folder / "results.png").size[0] > 400


def row(**changes: object) -> Row:
    values = {"subject": "openvino", "size": (8, 8), "batch": 1, "threads": 2, "description": "OpenVINO fp32"}
    return Row(**{**values, "precision": "fp32", **changes})


def test_the_table_has_medians_ratios_and_shares():
    rows = (row(seconds=(0.2, 0.1, 0.3), ratio=1.5, share=0.8, peak_bytes=2 * 10**9), row(subject="x", reason="no GPU"))
    text = results.format_markdown(
        Results(network="n", machine={"CPU": "c"}, runs=3, peaks={"fp32": {2: 1e11}}, rows=rows)
    )
    assert "| OpenVINO fp32 | 200 ms | 100…300 | 1.50× | 80% | 2.00 GB |" in text
    assert "| x | not measured: no GPU |" in text
    assert "100 GFLOP/s in fp32 with 2 threads" in text


def test_the_share_is_the_graphs_flops_against_the_machines_limit(tiny, make_bundle):
    bundle = make_bundle(tiny)
    work = 2 * sum(run.cost.count_multiply_adds(bundle.manifest.network, (64, 64), "matmul").values())
    found = run._add_share(row(size=(64, 64), batch=3, seconds=(0.5,)), bundle, {"fp32": {2: 1e9}})
    assert found.share == pytest.approx(3 * work / 0.5 / 1e9)
    assert run._add_share(row(seconds=(0.5,)), bundle, {"bf16": {2: 1e9}}).share is None
    for subject in GPU:  # the limits are the CPU's
        assert run._add_share(row(subject=subject, seconds=(0.5,)), bundle, {"fp32": {2: 1e9}}).share is None


def test_the_measured_peak_is_between_1_gflops_and_10_tflops():
    assert 1e9 < machine.measure_peak("fp32", 1, 0.2) < 1e13
    assert json.dumps(machine.describe_machine())


@pytest.mark.skipif(not cpu.is_x86(), reason="the variable is for x86 CPUs")
def test_there_is_no_peak_of_a_type_that_a_variable_switches_off():
    """oneDNN then has no product in the type, and OpenVINO lists the type all the same."""
    program = "from glama_deploy.benchmarks.bench import machine; print(machine.measure_peak('bf16', 1, 0.1))"
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    child = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout == "None\n"


def test_int8_with_bf16_is_compared_with_the_int8_limit_and_a_hole_has_no_share(tiny, make_bundle):
    bundle, peaks = make_bundle(tiny), {"int8": {2: 1e9}}
    mixed = row(size=(64, 64), seconds=(0.5,), precision="int8+bf16")
    assert run._add_share(mixed, bundle, peaks).share > 0
    hole = row(size=(64, 64), seconds=(0.5,), precision="int8", subject="openvino:int8@5")
    assert run._add_share(hole, bundle, peaks).share is None


def test_the_plot_leaves_out_a_size_without_measurements(tmp_path):
    rows = (row(seconds=(0.2,)), row(size=(16, 16), reason="no memory"))
    found = Results(network="n", machine={}, runs=1, peaks={}, rows=rows)
    results.plot_results(found, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").size[0] > 400
    with pytest.raises(GlamaError, match="nothing was measured"):
        results.plot_results(found.model_copy(update={"rows": rows[1:]}), tmp_path / "none.png")


def test_only_subjects_of_this_project_may_have_a_hole():
    assert all(contenders.is_subject(name) for name in contenders.SUBJECTS)
    assert contenders.is_subject("openvino:int8+bf16@5")
    assert contenders.is_subject("torch:cuda:fp16@5")
    assert contenders.is_peer("torch:cuda")
    assert not contenders.is_peer("torch:cuda:bf16")
    assert contenders.is_subject("onnxruntime:webgpu@5")
    for text in ("openvino@", "openvino@0", "openvino@100", "openvino@x", "openvin", "torch@5"):
        assert not contenders.is_subject(text)
    on_gpu = [
        name for name in ("onnxruntime:webgpu@5", "onnxruntime:cpu", "onnxruntime") if contenders.runs_on_gpu(name)
    ]
    assert on_gpu == ["onnxruntime:webgpu@5"]
    task = Task("openvino:int8@5", Path("b"), None, (256, 512), 2, 1)
    assert (task.name, task.precision, task.hole_share) == ("openvino:int8", "int8", 0.05)
    images, masks = contenders.make_scene(task)
    assert images.shape == (2, 256, 512, 3)
    assert masks.mean() == pytest.approx(0.05, rel=0.02)  # (a whole number of rows)
    rows, columns = np.nonzero(masks[0])
    assert np.ptp(rows) == np.ptp(columns)


def test_every_multiplying_node_belongs_to_a_part_of_the_network(tiny, make_bundle):
    bundle = make_bundle(tiny)
    found = layer_times.measure_parts(bundle, "fp32", (64, 72), 1, 3)
    assert {"stem", "down", "local", "spectral", "fft", "up", "head", "pads"} <= {part.name for part in found}
    assert sum(part.share for part in found) == pytest.approx(1)
    assert {part.name for part in found if part.rate} == {"stem", "down", "local", "spectral", "fft", "up", "head"}
    runner = openvino.OpenVINORunner(bundle, Request("fp32", 1))
    (nodes,) = runner.profile(64, 72, 1)
    multiplying = [(name, kind) for name, kind, _ in nodes if re.search("Convolution|MatMul|FullyConnected", kind)]
    assert len(multiplying) > 20
    assert "ends" not in {
        layer_times.find_part(name, kind) for name, kind in multiplying
    }  # nothing that costs is left over


@pytest.mark.parametrize(
    ("node", "kind", "part"),
    [
        ("block3/conv1/g2l", "Convolution", "local"),
        ("block3/conv1/g2g/spectrum/WithoutBiases", "Convolution", "spectral"),
        ("block3/conv1/g2g/rfft/column", "MatMul", "fft"),
        ("block3/conv1/g2g/irfft/row_abcd_acdb_block3/conv1/g2g/sum", "Reorder", "reorders"),
        ("down0/local_pad", "Pad", "pads"),
        ("down0/l2l/WithoutBiases", "Convolution", "down"),
        ("ConvolutionBackpropData_2458", "ConvolutionBackpropData", "up"),
        ("block8/global", "Add", "sums"),
        ("predicted", "Sigmoid", "ends"),
    ],
)
def test_a_node_belongs_to_the_part_that_its_name_says(node, kind, part):
    assert layer_times.find_part(node, kind) == part


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--subject", "openvin"], "--subject is 'openvin'; expected torchscript, "),
        (["--subject", "onnxruntime:webgp"], "onnxruntime:PROVIDER with cpu, cuda, tensorrt, tensorrt-rtx, webgpu, "),
        (["--subject", "torch@5"], "--subject is 'torch@5'; expected torchscript, "),
        (["--size", "64"], "--size"),
        (["--model", "/no/such"], "no checkpoint at /no/such"),
        (["--model", "z" * 5000], "File name too long; check the path"),
        (["--out", "z" * 5000], "File name too long; check the path"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(arguments, says, capsys):
    assert main.run(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    """A run on a loaded machine without measurements, and the subjects that it opened."""
    opened: list[str] = []

    def open_all(tasks: list[Task], runs: int, step: object) -> list[Row]:
        opened.extend(task.subject for task in tasks)
        return [Row(subject=t.subject, size=t.size, batch=1, threads=1, reason="no GPU") for t in tasks]

    monkeypatch.setattr(run, "_measure_limits", lambda precisions, threads, step: {})
    monkeypatch.setattr(run, "_measure_in_turns", open_all)
    monkeypatch.setattr(machine, "describe_machine", lambda: {"CPU": "c", machine.LOAD_KEY: "7.5"})
    return opened


def test_a_run_that_measures_nothing_ends_with_exit_code_4(tiny_bundle, tmp_path, steps, capsys):
    arguments = ["--model", str(tiny_bundle.path), "--subject", "openvino", "--device", "npu", "--json"]
    assert main.run([*arguments, "--out", str(tmp_path / "out")]) == 4
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"][0]["reason"] == "no GPU"
    assert said.err.endswith("glama-bench: nothing was measured, so nothing is written; each row says why\n")
    assert not (tmp_path / "out").exists()


def test_the_load_is_noted_where_pytorch_is_measured(tiny_bundle, steps, capsys):
    for subject, is_noted in (("openvino", False), ("torchscript", True)):
        main.run(["--model", str(tiny_bundle.path), "--subject", subject])
        assert ("note: the load is 7.5 already" in " ".join(capsys.readouterr().err.split())) == is_noted


def test_of_a_bundle_alone_the_subjects_that_need_its_checkpoint_are_left_out_with_one_note(
    tiny_bundle, tiny, steps, capsys
):
    main.run(["--model", str(tiny_bundle.path)])
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("give --ckpt") == 1
    assert "left out: torchscript, torch, torch-compile, opencv, torchscript:cuda, torch:cuda, " in said
    assert "openvino" in steps
    assert not [name for name in steps if name.startswith(("torch", "opencv"))]
    main.run(["--model", str(tiny_bundle.path), "--ckpt", str(tiny)])
    assert "torchscript" in steps
    assert "give --ckpt" not in capsys.readouterr().err


def test_a_subject_whose_process_dies_gets_a_reason_and_the_others_continue(tiny, make_bundle, monkeypatch):
    """As one that the system kills for its memory."""
    bundle = make_bundle(tiny).path

    class Dying(contenders.Running):
        turns = 0

        def time_run(self):
            Dying.turns += 1
            if self.description.startswith("ONNX") and Dying.turns > 2:
                self._process.kill()
            return super().time_run()

    monkeypatch.setattr(run, "Running", Dying)
    tasks = [Task(name, bundle, None, (64, 72), 1, 1) for name in ("onnxruntime", "openvino")]
    died, whole = run._measure_in_turns(tasks, 3, lambda text: None)
    assert not died.seconds
    assert "its process ended (exit code -9)" in died.reason
    assert len(whole.seconds) == 3
    assert whole.peak_bytes


@pytest.mark.parametrize("size", [(512, 512), (64, 2048), (2048, 64)])
def test_a_hole_covers_its_share_in_narrow_images_too(size):
    _, masks = contenders.make_scene(Task("openvino@50", Path(), None, size, 1, 1))
    assert masks.mean() == pytest.approx(0.5, abs=0.01)  # of whole rows and columns


def test_existing_results_and_an_unwritable_folder_are_refused_before_the_measurement(tmp_path, capsys):
    (tmp_path / "results.json").write_text("{}")
    assert main.run(["--subject", "openvino", "--out", str(tmp_path)]) == 2
    assert "has results already; choose another folder or pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "{}"
    assert main.run(["--subject", "openvino", "--out", "/proc/nowhere"]) == 2
    assert "cannot write /proc/nowhere" in capsys.readouterr().err


def test_results_json_is_written_last(tmp_path, monkeypatch):
    """A run that ends before, as by a kill, is run again without --overwrite."""
    found = Results(network="n", machine={}, runs=1, peaks={}, rows=(row(seconds=(0.1,)),))
    monkeypatch.setattr(run, "measure", lambda *arguments, **options: found)

    def fail(*arguments: object) -> None:
        raise GlamaError("ended here")

    monkeypatch.setattr(results, "plot_results", fail)
    for _ in range(2):
        assert main.run(["--out", str(tmp_path / "out")]) == 2
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["RESULTS.md"]


def test_a_busy_machine_gives_a_warning():
    assert machine.warn_of_load({"load before": "0.1"}) is None
    assert "the load is 2.4 already" in machine.warn_of_load({"load before": "2.4"})
    assert machine.warn_of_load({**machine.describe_machine(), "load before": "0.0"}) is None
