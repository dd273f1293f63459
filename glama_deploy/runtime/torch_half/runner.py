"""The runner of PyTorch in fp16 and bf16."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glama_deploy import memory
from glama_deploy.bundle import Io, find_any_size
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.network import next_side
from glama_deploy.node_names import INPAINTED
from glama_deploy.reference.generator import predict
from glama_deploy.runtime.base import DeviceKind, Request, Runner
from glama_deploy.runtime.torch import OUT_OF_MEMORY, PRECISIONS, read_free_memory, run_lock
from glama_deploy.runtime.torch_half.graphs import GraphCache
from glama_deploy.runtime.torch_half.layers import DTYPES
from glama_deploy.runtime.torch_half.network import HalfLayers, convert_to_half
from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

log = logging.getLogger("glama_deploy")

#: The first compute capability whose tensor cores multiply bf16 (Ampere).
_FIRST_WITH_BF16 = (8, 0)


class HalfRunner(Runner):
    """A generator in fp16 or bf16 on a GPU.

    The input and the output are bytes, so a quarter of a float image's bytes is copied. They are scaled, padded and
    composited on the GPU, in float32.
    """

    backend = "torch"
    device: DeviceKind = "cuda"
    io: Io = "uint8"
    precisions = PRECISIONS
    compiles_sizes = True  # PyTorch's libraries prepare each size, and a graph serves one size

    def __init__(self, source: formats.Checkpoint, request: Request, place: torch.device, cuda: Any) -> None:
        """Build the network on a GPU.

        Args:
            source: The checkpoint.
            request: How to open the engine, with the precision fp16 or bf16.
            place: The GPU.
            cuda: The module `torch.cuda`, or a fake of it that computes on a CPU.

        Raises:
            EngineError: The GPU does not compute in bf16, or weights are out of the half type's range.
        """
        self.precision, self._network = request.precision, source.config
        self._clearings = 0  # how often the memory of all runs was given back
        self.sizes = find_any_size(source.config)
        self._place, self._cuda = place, cuda
        if self.precision == "bf16":
            _check_bf16(cuda.get_device_capability(place))
        with torch.inference_mode():
            self._generator = formats.build_module(source)
            convert_to_half(self._generator, DTYPES[self.precision])
            self._generator.to(place)
        with cuda.device(place):
            self._stream = cuda.Stream()
            cuda.synchronize()  # the weights are there before another stream reads them
        halves = [module for module in self._generator.modules() if isinstance(module, HalfLayers)]
        self._graphs = GraphCache(cuda, self._stream, lambda: [half.list_tables() for half in halves])
        self.description = f"PyTorch {torch.__version__} CUDA {self.precision}"

    def memory_needed(self, size: tuple[int, int], batch: int = 1, window: tuple[int, int] | None = None) -> int:
        height, width = map(next_side, size)
        return memory.estimate(height, width, self._network, batch, self.precision)

    def memory_available(self) -> int | None:
        return read_free_memory(self._cuda, self._place)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = INPAINTED) -> np.ndarray:
        with run_lock:
            try:
                result, is_finite = self._run_or_clear(image, mask, output)
            except torch.OutOfMemoryError as error:
                self._clear()
                raise EngineError(OUT_OF_MEMORY) from error
            except RuntimeError as error:  # of CUDA's libraries
                raise EngineError(f"{self.description} failed: {first_line(error, MAX_ENGINE_LINE)}") from error
        if not is_finite:
            others = "bf16 or fp32" if self.precision == "fp16" else "fp32"
            raise EngineError(
                f"{self.description} gave values that are not finite; nothing was written: use precision {others}"
            )
        return result

    def close(self) -> None:
        with run_lock:
            del self._generator
            self._clear()

    def _run_or_clear(self, image: np.ndarray, mask: np.ndarray, output: str) -> tuple[np.ndarray, bool]:
        """Run. If the GPU's memory does not suffice, drop all graphs with their memory, and run again."""
        try:
            return self._run(image, mask, output)
        except torch.OutOfMemoryError as error:
            log.info("%s; running again without the CUDA graphs of other sizes", first_line(error, MAX_ENGINE_LINE))
        self._clear()  # here the exception does not hold the memory of the failed run any more
        return self._run(image, mask, output)

    def _run(self, image: np.ndarray, mask: np.ndarray, output: str) -> tuple[np.ndarray, bool]:
        """Return the output, and whether all predicted values are finite."""
        work = self._fill if output == INPAINTED else self._predict
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            self._cuda.device(self._place),
            self._cuda.stream(self._stream),
        ):
            is_real = self._place.type == "cuda"  # page-locked memory, which the GPU reads and writes by itself
            arrays = torch.from_numpy(image), torch.from_numpy(mask)
            inputs = (arrays[0].pin_memory(), arrays[1].pin_memory()) if is_real else arrays
            result, is_finite = self._graphs.run((output, image.shape), work, inputs)
            there = torch.empty(result.shape, dtype=result.dtype, pin_memory=is_real)
            there.copy_(result, non_blocking=True)
            self._stream.synchronize()
            return there.numpy().copy(), bool(is_finite)

    def _fill(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Fill the missing pixels.

        Args:
            image: uint8 [B, H, W, 3].
            mask: uint8 [B, H, W], above 0 where a pixel is missing.

        Returns:
            The filled image, uint8 [B, H, W, 3], and whether all predicted values are finite.
        """
        predicted, is_finite = self._predict(image, mask)
        filled = (predicted.clamp(0, 1) * 255).round().to(torch.uint8)
        return torch.where((mask > 0)[..., None], filled, image), is_finite

    def _predict(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the image.

        Args:
            image: uint8 [B, H, W, 3].
            mask: uint8 [B, H, W], above 0 where a pixel is missing.

        Returns:
            float32 [B, H, W, 3], and whether all values are finite.
        """
        _, height, width = mask.shape
        image, missing = (_mirror(_mirror(x, 1), 2) for x in (image, mask > 0))
        unit = image.permute(0, 3, 1, 2).float() / 255
        predicted = predict(self._generator, unit, missing[:, None].float())[:, :, :height, :width]
        return predicted.permute(0, 2, 3, 1).contiguous(), predicted.isfinite().all()

    def _clear(self) -> None:
        with self._cuda.device(self._place):
            self._graphs.clear()
        self._clearings += 1
        self.holder = self._clearings


def open_half(source: formats.Checkpoint, request: Request, place: torch.device) -> HalfRunner:
    """Open the network of a checkpoint in a half type on a GPU.

    Args:
        source: The checkpoint.
        request: How to open the engine, with the precision fp16 or bf16.
        place: Where PyTorch computes.

    Returns:
        The runner.

    Raises:
        EngineError: The place is a CPU, the GPU does not compute in bf16 or has no memory, or weights are out of the
            half type's range.
    """
    if place.type != "cuda":
        raise EngineError(
            f"the torch backend computes in {request.precision} on an NVIDIA GPU alone; on a CPU use precision fp32 or "
            "another backend"
        )
    try:
        return HalfRunner(source, request, place, torch.cuda)
    except torch.OutOfMemoryError as error:
        raise EngineError(OUT_OF_MEMORY) from error


def _mirror(x: Tensor, axis: int) -> Tensor:
    """Pad an axis of a byte image at its end to a side that the network takes, symmetrically."""
    side, padded = x.shape[axis], next_side(x.shape[axis])
    if side == padded:
        return x
    index = torch.arange(padded, device=x.device)
    return x.index_select(axis, torch.minimum(index, 2 * side - 1 - index))


def _check_bf16(capability: tuple[int, int]) -> None:
    """Raise EngineError for a GPU that only emulates bf16."""
    if capability < _FIRST_WITH_BF16:
        raise EngineError(
            f"the GPU has compute capability {capability[0]}.{capability[1]}, and bf16 needs 8.0 (Ampere) or more; use "
            "precision fp16"
        )
