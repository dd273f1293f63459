"""The TensorRT runner over a device in memory: the order of its calls, its buffers, its errors. What a real driver does
with these calls is for the tests marked `gpu`; what is asked of it is tested here.

The in-memory engine runs the bundle's ONNX model on ONNX Runtime, from and into the addresses that it was given.
"""

from __future__ import annotations

import gc

import numpy as np
import onnxruntime
import pytest

from glama_deploy.bundle import Bundle, Engine, SizeRange
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainter import Inpainter
from glama_deploy.runtime.tensorrt import TensorRTRunner


class MemoryDevice:
    """Addresses are numbers, memory is bytearrays; nothing happens in the stream before it is synchronized."""

    stream = 7

    def __init__(self, room: int = 1 << 30) -> None:
        self.memory: dict[int, bytearray] = {}
        self.room, self.calls, self.queue, self.closed = room, [], [], False
        self._next = 1 << 20

    def allocate(self, size: int) -> int:
        if size + sum(map(len, self.memory.values())) > self.room:
            raise EngineError("cudaMalloc failed: out of memory")
        self.calls.append(("allocate", size))
        self._next += 1 << 30
        self.memory[self._next] = bytearray(size)
        return self._next

    def free(self, address: int) -> None:
        assert not self.queue, "freed while the stream may still use it"
        self.calls.append(("free", len(self.memory.pop(address))))

    def upload(self, address: int, array: np.ndarray) -> None:
        self.calls.append(("upload", array.nbytes))
        assert array.flags.c_contiguous
        self.queue.append(lambda: self.memory[address].__setitem__(slice(array.nbytes), array.tobytes()))

    def download(self, array: np.ndarray, address: int) -> None:
        self.calls.append(("download", array.nbytes))

        def copy() -> None:
            array.ravel()[:] = np.frombuffer(self.memory[address], array.dtype, array.size)

        self.queue.append(copy)

    def synchronize(self) -> None:
        self.calls.append(("synchronize", 0))
        for work in self.queue:
            work()
        self.queue.clear()

    def close(self) -> None:
        self.closed = True


class MemoryEngine:
    """An engine and its only context."""

    def __init__(self, bundle: Bundle, device: MemoryDevice, *, fails: bool = False) -> None:
        self._session = onnxruntime.InferenceSession(
            str(bundle.path / "model.onnx"), providers=["CPUExecutionProvider"]
        )
        self._device, self._fails = device, fails
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def create_execution_context(self) -> MemoryEngine:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return name in ("image", "mask")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in ("image", "mask", "inpainted", "predicted")

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == MemoryDevice.stream
        if self._fails:
            return False
        self._device.queue.append(self._run)
        return True

    def _run(self) -> None:
        memory = self._device.memory
        feeds = {
            name: np.frombuffer(memory[self._addresses[name]], np.float32, int(np.prod(shape))).reshape(shape)
            for name, shape in self._shapes.items()
        }
        for name, values in zip(
            ("inpainted", "predicted"), self._session.run(["inpainted", "predicted"], feeds), strict=True
        ):
            memory[self._addresses[name]][: values.nbytes] = values.tobytes()


SIZES = SizeRange(min=(64, 64), opt=(128, 128), max=(256, 256), max_batch=2)


@pytest.fixture
def with_engine(tiny_bundle) -> Bundle:
    """The tiny bundle, saying that it has a TensorRT engine too."""
    files = tiny_bundle.manifest.engines["onnx"].files
    parity = tiny_bundle.manifest.engines["onnx"].parity
    engine = Engine(
        name="tensorrt", precision="fp32", sizes=SIZES, files=files, versions={"tensorrt": "10"}, parity=parity
    )
    engines = {**tiny_bundle.manifest.engines, "tensorrt": engine}
    return Bundle(tiny_bundle.path, tiny_bundle.manifest.model_copy(update={"engines": engines}))


def opened(bundle: Bundle, device: MemoryDevice, **settings: bool) -> TensorRTRunner:
    return TensorRTRunner(bundle, "tensorrt", MemoryEngine(bundle, device, **settings), device)


def inputs(batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height)
    mask = (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)
    return rng.random((batch, 3, height, width), np.float32), mask


@pytest.mark.parametrize("output", ["inpainted", "predicted"])
def test_what_comes_back_is_what_the_engine_computed(with_engine, output):
    device = MemoryDevice()
    runner = opened(with_engine, device)
    session = onnxruntime.InferenceSession(str(with_engine.path / "model.onnx"), providers=["CPUExecutionProvider"])
    for shape in ((1, 64, 64), (2, 128, 96), (1, 72, 64)):  # larger, then smaller: the buffers are reused
        image, mask = inputs(*shape)
        (expected,) = session.run([output], {"image": image, "mask": mask})
        np.testing.assert_array_equal(runner.run(image, mask, output), expected)


def test_a_run_is_two_uploads_the_engine_one_download_and_one_wait(with_engine):
    device = MemoryDevice()
    runner = opened(with_engine, device)
    image, mask = inputs(1, 64, 64)
    runner.run(image, mask)
    assert [name for name, _ in device.calls[:4]] == ["allocate"] * 4
    once = [("upload", image.nbytes), ("upload", mask.nbytes), ("download", image.nbytes), ("synchronize", 0)]
    assert device.calls[4:] == once
    del device.calls[:]
    runner.run(image, mask)
    assert device.calls == once  # nothing is allocated a second time


def test_buffers_grow_when_an_image_does_and_are_given_back_in_the_end(with_engine):
    device = MemoryDevice()
    runner = opened(with_engine, device)
    for side in (64, 128, 96):
        runner.run(*inputs(1, side, side))
    assert [name for name, _ in device.calls].count("allocate") == 8
    assert [name for name, _ in device.calls].count("free") == 4
    assert sum(map(len, device.memory.values())) == (3 * 3 + 1) * 128 * 128 * 4
    del runner
    gc.collect()
    assert not device.memory
    assert device.closed


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_what_an_engine_cannot_do_is_one_line(with_engine):
    runner = opened(with_engine, MemoryDevice())
    with pytest.raises(EngineError, match=r"the batch is 3, this engine takes up to 2; .*--max-batch"):
        runner.run(*inputs(3, 64, 64))
    with pytest.raises(EngineError, match="no output 'depth'"):
        runner.run(*inputs(1, 64, 64), "depth")
    with pytest.raises(EngineError, match="out of memory"):
        opened(with_engine, MemoryDevice(room=1000)).run(*inputs(1, 64, 64))
    with pytest.raises(EngineError, match="failed to run"):
        opened(with_engine, MemoryDevice(), fails=True).run(*inputs(1, 64, 64))


def test_an_image_outside_the_profile_names_the_range_and_the_command(with_engine, photo, hole):
    inpainter = Inpainter(opened(with_engine, MemoryDevice()), ngf=8)
    out = inpainter(photo, hole)
    np.testing.assert_array_equal(out[~hole], photo[~hole])
    with pytest.raises(ImageError, match=r"48x120, this engine takes 64x64…256x256; export again with --min-size"):
        inpainter(photo[:48], hole[:48])
