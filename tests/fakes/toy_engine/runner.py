"""The toy engine at run time: ONNX Runtime on the model, read backwards."""

from __future__ import annotations

import numpy as np
import onnxruntime

from glama_deploy import memory
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import DeviceKind, Request, Runner


def absent(bundle: Bundle, request: Request) -> bool:
    return bundle.engine("toy") is None


def open(bundle: Bundle, request: Request) -> ToyRunner:
    (file,) = bundle.files("toy")
    return ToyRunner(bundle, file.read_bytes()[::-1])


class ToyRunner(Runner):
    backend, precision, description = "toy", "fp32", "Toy CPU fp32"
    device: DeviceKind = "cpu"

    def __init__(self, bundle: Bundle, model: bytes) -> None:
        self.sizes, self.io = bundle.manifest.engines["toy"].sizes, bundle.manifest.io
        self._network = bundle.manifest.network
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        return memory.estimate(*size, self._network, batch, self.precision)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        if output not in {tensor.name for tensor in self._session.get_outputs()}:
            raise EngineError(f"the bundle has no output {output!r}; export it again with --predicted")
        return self._session.run([output], {"image": image, "mask": mask})[0]
