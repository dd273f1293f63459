"""uint8 in the graph: a frame goes in as bytes and comes back as bytes, on every engine that runs here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy.bundle import Bundle, SizeRange
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.padding import compute_padding
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Runner


@pytest.fixture(scope="module")
def byte_bundle(tiny, make_bundle) -> Bundle:
    return make_bundle(tiny, io="uint8")


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def runner(request, byte_bundle):
    return choice.open_bundle(byte_bundle, request.param)


@pytest.fixture(scope="module")
def of_floats(tiny_bundle) -> Inpainter:
    return glama_deploy.load(tiny_bundle.path, "onnxruntime")


def frame(height: int, width: int, batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height * 1000 + width)
    image = rng.integers(0, 256, (batch, height, width, 3), np.uint8)
    return image, (rng.random((batch, height, width)) < 0.3).astype(np.uint8) * rng.integers(1, 256, dtype=np.uint8)


@settings(deadline=None, max_examples=40)
@given(st.integers(16, 100), st.integers(16, 100))
def test_bytes_in_the_graph_are_what_the_float_graph_gives_outside(runner, of_floats, height, width):
    image, mask = frame(height, width)
    out = runner.run(image, mask)
    assert out.dtype == np.uint8
    assert out.shape == image.shape
    known = mask == 0
    np.testing.assert_array_equal(out[known], image[known])
    predicted = runner.run(image, mask, "predicted")
    assert predicted.dtype == np.float32
    expected = of_floats.predict(image[0], mask[0])
    assert np.abs(predicted[0] - expected).max() < 2e-5  # as for every fp32 engine
    # half a step of rounding, and the tolerance above
    assert np.abs(out[0][~known[0]] / 255 - expected[~known[0]]).max() < 0.5 / 255 + 2e-5


def test_an_image_below_the_least_size_is_padded_to_it_as_for_a_float_graph(byte_bundle):
    runner = ReadsThem(SizeRange(min=(64, 64), opt=(128, 128), max=(256, 256)))
    sizes = (64, 65), (60, 61), (57, 300), (200, 201)
    pads = [compute_padding(*size, "uint8", runner.sizes) for size in sizes]
    assert pads == [(0, 0), (4, 3), (7, 4), (0, 0)]


def test_a_batch_of_frames_is_frame_by_frame(runner):
    image, mask = frame(61, 83, batch=3)
    together = runner.run(image, mask, "predicted")
    for n in range(3):
        alone = runner.run(image[n : n + 1], mask[n : n + 1], "predicted")
        assert np.abs(together[n] - alone[0]).max() < 2e-5  # another order of summation


def test_known_pixels_come_back_bit_exact_and_the_mask_is_zero_or_not(byte_bundle, photo, hole):
    inpainter = glama_deploy.load(byte_bundle.path)
    out = inpainter(photo[:91, :117], hole[:91, :117])
    np.testing.assert_array_equal(out[~hole[:91, :117]], photo[:91, :117][~hole[:91, :117]])
    np.testing.assert_array_equal(out, inpainter(photo[:91, :117], hole[:91, :117].astype(np.uint8) * 7))
    assert inpainter.predict(photo, hole).dtype == np.float32


def test_one_size_of_bytes_is_padded_outside(tiny, make_bundle, photo, hole, of_floats):
    bundle = make_bundle(tiny, io="uint8", size=(96, 120))
    inpainter = glama_deploy.load(bundle.path, "openvino")
    out = inpainter(photo[:93, :115], hole[:93, :115])
    expected = of_floats(photo[:93, :115], hole[:93, :115])
    assert np.abs(out.astype(int) - expected).max() <= 1  # a value next to .5 may round the other way
    with pytest.raises(ImageError, match="this engine takes 96x120"):
        inpainter(photo[:64], hole[:64])


def test_the_manifest_says_what_the_tensors_are_and_parity_is_measured_on_them(tiny, tmp_path):
    export(Request(tiny, tmp_path / "b", ("openvino",), io="uint8"))
    manifest = Bundle.open(tmp_path / "b").manifest
    image, mask = manifest.inputs
    assert (image.dtype, image.layout, image.range) == ("uint8", "NHWC", (0.0, 255.0))
    assert (mask.dtype, mask.layout, mask.shape) == ("uint8", "NHW", ("batch", "height", "width"))
    assert [(t.name, t.dtype) for t in manifest.outputs] == [("inpainted", "uint8"), ("predicted", "float32")]
    for engine in manifest.engines.values():
        assert engine.parity.passed
        assert "259x245 strokes" in engine.parity.cases  # an odd original, between the corners


def test_a_bundle_of_bytes_alone_is_measured_within_its_rounding(tiny, tmp_path):
    export(Request(tiny, tmp_path / "b", ("openvino",), io="uint8", predicted=False))
    for engine in Bundle.open(tmp_path / "b").manifest.engines.values():
        assert engine.parity.output == "inpainted"
        assert engine.parity.passed
    with pytest.raises(EngineError, match="no output 'predicted'"):
        glama_deploy.load(tmp_path / "b").predict(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), bool))


class OnGpu:
    """An array that says that it lies on a GPU."""

    def __init__(self, shape: tuple[int, ...], typestr: str = "|u1") -> None:
        self.__cuda_array_interface__ = {"shape": shape, "typestr": typestr, "data": (4096, False), "version": 3}


class ReadsThem(Runner):
    """A runner that reads arrays on a GPU, and says what it was given."""

    backend, description, precision, io, takes_device_arrays = "tensorrt", "TensorRT", "fp16", "uint8", True
    device = "cuda"

    def __init__(self, sizes) -> None:
        self.sizes, self.seen = sizes, []

    def memory_needed(self, size, batch=1, window=None):
        return 0

    def run(self, image, mask, output="inpainted"):
        self.seen.append((image, mask))
        shape = image.__cuda_array_interface__["shape"]
        return np.zeros((1, *shape), np.uint8 if output == "inpainted" else np.float32)


def test_arrays_on_a_gpu_are_passed_on_as_they_are(byte_bundle):
    runner = ReadsThem(byte_bundle.sizes)
    inpainter = Inpainter(runner, NetworkConfig(ngf=8))
    pair = OnGpu((61, 83, 3)), OnGpu((61, 83), "|b1")
    assert inpainter(*pair).shape == (61, 83, 3)
    assert runner.seen == [pair]


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (OnGpu((61, 83, 3)), np.zeros((61, 83), bool), "one lies on the GPU and one does not"),
        (OnGpu((61, 83)), OnGpu((61, 83)), r"shapes \[61, 83\] and \[61, 83\]; height × width × 3"),
        (OnGpu((61, 83, 3)), OnGpu((61, 84)), "height × width are expected"),
        (OnGpu((1, 61, 83, 3)), OnGpu((1, 61, 83)), "a batch on the GPU is filled by run_on_gpu; pass one image"),
        (OnGpu((8, 83, 3)), OnGpu((8, 83)), "8x83; both sides must be from 16 to"),
    ],
)
def test_arrays_on_a_gpu_that_do_not_fit_are_refused(byte_bundle, image, mask, says):
    with pytest.raises(ImageError, match=says):
        Inpainter(ReadsThem(byte_bundle.sizes), NetworkConfig(ngf=8))(image, mask)


def test_an_engine_that_reads_no_gpu_memory_says_what_to_do(tiny_bundle):
    with pytest.raises(ImageError, match=r"lies on a GPU, which OpenVINO .* does not read; .*`io=uint8`"):
        glama_deploy.load(tiny_bundle.path, "openvino")(OnGpu((64, 64, 3)), OnGpu((64, 64)))
