"""ONNX Runtime's providers. None of those for GPUs starts here, so what is tested is which are tried, with what, and
what is said; a session that records stands for one that starts."""

from __future__ import annotations

import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import glama_deploy
from glama_deploy.bundle import Bundle, Graph, SizeRange
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime import choice
from glama_deploy.runtime import torch as torch_runtime
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.choice import open_bundle
from glama_deploy.runtime.devices import CPU, Device
from glama_deploy.runtime.onnxruntime import providers
from glama_deploy.runtime.onnxruntime import runner as backend
from glama_deploy.runtime.onnxruntime.provider_records import PROVIDERS


class Machine:
    """An ONNX Runtime whose GPU providers are listed and, unless they are `broken`, start; they run on the CPU."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.broken, self.opened = broken, []
        self._real = onnxruntime.InferenceSession

    def session(self, path, options=None, providers=(), **_):
        named = [(entry, {}) if isinstance(entry, str) else entry for entry in providers]
        self.opened.append((path, dict(named)))
        started = [name for name, _ in named if name not in self.broken]
        session = self._real(path, options, providers=["CPUExecutionProvider"])
        session.get_providers = lambda: started
        return session


@pytest.fixture
def machine(monkeypatch, tmp_path) -> Machine:
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path))
    return with_machine(monkeypatch)


def with_machine(monkeypatch, broken: tuple[str, ...] = ()) -> Machine:
    there = Machine(broken)
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", there.session)
    return there


@pytest.fixture(autouse=True)
def driver(monkeypatch) -> None:
    """A machine with an NVIDIA driver: ONNX Runtime itself says which providers start."""
    monkeypatch.setattr(choice, "has_driver", lambda: True)


@pytest.fixture
def with_half(tiny_bundle) -> Bundle:
    """The tiny bundle, saying that its fp32 graph is its fp16 graph, too."""
    whole = tiny_bundle.manifest.graphs["fp32"]
    graphs = {"fp32": whole, "fp16": Graph(file=whole.file, opset=18)}
    return Bundle(tiny_bundle.path, tiny_bundle.manifest.model_copy(update={"graphs": graphs}))


def test_threads_are_served_one_after_the_other(tiny_bundle, monkeypatch):
    """The memory that a run needs is counted once, however many threads call."""
    runner = open_bundle(tiny_bundle, "onnxruntime:cpu")
    inside, most = [], []

    class Session:
        def run(self, outputs, inputs):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)  # long enough for another thread to come in, where nothing keeps it out
            inside.pop()
            return [np.zeros(1)]

    monkeypatch.setattr(runner, "_session", Session())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: runner.run(np.zeros(1), np.zeros(1)), range(8)))
    assert max(most) == 1


def test_cuda_is_taken_where_it_starts_without_tf32(machine, tiny_bundle, photo, hole):
    inpainter = glama_deploy.load(tiny_bundle.path, "onnxruntime")
    assert "CUDA" in inpainter.description
    ((_, options),) = machine.opened
    assert options["CUDAExecutionProvider"]["use_tf32"] == "0"
    assert (inpainter(photo, hole)[~hole] == photo[~hole]).all()


def test_a_half_graph_is_not_kept_off_the_tensor_cores(machine, with_half):
    """use_tf32=0 would do so (ONNX Runtime's conv.cc), whatever the type of a convolution."""
    open_bundle(with_half, "onnxruntime:cuda", Request("fp16"))
    open_bundle(with_half, "onnxruntime:cuda", Request("fp32"))
    taken = [options["CUDAExecutionProvider"]["use_tf32"] for _, options in machine.opened]
    assert taken == ["1", "0"]


def test_cudas_log_of_convolutions_that_it_does_not_fuse_is_not_shown(machine, monkeypatch, tiny_bundle):
    heard: list[int] = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", heard.append)
    open_bundle(tiny_bundle, "onnxruntime:cpu")
    assert heard == []  # the program's own sessions on a CPU log as they did
    open_bundle(tiny_bundle, "onnxruntime:cuda")
    assert heard == [4]


@pytest.mark.parametrize(
    ("backend", "given"),
    [
        ("onnxruntime", ["CUDAExecutionProvider"]),
        ("onnxruntime:cuda", ["CUDAExecutionProvider"]),
        ("onnxruntime:tensorrt", ["TensorrtExecutionProvider", "CUDAExecutionProvider"]),
    ],
)
def test_a_gpu_is_named_by_its_number_to_each_provider_of_cuda(machine, tiny_bundle, backend, given):
    runner = open_bundle(tiny_bundle, backend, Request(device=Device("cuda", 1)))
    ((_, options),) = machine.opened
    assert {name: taken.get("device_id") for name, taken in options.items()} == {
        **dict.fromkeys(given, "1"),
        "CPUExecutionProvider": None,
    }
    assert runner.device == "cuda"
    assert f"{'TensorRT' if backend.endswith('tensorrt') else 'CUDA'}:1 fp32" in runner.description
    open_bundle(tiny_bundle, backend, Request(device=Device("cuda")))
    assert "device_id" not in machine.opened[-1][1]["CUDAExecutionProvider"]


def test_a_device_that_cuda_is_not_has_no_stand_in(monkeypatch, tiny_bundle):
    with_machine(monkeypatch, broken=("CUDAExecutionProvider",))
    with pytest.raises(EngineError, match="has a CUDA provider but it does not start here"):
        open_bundle(tiny_bundle, "onnxruntime", Request(device=Device("cuda")))
    assert open_bundle(tiny_bundle, "onnxruntime", Request(device=CPU)).device == "cpu"


@pytest.mark.parametrize(("provider", "device"), [("cpu", Device("cuda", 1)), ("cuda", CPU), ("tensorrt-rtx", CPU)])
def test_a_provider_for_another_device_is_one_line(tiny_bundle, provider, device):
    says = f"^`device` is {device}, and onnxruntime:{provider} does not compute there; give c"
    with pytest.raises(EngineError, match=says):
        open_bundle(tiny_bundle, f"onnxruntime:{provider}", Request(device=device))


def test_when_cuda_does_not_start_the_cpu_is_used_with_a_warning(monkeypatch, tiny_bundle, caplog):
    with_machine(monkeypatch, broken=("CUDAExecutionProvider",))
    assert "CPU" in glama_deploy.load(tiny_bundle.path, "onnxruntime").description
    (message,) = caplog.messages
    assert "has a CUDA provider but it does not start here" in message
    assert "using ONNX Runtime on CPU" in message


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_asked_for_by_name_has_no_stand_in(monkeypatch, tiny_bundle, name):
    with_machine(monkeypatch, broken=("CUDAExecutionProvider", "TensorrtExecutionProvider"))
    with pytest.raises(EngineError, match="provider but it does not start here"):
        glama_deploy.load(tiny_bundle.path, f"onnxruntime:{name}")


def test_tensorrt_is_given_the_profile_and_keeps_what_it_builds(machine, with_half, tmp_path):
    runner = open_bundle(with_half, "onnxruntime:tensorrt")
    ((_, options),) = machine.opened
    assert list(options) == ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    settings = options["TensorrtExecutionProvider"]
    assert settings["trt_profile_min_shapes"] == "image:1x3x64x64,mask:1x1x64x64"
    assert settings["trt_profile_max_shapes"] == "image:1x3x2048x2048,mask:1x1x2048x2048"
    assert "trt_fp16_enable" not in settings  # it would overrule the types in the graph
    assert Path(settings["trt_engine_cache_path"]).parent == tmp_path / "onnxruntime-tensorrt"
    assert all(isinstance(value, str) for value in settings.values())
    assert runner.sizes.max == (2048, 2048)
    assert runner.precision == "fp16"


def test_two_networks_of_the_same_names_do_not_share_an_engine(machine, tiny, make_bundle, tmp_path):
    weights = {name: value * 1 for name, value in formats.read(tiny).weights.items()}
    weights["model.1.ffc.convl2l.weight"] = weights["model.1.ffc.convl2l.weight"] + np.float32(0.5)
    formats.save(tmp_path / "other.safetensors", formats.read(tiny).config, weights)
    for source in (tiny, tmp_path / "other.safetensors"):
        open_bundle(make_bundle(source, ("onnx",)), "onnxruntime:tensorrt")
    paths = {options["TensorrtExecutionProvider"]["trt_engine_cache_path"] for _, options in machine.opened}
    assert len(paths) == 2


def test_the_profile_is_that_of_the_bundles_own_engine(machine, with_half):
    sizes = SizeRange(min=(128, 64), opt=(256, 256), max=(512, 512), max_batch=4)
    engine = with_half.manifest.engines["onnx"].model_copy(update={"name": "tensorrt", "sizes": sizes})
    manifest = with_half.manifest.model_copy(update={"engines": {**with_half.manifest.engines, "tensorrt": engine}})
    open_bundle(Bundle(with_half.path, manifest), "onnxruntime:tensorrt")
    settings = machine.opened[0][1]["TensorrtExecutionProvider"]
    assert settings["trt_profile_min_shapes"] == "image:1x3x128x64,mask:1x1x128x64"
    assert settings["trt_profile_max_shapes"] == "image:4x3x512x512,mask:4x1x512x512"


def test_a_gpu_takes_the_half_graph_and_a_cpu_the_whole_one(machine, with_half):
    assert open_bundle(with_half, "onnxruntime:cuda").precision == "fp16"
    assert open_bundle(with_half, "onnxruntime:cuda", Request("fp32")).precision == "fp32"
    assert open_bundle(with_half, "onnxruntime:cpu").precision == "fp32"
    with pytest.raises(EngineError, match=r"has no bf16 graph that its CUDA provider takes"):
        open_bundle(with_half, "onnxruntime:cuda", Request("bf16"))


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(tiny_bundle):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(EngineError, match="has no TensorRT provider; pip uninstall --yes onnxruntime, then pip"):
        glama_deploy.load(tiny_bundle.path, "onnxruntime:tensorrt")
    with pytest.raises(EngineError, match="has no TensorRT-RTX provider; pip install onnxruntime-ep-nv"):
        glama_deploy.load(tiny_bundle.path, "onnxruntime:tensorrt-rtx")
    with pytest.raises(EngineError, match="unknown backend 'onnxruntime:tpu'; is onnxruntime:cpu meant"):
        glama_deploy.load(tiny_bundle.path, "onnxruntime:tpu")
    with pytest.raises(EngineError, match="unknown backend 'openvino:cpu'; give `backend=openvino` and `device=cpu`; "):
        glama_deploy.load(tiny_bundle.path, "openvino:cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-5), ("fp16", 2e-2)])  # what parity allows each
def test_on_a_gpu_cuda_computes_what_the_reference_does(make_bundle, precision, tolerance):
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider; onnxruntime-gpu has")
    ranged = SizeRange(min=(64, 64), opt=(256, 256), max=(512, 512))  # fp16's ranges are measured at the largest
    bundle = make_bundle("default", ("onnx",), precision="fp16", profile=ranged)
    runner = open_bundle(bundle, "onnxruntime:cuda", Request(precision))
    reference = torch_runtime.open(formats.read("default"), Request(device=CPU))
    rng = np.random.default_rng(0)
    for batch, height, width in ((1, 64, 64), (2, 256, 256), (1, 264, 520), (1, 512, 512)):
        image = rng.random((batch, 3, height, width), np.float32)
        mask = (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)
        np.testing.assert_allclose(runner.run(image, mask), reference.run(image, mask), rtol=0, atol=tolerance)


def make_plugin_device(name: str, kind: str = "GPU") -> types.SimpleNamespace:
    """A device that a plugin provider offers, as ONNX Runtime lists it."""
    return types.SimpleNamespace(
        ep_name=name, device=types.SimpleNamespace(type=getattr(onnxruntime.OrtHardwareDeviceType, kind))
    )


@pytest.fixture
def rtx_plugin(monkeypatch) -> list[tuple[str, str]]:
    """The package of the plugin provider; what is registered goes into the list."""
    registered: list[tuple[str, str]] = []
    package = types.ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    package.__spec__ = types.SimpleNamespace(origin="there")  # it is found
    package.get_ep_name = lambda: "NvTensorRTRTXExecutionProvider"
    package.get_library_path = lambda: "/lib/provider.so"
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(providers, "_registered", set())
    monkeypatch.setattr(
        onnxruntime, "register_execution_provider_library", lambda *given: registered.append(given), raising=False
    )
    return registered


def test_the_rtx_provider_is_registered_and_given_its_devices(machine, rtx_plugin, with_half, monkeypatch, tmp_path):
    device = make_plugin_device("NvTensorRTRTXExecutionProvider")
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [device] if rtx_plugin else [])
    given = []

    class Options(onnxruntime.SessionOptions):
        def add_provider_for_devices(self, devices, settings):
            given.append((devices, settings))

    def session(path, options):
        return machine.session(path, options, ["NvTensorRTRTXExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    for _ in range(2):
        assert "TensorRT-RTX fp16" in open_bundle(with_half, "onnxruntime:tensorrt-rtx").description
    assert rtx_plugin == [("NvTensorRTRTXExecutionProvider", "/lib/provider.so")]  # once
    devices, settings = given[0]
    assert devices == [device]
    assert settings["nv_profile_opt_shapes"] == "image:1x3x512x512,mask:1x1x512x512"
    assert Path(settings["nv_runtime_cache_path"]).parent == tmp_path / "onnxruntime-tensorrt-rtx"


def test_the_rtx_provider_without_a_gpu_is_one_line_each_time(rtx_plugin, tiny_bundle, monkeypatch):
    """ONNX Runtime refuses a library that is registered twice."""
    monkeypatch.setattr(onnxruntime, "get_ep_devices", list)
    for _ in range(2):
        with pytest.raises(EngineError, match=r"^ONNX Runtime's TensorRT-RTX provider finds no device here; take "):
            glama_deploy.load(tiny_bundle.path, "onnxruntime:tensorrt-rtx")
    assert len(rtx_plugin) == 1


def test_a_bundle_of_plugin_nodes_is_not_for_onnx_runtime(tiny_bundle):
    engines = {name: engine for name, engine in tiny_bundle.manifest.engines.items() if name != "onnx"}
    manifest = tiny_bundle.manifest.model_copy(update={"engines": engines, "fft": "plugin"})
    bundle = Bundle(tiny_bundle.path, manifest)
    assert backend.absent(bundle, Request())
    with pytest.raises(EngineError, match="for ONNX Runtime export with `fft=matmul`"):
        open_bundle(bundle, "onnxruntime")
    without = Bundle(tiny_bundle.path, manifest.model_copy(update={"engines": {}}))
    with pytest.raises(EngineError, match=r"is for TensorRT alone and has no engine yet: `build\(BUNDLE"):
        open_bundle(without, "auto")
    with pytest.raises(EngineError, match=r"target=trt\)`$"):
        open_bundle(without, "tensorrt")


def test_the_graph_of_bytes_gives_its_shapes_as_they_are(machine, tiny, make_bundle):
    bundle = make_bundle(tiny, io="uint8")
    runner = open_bundle(bundle, "onnxruntime:tensorrt")
    settings = machine.opened[0][1]["TensorrtExecutionProvider"]
    assert settings["trt_profile_opt_shapes"] == "image:1x512x512x3,mask:1x512x512"
    image = np.zeros((1, 64, 80, 3), np.uint8)
    assert runner.run(image, np.ones((1, 64, 80), np.uint8)).dtype == np.uint8


@pytest.fixture(scope="module")
def wide_bundle(make_checkpoint, make_bundle) -> Bundle:
    """A bundle whose 3×3 convolutions are wide enough to be rewritten."""
    return make_bundle(
        make_checkpoint(NetworkConfig(ngf=32, n_blocks=1)), ("onnx",), parity=True, parity_size=(128, 128)
    )


def test_a_session_on_the_cpu_has_faster_convolutions_within_the_bound_of_parity(wide_bundle):
    session = providers.open_session(wide_bundle, PROVIDERS["cpu"], "fp32", None)
    assert len(session.weights) == 6  # l2l, l2g and g2l of a block's two layers
    assert wide_bundle.manifest.engines["onnx"].parity.max_abs_error < 2e-5


def test_other_providers_run_the_graph_as_it_is(machine, wide_bundle):
    session = providers.open_session(wide_bundle, PROVIDERS["cuda"], "fp32", None)
    assert machine.opened[0][0] == str(wide_bundle.graph("fp32"))
    assert session.weights == {}


def test_without_protobuf_the_graph_runs_as_it_is_with_a_warning(monkeypatch, wide_bundle, caplog):
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    session = providers.open_session(wide_bundle, PROVIDERS["cpu"], "fp32", None)
    assert session.weights == {}
    assert "pip install protobuf" in caplog.text


def test_a_damaged_graph_is_an_error_of_one_line(wide_bundle, tmp_path, monkeypatch):
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes(wide_bundle.graph("fp32").read_bytes()[:-100])
    monkeypatch.setattr(Bundle, "graph", lambda self, precision: damaged)
    with pytest.raises(EngineError, match="ONNX Runtime cannot open") as failed:
        providers.open_session(wide_bundle, PROVIDERS["cpu"], "fp32", None)
    assert "\n" not in str(failed.value)


def test_int8_on_the_cpu_says_that_it_gains_nothing(int8_bundle, tmp_path):
    """ONNX Runtime makes no integer convolution of the graph: if a new version does, the note is wrong."""
    runner = open_bundle(int8_bundle, "onnxruntime:cpu", Request(precision="int8"))
    assert "no faster than fp32" in runner.description
    assert "no faster" not in open_bundle(int8_bundle, "onnxruntime:cpu", Request(precision="fp32")).description
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(int8_bundle.graph("int8")), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
    assert kinds & {"Conv", "FusedConv"}
    assert kinds.isdisjoint({"QLinearConv", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"})
