"""PyTorch: the reference network of a checkpoint, on a GPU if PyTorch sees one, else on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from glama_deploy import memory
from glama_deploy.bundle import Io, find_any_size
from glama_deploy.catalogue import TORCH_DEVICES
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.node_names import INPAINTED
from glama_deploy.runtime.base import DeviceKind, Request, Runner, require
from glama_deploy.runtime.devices import Device, check_gpu_index, list_devices


def open(source: formats.Checkpoint, request: Request) -> TorchRunner:
    """Open the network of a checkpoint in PyTorch.

    Args:
        source: the checkpoint.
        request: how to open the engine. The precision is fp32, because PyTorch is the reference for all other engines.

    Returns:
        The runner.

    Raises:
        EngineError: PyTorch is not installed or does not see the device, or another precision is requested.
    """
    require("torch", "PyTorch", "pip install torch")
    if request.precision not in ("auto", "fp32"):
        raise EngineError(f"the torch backend is the fp32 reference; precision {request.precision} is not offered")
    return TorchRunner(source, request)


def _choose_place(device: Device | None) -> str:
    """Return PyTorch's name of the device. Raise EngineError where PyTorch does not see the device."""
    import torch

    if device is not None and device.kind not in TORCH_DEVICES:
        raise EngineError(
            f"`device` is {device}, and PyTorch does not compute there; give {list_devices(TORCH_DEVICES)}"
        )
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.kind == "cuda":
        if not torch.cuda.is_available():
            raise EngineError(f"`device` is {device}, and PyTorch sees no GPU; give cpu, or install PyTorch for CUDA")
        check_gpu_index(device.index, torch.cuda.device_count())
    return str(device)


#: Held during a run, because the number of threads is a setting of the process.
_run_lock = threading.Lock()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let PyTorch compute with a number of threads in this block.

    The number is a setting of the process, and the order of sums depends on it. The number of before is restored.

    Args:
        count: CPU threads; None changes nothing.

    Yields:
        None: the block runs.
    """
    import torch

    if count is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchRunner(Runner):
    """The reference generator as a runner."""

    backend = "torch"
    precision = "fp32"
    io: Io = "float"

    def __init__(self, source: formats.Checkpoint, request: Request) -> None:
        """Build the generator on the request's device; without one on the GPU, if PyTorch sees one, else on the CPU.

        Args:
            source: the checkpoint.
            request: how to open the engine.

        Raises:
            EngineError: PyTorch does not compute on the device, or does not see the device.
        """
        import torch

        self._threads, self._network = request.threads, source.config
        self.sizes = find_any_size(source.config)
        self._place = _choose_place(request.device)
        self.device: DeviceKind = "cpu" if self._place == "cpu" else "cuda"
        self._generator = formats.build_module(source).to(self._place)
        self.description = f"PyTorch {torch.__version__} {self._place.upper()} fp32"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        return memory.estimate(*size, self._network, batch, self.precision)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        import torch

        from glama_deploy.reference.generator import inpaint, predict

        forward = inpaint if output == INPAINTED else predict
        try:
            # without TF32, the default of cuDNN's convolutions: the reference is fp32 on a GPU, too
            with (
                _run_lock,
                threads(self._threads),
                torch.inference_mode(),
                torch.backends.cudnn.flags(allow_tf32=False),
            ):
                image_t, mask_t = (torch.from_numpy(x).to(self._place) for x in (image, mask))
                return forward(self._generator, image_t, mask_t).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise EngineError("PyTorch is out of GPU memory; use a smaller image or a CPU engine") from error
