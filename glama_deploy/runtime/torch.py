"""PyTorch, eager: the reference network of a checkpoint, on a GPU where torch sees one, else on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glama_deploy.bundle import ANY_SIZE
from glama_deploy.errors import EngineError
from glama_deploy.reference import checkpoint
from glama_deploy.runtime.base import Request, installed


def open(path: str | Path, request: Request) -> TorchRunner:
    """The checkpoint's network. Precision is fp32: this is what everything else is measured against."""
    if not installed("torch"):
        raise EngineError("PyTorch is not installed; pip install 'glama-deploy[export]'")
    if request.precision not in ("auto", "fp32"):
        raise EngineError(f"the torch backend is the fp32 reference; precision {request.precision} is not offered")
    return TorchRunner(path, request)


class TorchRunner:
    """The reference generator behind the engines' protocol."""

    backend = "torch"
    precision = "fp32"
    sizes = ANY_SIZE

    def __init__(self, path: str | Path, request: Request) -> None:
        import torch

        if request.threads:
            torch.set_num_threads(request.threads)
        self._device = "cuda" if request.device != "cpu" and torch.cuda.is_available() else "cpu"
        self._generator = checkpoint.load(path).to(self._device)
        self.description = f"PyTorch {torch.__version__} {self._device.upper()} fp32"

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        import torch

        from glama_deploy.reference.generator import inpaint, predict

        with torch.inference_mode():
            image_t, mask_t = (torch.from_numpy(x).to(self._device) for x in (image, mask))
            forward = inpaint if output == "inpainted" else predict
            return forward(self._generator, image_t, mask_t).cpu().numpy()
