"""TensorRT-RTX builds engines without a GPU, so these are real builds; running one needs a driver (`gpu`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import glama_deploy
from glama_deploy.bundle import Bundle, SizeRange
from glama_deploy.engines import tensorrt
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.export.pipeline import Request, export

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


def has_gpu() -> bool:
    from glama_deploy.runtime.cuda import Cuda

    try:
        Cuda()
    except EngineError:
        return False
    return True


needs_gpu = pytest.mark.skipif(not has_gpu(), reason="no NVIDIA driver or GPU here")
without_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU here")


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


def child(request: dict[str, object], **environment: str) -> subprocess.CompletedProcess[str]:
    """The process that builds, by itself, so that its log can be read."""
    return subprocess.run(
        [sys.executable, "-m", "glama_deploy.engines.tensorrt", json.dumps(request)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )


def test_an_fp32_engine_is_strongly_typed_and_without_tf32(tiny_bundle, tmp_path):
    sizes = {"min": (64, 64), "opt": (64, 64), "max": (64, 64)}
    request = {"onnx": str(tiny_bundle.path / "model.onnx"), "engine": str(tmp_path / "e"), "sizes": sizes}
    log = child({**request, "package": "tensorrt_rtx"}).stdout
    (flags,) = [line for line in log.splitlines() if "Flags" in line]
    assert "STRONGLY_TYPED" in flags
    assert "TF32" not in flags


def test_the_same_code_drives_the_package_tensorrt(tiny_bundle, tmp_path):
    """TensorRT itself cannot be installed without a GPU's environment; TensorRT-RTX under its name, which has the same
    Python interface, shows that the configuration for TensorRT 10 is one that Polygraphy takes."""
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text(
        "import tensorrt_rtx\n"
        "from tensorrt_rtx import *\n"
        "__version__ = '10.13.0'\n"
        "def __getattr__(name):\n"
        "    return getattr(tensorrt_rtx, name)\n"
    )
    sizes = {"min": (64, 64), "opt": (64, 64), "max": (128, 128), "max_batch": 2}
    request = {"onnx": str(tiny_bundle.path / "model.onnx"), "engine": str(tmp_path / "e"), "sizes": sizes}
    built = child({**request, "package": "tensorrt"}, PYTHONPATH=str(tmp_path))
    assert json.loads(built.stdout.splitlines()[-1])["tensorrt"] == "10.13.0"
    assert (tmp_path / "e").stat().st_size > 100_000


def test_a_graph_that_the_parser_refuses_is_one_line(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no onnx")
    with pytest.raises(EngineError, match=r"^TensorRT-RTX did not build the engine \(.*\)[^\n]*$"):
        tensorrt.build(
            tmp_path / "x.onnx",
            tmp_path / "e" / "x.engine",
            "tensorrt_rtx",
            SizeRange.model_validate({"min": (64, 64), "opt": (64, 64), "max": (64, 64)}),
        )
    assert not (tmp_path / "e" / "x.engine").exists()


def test_a_builder_that_dies_is_an_error_not_the_end(tiny_bundle, tmp_path, monkeypatch):
    run = subprocess.run

    def die(command, **settings):
        return run([sys.executable, "-c", "import os; os.abort()"], **settings)

    monkeypatch.setattr(subprocess, "run", die)
    with pytest.raises(EngineError, match="ended with status -6"):
        tensorrt.build(
            tiny_bundle.path / "model.onnx",
            tmp_path / "x.engine",
            "tensorrt_rtx",
            SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64)),
        )


@without_gpu
def test_without_a_driver_the_engine_fails_in_one_clear_line(bundle):
    with pytest.raises(EngineError, match=r"^tensorrt-rtx: no NVIDIA driver or GPU here[^\n]*$"):
        glama_deploy.load(bundle.path, "tensorrt")


@without_gpu
def test_auto_falls_through_to_the_next_engine_and_says_so(bundle, caplog):
    assert glama_deploy.load(bundle.path).backend == "openvino"
    (message,) = caplog.messages
    assert "no NVIDIA driver or GPU here" in message
    assert "using OpenVINO" in message


@without_gpu
def test_parity_of_an_engine_that_cannot_run_here_says_why(tiny, tmp_path):
    outcome = export(Request(tiny, tmp_path / "b", ("trt-rtx",)))
    parity = outcome.bundle.manifest.engines["tensorrt-rtx"].parity
    assert not parity.measured
    assert "no NVIDIA driver" in parity.reason


def test_an_engine_of_another_version_says_how_to_rebuild(bundle):
    engine = bundle.manifest.engines["tensorrt-rtx"]
    old = engine.model_copy(update={"versions": {"tensorrt_rtx": "1.0.0"}})
    manifest = bundle.manifest.model_copy(update={"engines": {**bundle.manifest.engines, "tensorrt-rtx": old}})
    from glama_deploy.runtime import open_bundle

    with pytest.raises(
        EngineError, match=r"built with tensorrt_rtx 1\.0\.0.*rebuild with: glama-build .* --target trt-rtx"
    ):
        open_bundle(Bundle(bundle.path, manifest), "tensorrt")


def test_a_bundle_without_an_engine_says_how_to_build_one(tiny_bundle):
    with pytest.raises(EngineError, match=r"add one: glama-build .* --target trt \(or trt-rtx\)"):
        glama_deploy.load(tiny_bundle.path, "tensorrt")


@pytest.mark.gpu
@needs_gpu
def test_the_engine_is_the_reference(tiny, bundle, photo, hole):
    reference = glama_deploy.load(tiny, "torch").predict(photo, hole)
    # fp32 without TF32: as for the engines on a CPU
    assert np.abs(glama_deploy.load(bundle.path, "tensorrt").predict(photo, hole) - reference).max() < 2e-5


def test_profiles_out_of_order_are_refused():
    from glama_deploy.cli.sizes import profile

    with pytest.raises(GlamaError, match="sizes opt and max are 512x512 and 256x256; min ≤ opt ≤ max"):
        profile(None, "512x512", "256x256", 1)
    drawn_in = profile(None, None, "256x256", 2)
    assert (drawn_in.min, drawn_in.opt, drawn_in.max, drawn_in.max_batch) == ((64, 64), (256, 256), (256, 256), 2)
