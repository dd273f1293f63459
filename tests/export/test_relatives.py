"""Relatives of LaMa: their exported engines are within the tolerance of the PyTorch reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import glama_deploy
from fakes.lama_relatives import STEP, make_input, read_outputs, write_folder
from glama_deploy.bundle import DEFAULT_PROFILE, SizeRange
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NetworkConfig

#: One relative for each setting.
NAMES = ("tanh", "no activation", "fft_norm backward", "fft_norm forward", "dilation", "regular", "dilated")

#: The same settings. Untrained networks of a config have norms that fit their feature maps, as trained ones do.
CONFIGS = {
    "tanh": NetworkConfig(ngf=8, n_blocks=2, activation="tanh"),
    "no activation": NetworkConfig(ngf=8, n_blocks=2, activation="none"),
    "fft_norm backward": NetworkConfig(ngf=8, n_blocks=2, fft_norm="backward"),
    "fft_norm forward": NetworkConfig(ngf=8, n_blocks=2, fft_norm="forward"),
    "dilation": NetworkConfig(ngf=8, n_blocks=2, dilation=3),
    "regular": NetworkConfig(ngf=8, n_blocks=2, kind="regular", ratio=0),
    "dilated": NetworkConfig(ngf=8, n_blocks=2, kind="multidilated", ratio=0, branches=4, splits_channels=True),
    "summed": NetworkConfig(ngf=8, n_blocks=2, kind="multidilated", ratio=0, branches=3),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("settings", [{"parity_size": (112, 112)}, {"size": (96, 112), "io": "uint8"}])
def test_engines_are_within_the_tolerance(tmp_path, make_checkpoint, name, settings):
    request = Request(make_checkpoint(CONFIGS[name]), tmp_path / "bundle", ("onnx", "openvino"), **settings)
    for engine in export(request).bundle.manifest.engines.values():
        assert engine.parity.passed, engine.parity


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", ["onnxruntime:cpu", "openvino"])
def test_a_bundle_gives_the_output_of_lamas_own_code(tmp_path, name, backend):
    folder = write_folder(name, tmp_path / "lama")
    export(Request(folder, tmp_path / "bundle", ("onnx", "openvino"), parity=False))
    masked = make_input()[0]
    # the program takes bytes, so the picture is rounded, and the output moves with it
    inpainter = glama_deploy.load(tmp_path / "bundle", backend)
    reference = glama_deploy.load(folder, "torch")
    image, mask = np.rint(masked[:3].transpose(1, 2, 0) * 255).astype(np.uint8), masked[3] > 0
    found, expected = inpainter.predict(image, mask), reference.predict(image, mask)
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)
    # half a step of 8 bits, as far as a network of random weights enlarges it
    np.testing.assert_allclose(found.transpose(2, 0, 1)[:, ::STEP, ::STEP], read_outputs(name), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["tanh", "no activation"])
@pytest.mark.parametrize("io", ["float", "uint8"])
def test_values_outside_of_the_range_of_a_picture_are_cut(tmp_path, name, io):
    folder = write_folder(name, tmp_path / "lama")
    export(Request(folder, tmp_path / "bundle", io=io, parity=False))
    masked = make_input()[0]
    image, mask = np.rint(masked[:3].transpose(1, 2, 0) * 255).astype(np.uint8), masked[3] > 0
    inpainter = glama_deploy.load(tmp_path / "bundle", "onnxruntime:cpu")
    predicted = inpainter.predict(image, mask)
    assert predicted[mask].min() < -0.1
    filled = inpainter(image, mask)
    exact = predicted.astype(np.float64).clip(0, 1) * 255
    assert np.abs(filled - exact)[mask].max() < 0.51  # rounding to 8 bits
    np.testing.assert_array_equal(filled[~mask], image[~mask])


def test_a_picture_below_the_least_side_of_a_network_is_refused(tmp_path, make_checkpoint):
    config = NetworkConfig(ngf=8, n_blocks=1, kind="multidilated", ratio=0, branches=4, splits_channels=True)
    export(Request(make_checkpoint(config), tmp_path / "bundle", parity=False))
    inpainter = glama_deploy.load(tmp_path / "bundle", "onnxruntime:cpu")
    small = np.zeros((64, 90, 3), np.uint8), np.ones((64, 90), np.uint8)
    with pytest.raises(ImageError, match="the dilations of this network take from 72x72 on: scale the image up"):
        inpainter(*small)
    large = np.zeros((72, 90, 3), np.uint8), np.ones((72, 90), np.uint8)
    assert inpainter(*large).shape == (72, 90, 3)


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(ngf=8, n_blocks=1, fft_norm="backward"),
        NetworkConfig(ngf=8, n_blocks=1, activation="none", dilation=2),
        NetworkConfig(ngf=8, n_blocks=1, kind="multidilated", ratio=0, branches=2),
    ],
)
def test_a_relative_is_written_in_half_precision(tmp_path, make_checkpoint, config):
    sizes = SizeRange(min=(64, 64), opt=(96, 96), max=(128, 128), max_batch=1)
    request = Request(make_checkpoint(config), tmp_path / "bundle", ("trt-rtx",), "fp16", profile=sizes)
    graph = export(request).bundle.manifest.graphs["fp16"]
    assert graph.parity is not None
    assert graph.parity.passed, graph.parity


def test_a_tensorrt_engine_is_built_from_the_least_side_of_a_network_on(tmp_path, make_checkpoint):
    config = NetworkConfig(ngf=8, n_blocks=1, kind="multidilated", ratio=0, branches=4)
    wanted = Request(make_checkpoint(config), tmp_path / "bundle", ("trt-rtx",), parity=False)
    outcome = export(wanted)
    assert not outcome.failures
    assert outcome.bundle.manifest.engines["tensorrt-rtx"].sizes.min == (72, 72)
    asked = replace(wanted, profile=DEFAULT_PROFILE.model_copy(update={"min": (32, 64)}), overwrite=True)
    with pytest.raises(GlamaError, match="`min_size=32x64` is below 72x72, which the dilations of this network need"):
        export(asked)


@pytest.mark.parametrize("fft", ["matmul", "dft"])
def test_a_lowering_for_a_network_without_ffts_is_refused(tmp_path, make_checkpoint, fft):
    request = Request(make_checkpoint(CONFIGS["regular"]), tmp_path / "bundle", ("onnx",), fft=fft)
    with pytest.raises(GlamaError, match=rf"`fft` is {fft}, and .* has no Fourier convolutions \(kind regular\)"):
        export(request)
    assert not (tmp_path / "bundle").exists()
