"""`Inpainter.run_on_gpu`: frames on a GPU, over CUDA and TensorRT in memory."""

from __future__ import annotations

import numpy as np
import pytest

import glama_deploy
from fakes.tensorrt_bundles import OnDevice, World, inputs, with_engine
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError, GlamaError, ImageError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.network import NetworkConfig


@pytest.fixture(scope="module")
def byte_bundle(tiny, tmp_path_factory) -> Bundle:
    """A bundle whose graph takes and gives bytes."""
    folder = tmp_path_factory.mktemp("bytes") / "bundle"
    export(Request(tiny, folder, ("onnx",), io="uint8"))
    return Bundle.open(folder)


def read(world: World, array: object) -> np.ndarray:
    there = array.__cuda_array_interface__
    dtype, shape = np.dtype(there["typestr"]), there["shape"]
    block = world.cuda.block(there["data"][0], int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(bytes(block), dtype).reshape(shape)


def make_frames(batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    return rng.integers(0, 256, (batch, height, width, 3), np.uint8), rng.random((batch, height, width)) < 0.2


@pytest.mark.parametrize("size", [(64, 64), (67, 93)])
def test_frames_of_bytes_come_back_filled_and_known_pixels_as_they_were(opened, byte_bundle, size):
    world = opened(with_engine(byte_bundle))
    inpainter = Inpainter(world.runner, NetworkConfig(ngf=8))
    images, masks = make_frames(2, *size)
    expected = inpainter.batch(images, masks)
    there, holes = OnDevice(world.device, images), OnDevice(world.device, masks)
    result = inpainter.run_on_gpu(there, holes)
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(read(world, result), expected)
    np.testing.assert_array_equal(read(world, result)[~masks], images[~masks])
    one = inpainter.run_on_gpu(OnDevice(world.device, images[0]), OnDevice(world.device, masks[0].view(np.uint8)))
    np.testing.assert_array_equal(read(world, one), expected[0])


def test_a_loop_over_frames_writes_to_the_callers_array_in_the_callers_stream(opened, byte_bundle):
    world = opened(with_engine(byte_bundle))
    inpainter = Inpainter(world.runner, NetworkConfig(ngf=8))
    images, masks = make_frames(1, 64, 96)
    there, hole, out = (OnDevice(world.device, array[0]) for array in (images, masks, np.zeros_like(images)))
    _, stream = world.cuda.cudaStreamCreateWithFlags(1)
    for _ in range(4):
        assert inpainter.run_on_gpu(there, hole, out=out, stream=stream) is out
    assert "download" not in world.cuda.names()
    world.cuda.cudaStreamSynchronize(stream)
    np.testing.assert_array_equal(read(world, out), inpainter.batch(images, masks)[0])


def test_frames_of_floats_have_the_layout_of_the_graph(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    inpainter = Inpainter(world.runner, NetworkConfig(ngf=8))
    image, mask = inputs(2, 64, 72)
    result = inpainter.run_on_gpu(OnDevice(world.device, image), OnDevice(world.device, mask))
    np.testing.assert_array_equal(read(world, result), world.expected(image, mask))


@pytest.mark.parametrize(
    ("image", "mask", "says"),
    [
        (
            (64, 64, 3),
            (64, 64),
            r"shapes \[64, 64, 3\] and \[64, 64\]; 3 × height × width and 1 × height × width are exp",
        ),
        ((3, 64, 64), (64, 64), r"1 × height × width are expected, or batches of them$"),
        ((2, 3, 64, 64), (1, 1, 64, 64), r"shapes \[2, 3, 64, 64\] and \[1, 1, 64, 64\]"),
        ((1, 1, 3, 64, 64), (1, 1, 1, 64, 64), r"shapes \[1, 1, 3, 64, 64\]"),
        (
            (3, 61, 64),
            (1, 61, 64),
            r"61x64 and lies on the GPU, where it is not padded; export with `io=uint8` and with",
        ),
        ((3, 48, 64), (1, 48, 64), r"the image is 48x64, this engine takes 64x64…256x256; export again with"),
        ((3, 512, 64), (1, 512, 64), r"the image is 512x64, this engine takes 64x64…256x256; export again with"),
        ((3, 3, 64, 64), (3, 1, 64, 64), r"3 images at once, this engine takes 2; give fewer at a time$"),
        ((3, 8, 64), (1, 8, 64), r"8x64; both sides must be from 16 to 16384"),
    ],
)
def test_frames_that_do_not_fit_the_engine_are_errors_of_one_line(opened, tiny_bundle, image, mask, says):
    world = opened(with_engine(tiny_bundle))
    arrays = [OnDevice(world.device, np.zeros(shape, np.float32)) for shape in (image, mask)]
    with pytest.raises(ImageError, match=says) as refused:
        Inpainter(world.runner, NetworkConfig(ngf=8)).run_on_gpu(*arrays)
    assert "\n" not in str(refused.value)
    assert "execute" not in world.trt.calls


def test_arrays_in_main_memory_are_refused_with_the_remedy(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    inpainter = Inpainter(world.runner, NetworkConfig(ngf=8))
    host = inputs(1, 64, 64)
    there = [OnDevice(world.device, array) for array in host]
    for image, mask, out, name in (
        (host[0], there[1], None, "image"),
        (there[0], host[1], None, "mask"),
        (there[0], None, None, "mask"),
        (there[0], there[1], host[0], "out"),
    ):
        with pytest.raises(EngineError, match=rf"^{name} is a \w+ that does not lie on a GPU; copy it there, or call"):
            inpainter.run_on_gpu(image, mask, out=out)


def test_an_engine_on_a_cpu_says_how_to_come_to_main_memory(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    arrays = [OnDevice(world.device, array) for array in inputs(1, 64, 64)]
    with pytest.raises(
        EngineError, match=r"^ONNX Runtime .* does not read GPU memory; .*asnumpy\(image\), image\.cpu\(\)"
    ):
        glama_deploy.load(tiny_bundle.path, "onnxruntime").run_on_gpu(*arrays)


def test_too_little_memory_is_found_before_the_run(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    arrays = [OnDevice(world.device, np.zeros(shape, np.float32)) for shape in ((3, 256, 256), (1, 256, 256))]
    world.cuda.room = sum(map(len, world.cuda.memory.values())) + 1000
    with pytest.raises(ImageError, match="the image is 256x256 and needs about"):
        Inpainter(world.runner, NetworkConfig(ngf=8)).run_on_gpu(*arrays)


def test_a_closed_inpainter_refuses_frames(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    inpainter = Inpainter(world.runner, NetworkConfig(ngf=8))
    arrays = [OnDevice(world.device, array) for array in inputs(1, 64, 64)]
    inpainter.close()
    with pytest.raises(GlamaError, match="the inpainter is closed"):
        inpainter.run_on_gpu(*arrays)
