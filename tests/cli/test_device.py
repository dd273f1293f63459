"""The option that chooses the device, in all commands that open engines."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.bench import contenders, run
from glama_deploy.cli import frames
from glama_deploy.cli.bench import main as glama_bench
from glama_deploy.cli.build import main as glama_build
from glama_deploy.cli.eval import main as glama_eval
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.cli.serve import main as glama_serve
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.errors import EngineError
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request
from glama_deploy.server import app
from glama_deploy.server import run as server
from glama_deploy.server.settings import Settings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a picture, its mask, and a folder of pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("image.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("photos/a.png")
    Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save("mask.png")
    return tmp_path


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The devices that engines are asked for; no engine opens."""
    devices: list[str] = []

    def refuse(bundle, backend: str, request: Request) -> None:
        devices.append(str(request.device))
        raise EngineError("not here")

    monkeypatch.setattr(choice, "open_bundle", refuse)
    return devices


@pytest.mark.parametrize("device", [None, "gpu.1"])
def test_each_command_opens_its_engine_on_the_device(tiny_bundle, folder, asked, monkeypatch, device):
    option, model = ["--device", device] if device else [], ["--model", str(tiny_bundle.path)]
    single = [*model, "--image", "image.png", "--mask", "mask.png"]
    assert glama_inpaint.run([*single, "--out", "out.png", *option]) == 2
    assert glama_inpaint.run([*single, "--output", "folder", *option]) == 2  # as `iopaint run`
    monkeypatch.setattr(frames, "open_standard_input", lambda remedy: io.BytesIO(bytes(64 * 64 * 3)))
    monkeypatch.setattr(frames, "open_standard_output", lambda remedy: io.BytesIO())
    assert frames.main.run([*model, "64", "64", "--mask", "mask.png", *option]) == 2
    assert asked == [device.upper() if device else "None"] * 3


def test_the_benchmark_opens_this_projects_engines_on_the_device(tiny_bundle, folder, asked, monkeypatch):
    monkeypatch.setattr(run, "_measure_limits", lambda precisions, threads, step: {})
    monkeypatch.setattr(run, "_measure_in_turns", lambda tasks, runs, step: contenders._open(tasks[0]))
    assert glama_bench.run(["--model", str(tiny_bundle.path), "--subject", "openvino", "--device", "npu"]) == 2
    assert asked == ["NPU"]


def test_the_evaluation_has_a_device_for_engines_beside_that_of_metrics(tiny_bundle, folder, asked, capsys):
    common = ["--model", str(tiny_bundle.path), "--data", "photos", "--out", "results"]
    assert glama_eval.run([*common, "--engine-device", "GPU"]) == 2
    assert asked == ["GPU"]
    assert glama_eval.run([*common, "--engine-device", "gpx"]) == 2
    assert "--engine-device is 'gpx'; is GPU or GPU.N meant?" in capsys.readouterr().err


def test_the_server_opens_its_engine_on_the_device(tiny_bundle, asked, monkeypatch):
    served: list[Settings] = []
    monkeypatch.setattr(server, "serve", lambda settings, listener, greet: served.append(settings))
    model = ["--model", str(tiny_bundle.path)]
    assert glama_serve.run([*model, "--no-open", "--port", "0", "--device", "AUTO:GPU,CPU"]) == 0
    with pytest.raises(EngineError, match="not here"):
        app._make_open(served[0])(str(tiny_bundle.path), "auto")
    assert asked == ["AUTO:GPU,CPU"]


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("gpx", "glama-inpaint: --device is 'gpx'; is GPU or GPU.N meant? cpu, cuda, cuda:N, GPU, "),
        ("cuda", "glama-inpaint: --device is cuda, and openvino does not compute there; give cpu, GPU, GPU.N, NPU, "),
    ],
)
def test_a_wrong_device_is_one_line_and_writes_nothing(tiny_bundle, folder, capsys, device, says):
    common = ["--model", str(tiny_bundle.path), "--backend", "openvino", "--image", "image.png", "--mask", "mask.png"]
    assert glama_inpaint.run([*common, "--out", "out.png", "--device", device]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not (folder / "out.png").exists()


def test_a_row_of_another_device_is_not_compared_with_the_limits_of_the_cpu():
    assert contenders.runs_on_gpu("openvino", "GPU.1")
    assert contenders.runs_on_gpu("openvino:bf16@5", "NPU")
    assert not contenders.runs_on_gpu("openvino", "cpu")
    assert not contenders.runs_on_gpu("openvino")
    assert contenders.runs_on_gpu("onnxruntime:cuda")
    assert not contenders.runs_on_gpu("torchscript", "cuda:1")  # a peer computes where its name says


# ---------------------------------------------------------------- glama-build


@pytest.mark.parametrize(
    ("visible", "count", "index", "chosen"),
    [(None, 2, 1, "1"), (None, 0, 3, "3"), ("2,5", 8, 1, "5"), ("GPU-5d1e", 8, 0, "GPU-5d1e")],
)
def test_an_engine_is_built_where_one_gpu_alone_is_shown(monkeypatch, visible, count, index, chosen):
    monkeypatch.setattr(gpus, "read_names", lambda: ("NVIDIA T4",) * count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus.choose_gpu(index)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_a_gpu_that_is_hidden_from_the_process_cannot_be_built_on(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    with pytest.raises(EngineError, match=r"`device` is cuda:2, .*; this process sees 2 CUDA GPUs, cuda:0 to cuda:1"):
        gpus.choose_gpu(2)


@pytest.mark.parametrize(
    ("target", "device", "says"),
    [
        (
            "openvino",
            "cuda:1",
            "--device is for TensorRT (trt, trt-rtx); openvino is built without a GPU: leave it out",
        ),
        ("trt-rtx", "cpu", "--device is cpu, and TensorRT builds on NVIDIA GPUs; give cuda:N"),
        ("trt-rtx", "cuba", "--device is 'cuba'; is cuda or cuda:N meant?"),
    ],
)
def test_a_device_that_no_engine_is_built_on_is_one_line(tiny_bundle, monkeypatch, capsys, target, device, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert glama_build.run([str(tiny_bundle.path), "--target", target, "--device", device]) == 2
    assert says in capsys.readouterr().err
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_build_command_shows_one_gpu_to_tensorrt(tiny_bundle, monkeypatch):
    seen = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")

    def build(*arguments, **settings):
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        raise EngineError("not here")

    monkeypatch.setattr("glama_deploy.cli.build.add_engine", build)
    assert glama_build.run([str(tiny_bundle.path), "--target", "trt-rtx", "--device", "cuda:1"]) == 4
    assert seen == ["4"]
