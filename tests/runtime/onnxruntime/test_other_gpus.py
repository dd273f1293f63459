"""The providers DirectML, CoreML and OpenVINO. None of them starts here, so sessions that record stand for theirs: the
sessions compute on the CPU, from the graphs and with the options that the providers are given."""

from __future__ import annotations

import json
import platform
import sys
import types

import numpy as np
import onnxruntime
import pytest

from glama_deploy import memory
from glama_deploy.errors import EngineError
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.choice import open_bundle
from glama_deploy.runtime.devices import CPU, Device
from glama_deploy.runtime.onnxruntime import model_file, providers
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS
from glama_deploy.runtime.onnxruntime.size_sessions import MAX_SESSIONS

FIXED = ["directml", "coreml"]


class Machine:
    """An ONNX Runtime with the provider of a record. `opened` has what each session was given."""

    def __init__(self, monkeypatch, name: str) -> None:
        self.record = PROVIDERS[name]
        self.opened: list[types.SimpleNamespace] = []
        self.fails = ""
        self._real = onnxruntime.InferenceSession
        names = [self.record.ort_name, "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
        monkeypatch.setattr(onnxruntime, "InferenceSession", self.open)

    def open(self, model, options, providers=(), **_):
        if self.fails:
            raise RuntimeError(self.fails)
        session = self._real(model, options, providers=["CPUExecutionProvider"])
        session.get_providers = lambda: [name for name, _ in providers]
        given = types.SimpleNamespace(options=options, settings=dict(providers), inputs=session.get_inputs())
        self.opened.append(given)
        return session


@pytest.fixture(params=FIXED)
def machine(request, monkeypatch) -> Machine:
    return Machine(monkeypatch, request.param)


def make_scene(height: int, width: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.random((batch, 3, height, width), np.float32)
    return image, (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)


def test_each_size_has_a_session_with_fixed_shapes_and_the_usual_result(machine, tiny_bundle):
    runner = open_bundle(tiny_bundle, f"onnxruntime:{machine.record.name}")
    usual = open_bundle(tiny_bundle, "onnxruntime:cpu")
    assert machine.record.label in runner.description
    assert (runner.device, runner.precision, runner.takes_windows) == ("gpu", "fp32", False)
    machine.opened.clear()
    for shape in ((64, 64), (72, 96), (64, 64)):
        # fp32 on one CPU, with bases that are computed once instead of in each run
        np.testing.assert_allclose(runner.run(*make_scene(*shape)), usual.run(*make_scene(*shape)), rtol=0, atol=2e-5)
    shapes = [
        [value.shape for value in given.inputs] for given in machine.opened if machine.record.ort_name in given.settings
    ]
    assert shapes == [[[1, 3, 64, 64], [1, 1, 64, 64]], [[1, 3, 72, 96], [1, 1, 72, 96]]]  # the first was kept


def test_options_are_those_that_the_providers_documentation_asks_for(machine, tiny_bundle):
    open_bundle(tiny_bundle, f"onnxruntime:{machine.record.name}")
    (given,) = machine.opened
    assert not given.options.enable_mem_pattern
    assert given.options.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert list(given.settings) == [machine.record.ort_name, "CPUExecutionProvider"]
    expected = {"directml": {}, "coreml": {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"}}
    assert given.settings[machine.record.ort_name] == expected[machine.record.name]


def test_a_gpus_number_is_an_option_of_directml_and_is_refused_where_the_provider_chooses(machine, tiny_bundle):
    backend, asked = f"onnxruntime:{machine.record.name}", Request(device=Device("gpu", 1))
    if machine.record.name == "directml":
        open_bundle(tiny_bundle, backend, asked)
        assert machine.opened[-1].settings[machine.record.ort_name]["device_id"] == "1"
    else:
        with pytest.raises(EngineError, match=r"^`device` names GPU 1, and .* CoreML provider chooses the GPU itself"):
            open_bundle(tiny_bundle, backend, asked)


def test_the_last_sessions_are_kept_and_a_new_one_is_counted_in_memory(machine, tiny_bundle):
    runner = open_bundle(tiny_bundle, f"onnxruntime:{machine.record.name}")
    sides = [64 + 8 * number for number in range(MAX_SESSIONS + 1)]
    new = runner.memory_needed((64, 64))
    for side in sides:
        runner.run(*make_scene(side, 64))
    assert len(machine.opened) == 1 + len(sides)
    kept, again = runner.memory_needed((sides[-1], 64)), runner.memory_needed((64, 64))
    assert kept == memory.estimate(sides[-1], 64, tiny_bundle.manifest.network)
    assert again == new > memory.estimate(64, 64, tiny_bundle.manifest.network)  # the first gave way to the last
    before = runner.holder
    runner.run(*make_scene(sides[-1], 64))
    assert (runner.holder, len(machine.opened)) == (before, 1 + len(sides))
    runner.run(*make_scene(sides[1], 64))
    assert runner.holder != before


def test_a_graph_of_bytes_and_a_batch_have_sessions_too(machine, tiny, make_bundle):
    bundle = make_bundle(tiny, ("onnx",), io="uint8")
    runner = open_bundle(bundle, f"onnxruntime:{machine.record.name}")
    image = np.full((2, 70, 84, 3), 128, np.uint8)
    assert runner.run(image, np.ones((2, 70, 84), np.uint8)).shape == image.shape
    assert [value.shape for value in machine.opened[-1].inputs] == [[2, 70, 84, 3], [2, 70, 84]]
    opening = runner.memory_needed((72, 80), 2) - memory.estimate(72, 80, bundle.manifest.network, 2)
    assert (opening > 0, runner.memory_needed((72, 88), 2)) == (
        True,
        memory.estimate(72, 88, bundle.manifest.network, 2),
    )


def test_a_size_whose_session_does_not_open_is_one_line_and_the_others_go_on(machine, tiny_bundle):
    runner = open_bundle(tiny_bundle, f"onnxruntime:{machine.record.name}")
    machine.fails = "the device was removed\nsecond line"
    with pytest.raises(EngineError, match=r"^ONNX Runtime cannot open .*: the device was removed$"):
        runner.run(*make_scene(64, 64))
    machine.fails = ""
    assert runner.run(*make_scene(64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(("name", "system"), [("directml", "Windows"), ("coreml", "macOS")])
def test_on_another_system_the_system_is_named_instead_of_a_package(tiny_bundle, name, system):
    if platform.system() == PROVIDERS[name].system:
        pytest.skip(f"this is {system}")
    with pytest.raises(EngineError, match=f"^this ONNX Runtime has no .* provider; .* is for {system}; take another"):
        open_bundle(tiny_bundle, f"onnxruntime:{name}")


def test_openvino_computes_in_fp32_on_any_size(monkeypatch, tiny_bundle):
    """Left alone, OpenVINO computes in bf16 or fp16 where the device is faster so."""
    machine = Machine(monkeypatch, "openvino")
    runner = open_bundle(tiny_bundle, "onnxruntime:openvino")
    (given,) = machine.opened
    settings = json.loads(given.settings["OpenVINOExecutionProvider"]["load_config"])
    assert {device: values["INFERENCE_PRECISION_HINT"] for device, values in settings.items()} == {
        "CPU": "f32",
        "GPU": "f32",
    }
    assert runner.device == "cpu"
    for side in (64, 72):
        runner.run(*make_scene(side, 64))
    assert len(machine.opened) == 1
    with pytest.raises(EngineError, match="is GPU, and onnxruntime:openvino does not compute there; give cpu,"):
        open_bundle(tiny_bundle, "onnxruntime:openvino", Request(device=Device("gpu")))
    with pytest.raises(EngineError, match="has no fp16 graph that its OpenVINO provider takes"):
        open_bundle(tiny_bundle, "onnxruntime:openvino", Request("fp16"))


@pytest.mark.parametrize(
    ("kinds", "asked", "device"),
    [
        (("NPU", "CPU", "GPU"), None, "gpu"),
        (("NPU", "CPU"), None, "cpu"),
        (("NPU",), None, ""),
        (("CPU", "GPU"), CPU, "cpu"),
        (("CPU", "GPU"), Device("gpu"), "gpu"),
        (("CPU", "GPU"), Device("gpu", 0), "gpu"),
        (("CPU",), Device("gpu"), ""),
    ],
)
def test_openvinos_plugin_takes_the_named_device_or_a_gpu_before_the_cpu_and_no_npu(
    monkeypatch, tiny_bundle, kinds, asked, device
):
    package = types.ModuleType("onnxruntime_ep_openvino")
    package.__spec__ = types.SimpleNamespace(origin="there")  # it is found
    package.get_ep_name = lambda: "OpenVINOExecutionProvider"
    package.get_library_path = lambda: "/lib/provider.so"
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(providers, "_registered", set())
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", lambda name, path: None, raising=False)
    offered = [
        types.SimpleNamespace(
            ep_name="OpenVINOExecutionProvider",
            device=types.SimpleNamespace(type=getattr(onnxruntime.OrtHardwareDeviceType, kind)),
        )
        for kind in kinds
    ]
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: offered)
    taken = []

    class Options(onnxruntime.SessionOptions):
        def add_provider_for_devices(self, devices, settings):
            taken.extend(devices)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    machine = Machine(monkeypatch, "openvino")
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options: machine.open(model, options, [("OpenVINOExecutionProvider", {})]),
    )
    if not device:
        with pytest.raises(EngineError, match="OpenVINO provider finds no device here; the package onnxruntime-ep-"):
            open_bundle(tiny_bundle, "onnxruntime:openvino", Request(device=asked))
        return
    assert open_bundle(tiny_bundle, "onnxruntime:openvino", Request(device=asked)).device == device
    assert [chosen.device.type.name for chosen in taken] == [device.upper()]


@pytest.mark.parametrize("name", ["webgpu", *FIXED, "openvino"])
def test_auto_does_not_choose_a_provider_that_a_user_must_name(monkeypatch, tiny_bundle, name):
    monkeypatch.setattr(providers, "has_provider", lambda provider: provider.name in (name, "cpu"))
    assert " CPU " in open_bundle(tiny_bundle, "onnxruntime").description


@pytest.mark.parametrize(
    "coarse", [{}, {"coarse": NetworkConfig(ngf=8, n_blocks=1), "coarse_side": 64}], ids=["one stage", "two stages"]
)
def test_webgpu_leaves_every_sine_and_cosine_to_the_cpu(make_checkpoint, make_bundle, coarse):
    """Those are the FFT's bases, of each stage of a network, and no transform is among them."""
    config = NetworkConfig(ngf=8, n_blocks=1, **coarse)
    bundle = make_bundle(make_checkpoint(config), ("onnx",))
    settings = PROVIDERS["webgpu"].make_settings(bundle, "fp32", bundle.sizes)
    named = set(settings["forceCpuNodeNames"].splitlines())
    nodes = model_file.read_model(bundle.graph("fp32")).graph.node
    assert {node.name for node in nodes if node.op_type in ("Sin", "Cos")} <= named
    assert not {node.name for node in nodes if node.op_type in ("Conv", "MatMul", "Relu")} & named
