"""ONNX Runtime: the bundle's ONNX model on a CPU, or through its CUDA provider where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np

from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import Request, installed, require

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


def absent(bundle: Bundle, request: Request) -> bool:
    if not installed("onnxruntime"):
        return True
    try:
        return request.device == "cuda" and not _cuda_listed()
    except EngineError:
        return True  # broken: it is said when the CPU's turn comes


def open(bundle: Bundle, request: Request) -> OnnxRuntimeRunner:
    """A session for the model; device `cuda` insists on the CUDA provider, `any` takes it where it works."""
    require("onnxruntime", "ONNX Runtime", "pip install onnxruntime")
    if request.precision in ("bf16", "fp16"):
        raise EngineError(
            f"ONNX Runtime computes in what the graph says; precision {request.precision} is chosen at export"
        )
    return OnnxRuntimeRunner(bundle, request)


def _cuda_listed() -> bool:
    package = require("onnxruntime", "ONNX Runtime", "pip install onnxruntime")
    return _CUDA in package.get_available_providers()


class OnnxRuntimeRunner:
    """One session serves every size."""

    backend = "onnxruntime"

    def __init__(self, bundle: Bundle, request: Request) -> None:
        import onnxruntime

        (path,) = bundle.files("onnx")
        engine = bundle.manifest.engines["onnx"]
        self.sizes, self.precision, self.io = engine.sizes, engine.precision, bundle.manifest.io
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # threads that wait for the next run take a core from whatever else runs meanwhile
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if request.threads:
            options.intra_op_num_threads = request.threads
        providers: list[Any] = [_CPU]
        if request.device in ("cuda", "any") and _cuda_listed():
            providers = [(_CUDA, {"use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}), _CPU]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            raise EngineError(f"ONNX Runtime cannot open {path}: {str(error).splitlines()[0]}") from error
        on_gpu = self._session.get_providers()[0] == _CUDA
        if request.device == "cuda" and not on_gpu:
            raise EngineError("ONNX Runtime has a CUDA provider but it does not start here (no NVIDIA driver?)")
        self._outputs = {output.name for output in self._session.get_outputs()}
        device = "CUDA" if on_gpu else "CPU"
        self.description = f"ONNX Runtime {onnxruntime.__version__} {device} {self.precision}"

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        if output not in self._outputs:
            raise EngineError(f"the bundle has no output {output!r}; export it again with --predicted")
        try:
            return self._session.run([output], {"image": image, "mask": mask})[0]
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {str(error).splitlines()[0]}") from error
