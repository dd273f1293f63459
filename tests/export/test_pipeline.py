from __future__ import annotations

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
from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError, EngineError, GlamaError
from glama_deploy.export import parity, pipeline, samples
from glama_deploy.export.pipeline import Request, export
from glama_deploy.io import images
from glama_deploy.runtime import choice
from glama_deploy.runtime import torch as torch_runtime
from glama_deploy.runtime.base import Request as RunRequest
from glama_deploy.runtime.base import Runner


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


def test_parity_finds_a_wrong_engine(tiny, tmp_path, monkeypatch):
    """Parity that cannot fail would be no parity: one weight of the exported graph is moved by 1 %."""
    from glama_deploy.export.graph import network

    build = network.build

    def off(config, weights, *args):
        weights = {**weights, "model.1.ffc.convl2l.weight": weights["model.1.ffc.convl2l.weight"] * np.float32(1.01)}
        return build(config, weights, *args)

    monkeypatch.setattr(network, "build", off)
    outcome = export(Request(tiny, tmp_path / "b", ("openvino",)))
    for engine in outcome.bundle.manifest.engines.values():
        assert engine.parity.measured
        assert not engine.parity.passed
        assert engine.parity.worst


def test_values_that_are_not_finite_count_as_infinite_error():
    class Broken:
        io, sizes = "float", ANY_SIZE

        def run(self, image, mask, output):
            out = np.zeros_like(image)
            out[0, 0, 0, 0] = np.nan
            return out

    case = samples.Case("x", np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 16, 16), bool))
    found = parity.compare(Broken(), [parity.ReferenceCase(case, case.image.astype(np.float32))], "predicted", "fp32")
    assert found.max_abs_error == float("inf")
    assert not found.passed


class OnTheDevice(Runner):
    """Stands for a TensorRT engine on a GPU: as strict about sizes and batch as one, and right."""

    def __init__(self, checkpoint_path: Path, sizes: SizeRange) -> None:
        self._runner = torch_runtime.open(formats.read(checkpoint_path), RunRequest())
        self.sizes, self.io, self.description = sizes, "float", "TensorRT"

    def memory_needed(self, size, batch=1, window=None):
        return 0

    def run(self, image, mask, output="inpainted"):
        if image.shape[0] > self.sizes.max_batch or not self.sizes.covers(*image.shape[2:]):
            raise EngineError(f"{image.shape} is outside the profile")
        return self._runner.run(image, mask, output)


def test_parity_is_measured_on_sizes_of_the_engine_only(tiny, make_bundle, monkeypatch):
    bundle = make_bundle(tiny)
    sizes = SizeRange(min=(64, 64), opt=(256, 256), max=(304, 304), max_batch=1)
    engine = bundle.manifest.engines["openvino"].model_copy(update={"name": "tensorrt", "sizes": sizes})
    monkeypatch.setattr(choice, "open_engine", lambda *_: OnTheDevice(tiny, sizes))
    expected = parity.run_reference(formats.read(tiny), samples.parity_cases(ANY_SIZE))
    found = parity.measure(bundle, engine, expected, "predicted")
    assert found.passed
    assert 2 <= len(found.cases) < len(expected)


def test_an_engine_that_fails_at_its_measurement_is_unmeasured(tiny, make_bundle, monkeypatch):
    class Fails:
        io, sizes = "float", ANY_SIZE

        def run(self, image, mask, output="inpainted"):
            raise EngineError("out of device memory")

    bundle = make_bundle(tiny)
    monkeypatch.setattr(choice, "open_engine", lambda *_: Fails())
    expected = parity.run_reference(formats.read(tiny), samples.parity_cases(ANY_SIZE)[:1])
    found = parity.measure(bundle, bundle.manifest.engines["openvino"], expected, "predicted")
    assert not found.measured
    assert found.reason == "out of device memory"


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


def test_a_bundle_without_predicted_is_an_error_that_names_the_option(tiny, make_bundle, photo, hole):
    bundle = make_bundle(tiny, predicted=False)
    for backend in ("openvino", "onnxruntime"):
        inpainter = glama_deploy.load(bundle.path, backend)
        assert inpainter(photo, hole).shape == photo.shape
        with pytest.raises(GlamaError, match="`predicted=True`"):
            inpainter.predict(photo, hole)


def test_a_target_that_cannot_be_built_does_not_prevent_the_others(tiny, tmp_path):
    if pipeline.installed("tensorrt"):
        pytest.skip("TensorRT is installed here, so its target may well be built")
    outcome = export(Request(tiny, tmp_path / "b", ("trt", "openvino"), parity=False))
    assert "pip install 'glama-deploy[tensorrt]' (on Jetson" in outcome.failures["trt"]
    assert outcome.failures["trt"].endswith(", or build on the device")
    assert set(outcome.bundle.manifest.engines) == {"onnx", "openvino"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"manifest.json", "model.onnx", "openvino", "build.sh"}
    assert glama_deploy.load(tmp_path / "b").backend == "openvino"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"targets": ("coreml",)}, "unknown target 'coreml'; expected onnx, openvino, trt, trt-rtx, web"),
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
    with pytest.raises(GlamaError, match="`overwrite=True`"):
        export(Request(tiny, out, parity=False))
    assert (out / "manifest.json").stat().st_mtime_ns == before
    export(Request(tiny, out, parity=False, overwrite=True))
    assert (out / "manifest.json").stat().st_mtime_ns > before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_is_not_a_bundle_is_never_overwritten(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("precious")
    with pytest.raises(GlamaError, match="is not a bundle, so it is not overwritten"):
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
    for out in (tmp_path / "file" / "b", tmp_path / "file"):
        for overwrite in (False, True):
            with pytest.raises(GlamaError, match=r"cannot write|exists already|is a file"):
                export(Request(tiny, out, overwrite=overwrite))
    assert (tmp_path / "file").read_text() == ""


def test_a_read_only_disk_is_one_line(tiny, small_disk, tiny_bundle, photo):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(GlamaError, match="choose a folder you may write to"):
        export(Request(tiny, small_disk / "b"))
    picture = images.Picture(photo)
    with pytest.raises(GlamaError, match="read-only"):
        images.write_image(small_disk / "out.png", picture)


def test_a_link_is_followed_when_a_bundle_is_replaced(tiny, tmp_path):
    export(Request(tiny, tmp_path / "real", parity=False))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(Request(tiny, tmp_path / "link", ("openvino",), parity=False, overwrite=True))
    assert (tmp_path / "link").is_symlink()
    assert "openvino" in Bundle.open(tmp_path / "real").manifest.engines
    assert {path.name for path in tmp_path.iterdir()} == {"real", "link"}


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


def test_a_disk_with_room_for_only_the_graph_keeps_the_graph(tiny, small_disk):
    outcome = export(Request(tiny, small_disk / "b", ("openvino",), parity=False))
    assert "could not write its files; 0 MB are free" in outcome.failures["openvino"]
    assert set(Bundle.open(small_disk / "b").manifest.engines) == {"onnx"}


def test_a_full_disk_is_one_line_and_leaves_nothing(tiny, small_disk):
    subprocess.run(["mount", "-o", f"remount,size={tiny.stat().st_size // 2}", str(small_disk)], check=True)
    with pytest.raises(GlamaError, match="no space is left on the disk"):
        export(Request(tiny, small_disk / "b", ("openvino",), parity=False))
    assert not list(small_disk.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0])
def test_a_killed_export_leaves_no_half_bundle(tiny, tmp_path, delay, wait_until):
    """Killed when its temporary folder has just appeared, and some time after."""
    glama_export = Path(sys.executable).parent / "glama-export"
    command = [glama_export, "--ckpt", tiny, "--out", tmp_path / "b", "--target", "openvino"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: list(tmp_path.glob(".*.tmp")))
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    if (tmp_path / "b").exists():  # it was faster than the kill: then it is whole
        bundle = Bundle.open(tmp_path / "b")
        assert all(bundle.files(name) for name in bundle.manifest.engines)
    assert subprocess.run([*command, "--no-parity", "--overwrite"], check=False, capture_output=True).returncode == 0
    assert Bundle.open(tmp_path / "b").files("openvino")


@pytest.mark.parametrize("fft", ["matmul", "plugin"])
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_a_graph_for_a_device_is_measured_by_emulation_where_no_engine_is_built(tiny, tmp_path, fft, half):
    """The way to a Jetson: TensorRT is not here, its graph is; so what it will compute is known before it leaves."""
    if pipeline.installed("tensorrt"):
        pytest.skip("TensorRT is installed here, so its target may well be built")
    profile = SizeRange(min=(64, 64), opt=(128, 128), max=(264, 264))
    settings = {"fft": fft, "io": "uint8", "predicted": False, "profile": profile}
    outcome = export(Request(tiny, tmp_path / "b", ("trt",), half, **settings))
    assert "trt" in outcome.failures
    parity = Bundle.open(tmp_path / "b").manifest.graphs[half].parity
    assert parity.emulated
    assert parity.passed
    assert parity.output == "predicted"  # though the bundle has it not: bytes would hide what is not finite
    assert "259x245 strokes" in parity.cases


def test_a_network_that_is_not_finite_is_not_exported_to_bytes(tiny, tmp_path):
    source = formats.read(tiny)
    weights = {**source.weights}
    name = f"model.{source.config.head}.bias"
    weights[name] = np.full_like(weights[name], np.nan)
    formats.save(tmp_path / "nan.safetensors", source.config, weights)
    for targets in (("onnx",), ("trt",)):
        with pytest.raises(GlamaError, match="not finite"):
            export(Request(tmp_path / "nan.safetensors", tmp_path / "b", targets, io="uint8", predicted=False))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"calibration": "photos"}, "`calibration` is for int8 and for the half types of TensorRT's graph"),
        ({"parity_size": (1024, 1024), "size": (64, 64)}, "`parity_size` is for graphs of any size"),
    ],
)
def test_an_option_without_effect_is_refused(tiny, tmp_path, settings, says):
    (tmp_path / "photos").mkdir()
    if "calibration" in settings:
        settings = {"calibration": tmp_path / "photos"}
    with pytest.raises(GlamaError, match=says):
        export(Request(tiny, tmp_path / "b", **settings))
