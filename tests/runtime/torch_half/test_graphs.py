"""CUDA graphs for each size, with a fake of `torch.cuda` that records and replays PyTorch's operations."""

import logging

import pytest
import torch

from fakes.torch_cuda import FakeCuda, FakeStream
from glama_deploy.runtime.torch_half.graphs import GraphCache


def double(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (x * 2,)


def make(value: float, side: int = 2) -> tuple[torch.Tensor]:
    return (torch.full((side, side), value),)


def open_cache(limit: int = 4) -> tuple[FakeCuda, GraphCache]:
    cuda = FakeCuda()
    return cuda, GraphCache(cuda, FakeStream(), lambda: "kept", limit)


@torch.inference_mode()
def test_the_second_run_of_a_size_is_captured_and_later_runs_replay():
    cuda, cache = open_cache()
    for number in range(1, 5):
        (result,) = cache.run(2, double, make(number))
        assert result.eq(2 * number).all()
    assert [graph.replays for graph in cuda.graphs] == [3]


@torch.inference_mode()
def test_all_graphs_share_one_pool_of_memory():
    cuda, cache = open_cache()
    for side in (2, 3, 2, 3, 2):
        (result,) = cache.run(side, double, make(side, side))
        assert result.eq(2 * side).all()
    assert len(cuda.pools) == 2
    assert len(set(cuda.pools)) == 1


@torch.inference_mode()
def test_the_size_that_was_not_used_for_longest_is_dropped():
    cuda, cache = open_cache(limit=2)
    for side in (2, 2, 3, 3, 2, 4, 4, 2):
        cache.run(side, double, make(1, side))
    assert len(cuda.graphs) == 3  # of 2, 3 and 4, and 2 is still there
    cache.run(3, double, make(1, 3))
    cache.run(3, double, make(1, 3))
    assert len(cuda.graphs) == 4


@torch.inference_mode()
def test_a_size_that_cannot_be_captured_runs_plainly_and_a_note_says_so(caplog):
    _, cache = open_cache()
    reads_back = lambda x: (x * len(x.nonzero()),)  # noqa: E731
    with caplog.at_level(logging.WARNING, "glama_deploy"):
        for number in (2, 3, 4):
            (result,) = cache.run(2, reads_back, make(number))
            assert result.eq(4 * number).all()
    assert caplog.messages == [
        "PyTorch captures no CUDA graph of this size (CUDA error: operation not permitted when stream is capturing); "
        "runs of this size are slower"
    ]


@torch.inference_mode()
def test_after_clearing_sizes_begin_anew_in_a_new_pool():
    cuda, cache = open_cache()
    for _ in range(2):
        cache.run(2, double, make(1))
    cache.clear()
    for _ in range(2):
        cache.run(2, double, make(1))
    assert cuda.emptied == 1
    assert len(set(cuda.pools)) == 2


def test_an_error_of_the_work_in_a_plain_run_is_raised():
    _, cache = open_cache()
    with pytest.raises(RuntimeError, match="must match the size"):
        cache.run(2, lambda x: (x + torch.ones(3),), make(1))
