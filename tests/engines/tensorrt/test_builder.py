"""TensorRT-RTX builds engines without a GPU, so these are real builds; running one needs a driver (`gpu`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

import glama_deploy
from glama_deploy.bundle import DEFAULT_PROFILE, BuildSettings, Bundle, SizeRange
from glama_deploy.catalogue import TENSORRT
from glama_deploy.engines.build import add_engine
from glama_deploy.engines.tensorrt import builder as tensorrt
from glama_deploy.engines.tensorrt import gpus
from glama_deploy.engines.tensorrt.builder import Task
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.errors import EngineError
from glama_deploy.export.pipeline import Request, export

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def bundle(tiny, make_bundle) -> Bundle:
    return make_bundle(tiny, ("openvino", "trt-rtx"))


def test_an_engine_is_built_for_the_profile(bundle):
    engine = bundle.manifest.engines["tensorrt-rtx"]
    (path,) = bundle.files("tensorrt-rtx")
    assert path.stat().st_size > 100_000  # the network's weights are in it
    assert str(engine.sizes) == "64x64…2048x2048"
    assert engine.precision == "fp32"
    assert engine.versions.keys() == {"tensorrt_rtx", "polygraphy"}


def test_a_static_graph_makes_a_static_engine(tiny, make_bundle):
    bundle = make_bundle(tiny, ("trt-rtx",), size=(64, 96))
    assert bundle.manifest.engines["tensorrt-rtx"].sizes.static


def test_batches_are_part_of_the_profile(tiny, make_bundle):
    profile = SizeRange(min=(64, 64), opt=(128, 128), max=(256, 256), max_batch=4)
    engine = make_bundle(tiny, ("trt-rtx",), profile=profile).manifest.engines["tensorrt-rtx"]
    assert engine.sizes == profile


STATIC = SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64))


def task(onnx: Path, engine: Path, package: str = "tensorrt_rtx", **changes: Any) -> Task:
    settings: dict[str, Any] = {"precision": "fp32", "profiles": (STATIC,), **changes}
    return Task(package=package, onnx=onnx, engine=engine, **settings)


def log_of(task: Task, **environment: str) -> str:
    """What the process that builds prints, run by itself."""
    return subprocess.run(
        [sys.executable, "-m", "glama_deploy.engines.tensorrt.builder", TypeAdapter(Task).dump_json(task).decode()],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


@pytest.fixture
def shim(tmp_path, monkeypatch) -> Path:
    """TensorRT itself cannot be installed without a GPU's environment: TensorRT-RTX under its name, which has the same
    Python interface, shows that the configuration for TensorRT 10 is one that Polygraphy takes."""
    folder = tmp_path / "shim"
    (folder / "tensorrt").mkdir(parents=True)
    (folder / "tensorrt" / "__init__.py").write_text(
        "import tensorrt_rtx\n"
        "from tensorrt_rtx import *\n"
        "__version__ = '10.13.0'\n"
        "def __getattr__(name):\n"
        "    return getattr(tensorrt_rtx, name)\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def onnx_only(tiny, make_bundle, tmp_path) -> Bundle:
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


SMALL = SizeRange(min=(64, 64), opt=(128, 128), max=(256, 256), max_batch=2)


def test_an_fp32_engine_is_strongly_typed_and_without_tf32(tiny_bundle, tmp_path):
    log = log_of(task(tiny_bundle.path / "model.onnx", tmp_path / "e"))
    (flags,) = [line for line in log.splitlines() if "Flags" in line]
    assert "STRONGLY_TYPED" in flags
    assert "TF32" not in flags


def test_the_same_code_builds_with_the_package_tensorrt(shim, onnx_only):
    engine = add_engine(onnx_only, "trt", SMALL).manifest.engines["tensorrt"]
    assert engine.versions["tensorrt"] == "10.13.0"
    assert engine.files[0].bytes > 100_000


def test_a_dynamic_engine_of_tensorrt_has_profiles_for_small_middle_and_large_sizes(shim, onnx_only):
    sizes = SMALL.model_copy(update={"max": (512, 512)})
    engine = add_engine(onnx_only, "trt", sizes).manifest.engines["tensorrt"]
    assert engine.sizes == sizes
    assert [profile.opt for profile in engine.profiles] == [(64, 64), (128, 128), (360, 360)]
    assert [profile.max for profile in engine.profiles] == [(96, 96), (256, 256), (512, 512)]
    assert {profile.max_batch for profile in engine.profiles} == {2}


def test_an_engine_of_tensorrt_rtx_has_three_profiles_only_if_asked_for(onnx_only):
    engine = add_engine(onnx_only, "trt-rtx", SMALL).manifest.engines["tensorrt-rtx"]
    assert engine.profiles == (SMALL,)
    three = add_engine(onnx_only, "trt-rtx", SMALL, options=Options(profiles="three")).manifest.engines["tensorrt-rtx"]
    assert [str(profile) for profile in three.profiles] == ["64x64…96x96", "64x64…256x256"]
    assert three.sizes == SMALL


def test_the_settings_reach_the_builder_and_the_manifest(shim, onnx_only, tmp_path):
    settings = BuildSettings(optimization_level=1, workspace_mib=2048, hardware_compatible=True)
    log = log_of(task(onnx_only.path / "model.onnx", tmp_path / "e", "tensorrt", settings=settings))
    assert "WORKSPACE: 2048.00 MiB" in log
    engine = add_engine(onnx_only, "trt", STATIC, options=Options(settings)).manifest.engines["tensorrt"]
    assert engine.settings == settings
    assert Bundle.open(onnx_only.path).manifest.engines["tensorrt"] == engine


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        (BuildSettings(version_compatible=True), "VERSION_COMPATIBLE"),
        (BuildSettings(stripped=True), "STRIP_PLAN"),
        (BuildSettings(refittable=True), "REFIT"),
    ],
)
def test_settings_that_need_a_gpu_reach_the_builder(shim, tiny_bundle, tmp_path, settings, flag):
    asked = task(tiny_bundle.path / "model.onnx", tmp_path / "e", "tensorrt", settings=settings)
    with pytest.raises(subprocess.CalledProcessError) as error:  # TensorRT-RTX, which the shim is, builds none of them
        log_of(asked)
    (flags,) = [line for line in error.value.stdout.splitlines() if "Flags" in line]
    assert flag in flags


def test_a_timing_cache_is_written_and_read_again(shim, onnx_only, tmp_path):
    cache = tmp_path / "timings" / "cache"
    cache.parent.mkdir()
    add_engine(onnx_only, "trt", STATIC, options=Options(timing_cache=cache))
    assert cache.stat().st_size > 0
    add_engine(onnx_only, "trt", STATIC, options=Options(timing_cache=cache))
    assert [path.name for path in cache.parent.iterdir()] == ["cache"]


@pytest.mark.parametrize("accepted", [False, None])
def test_a_refused_timing_cache_is_an_error_that_names_the_file(tmp_path, accepted):
    class Config:
        def create_timing_cache(self, data: bytes) -> object:
            return None if accepted is None else data

        def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
            return False

    (tmp_path / "cache").write_bytes(b"damaged")
    with pytest.raises(EngineError, match=r"`timing_cache=.*cache` is damaged or of another GPU.*; delete it"):
        tensorrt._read_timing_cache(Config(), tmp_path / "cache")


def test_gpus_are_recorded_by_capability(onnx_only):
    options = Options(BuildSettings(gpus=("rtx-5090", "rtx-4090", "RTX 4070")))
    engine = add_engine(onnx_only, "trt-rtx", STATIC, options=options).manifest.engines["tensorrt-rtx"]
    assert engine.compute_capabilities == ("8.9", "12.0")
    assert engine.settings == options.settings


def test_without_gpus_an_engine_of_tensorrt_rtx_names_every_capability_that_its_builder_was_asked_for(bundle):
    capabilities = ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert bundle.manifest.engines["tensorrt-rtx"].compute_capabilities == capabilities


def test_an_engine_of_tensorrt_rtx_allocates_nothing_at_run_time(tiny_bundle, tmp_path):
    log = log_of(task(tiny_bundle.path / "model.onnx", tmp_path / "e"))
    (flags,) = [line for line in log.splitlines() if "Flags" in line]
    assert "REQUIRE_USER_ALLOCATION" in flags


def test_a_tensorrt_rtx_before_1_7_is_refused(tmp_path):
    old = SimpleNamespace(__version__="1.2.0.54")
    with pytest.raises(
        EngineError, match=r"^TensorRT-RTX 1\.2\.0\.54 is installed, 1\.7 or later is needed; pip install"
    ):
        tensorrt._check_version(task(tmp_path, tmp_path), old)


@pytest.mark.parametrize(("hardware_compatible", "expected"), [(False, ("8.7",)), (True, ("8.0+",))])
def test_an_engine_of_tensorrt_is_for_the_gpu_that_built_it(monkeypatch, tmp_path, hardware_compatible, expected):
    monkeypatch.setattr(gpus, "find_local_capability", lambda: "8.7")
    settings = BuildSettings(hardware_compatible=hardware_compatible)
    asked = task(tmp_path, tmp_path, "tensorrt", settings=settings)
    assert tensorrt._list_capabilities(asked, SimpleNamespace()) == expected


@pytest.mark.parametrize(("capability", "refused"), [("8.7", True), ("11.0", True), ("8.9", False), (None, False)])
def test_a_hardware_compatible_engine_is_refused_on_a_jetson(monkeypatch, capability, refused):
    monkeypatch.setattr(gpus, "find_local_capability", lambda: capability)
    options = Options(BuildSettings(hardware_compatible=True))
    if not refused:
        options.check(TENSORRT)
        return
    with pytest.raises(EngineError, match=r"^JetPack's TensorRT does not support `hardware_compatible=True`; leave it"):
        options.check(TENSORRT)
    Options().check(TENSORRT)


def test_a_gpu_that_tensorrt_rtx_does_not_support_is_an_error_that_names_it(onnx_only):
    options = Options(BuildSettings(gpus=("rtx-4090", "jetson-orin")))
    with pytest.raises(EngineError, match=r"builds for compute capabilities 7\.5, .*, not for 8\.7 \(jetson-orin\)"):
        add_engine(onnx_only, "trt-rtx", STATIC, options=options)


def test_turing_computes_in_fp16_only(tiny, make_bundle, onnx_only, int8_bundle):
    turing = Options(BuildSettings(gpus=("rtx-2080",)))
    with pytest.raises(EngineError, match=r"computes in int8\+fp16 from .* 8\.0 up, 7\.5 \(rtx-2080\) is below"):
        add_engine(int8_bundle, "trt-rtx", STATIC, options=turing)
    with pytest.raises(EngineError, match=r"computes in fp32 from .* 8\.0 up, 7\.5 \(rtx-2080\) is below: export with"):
        add_engine(onnx_only, "trt-rtx", STATIC, options=turing)
    half = make_bundle(tiny, ("onnx", "trt-rtx"), precision="fp16", profile=SMALL).path
    shutil.copytree(half, onnx_only.path, dirs_exist_ok=True)
    engine = add_engine(Bundle.open(onnx_only.path), "trt-rtx", STATIC, options=turing).manifest.engines["tensorrt-rtx"]
    assert (engine.precision, engine.compute_capabilities) == ("fp16", ("7.5",))


@pytest.mark.without_gpu
@pytest.mark.parametrize("settings", [BuildSettings(stripped=True), BuildSettings(refittable=True)])
def test_tensorrt_rtx_needs_a_gpu_to_strip_weights(onnx_only, settings):
    with pytest.raises(EngineError, match="only where an NVIDIA GPU is, and finds none; build on a machine with one"):
        add_engine(onnx_only, "trt-rtx", STATIC, options=Options(settings))
    assert not (onnx_only.path / "tensorrt-rtx").exists()


@pytest.mark.gpu
def test_an_engine_without_weights_is_smaller(onnx_only):
    whole = add_engine(onnx_only, "trt-rtx", STATIC).manifest.engines["tensorrt-rtx"]
    options = Options(BuildSettings(stripped=True))
    stripped = add_engine(onnx_only, "trt-rtx", STATIC, options=options).manifest.engines["tensorrt-rtx"]
    assert stripped.files[0].bytes < whole.files[0].bytes


def test_too_small_a_workspace_is_an_error_that_names_it(onnx_only):
    options = Options(BuildSettings(workspace_mib=1))
    with pytest.raises(EngineError, match=r"cannot do with `workspace_mib=1` MiB at these sizes; give more"):
        add_engine(onnx_only, "trt-rtx", SizeRange(min=(64, 64), opt=(512, 512), max=(2048, 2048)), options=options)


def test_a_graph_in_another_precision_is_not_built(tiny_bundle, tmp_path):
    with pytest.raises(EngineError, match=r"layer stem/l2l \(convolution\) has fp32 where fp16 was asked for"):
        tensorrt.build(task(tiny_bundle.path / "model.onnx", tmp_path / "e", precision="fp16"))
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(("fft", "says"), [("dft", "no DFT operator"), ("plugin", "no plugins")])
def test_custom_nodes_never_reach_tensorrt_rtx(tmp_path, monkeypatch, fft, says):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a process was started"))
    with pytest.raises(EngineError, match=rf"TensorRT-RTX has {says}, .*; export it again with `fft=matmul`"):
        tensorrt.build(task(tmp_path / "x.onnx", tmp_path / "e", fft=fft))


def test_dft_nodes_need_a_tensorrt_that_has_them(shim, tiny_bundle, tmp_path):
    with pytest.raises(EngineError, match=r"TensorRT 10\.13\.0 has no DFT operator, 11\.2 and later have"):
        tensorrt.build(task(tiny_bundle.path / "model.onnx", tmp_path / "e", "tensorrt", fft="dft"))


@pytest.mark.parametrize(("fft", "version"), [("plugin", "10.3.0"), ("dft", "11.2.0")])
def test_plugins_are_known_before_the_graph_is_parsed(tmp_path, monkeypatch, fft, version):
    known: list[object] = []
    package = SimpleNamespace(
        __version__=version,
        Logger=type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
        init_libnvinfer_plugins=lambda logger, namespace: known.append("TensorRT's own") or True,
    )

    def parsing(package: str) -> None:
        assert known == ([sys.modules["tensorrt"]] if fft == "plugin" else ["TensorRT's own"])
        raise EngineError("parsing")

    monkeypatch.setitem(sys.modules, "tensorrt", package)
    monkeypatch.setattr("glama_deploy.runtime.tensorrt.plugins.register", known.append)
    monkeypatch.setattr(tensorrt, "_import_polygraphy", parsing)
    with pytest.raises(EngineError, match="parsing"):
        tensorrt._build_here(task(tmp_path / "x.onnx", tmp_path / "e", "tensorrt", fft=fft))


def test_a_tensorrt_before_10_3_is_refused(shim, tiny_bundle, tmp_path):
    init = shim / "tensorrt" / "__init__.py"
    init.write_text(init.read_text().replace("10.13.0", "8.6.2"))  # JetPack 6.0
    with pytest.raises(EngineError, match=r"TensorRT 8\.6\.2 is installed, 10\.3 or later is needed; .*JetPack 6\.1"):
        tensorrt.build(task(tiny_bundle.path / "model.onnx", tmp_path / "e", "tensorrt"))


@pytest.mark.without_gpu
def test_without_a_gpu_the_report_is_of_the_network(onnx_only):
    heard: list[Report] = []
    engine = add_engine(onnx_only, "trt-rtx", SMALL, report=heard.append).manifest.engines["tensorrt-rtx"]
    (report,) = heard
    assert report.contents.source == "network"
    assert report.contents.casts == 0
    assert report.engine_bytes == engine.files[0].bytes
    assert report.profiles == engine.profiles
    assert report.seconds > 0


@pytest.mark.without_gpu
def test_without_a_gpu_the_manifest_says_that_the_engine_was_not_run(onnx_only):
    check = add_engine(onnx_only, "trt-rtx", STATIC).manifest.engines["tensorrt-rtx"].device_check
    assert not check.measured
    assert "no NVIDIA driver" in check.reason


@pytest.mark.gpu
def test_with_a_gpu_the_engine_is_run_before_it_is_registered(onnx_only):
    check = add_engine(onnx_only, "trt-rtx", SMALL).manifest.engines["tensorrt-rtx"].device_check
    assert check.passed
    assert check.cases == ("64x64", "64x64, batch 2", "128x128", "256x256")


@pytest.mark.parametrize("settings", [BuildSettings(), BuildSettings(version_compatible=True)])
def test_a_finished_engine_is_opened_with_its_settings(tmp_path, monkeypatch, settings):
    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, data: bytes) -> tuple[bytes, bool]:
            return data, self.engine_host_code_allowed

    class Logger:
        ERROR = 0

        def __init__(self, level: int) -> None: ...

    monkeypatch.setattr(gpus, "find_local_capability", lambda: "8.7")
    monkeypatch.setattr(tensorrt.inspection, "inspect_engine", lambda package, engine: engine)
    asked = task(tmp_path / "x.onnx", tmp_path / "e", "tensorrt", settings=settings)
    seen = tensorrt._inspect_finished(asked, SimpleNamespace(Runtime=Runtime, Logger=Logger), b"engine")
    assert seen == (b"engine", settings.version_compatible)


@pytest.mark.gpu
def test_with_a_gpu_the_report_is_of_the_engine(onnx_only):
    heard: list[Report] = []
    add_engine(onnx_only, "trt-rtx", SMALL, report=heard.append)
    assert heard[0].contents.source == "engine"
    assert heard[0].contents.layers > 0


@pytest.mark.parametrize("precision", ["fp32", "int8+fp16"])
def test_on_the_device_an_engine_is_built_without_torch_and_every_other_engines_package(
    onnx_only, int8_bundle, tmp_path, precision
):
    """The block is sitecustomize's, so it holds in the process that builds, too."""
    if precision != "fp32":
        shutil.copytree(int8_bundle.path, onnx_only.path, dirs_exist_ok=True)
    blocked = (
        "torch",
        "nncf",
        "onnx",
        "onnxruntime",
        "openvino",
        "onnx_graphsurgeon",
        "cuda",
        "pycuda",
        "ml_dtypes",
        "safetensors",
    )
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r} (blocked)', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    code = "import sys; from glama_deploy.cli.build import main; sys.exit(main.run(sys.argv[1:]))"
    built = subprocess.run(
        [sys.executable, "-c", code, str(onnx_only.path), "--target", "trt-rtx", "--max-size", "128x128", "--report"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert built.returncode == 0, built.stderr
    assert f"tensorrt-rtx: {precision}" in built.stdout
    assert ("convolution int8" in " ".join(built.stdout.split())) == (precision != "fp32")


def test_a_graph_that_the_parser_refuses_is_one_line(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no onnx")
    with pytest.raises(EngineError, match=r"^TensorRT-RTX did not build the engine \(.*\)[^\n]*$"):
        tensorrt.build(task(tmp_path / "x.onnx", tmp_path / "e" / "x.engine"))
    assert not (tmp_path / "e" / "x.engine").exists()


@pytest.mark.parametrize(
    ("death", "says"),
    [
        ("SIGABRT", "ended with status -6"),
        (
            "SIGKILL",
            r"^the system killed the builder of TensorRT-RTX, .* memory is short; .*smaller `max_size`, with `prof",
        ),
    ],
)
def test_a_builder_that_dies_is_an_error_not_the_end(tiny_bundle, tmp_path, monkeypatch, death, says):
    run = subprocess.run

    def die(command, **settings):
        return run([sys.executable, "-c", f"import os, signal; os.kill(os.getpid(), signal.{death})"], **settings)

    monkeypatch.setattr(subprocess, "run", die)
    with pytest.raises(EngineError, match=says):
        tensorrt.build(task(tiny_bundle.path / "model.onnx", tmp_path / "x.engine"))


@pytest.mark.without_gpu
def test_without_a_driver_the_engine_fails_in_one_clear_line(bundle):
    with pytest.raises(EngineError, match=r"^tensorrt-rtx: no NVIDIA driver[^\n]*$"):
        glama_deploy.load(bundle.path, "tensorrt")


@pytest.mark.without_gpu
@pytest.mark.parametrize("precision", ["int8", "int8+fp16", "auto"])
def test_the_precision_int8_opens_an_int8_engine(int8_bundle, precision):
    with pytest.raises(EngineError, match="no NVIDIA driver"):
        glama_deploy.load(int8_bundle.path, "tensorrt", precision)
    with pytest.raises(EngineError, match="fp32 is chosen at export"):
        glama_deploy.load(int8_bundle.path, "tensorrt", "fp32")


@pytest.mark.without_gpu
def test_auto_tries_the_next_engine_and_logs_why(bundle, caplog):
    assert glama_deploy.load(bundle.path).backend == "openvino"
    (message,) = caplog.messages
    assert "no NVIDIA driver" in message
    assert "using OpenVINO" in message


@pytest.mark.without_gpu
def test_the_parity_of_an_engine_that_cannot_run_has_a_reason(tiny, tmp_path):
    outcome = export(Request(tiny, tmp_path / "b", ("trt-rtx",)))
    parity = outcome.bundle.manifest.engines["tensorrt-rtx"].parity
    assert not parity.measured
    assert "no NVIDIA driver" in parity.reason


def test_an_engine_of_another_version_is_an_error_that_names_the_build(bundle):
    engine = bundle.manifest.engines["tensorrt-rtx"]
    old = engine.model_copy(update={"versions": {"tensorrt_rtx": "1.0.0"}})
    manifest = bundle.manifest.model_copy(update={"engines": {**bundle.manifest.engines, "tensorrt-rtx": old}})
    from glama_deploy.runtime.choice import open_bundle

    with pytest.raises(
        EngineError, match=r"built with tensorrt_rtx 1\.0\.0.*rebuild with: `build\(.*, target=trt-rtx\)`"
    ):
        open_bundle(Bundle(bundle.path, manifest), "tensorrt")


def test_a_bundle_without_an_engine_is_an_error_that_names_the_build(tiny_bundle):
    with pytest.raises(EngineError, match=r"add one: `build\(.*, target=trt\)` \(or trt-rtx\)"):
        glama_deploy.load(tiny_bundle.path, "tensorrt")


@pytest.mark.gpu
def test_the_engine_agrees_with_the_reference(tiny, bundle, photo, hole):
    reference = glama_deploy.load(tiny, "torch").predict(photo, hole)
    # fp32 without TF32: as for the engines on a CPU
    assert np.abs(glama_deploy.load(bundle.path, "tensorrt").predict(photo, hole) - reference).max() < 2e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"io": "uint8"},
        {"io": "uint8", "predicted": False, "size": (64, 96), "fft": "split"},
        {"fft": "split", "size": (128, 128)},
    ],
    ids=["bytes of any size", "bytes of one size, split", "split"],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_each_form_of_the_graph_builds(tiny, make_bundle, settings, precision):
    bundle = make_bundle(tiny, ("trt-rtx",), precision=precision, profile=SMALL, **settings)
    assert bundle.manifest.engines["tensorrt-rtx"].precision == precision


class Listener(tensorrt_rtx.ILogger):
    """What the builder says."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def log(self, severity: tensorrt_rtx.ILogger.Severity, message: str) -> None:
        self.said.append(message)


def factors(model: Path) -> dict[str, tuple[str, ...]]:
    """The types of both factors of each convolution in a finished engine: those that its builder lists, GPU or none."""
    listener = Listener()
    builder = tensorrt_rtx.Builder(listener)
    network = builder.create_network(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt_rtx.OnnxParser(network, listener)
    assert parser.parse_from_file(str(model))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    for name, channels in (("image", 3), ("mask", 1)):
        profile.set_shape(name, *((1, channels, side, side) for side in (64, 128, 256)))
    config.add_optimization_profile(profile)
    config.profiling_verbosity = tensorrt_rtx.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None
    (layers,) = (text for text in listener.said if text.startswith("Layers:"))
    found = {}
    for line in layers.splitlines():
        layer = re.match(r"Name: (\S+?)(?:_U\d+)?_myl\S*, LayerType: (?:correlation|deconv),", line)
        if layer is not None:
            found[layer[1]] = tuple(re.findall(r"Datatype: (\w+)", line)[:2])
    return found


def test_the_finished_engine_multiplies_bytes(int8_bundle):
    """In the layers that TensorRT-RTX compiled, not only in the network that it parsed."""
    found = factors(int8_bundle.graph("int8+fp16"))
    kept = int8_bundle.manifest.graphs["int8+fp16"].kept
    assert kept.keys() < found.keys()
    others = {name: types for name, types in found.items() if types != ("Int8", "Int8")}
    assert others == dict.fromkeys(kept, ("Half", "Half"))


@pytest.mark.slow
def test_lama_in_fp16_for_all_sizes_is_at_most_60_megabytes(lama9, tmp_path):
    """The range is calibrated at a small size, which moves no byte."""
    small = SizeRange(min=(64, 64), opt=(256, 256), max=(256, 256), max_batch=1)
    export(Request(lama9, tmp_path / "b", ("onnx",), "fp16", profile=small, parity=False))
    bundle = add_engine(Bundle.open(tmp_path / "b"), "trt-rtx", DEFAULT_PROFILE)
    engine = bundle.manifest.engines["tensorrt-rtx"]
    assert engine.sizes.max == (2048, 2048)
    assert engine.files[0].bytes <= 60_000_000
    assert not bundle.manifest.graphs["fp16"].kept  # every convolution and product is fp16, which the build checks
