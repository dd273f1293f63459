"""`torch.cuda` on a CPU: streams, memory and CUDA graphs, as far as the half runner uses them.

A capture records the operations of PyTorch that the block calls, with their arguments and results, and the tensors then
hold no results: CUDA records without running, too. A replay calls the operations again on the same tensors. Results are
written where they were, so whoever holds an output sees it change. What the block takes from outside of its tensors is
frozen, and tensors that it reads must stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FakeStream:
    """A stream. Work on a CPU is done when it is enqueued."""

    device = torch.device("cpu")

    def synchronize(self) -> None:
        return


class FakeGraph:
    """A CUDA graph."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0

    def replay(self) -> None:
        assert self.calls, "the graph was not captured"
        self.replays += 1
        with torch.inference_mode():
            for function, arguments, named, recorded in self.calls:
                made = function(*arguments, **named)
                for old, new in zip(tree_leaves(recorded), tree_leaves(made), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class _Recorder(TorchDispatchMode):
    """Records the operations of a block, and the memory that they make."""

    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self._graph = graph
        self._given: set[int] = set()
        self._made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:  # the shape of its result is read back
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self._given |= _list_storages((args, kwargs)) - self._made
        result = func(*args, **(kwargs or {}))
        self._made |= _list_storages(result) - self._given
        self._graph.calls.append((func, args, kwargs or {}, result))
        return result

    def forget_results(self) -> None:
        for *_, made in self._graph.calls:
            for leaf in tree_leaves(made):
                if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in self._made:
                    leaf.fill_(0)


def _list_storages(values: Any) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}


class FakeCuda:
    """The module `torch.cuda`.

    Attributes:
        graphs: All graphs that were made.
        pools: The pool of each capture.
        emptied: How often the cache of memory was emptied.
        free_bytes: What `mem_get_info` says is free.
        capability: What `get_device_capability` says.
        fail: Called before each capture, to raise an error.
    """

    def __init__(self) -> None:
        self.graphs: list[FakeGraph] = []
        self.pools: list[object] = []
        self.emptied = 0
        self.free_bytes = 8 << 30
        self.capability = (9, 0)
        self.fail: Callable[[], None] = lambda: None

    def CUDAGraph(self) -> FakeGraph:
        self.graphs.append(FakeGraph())
        return self.graphs[-1]

    def graph_pool_handle(self) -> object:
        return object()

    @contextmanager
    def graph(self, graph: FakeGraph, *, pool: object, stream: FakeStream, capture_error_mode: str) -> Iterator[None]:
        assert isinstance(stream, FakeStream)
        assert capture_error_mode == "thread_local"
        self.pools.append(pool)
        self.fail()
        recorder = _Recorder(graph)
        with recorder:
            yield
        recorder.forget_results()

    @contextmanager
    def device(self, place: torch.device) -> Iterator[None]:
        yield

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        yield

    def Stream(self) -> FakeStream:
        return FakeStream()

    def synchronize(self) -> None:
        return

    def empty_cache(self) -> None:
        self.emptied += 1

    def mem_get_info(self, place: torch.device) -> tuple[int, int]:
        return self.free_bytes, 2 * self.free_bytes

    def get_device_capability(self, place: torch.device) -> tuple[int, int]:
        return self.capability
