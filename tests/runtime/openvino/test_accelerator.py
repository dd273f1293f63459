"""Intel's GPUs and NPUs by a stand-in for OpenVINO's core: up to what the plugins are given. No device was there."""

from __future__ import annotations

import numpy as np
import pytest

import glama_deploy
from fakes.openvino_devices import CoreWithDevices
from glama_deploy import memory
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.network import NetworkConfig, parameter_count
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.devices import CPU, Device
from glama_deploy.runtime.onnxruntime import runner as onnxruntime
from glama_deploy.runtime.openvino import core as core_module
from glama_deploy.runtime.openvino import devices
from glama_deploy.runtime.openvino import runner as openvino

pytest.importorskip("openvino")

TWO_STAGES = NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64)

GPU, GPU_1, NPU = Device("gpu"), Device("gpu", 1), Device("npu")


@pytest.fixture
def core(monkeypatch) -> CoreWithDevices:
    """The core of a machine with two GPUs and an NPU."""
    stand_in = CoreWithDevices(core_module.core(), "GPU.0", "GPU.1", "NPU", auto="GPU.1")
    monkeypatch.setattr(core_module, "_core", [stand_in])
    return stand_in


def inputs(bundle: Bundle, height: int, width: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height)
    image = rng.random((batch, 3, height, width), np.float32)
    mask = (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)
    if bundle.manifest.io == "float":
        return image, mask
    return (image.transpose(0, 2, 3, 1) * 255).astype(np.uint8), mask[:, 0].astype(np.uint8)


# ---------------------------------------------------------------- the device


@pytest.mark.parametrize(
    ("device", "there", "name"),
    [
        (None, ["CPU", "GPU"], "CPU"),
        (CPU, ["CPU", "GPU"], "CPU"),
        (GPU, ["CPU", "GPU"], "GPU"),
        (Device("gpu", 0), ["CPU", "GPU"], "GPU.0"),
        (GPU, ["CPU", "GPU.0", "GPU.1"], "GPU"),
        (GPU_1, ["CPU", "GPU.0", "GPU.1"], "GPU.1"),
        (NPU, ["CPU", "NPU"], "NPU"),
    ],
)
def test_a_device_has_the_name_that_openvino_knows(core, device, there, name):
    core.available_devices = there
    assert devices.find_device(device) == name


@pytest.mark.parametrize(
    ("device", "there", "listed"),
    [
        (GPU, ["CPU"], "CPU"),
        (GPU_1, ["CPU", "GPU"], "CPU and GPU"),
        (Device("gpu", 2), ["CPU", "GPU.0", "GPU.1"], "CPU, GPU.0 and GPU.1"),
        (NPU, ["CPU", "GPU"], "CPU and GPU"),
    ],
)
def test_a_device_without_a_driver_is_one_line_with_those_that_openvino_finds(core, tiny_bundle, device, there, listed):
    core.available_devices = there
    for backend in ("openvino", "auto"):
        with pytest.raises(
            EngineError, match=f"^`device` is {device}, and OpenVINO finds {listed} here alone; install the"
        ):
            glama_deploy.load(tiny_bundle.path, backend, device=str(device))


@pytest.mark.parametrize("name", ["AUTO", "auto:cpu", "AUTO:GPU,CPU", "AUTO:-GPU"])
def test_auto_of_the_real_openvino_computes_as_the_device_that_it_chooses(tiny_bundle, photo, hole, name):
    inpainter = glama_deploy.load(tiny_bundle.path, device=name)
    if inpainter.device != "cpu":
        pytest.skip("OpenVINO finds another device than the CPU here")
    expected = glama_deploy.load(tiny_bundle.path, "openvino", device="cpu")
    assert inpainter.description == expected.description
    assert (inpainter(photo, hole) == expected(photo, hole)).all()


def test_auto_that_can_use_no_device_is_one_line(tiny_bundle):
    with pytest.raises(
        EngineError, match=r"^`device` is AUTO:-CPU,-GPU,-NPU, and AUTO can use none of these devices; Open"
    ):
        glama_deploy.load(tiny_bundle.path, device="AUTO:-CPU,-GPU,-NPU")


def test_what_auto_chooses_is_asked_once_and_kept(core, tiny_bundle):
    runner = openvino.open(tiny_bundle, Request(device=Device("auto", candidates="GPU.1,CPU")))
    for side in (64, 72):
        runner.run(*inputs(tiny_bundle, 64, side))
    assert {name for name, _, _ in core.compiled} == {"GPU.1"}
    assert runner.device == "gpu"


# ---------------------------------------------------------------- what the device is given


@pytest.mark.parametrize("io", ["float", "uint8"])
@pytest.mark.parametrize("config", [NetworkConfig(ngf=8, n_blocks=1), TWO_STAGES], ids=["one stage", "two stages"])
def test_each_size_is_a_model_of_fixed_shapes_that_computes_as_onnx_runtime(
    core, make_checkpoint, make_bundle, io, config
):
    bundle = make_bundle(make_checkpoint(config), io=io)
    runner = openvino.open(bundle, Request("fp32", device=GPU_1))
    reference = onnxruntime.open(bundle, Request("fp32", device=CPU))
    cases = [inputs(bundle, 64, 72), inputs(bundle, 96, 64, batch=2), inputs(bundle, 64, 72)]
    # the same network in fp32 in two engines; uint8 outputs are rounded, so a value between two steps may go to either
    tolerance = 2e-5 if io == "float" else 1
    for case in cases:
        found, expected = (each.run(*case).astype(np.float32) for each in (runner, reference))
        assert np.abs(found - expected).max() <= tolerance
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    shapes = [case[0].shape for case in cases[:2]]
    assert core.compiled == [("GPU.1", shape, settings) for shape in shapes]


def test_nothing_that_the_size_decides_is_left_to_a_device_in_fp16(core, make_checkpoint, make_bundle):
    bundle = make_bundle(make_checkpoint(TWO_STAGES))
    openvino.open(bundle, Request(device=GPU)).run(*inputs(bundle, 64, 72))
    kinds = {node.get_type_name() for node in core.models[0].get_ops()}
    assert "MatMul" in kinds
    assert not kinds & {"ShapeOf", "Range", "Cos", "Sin", "Floor"}


@pytest.mark.parametrize(
    ("device", "asked", "computed", "hint"),
    [
        (GPU, "auto", "fp16", "f16"),
        (GPU, "fp16", "fp16", "f16"),
        (GPU, "fp32", "fp32", "f32"),
        (GPU, "bf16", "fp32", "f32"),
        (NPU, "auto", "fp16", None),
        (NPU, "fp16", "fp16", None),
    ],
)
def test_a_gpu_and_an_npu_prefer_fp16(core, tiny_bundle, device, asked, computed, hint):
    inpainter = glama_deploy.load(tiny_bundle.path, "openvino", asked, device=str(device))
    assert inpainter.precision == computed
    assert inpainter.device == device.kind
    assert inpainter.precisions == (("fp32", "fp16") if device == GPU else ("fp16",))
    note = f" ({device} has no bf16)" if asked == "bf16" else ""
    assert inpainter.description.endswith(f" {device} {computed}{note}")
    inpainter(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))
    assert core.compiled[0][2].get("INFERENCE_PRECISION_HINT") == hint


def test_a_precision_that_an_npu_does_not_have_is_one_line(core, tiny_bundle):
    with pytest.raises(EngineError, match=r"^`precision` is fp32, and NPU computes in fp16; give `precision=auto`$"):
        glama_deploy.load(tiny_bundle.path, "openvino", "fp32", device="NPU")


def test_weights_in_int8_stay_in_int8(core, int8_bundle):
    inpainter = glama_deploy.load(int8_bundle.path, "openvino", device="GPU")
    assert inpainter.precision == "int8+fp16"
    inpainter(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))
    types = [node.get_output_element_type(0).to_string() for node in core.models[0].get_ops()]
    assert types.count("i8") > 5
    whole = glama_deploy.load(int8_bundle.path, "openvino", "fp32", device="GPU")
    whole(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))
    assert "FakeQuantize" not in {node.get_type_name() for node in core.models[1].get_ops()}


def test_few_sizes_are_kept(core, tiny_bundle):
    runner = openvino.open(tiny_bundle, Request(device=GPU))
    for width in (64, 72, 80, 88, 64, 96, 64, 72):
        runner.run(*inputs(tiny_bundle, 64, width))
    widths = [shape[-1] for _, shape, _ in core.compiled]
    assert widths == [64, 72, 80, 88, 96, 72]  # 64 was used between, so 72 had gone


def test_a_bundle_of_one_size_is_compiled_when_it_is_opened(core, tiny, make_bundle):
    bundle = make_bundle(tiny, size=(64, 64))
    core.fault = "no kernel for Pad"
    with pytest.raises(EngineError, match=r"^OpenVINO cannot compile 64x64 for NPU: no kernel for Pad$"):
        openvino.open(bundle, Request(device=NPU))
    core.fault = ""
    openvino.open(bundle, Request(device=NPU))
    assert [name for name, _, _ in core.compiled] == ["NPU"]


def test_a_size_that_the_device_cannot_compile_is_one_line(core, tiny_bundle):
    inpainter = glama_deploy.load(tiny_bundle.path, device="GPU")
    core.fault = "CL_OUT_OF_RESOURCES"
    with pytest.raises(EngineError, match=r"^OpenVINO cannot compile 64x64 for GPU: CL_OUT_OF_RESOURCES$"):
        inpainter(np.zeros((64, 64, 3), np.uint8), np.ones((64, 64), bool))


def test_a_run_that_fails_leaves_no_model_behind(core, tiny_bundle, monkeypatch):
    runner = openvino.open(tiny_bundle, Request(device=GPU))
    case = inputs(tiny_bundle, 64, 64)
    runner.run(*case)

    def fail(*arguments):
        raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr("glama_deploy.runtime.openvino.accelerator.CompiledModel.run", fail)
        with pytest.raises(EngineError, match=r"^OpenVINO failed: device lost$"):
            runner.run(*case)
    runner.run(*case)
    assert len(core.compiled) == 2


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("device", "values", "free"),
    [
        (GPU, {"GPU_DEVICE_TOTAL_MEM_SIZE": 1000, "DEVICE_TYPE": "Type.INTEGRATED"}, 500),
        (GPU, {"GPU_DEVICE_TOTAL_MEM_SIZE": 400, "DEVICE_TYPE": "Type.INTEGRATED"}, 400),
        (GPU, {"GPU_DEVICE_TOTAL_MEM_SIZE": 1000, "DEVICE_TYPE": "Type.DISCRETE"}, 1000),
        (
            GPU,
            {
                "GPU_DEVICE_TOTAL_MEM_SIZE": 1000,
                "GPU_MEMORY_STATISTICS": {"usm_device": 300, "usm_host": 100},
                "DEVICE_TYPE": "Type.DISCRETE",
            },
            600,
        ),
        (NPU, {"NPU_DEVICE_TOTAL_MEM_SIZE": 400, "NPU_DEVICE_ALLOC_MEM_SIZE": 100}, 300),
        (NPU, {}, 500),
    ],
)
def test_the_free_memory_is_that_of_the_device(core, tiny_bundle, monkeypatch, device, values, free):
    """Integrated devices share the main memory, of which 500 bytes are free here."""
    core.values = {(str(device), key): value for key, value in values.items()}
    monkeypatch.setattr(memory, "available", lambda: 500)
    assert openvino.open(tiny_bundle, Request(device=device)).memory_available() == free


def test_a_size_needs_less_memory_once_it_is_compiled(core, tiny_bundle):
    runner = openvino.open(tiny_bundle, Request(device=GPU))
    before = runner.memory_needed((64, 64))
    runner.run(*inputs(tiny_bundle, 64, 64))
    weights = 4 * parameter_count(tiny_bundle.manifest.network)
    assert before - runner.memory_needed((64, 64)) >= weights
    assert runner.memory_needed((64, 64), batch=2) > runner.memory_needed((64, 64))


def test_the_memory_of_one_size_is_not_that_of_the_next(core, tiny_bundle):
    """Each size has a compiled model with memory of its own: what the last run took serves that size alone."""
    runner = openvino.open(tiny_bundle, Request(device=GPU))
    holders = []
    for side in (64, 64, 72, 64):
        runner.run(*inputs(tiny_bundle, side, 64))
        holders.append(runner.holder)
    assert holders[0] == holders[1]
    assert len(set(holders)) == 3


def test_a_picture_that_does_not_fit_the_device_is_refused_before_it_is_compiled(core, tiny_bundle):
    core.values = {("GPU", "GPU_DEVICE_TOTAL_MEM_SIZE"): 1_000_000, ("GPU", "DEVICE_TYPE"): "Type.DISCRETE"}
    inpainter = glama_deploy.load(tiny_bundle.path, "openvino", device="GPU")
    with pytest.raises(ImageError, match=r"the image is 512x512 and needs about .* GB"):
        inpainter(np.zeros((512, 512, 3), np.uint8), np.ones((512, 512), bool), region="full")
    assert not core.compiled
