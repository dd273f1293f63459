"""CUDA graphs of one function, one for each input size. A graph launches all kernels of a run at once.

A graph replays the kernels that were recorded, at the addresses that they had. So the inputs are copied into tensors
that stay where they are, and the next run overwrites the outputs. All graphs share one pool of memory. That is
allowed because they run one after the other, and no graph reads what another one wrote.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glama_deploy.text.excerpts import MAX_ENGINE_LINE, first_line

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("glama_deploy")

#: What the graphs compute: tensors of the GPU to tensors of the GPU.
Work = Callable[..., "tuple[Tensor, ...]"]


@dataclass
class _Size:
    """The state of one input size.

    Attributes:
        inputs: The tensors that a graph reads.
        runs: Plain runs.
        graph: The graph; None before its capture.
        outputs: The tensors that the graph writes.
        kept: Other objects with tensors that the graph reads.
        is_capturable: Whether no capture has failed.
    """

    inputs: tuple[Tensor, ...]
    runs: int = 0
    graph: Any = None
    outputs: tuple[Tensor, ...] = ()
    kept: object = None
    is_capturable: bool = True


class GraphCache:
    """Graphs for the sizes seen last.

    The first run of a size is a plain run, in which PyTorch's libraries prepare themselves and layers fill their
    tables. The second run is captured. Runs are called one after the other, in the stream of the constructor.
    """

    def __init__(self, cuda: Any, stream: Any, list_kept: Callable[[], object], limit: int = 4) -> None:
        """Make an empty cache.

        Args:
            cuda: The module `torch.cuda`, or a fake of it.
            stream: The stream of all runs and captures. A stream of PyTorch's that is not the default one.
            list_kept: Returns objects with the tensors that the work reads beside its inputs.
            limit: How many sizes are kept.
        """
        self._cuda, self._stream, self._list_kept, self._limit = cuda, stream, list_kept, limit
        self._sizes: dict[Hashable, _Size] = {}
        self._pool: Any = None

    def run(self, key: Hashable, work: Work, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the work, or enqueue its graph.

        Args:
            key: What decides the kernels of a run: the shapes and the function.
            work: The function, of tensors on the GPU. It reads no values back.
            inputs: The arguments. Tensors in page-locked memory are copied while the caller goes on.

        Returns:
            The outputs on the GPU. The next run overwrites them.
        """
        size = self._sizes.pop(key, None) or _Size(self._reserve(inputs))
        self._sizes[key] = size
        while len(self._sizes) > self._limit:
            del self._sizes[next(iter(self._sizes))]
        for there, given in zip(size.inputs, inputs, strict=True):
            there.copy_(given, non_blocking=True)
        if size.graph is None and size.runs and size.is_capturable:
            self._capture(size, work)
        if size.graph is not None:
            size.graph.replay()
            return size.outputs
        outputs = work(*size.inputs)
        size.runs += 1
        return outputs

    def clear(self) -> None:
        """Drop all graphs, and give their memory back. No run is under way."""
        self._sizes.clear()
        self._pool = None
        self._cuda.empty_cache()

    def _reserve(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(given.new_empty(given.shape, device=self._stream.device) for given in inputs)

    def _capture(self, size: _Size, work: Work) -> None:
        """Capture the work of a size. A size that cannot be captured runs without a graph, and a note says so."""
        graph = self._cuda.CUDAGraph()
        if self._pool is None:
            self._pool = self._cuda.graph_pool_handle()
        try:
            # Thread-local: calls of CUDA in other threads do not disturb the capture.
            with self._cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                outputs = work(*size.inputs)
        except RuntimeError as error:
            size.is_capturable = False
            reason = first_line(error, MAX_ENGINE_LINE)
            log.warning("PyTorch captures no CUDA graph of this size (%s); runs of this size are slower", reason)
            return
        size.graph, size.outputs, size.kept = graph, outputs, self._list_kept()
