"""Bundles with an engine of TensorRT in memory, and what runs on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from glama_deploy.bundle import Bundle, Engine, SizeRange
from glama_deploy.runtime.cuda.exchange.dlpack import lend
from glama_deploy.runtime.tensorrt.runner import TensorRTRunner

SIZES = SizeRange(min=(64, 64), opt=(64, 64), max=(256, 256), max_batch=2)


def with_engine(bundle: Bundle, name: str = "tensorrt", **changes: Any) -> Bundle:
    """The bundle, saying that it has a TensorRT engine too, which is its ONNX model."""
    package = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[name]
    onnx_engine = bundle.manifest.engines["onnx"]
    facts = {"name": name, "precision": "fp32", "sizes": SIZES, "files": onnx_engine.files}
    facts |= {"versions": {package: "10.3.0"}, "parity": onnx_engine.parity}
    engines = {**bundle.manifest.engines, name: Engine(**facts | changes)}
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))


@dataclass
class World:
    """A runner and what it runs on."""

    bundle: Bundle
    runner: TensorRTRunner
    device: Any
    tolerance: float = 0.0
    cuda: Any = None
    trt: Any = None

    def expected(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        path = self.bundle.path / self.bundle.manifest.graphs["fp32"].file.path
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run([output], {"image": image, "mask": mask})[0]

    def check(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> None:
        np.testing.assert_allclose(
            self.runner.run(image, mask, output), self.expected(image, mask, output), rtol=0, atol=self.tolerance
        )


def inputs(batch: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height + seed)
    mask = (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)
    return rng.random((batch, 3, height, width), np.float32), mask


class OnDevice:
    """An array in device memory, as `__cuda_array_interface__` shows it; `changes` to what it says."""

    def __init__(self, device: Any, array: np.ndarray, offset: int = 0, **changes: Any) -> None:
        array = np.ascontiguousarray(array)
        with device.active():
            self.memory = device.allocate(array.nbytes + offset)
            block = device.pin(array.nbytes)
            block[:] = array.view(np.uint8).ravel()
            device.upload(self.memory + offset, block)
            device.synchronize()
            device.unpin(block)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.memory + offset, False),
            "version": 3,
            "stream": None,
            **changes,
        }


class ByDlpack:
    """An array in device memory that its package shows through DLPack alone, and that the package's stream writes."""

    def __init__(self, cuda: Any, array: OnDevice, gpu: int = 0, stream: int = 1, **options: Any) -> None:
        self.shape = tuple(array.__cuda_array_interface__["shape"])
        self._cuda, self._array, self._gpu, self._stream = cuda, array, gpu, stream
        self._options = options
        self.waiting: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._gpu

    def __dlpack__(self, *, stream: int, max_version: tuple[int, int]) -> Any:
        """Lets the reader's stream wait for this package's, as the specification asks for."""
        self.waiting.append(stream)
        if stream != self._stream:
            _, event = self._cuda.cudaEventCreateWithFlags(2)
            self._cuda.cudaEventRecord(event, self._stream)
            self._cuda.cudaStreamWaitEvent(stream, event, 0)
            self._cuda.cudaEventDestroy(event)
        view = type("View", (), {"__array_interface__": self._describe(), "owner": self})()
        return lend(np.asarray(view), self._gpu, max_version)

    def _describe(self) -> dict[str, Any]:
        there = self._array.__cuda_array_interface__
        return {**{name: there[name] for name in ("shape", "typestr", "data")}, "version": 3, **self._options}
