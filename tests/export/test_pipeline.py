from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import glama_deploy
from glama_deploy.bundle import ANY_SIZE, Bundle, SizeRange
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.export import parity, pipeline, samples
from glama_deploy.export.pipeline import Request, export


def test_parity_is_measured_on_the_artifacts_and_stored(tiny, tmp_path):
    outcome = export(Request(tiny, tmp_path / "b", ("onnx", "openvino")))
    assert not outcome.failures
    engines = Bundle.open(tmp_path / "b").manifest.engines
    for engine in engines.values():
        assert engine.parity.measured
        assert engine.parity.passed
        assert engine.parity.output == "predicted"
        assert 0 < engine.parity.max_abs_error < 2e-5
        assert engine.parity.psnr > 90
        assert len(engine.parity.cases) == len(samples.parity_cases(ANY_SIZE))


def test_an_engine_that_is_off_is_found(tiny, tmp_path, monkeypatch):
    """Parity that cannot fail would be no parity: one weight of the exported graph is moved by 1 %."""
    from glama_deploy.export import graph

    build = graph.build

    def off(config, weights, *args):
        weights = {**weights, "model.1.ffc.convl2l.weight": weights["model.1.ffc.convl2l.weight"] * np.float32(1.01)}
        return build(config, weights, *args)

    monkeypatch.setattr(graph, "build", off)
    outcome = export(Request(tiny, tmp_path / "b", ("openvino",)))
    for engine in outcome.bundle.manifest.engines.values():
        assert engine.parity.measured
        assert not engine.parity.passed
        assert engine.parity.worst


def test_values_that_are_not_finite_count_as_infinite_error():
    class Broken:
        def run(self, image, mask, output):
            out = np.zeros_like(image)
            out[0, 0, 0, 0] = np.nan
            return out

    case = samples.Case("x", np.zeros((1, 3, 16, 16), np.float32), np.zeros((1, 1, 16, 16), np.float32))
    found = parity.compare(Broken(), [parity.Measured(case, case.image)], "predicted", 1.0)
    assert found.max_abs_error == float("inf")
    assert not found.passed


def test_a_static_bundle_serves_its_size_only(tiny, make_bundle, photo, hole):
    bundle = make_bundle(tiny, size=(96, 120))
    assert bundle.manifest.engines["openvino"].sizes == SizeRange(min=(96, 120), opt=(96, 120), max=(96, 120))
    for backend in ("openvino", "onnxruntime"):
        inpainter = glama_deploy.load(bundle.path, backend)
        assert inpainter(photo, hole).shape == photo.shape
        assert inpainter(photo[:93, :115], hole[:93, :115]).shape == (93, 115, 3)
        with pytest.raises(GlamaError, match="this engine takes 96x120"):
            inpainter(photo[:64], hole[:64])


def test_half_precision_weights_are_half_the_size_and_close(tiny, tmp_path, make_bundle):
    whole = make_bundle(tiny)
    export(Request(tiny, tmp_path / "b", ("openvino",), precision="fp16"))
    half = Bundle.open(tmp_path / "b")
    sizes = [sum(a.bytes for a in b.manifest.engines["openvino"].files if "bin" in a.path) for b in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    engine = half.manifest.engines["openvino"]
    assert engine.precision == "fp16"
    assert engine.parity.passed
    assert engine.parity.max_abs_error > half.manifest.engines["onnx"].parity.max_abs_error


def test_a_bundle_without_predicted_says_how_to_get_it(tiny, make_bundle, photo, hole):
    bundle = make_bundle(tiny, predicted=False)
    for backend in ("openvino", "onnxruntime"):
        inpainter = glama_deploy.load(bundle.path, backend)
        assert inpainter(photo, hole).shape == photo.shape
        with pytest.raises(GlamaError, match="--predicted"):
            inpainter.predict(photo, hole)


def test_a_target_that_cannot_be_built_does_not_take_the_others_with_it(tiny, tmp_path):
    if pipeline.installed("tensorrt"):
        pytest.skip("TensorRT is installed here, so its target may well be built")
    outcome = export(Request(tiny, tmp_path / "b", ("trt", "openvino"), parity=False))
    assert "pip install 'glama-deploy[tensorrt]'" in outcome.failures["trt"]
    assert set(outcome.bundle.manifest.engines) == {"onnx", "openvino"}
    assert glama_deploy.load(tmp_path / "b").backend == "openvino"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"targets": ("coreml",)}, "unknown target 'coreml'; expected onnx, openvino, trt, trt-rtx"),
        ({"precision": "fp8"}, "precision 'fp8' is not offered"),
        ({"size": (100, 128)}, "multiples of 8"),
        ({"checkpoint": "nothing.pt"}, "no checkpoint at"),
    ],
)
def test_bad_requests_write_nothing(tiny, tmp_path, settings, says):
    with pytest.raises(GlamaError, match=says):
        export(Request(**{"checkpoint": tiny, "out": tmp_path / "b", "targets": ("openvino",), **settings}))
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_replaced_only_when_asked(tiny, tmp_path):
    out = tmp_path / "b"
    export(Request(tiny, out, parity=False))
    before = (out / "manifest.json").stat().st_mtime_ns
    with pytest.raises(GlamaError, match="--overwrite"):
        export(Request(tiny, out, parity=False))
    assert (out / "manifest.json").stat().st_mtime_ns == before
    export(Request(tiny, out, parity=False, overwrite=True))
    assert (out / "manifest.json").stat().st_mtime_ns > before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_is_no_bundle_is_never_overwritten(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("precious")
    with pytest.raises(GlamaError, match="is no bundle, so it is not overwritten"):
        export(Request(tiny, tmp_path / "photos", overwrite=True))
    assert (tmp_path / "photos" / "holiday.jpg").read_text() == "precious"


def test_an_export_that_fails_leaves_the_old_bundle_as_it_was(tiny, tmp_path):
    out = tmp_path / "b"
    export(Request(tiny, out, parity=False))
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(tiny.read_bytes()[:1000])
    with pytest.raises(CheckpointError):
        export(Request(bad, out, parity=False, overwrite=True))
    assert glama_deploy.load(out).backend in ("openvino", "onnxruntime")


def test_a_place_that_cannot_be_written_is_an_error(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GlamaError, match="cannot write"):
        export(Request(tiny, tmp_path / "file" / "b"))
    if os.geteuid() == 0:
        return  # root may write anywhere; the rest needs an ordinary user
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(GlamaError, match="cannot write"):
        export(Request(tiny, tmp_path / "closed" / "b"))


@pytest.fixture
def small_disk(tiny: Path, tmp_path: Path):
    """A file system with room for one and a half times the network's weights."""
    mount, folder = shutil.which("mount"), tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={tiny.stat().st_size * 3 // 2}", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny, small_disk):
    with pytest.raises(GlamaError, match="no space is left on the disk"):
        export(Request(tiny, small_disk / "b", ("openvino",), parity=False))
    assert not list(small_disk.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("delay", [1.0, 3.0])
def test_a_killed_export_leaves_no_half_bundle(tiny, tmp_path, delay):
    glama_export = Path(sys.executable).parent / "glama-export"
    command = [glama_export, "--ckpt", tiny, "--out", tmp_path / "b", "--target", "openvino"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    if (tmp_path / "b").exists():  # it was faster than the kill: then it is whole
        bundle = Bundle.open(tmp_path / "b")
        assert all(bundle.files(name) for name in bundle.manifest.engines)
    assert subprocess.run([*command, "--no-parity", "--overwrite"], check=False, capture_output=True).returncode == 0
    assert Bundle.open(tmp_path / "b").files("openvino")
