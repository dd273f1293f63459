"""PyTorch: the network of a checkpoint, on a GPU if PyTorch sees one, else on the CPU.

In fp32 the runner is the reference for all other engines. :mod:`glama_deploy.runtime.torch_half` has the half types.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from glama_deploy import memory
from glama_deploy.bundle import Io, find_any_size
from glama_deploy.catalogue import TORCH_DEVICES, join_names
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.node_names import INPAINTED
from glama_deploy.runtime.base import DeviceKind, Request, Runner, require
from glama_deploy.runtime.devices import Device, check_gpu_index, list_devices

if TYPE_CHECKING:
    import torch

#: What PyTorch computes in. `auto` is the first, the reference.
PRECISIONS = ("fp32", "bf16", "fp16")

OUT_OF_MEMORY = "PyTorch is out of GPU memory; use a smaller image or a CPU engine"

#: Held during a run, because the number of threads and the use of TF32 are settings of the process.
run_lock = threading.Lock()


def open(source: formats.Checkpoint, request: Request) -> Runner:
    """Open the network of a checkpoint in PyTorch.

    Args:
        source: the checkpoint.
        request: how to open the engine. The precision `auto` is fp32, the reference for all other engines.

    Returns:
        The runner.

    Raises:
        EngineError: PyTorch is not installed, does not compute in the precision, or does not see the device.
    """
    require("torch", "PyTorch", "pip install torch")
    if request.precision in ("auto", PRECISIONS[0]):
        return TorchRunner(source, request)
    if request.precision not in PRECISIONS:
        raise EngineError(f"the torch backend does not compute in {request.precision}; use {join_names(PRECISIONS)}")
    from glama_deploy.runtime.torch_half.runner import open_half

    return open_half(source, request, find_device(request.device))


def find_device(asked: Device | None) -> torch.device:
    """Find the device that a request names.

    Args:
        asked: the device of a request. None is the GPU if PyTorch sees one, else the CPU.

    Returns:
        The device; a GPU with its number, because another one may become current later.

    Raises:
        EngineError: PyTorch does not compute on the device, or does not see the device.
    """
    import torch

    if asked is not None and asked.kind not in TORCH_DEVICES:
        raise EngineError(
            f"`device` is {asked}, and PyTorch does not compute there; give {list_devices(TORCH_DEVICES)}"
        )
    if not torch.cuda.is_available():
        if asked is not None and asked.kind == "cuda":
            raise EngineError(f"`device` is {asked}, and PyTorch sees no GPU; give cpu, or install PyTorch for CUDA")
        return torch.device("cpu")
    if asked is not None and asked.kind == "cpu":
        return torch.device("cpu")
    index = asked.index if asked is not None else None
    check_gpu_index(index, torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device() if index is None else index)


def list_precisions(device: DeviceKind) -> tuple[str, ...]:
    """List the precisions that are offered on a device.

    Args:
        device: where PyTorch computes.

    Returns:
        All precisions on a GPU, fp32 alone on a CPU.
    """
    return PRECISIONS if device == "cuda" else PRECISIONS[:1]


def read_free_memory(cuda: Any, device: torch.device) -> int:
    """Read the free memory of a GPU.

    Args:
        cuda: the module `torch.cuda`, or a fake of it.
        device: the GPU.

    Returns:
        Bytes, without the memory that PyTorch holds for its next run.
    """
    return int(cuda.mem_get_info(device)[0])


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
        self._place = find_device(request.device)
        self.device: DeviceKind = "cuda" if self._place.type == "cuda" else "cpu"
        self.precisions = list_precisions(self.device)
        self._generator = formats.build_module(source).to(self._place)
        self.description = f"PyTorch {torch.__version__} {str(self._place).upper()} fp32"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        return memory.estimate(*size, self._network, batch, self.precision)

    def memory_available(self) -> int | None:
        import torch

        return super().memory_available() if self.device == "cpu" else read_free_memory(torch.cuda, self._place)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        import torch

        from glama_deploy.reference.generator import inpaint, predict

        forward = inpaint if output == INPAINTED else predict
        try:
            # without TF32, the default of cuDNN's convolutions: the reference is fp32 on a GPU, too
            with (
                run_lock,
                threads(self._threads),
                torch.inference_mode(),
                torch.backends.cudnn.flags(allow_tf32=False),
            ):
                image_t, mask_t = (torch.from_numpy(x).to(self._place) for x in (image, mask))
                return forward(self._generator, image_t, mask_t).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise EngineError(OUT_OF_MEMORY) from error
