"""int8: calibrated by NNCF, measured and mixed by us, run by the engines themselves."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import glama_deploy
from glama_deploy.bundle import Bundle
from glama_deploy.catalogue import Tolerance
from glama_deploy.checkpoints import formats
from glama_deploy.cli.export import main as glama_export
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.export import samples
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics import int8, quantize
from glama_deploy.export.pipeline import Request, export
from glama_deploy.io import images
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import SPECTRUM
from glama_deploy.psnr import compute_psnr
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.precision import find_precisions


@pytest.fixture(scope="module")
def bundle(tiny: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("int8") / "bundle"
    request = Request(tiny, out, ("openvino",), "int8", calibration=photos, parity_size=(256, 256))
    return export(request).bundle


def test_calibration_keeps_the_optional_input_and_prints_no_warning(capfd):
    config = NetworkConfig(ngf=8, n_blocks=1)
    model = build(config, untrained(config))
    rng = np.random.default_rng(0)
    inputs = {"image": rng.random((1, 3, 64, 64), np.float32), "mask": np.ones((1, 1, 64, 64), np.float32)}
    sample = quantize.Sample(inputs, np.ones((1, 64, 64), bool))
    quantized = quantize._calibrate(model, [sample], ())
    assert [value.name for value in quantized.graph.input] == ["image", "mask", "window"]
    assert "window" in {tensor.name for tensor in quantized.graph.initializer}
    onnx.checker.check_model(quantized)
    assert "graph inputs" not in capfd.readouterr().err


def test_both_engines_compute_in_int8_and_reach_what_parity_asks_for(bundle):
    engines = bundle.manifest.engines
    assert {name: engine.precision for name, engine in engines.items()} == {"onnx": "int8", "openvino": "int8"}
    for engine in engines.values():
        assert engine.parity.measured
        assert engine.parity.passed
        assert 40 <= engine.parity.psnr < 90  # above 90 dB nothing would have been quantized
    image = images.read_image(samples.SAMPLE).rgb[:120, :144]
    mask = np.zeros(image.shape[:2], bool)
    mask[40:80, 50:90] = True
    results = {}
    for backend in ("openvino", "onnxruntime:cpu"):
        inpainter = glama_deploy.load(bundle.path, backend)
        assert inpainter.precision == "int8"
        results[backend] = inpainter(image, mask, region="full")
        assert np.array_equal(results[backend][~mask], image[~mask])
    exact = glama_deploy.load(bundle.path, "onnxruntime:cpu", "fp32")(image, mask, region="full")
    for found in results.values():
        # two steps of 8 bits, root mean square: 42 dB
        assert 0 < np.sqrt(np.mean((found[mask].astype(float) - exact[mask]) ** 2)) < 2


def test_convolutions_are_in_int8_but_those_on_spectra_and_what_is_not_the_network(bundle):
    graph = bundle.manifest.graphs["int8"]
    model = onnx.load(str(bundle.graph("int8")))
    convolutions = {node.name for node in model.graph.node if node.op_type in quantize.CONVOLUTIONS}
    spectra = {name for name in convolutions if name.endswith(SPECTRUM)}
    assert spectra
    assert spectra <= graph.kept.keys()
    assert quantize.find_int8_convolutions(model) == convolutions - graph.kept.keys()
    assert len(quantize.find_int8_convolutions(model)) > len(convolutions) / 2
    weights = model.ByteSize()
    assert weights < 0.6 * bundle.graph("fp32").stat().st_size  # bytes, but for the spectra's


def _samples(count: int, kind: str, output: str = "inpainted") -> list[quantize.Sample]:
    """Measured on the missing pixels of `inpainted`, or all of `predicted`."""
    photo = images.read_image(samples.SAMPLE).rgb
    cases = [samples._make_case(photo, 1, (64, 64), kind, seed) for seed in range(count)]
    return [
        quantize.Sample(
            dict(zip(("image", "mask"), case.tensors(), strict=True)),
            case.missing | (output == "predicted"),
            output,
        )
        for case in cases
    ]


def test_the_convolution_that_int8_would_ruin_stays_and_is_named():
    """A channel of one convolution is made 3000 times as large, and its readers as much less sensitive to it: exactly
    the same network, and one input that 256 steps cannot hold."""
    config = NetworkConfig(ngf=8, n_blocks=2)
    model = build(config, untrained(config))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name: str, index: tuple, factor: float) -> None:
        tensor = stored[name]
        values = onnx.numpy_helper.to_array(tensor).copy()
        values[index] *= factor
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))

    nodes = {node.name: node for node in model.graph.node}
    for name in nodes["up1/conv"].input[1:]:
        scale(name, (slice(None), 3) if "weight" in name else (3,), 3000)
    scale(nodes["up2/conv"].input[1], (3,), 1 / 3000)
    calibration, checks = _samples(4, "strokes"), _samples(3, "general")
    plain = quantize.quantize(model, calibration, checks, least=-math.inf)
    assert not plain.kept
    result = quantize.quantize(model, calibration, checks, least=plain.psnr + 6)
    assert result.psnr >= plain.psnr + 6
    assert "up2/conv" in result.kept
    assert "dB" in result.kept["up2/conv"]
    assert len(result.kept) < 6  # it is the one, not half of the network
    assert quantize.find_int8_convolutions(result.model).isdisjoint(result.kept)
    onnx.checker.check_model(result.model, full_check=True)


def test_what_parity_measures_is_reached_too():
    """However near the missing pixels are, an export whose own parity then fails helps nobody."""
    config = NetworkConfig(ngf=8, n_blocks=2)
    model = build(config, untrained(config), outputs=("inpainted", "predicted"))
    calibration, checks = _samples(4, "strokes"), _samples(3, "general")
    parity = _samples(3, "general", "predicted")

    def psnr(found: onnx.ModelProto) -> float:
        expected = [quantize._make_runner(model)(sample) for sample in parity]
        return compute_psnr(quantize._measure_error(quantize._make_runner(found), parity, expected))

    plain = quantize.quantize(model, calibration, checks, least=-math.inf)
    asked = psnr(plain.model) + 3
    result = quantize.quantize(model, calibration, checks, parity, least=-math.inf, least_parity=asked)
    assert result.kept
    assert psnr(result.model) >= asked


@pytest.mark.parametrize(("io", "size"), [("float", None), ("float", (72, 40)), ("uint8", None), ("uint8", (72, 40))])
def test_what_is_measured_is_what_a_graph_gives_but_for_its_padding(tiny, photos, tmp_path, io, size):
    request = Request(tiny, tmp_path / "b", ("openvino",), "int8", size=size, io=io, calibration=photos)
    source = formats.read(tiny)
    run = quantize._make_runner(int8._build(source, request, "matmul"))
    for case in samples.parity_cases(request.find_graph_sizes(source.config), (264, 264)):
        for whole in (None, "predicted"):
            sample = int8._make_sample(case, request, whole)
            assert run(sample).shape[:3] == sample.measured.shape
            assert sample.measured.sum() == (case.missing.size if whole else case.missing.sum())


def test_a_graph_with_everything_taken_out_is_the_fp32_graph():
    config = NetworkConfig(ngf=8, n_blocks=1)
    model = build(config, untrained(config))
    checks = _samples(2, "strokes")
    shared = logging.NullHandler()  # a handler of the program's, which its other loggers have too
    logging.getLogger("nncf").addHandler(shared)
    full = quantize._calibrate(model, checks, ())
    logging.getLogger("nncf").removeHandler(shared)
    assert shared.level == logging.NOTSET  # what else goes through it is heard as before
    bare = quantize._restore_groups(full, model, quantize._find_groups(full))
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in bare.graph.node}
    for sample in checks:
        assert np.array_equal(quantize._make_runner(bare)(sample), quantize._make_runner(model)(sample))


def test_missing_needs_of_int8_are_refused_before_any_work(tiny, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "small" / "dot.png")
    out = tmp_path / "b"
    for settings, words in (
        ({"calibration": tmp_path / "small"}, r"dot.png is 10x10; calibration takes photos of at least 16x16"),
        ({}, "`calibration=FOLDER`"),
        ({"calibration": tmp_path / "empty"}, "has no photos"),
        ({"calibration": photos, "calibration_images": 5}, "has 3 photos, and 5 are asked for"),
        ({"calibration": photos, "fft": "plugin", "targets": ("trt",)}, "a CPU, where `fft=plugin` does not run"),
    ):
        with pytest.raises(GlamaError, match=words):
            export(Request(tiny, out, precision="int8", **settings))
        assert not out.exists()
    with pytest.raises(GlamaError, match="`calibration_images` is for int8"):
        export(Request(tiny, out, calibration_images=3))


def test_a_graph_of_any_size_is_measured_at_two(photos):
    calibration, checks = samples.int8_cases(photos, (64, 64), (96, 128))
    assert {case.image.shape[1:3] for case in calibration} == {(64, 64)}
    assert [case.image.shape[1:3] for case in checks] == [(64, 64), (96, 128), (64, 64)]
    _, of_one = samples.int8_cases(photos, (64, 64), (96, 128), 1)
    assert [case.image.shape[1:3] for case in of_one] == [(64, 64), (96, 128)]


def test_a_precision_that_the_bundle_lacks_is_refused(bundle, tiny_bundle):
    with pytest.raises(EngineError, match="is not in int8 for OpenVINO; export it with `precision=int8`"):
        glama_deploy.load(tiny_bundle.path, "openvino", "int8")
    with pytest.raises(EngineError, match="has no int8 graph"):
        glama_deploy.load(tiny_bundle.path, "onnxruntime:cpu", "int8")


def test_a_bundle_in_int8_runs_in_fp32_too(bundle, tiny, photo, hole):
    exact = glama_deploy.load(tiny, "torch").predict(photo, hole)
    for backend in ("openvino", "onnxruntime:cpu"):
        inpainter = glama_deploy.load(bundle.path, backend, "fp32")
        assert inpainter.precision == "fp32"
        # what parity asks of fp32
        np.testing.assert_allclose(inpainter.predict(photo, hole), exact, rtol=0, atol=2e-5)


def test_what_is_not_int8_computes_in_bf16_where_that_is_asked_for(bundle, photo, hole, monkeypatch):
    """On a CPU without bf16 the same path runs with the type swapped."""
    plain = glama_deploy.load(bundle.path, "openvino", "int8").predict(photo, hole)
    if "bf16" not in find_precisions(has_int8=True):
        said = glama_deploy.load(bundle.path, "openvino", "int8+bf16").description
        assert "int8 (this CPU has no bf16)" in said or "no VNNI" in said
        monkeypatch.setattr(openvino, "choose_precision", lambda *_, **__: ("bf16", ""))
        monkeypatch.setitem(openvino.PRECISION_HINTS, "bf16", "f32")
    mixed = glama_deploy.load(bundle.path, "openvino", "int8+bf16")
    assert mixed.precision == "int8+bf16"
    error = mixed.predict(photo, hole) - plain
    # bf16 has 8 significant bits: far below what int8 costs (40 dB)
    assert (error**2).mean() < 10**-4.5


def test_an_export_below_its_decibels_is_exit_code_3_and_says_where(tiny, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(int8, "find_tolerance", lambda *_: Tolerance(least_psnr=40.0))  # so that the search is content
    arguments = ["--ckpt", tiny, "--target", "openvino", "--precision", "int8", "--calib", photos]
    arguments += ["--tolerance", "int8=99dB", "--out"]
    assert glama_export.run([str(argument) for argument in (*arguments, tmp_path / "b")]) == 3
    out = capsys.readouterr().out
    assert out.count("FAIL") == 2
    assert re.search(r"openvino: below the 99 dB that it should reach, worst at \d+x\d+ ", out)


def test_a_cpu_without_int8_products_runs_it_all_the_same_and_says_so(bundle, monkeypatch):
    monkeypatch.setattr("glama_deploy.runtime.openvino.precision._has_int8_products", lambda: False)
    inpainter = glama_deploy.load(bundle.path, "openvino")
    assert "int8 (this CPU has no VNNI" in inpainter.description
    image, mask = np.full((64, 64, 3), 99, np.uint8), np.eye(64, dtype=bool)
    assert inpainter(image, mask).shape == image.shape
