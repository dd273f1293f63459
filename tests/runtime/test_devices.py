"""The devices that a user can name, and which engines are opened there."""

from __future__ import annotations

import logging
import pickle

import pytest
import torch

import glama_deploy
from glama_deploy import loading
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.runtime import choice
from glama_deploy.runtime import torch as torch_runtime
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.devices import Device, parse_device
from glama_deploy.runtime.onnxruntime import runner as onnxruntime
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.tensorrt import runner as tensorrt


@pytest.mark.parametrize(
    ("given", "device", "name"),
    [
        ("cpu", Device("cpu"), "cpu"),
        ("CPU", Device("cpu"), "cpu"),
        ("cuda", Device("cuda"), "cuda"),
        ("CUDA:1", Device("cuda", 1), "cuda:1"),
        ("cuda:0", Device("cuda", 0), "cuda:0"),
        (torch.device("cuda", 3), Device("cuda", 3), "cuda:3"),
        (torch.device("cpu"), Device("cpu"), "cpu"),
        ("GPU", Device("gpu"), "GPU"),
        ("gpu.1", Device("gpu", 1), "GPU.1"),
        ("npu", Device("npu"), "NPU"),
        ("AUTO", Device("auto"), "AUTO"),
        ("auto:gpu.1,-npu,cpu", Device("auto", candidates="GPU.1,-NPU,CPU"), "AUTO:GPU.1,-NPU,CPU"),
    ],
)
def test_a_device_is_read_in_capital_and_small_letters(given, device, name):
    assert parse_device(given) == device
    assert str(device) == name
    assert parse_device(name) == device


def test_no_device_is_none():
    assert parse_device(None) is None


@pytest.mark.parametrize(
    "given", ["", "cuda:", "cuda:-1", "cuda:12345", "cuda:1:2", "gpu:1", "cpu:0", "cpu.0", "mps", 1]
)
def test_what_names_no_device_is_an_error_that_lists_the_devices(given):
    expected = "cpu, cuda, cuda:N, GPU, GPU.N, NPU, AUTO or AUTO:GPU,CPU is expected"
    with pytest.raises(EngineError, match=f"^`device` is '{given}'; .*{expected}$"):
        parse_device(given)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("gpx", "GPU or GPU.N"),
        ("gpu:1", "GPU or GPU.N"),
        ("nvidia", None),
        ("cuba:1", "cuda or cuda:N"),
        ("NPUs", "NPU"),
        ("xpu", "GPU or GPU.N"),
        ("xpu:0", "GPU or GPU.N"),
    ],
)
def test_the_device_that_a_wrong_name_is_near_is_suggested(given, near):
    with pytest.raises(EngineError) as caught:
        parse_device(given)
    assert (f"is {near} meant?" in str(caught.value)) == (near is not None)


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        ("webgpu", "onnxruntime:webgpu"),
        ("Vulkan", "onnxruntime:webgpu"),
        ("mps:0", "onnxruntime:coreml"),
        ("metal", "onnxruntime:coreml"),
        ("directml", "onnxruntime:directml"),
        ("tensorrt", "tensorrt"),
    ],
)
def test_a_backend_that_is_given_as_the_device_is_named(given, backend):
    with pytest.raises(EngineError, match=rf"^`device` is '{given}'; give `backend={backend}`; as device, cpu, cuda, "):
        parse_device(given)


@pytest.mark.parametrize("backend", ["auto", "openvino", "onnxruntime", "onnxruntime:cpu", "OpenVINO", "AUTO"])
def test_the_cpu_is_a_device_of_every_engine_on_a_cpu(tiny_bundle, backend):
    assert glama_deploy.load(tiny_bundle.path, backend, device="cpu").device == "cpu"


def test_the_device_is_kept_when_an_inpainter_is_pickled(tiny_bundle, photo, hole):
    inpainter = glama_deploy.load(tiny_bundle.path, "onnxruntime", device="CPU")
    assert inpainter.__reduce__()[1][-1] == "cpu"
    assert (pickle.loads(pickle.dumps(inpainter))(photo, hole) == inpainter(photo, hole)).all()


@pytest.mark.parametrize(
    ("backend", "device", "says"),
    [
        ("openvino", "cuda:1", "^`device` is cuda:1, and openvino does not compute there; give cpu"),
        (
            "onnxruntime",
            "gpu",
            "^`device` is GPU, and onnxruntime does not compute there; give cuda, cuda:N or cpu, or",
        ),
        ("onnxruntime:cuda", "npu", "^`device` is NPU, and onnxruntime:cuda does not compute there; give cuda or"),
        (
            "tensorrt",
            "cpu",
            "^`device` is cpu, and tensorrt does not compute there; give cuda or cuda:N, or another `back",
        ),
        ("torch", "AUTO", "^`device` is AUTO, and torch does not compute there; give cuda, cuda:N or cpu, or"),
    ],
)
def test_a_backend_that_does_not_compute_on_the_device_is_one_line(tiny_bundle, tiny, backend, device, says):
    for model in (tiny_bundle.path, tiny):
        with pytest.raises(EngineError, match=says):
            glama_deploy.load(model, backend, device=device)


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "tensorrt", "torch"])
def test_a_gpu_that_does_not_exist_is_an_error_that_counts_those_that_do(tiny, monkeypatch, backend):
    monkeypatch.setattr(choice, "has_driver", lambda: True)
    monkeypatch.setattr(choice, "list_gpus", lambda: ("NVIDIA T4", "NVIDIA T4"))
    says = r"^`device` is cuda:2, and there is no such GPU; this process sees 2 CUDA GPUs, cuda:0 to cuda:1$"
    with pytest.raises(EngineError, match=says):
        glama_deploy.load(tiny, backend, device="cuda:2")


def test_pytorch_counts_its_own_gpus(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(choice, "has_driver", lambda: True)
    monkeypatch.setattr(choice, "list_gpus", tuple)
    with pytest.raises(EngineError, match=r"cuda:1, and there is no such GPU; this process sees 1 CUDA GPU, cuda:0$"):
        glama_deploy.load(tiny, "torch", device="cuda:1")


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "onnxruntime:cuda", "tensorrt", "torch"])
@pytest.mark.parametrize("model", ["default", "lama"])
def test_without_a_driver_the_device_is_refused_before_an_engine_or_a_download(monkeypatch, backend, model):
    monkeypatch.setattr(choice, "has_driver", lambda: False)
    monkeypatch.setattr(loading, "locate", lambda model: pytest.fail("the device is judged before a download"))
    with pytest.raises(
        EngineError, match=r"^`device` is cuda:3, and this machine has no NVIDIA GPU \(no driver\); give cpu$"
    ):
        glama_deploy.load(model, backend, device="cuda:3")


@pytest.mark.without_gpu
def test_pytorch_for_rocm_says_itself_which_gpus_it_sees(tiny, monkeypatch):
    monkeypatch.setattr(choice, "read_versions", lambda name: {name: "2.9.1+rocm6.4"})
    with pytest.raises(EngineError, match=r"^`device` is cuda, and PyTorch sees no GPU; give cpu, or install"):
        glama_deploy.load(tiny, "torch", device="cuda")


@pytest.mark.without_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_pytorch_without_a_gpu_is_one_line(tiny, monkeypatch, device):
    monkeypatch.setattr(choice, "has_driver", lambda: True)
    with pytest.raises(EngineError, match=f"^`device` is {device}, and PyTorch sees no GPU; give cpu, or install"):
        glama_deploy.load(tiny, "torch", device=device)


def test_auto_opens_only_engines_that_compute_on_the_device(tiny_bundle, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(choice, "has_driver", lambda: True)

    def refuse(bundle: Bundle, request: Request):
        asked.append(str(request.device))
        raise EngineError("TensorRT is broken")

    monkeypatch.setattr(tensorrt, "absent", lambda bundle, request: False)
    monkeypatch.setattr(tensorrt, "open", refuse)
    monkeypatch.setattr(openvino, "open", lambda *_: pytest.fail("OpenVINO does not compute on cuda"))
    monkeypatch.setattr(onnxruntime, "absent", lambda bundle, request: False)
    monkeypatch.setattr(onnxruntime, "open", lambda bundle, request: _Opened(str(request.device)))
    with caplog.at_level(logging.WARNING):
        assert choice.open_bundle(tiny_bundle, "auto", Request(device=Device("cuda", 0))).description == "cuda:0"
    assert asked == ["cuda:0"]
    assert caplog.messages == ["TensorRT is broken; using cuda:0"]


class _Opened:
    def __init__(self, description: str) -> None:
        self.description = description


@pytest.mark.without_gpu
def test_auto_on_a_gpu_that_is_not_there_names_the_engines(tiny_bundle, monkeypatch):
    monkeypatch.setattr(choice, "has_driver", lambda: True)
    with pytest.raises(
        EngineError, match=r"^no engine that computes on cuda is here for this bundle; install TensorRT or"
    ):
        glama_deploy.load(tiny_bundle.path, device="cuda")


@pytest.mark.without_gpu
def test_a_checkpoint_on_a_gpu_that_is_not_there_is_one_line_with_pytorchs_reason(tiny, monkeypatch):
    monkeypatch.setattr(choice, "has_driver", lambda: True)
    with pytest.raises(
        EngineError, match=r"^no engine that computes on cuda:1 is .*; `device` is cuda:1, and PyTorch sees"
    ):
        glama_deploy.load(tiny, device="cuda:1")


@pytest.mark.gpu
def test_a_named_gpu_computes(tiny, photo, hole):
    inpainter = glama_deploy.load(tiny, "torch", device="cuda:0")
    expected = glama_deploy.load(tiny, "torch", device="cpu")
    assert inpainter.device == "cuda"
    assert "CUDA:0" in inpainter.description
    # fp32 without TF32, in another order of summation; one step of 255 where a value lies between two
    assert abs(inpainter(photo, hole).astype(int) - expected(photo, hole)).max() <= 1


def test_the_reference_computes_where_it_is_told_to(tiny):
    source = torch_runtime.formats.read(tiny)
    runner = torch_runtime.open(source, Request(device=Device("cpu")))
    assert runner.device == "cpu"
    assert runner.description.endswith("CPU fp32")
