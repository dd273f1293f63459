"""ONNX Runtime: the bundle's ONNX model on a CPU, or through one of its providers for NVIDIA GPUs."""

from __future__ import annotations

import logging

import numpy as np

from glama_deploy import catalogue, memory
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.runtime.base import DeviceKind, Request, Runner
from glama_deploy.runtime.onnxruntime import providers
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

log = logging.getLogger("glama_deploy")

#: The providers that a device stands for, the first that starts being taken. The two that build engines on the device,
#: which can take minutes, are taken only by their names.
_PROVIDERS: dict[str, tuple[providers.Name, ...]] = {
    "any": ("cuda", "cpu"),
    "cpu": ("cpu",),
    "cuda": ("cuda",),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
}


def absent(bundle: Bundle, request: Request) -> bool:
    if not providers.has_onnxruntime() or not bundle.engine(catalogue.ONNX.name):
        return True
    try:
        return not any(providers.listed(name) for name in _PROVIDERS[request.device])
    except EngineError:
        return False  # broken, which `open` tells


def open(bundle: Bundle, request: Request) -> OnnxRuntimeRunner:
    """A session on the request's device: `any` takes CUDA where it starts, else the CPU.

    Raises EngineError, also for a bundle whose FFTs are a plugin's nodes.
    """
    providers.require_onnxruntime()
    if not bundle.engine(catalogue.ONNX.name):
        raise EngineError(f"{bundle.path} has FFTs as a TensorRT plugin's nodes; for ONNX Runtime export --fft matmul")
    names = _PROVIDERS[request.device]
    refused = []
    for name in names:
        if name != names[-1] and not providers.listed(name):
            continue
        try:
            session = providers.start(bundle, name, request.precision, request.threads)
        except EngineError as error:
            refused.append(str(error))
            continue
        for reason in refused:
            log.warning("%s; using ONNX Runtime on %s", reason, providers.LABELS[name])
        return OnnxRuntimeRunner(bundle, session)
    raise EngineError("; ".join(refused))


class OnnxRuntimeRunner(Runner):
    """One session serves every size."""

    backend = catalogue.ONNX.backend

    def __init__(self, bundle: Bundle, opened: providers.Session) -> None:
        import onnxruntime

        self._session = opened.session
        self.sizes, self.precision, self.io = opened.sizes, opened.precision, bundle.manifest.io
        self._network = bundle.manifest.network
        self.device: DeviceKind = "cpu" if opened.provider == "cpu" else "cuda"
        self._outputs = {output.name for output in self._session.get_outputs()}
        label = providers.LABELS[opened.provider]
        self.description = f"ONNX Runtime {onnxruntime.__version__} {label} {self.precision}"

    def memory_needed(self, size: tuple[int, int], batch: int = 1) -> int:
        return memory.estimate(*size, self._network, batch, self.precision)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with --predicted")
        try:
            return self._session.run([output], {IMAGE: image, MASK: mask})[0]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {first_line(error, MAX_ENGINE_LINE)}") from error
