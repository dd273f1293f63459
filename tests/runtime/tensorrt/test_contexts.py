"""Execution contexts: CUDA graphs, one context for each size, and optimization profiles."""

from __future__ import annotations

import logging

import pytest

from fakes.tensorrt_bundles import SIZES, inputs, with_engine
from glama_deploy.bundle import SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.runner import find_tightest_profile


def test_the_second_run_of_a_size_is_captured_and_later_runs_replay_the_graph(memory_world):
    seen = []
    for seed in range(4):
        del memory_world.cuda.calls[:], memory_world.trt.calls[:]
        memory_world.check(*inputs(1, 64, 64, seed))
        seen.append((memory_world.trt.calls, [n for n in memory_world.cuda.names() if n in ("capture", "launch")]))
        memory_world.trt.calls = []
    assert seen == [(["execute"], []), (["execute"], ["capture", "launch"]), ([], ["launch"]), ([], ["launch"])]


def test_each_size_has_a_context_and_a_graph_of_its_own(memory_world):
    for turn in range(3):
        for side in (64, 72, 80):
            memory_world.check(*inputs(1, side, 64, turn))
    assert len(memory_world.cuda.executables) == 3


def test_the_least_recently_used_size_is_freed(memory_world):
    for side in (128, 64, 72, 80):  # the largest first: nothing grows afterwards
        for turn in range(2):
            memory_world.check(*inputs(1, side, 64, turn))
    memory_world.check(*inputs(1, 128, 64))  # used again: now 64 is the oldest
    memory_world.check(*inputs(1, 88, 64))
    alive = [context().shapes["mask"][2] for context in memory_world.trt.contexts if context()]
    assert alive == [128, 72, 80, 88]
    assert len(memory_world.cuda.executables) == 3  # of 128, 72, 80; 88 ran once
    memory_world.check(*inputs(1, 64, 64, seed=9))


def test_no_graph_survives_memory_that_grows(memory_world):
    for turn in range(2):
        memory_world.check(*inputs(1, 64, 64, turn))
    assert len(memory_world.cuda.executables) == 1
    memory_world.check(*inputs(1, 128, 128))
    assert not memory_world.cuda.executables
    for turn in range(3):
        memory_world.check(*inputs(1, 64, 64, turn))
    assert len(memory_world.cuda.executables) == 1


@pytest.mark.parametrize("reason", ["TensorRT", "the driver"])
def test_after_a_failed_capture_the_size_always_runs_without_a_graph(opened, tiny_bundle, reason, caplog):
    caplog.set_level(logging.DEBUG, "glama_deploy")
    world = opened(with_engine(tiny_bundle), captures=reason != "TensorRT")
    world.cuda.captures_at_all = reason != "the driver"
    for seed in range(4):
        world.check(*inputs(1, 64, 64, seed))
    assert world.trt.calls.count("execute") == 4
    assert not world.cuda.executables
    assert not caplog.messages


def test_tensorrt_rtx_captures_by_itself(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle, "tensorrt-rtx", versions={"tensorrt_rtx": "10.3.0"}), "tensorrt-rtx")
    for seed in range(3):
        world.check(*inputs(1, 64, 64, seed))
    (context,) = [context() for context in world.trt.contexts]
    assert context.captured_by_itself == "whole graph"
    assert world.trt.calls.count("execute") == 3
    assert "capture" not in world.cuda.names()


PROFILES = (
    SizeRange(min=(64, 64), opt=(512, 512), max=(1024, 1024), max_batch=1),
    SizeRange(min=(64, 64), opt=(256, 256), max=(256, 256), max_batch=4),
    SizeRange(min=(256, 256), opt=(512, 512), max=(512, 768), max_batch=2),
)


@pytest.mark.parametrize(
    ("size", "profile"),
    [
        ((1, 64, 64), 1),
        ((4, 256, 256), 1),
        ((1, 256, 264), 2),
        ((2, 512, 768), 2),
        ((1, 512, 776), 0),
        ((1, 64, 264), 0),
        ((1, 1024, 1024), 0),
        ((2, 1024, 1024), None),
        ((5, 64, 64), None),
        ((1, 1032, 64), None),
        ((1, 48, 64), None),
    ],
)
def test_the_tightest_profile_that_covers_the_size_is_taken(size, profile):
    assert find_tightest_profile(PROFILES, *size) == profile


def test_of_two_profiles_of_one_size_the_smaller_batch_is_taken():
    single, many = (SizeRange(min=(64, 64), opt=(64, 64), max=(64, 64), max_batch=batch) for batch in (1, 8))
    assert [find_tightest_profile((many, single), batch, 64, 64) for batch in (1, 2)] == [1, 0]


def test_a_run_has_its_profile_set_before_its_shapes(opened, tiny_bundle):
    small = SizeRange(min=(64, 64), opt=(64, 64), max=(96, 96), max_batch=1)
    world = opened(with_engine(tiny_bundle, profiles=(SIZES, small)))
    for shape, profile in (((1, 64, 96), 1), ((1, 104, 64), 0), ((2, 64, 64), 0)):
        world.check(*inputs(*shape))
        assert [context().profile for context in world.trt.contexts if context()][-1] == profile


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            "refuses_profiles",
            r"^the engine has no optimization profile 0 \(Error in set optimization profile async\.\); build it again$",
        ),
        (
            "loses_scratch_size",
            r"^TensorRT cannot tell the scratch memory for image \[1, 3, 64, 64\], mask \[1, 1, 64, 64\] in "
            r"optimization profile 0; its log above says why; build the engine again$",
        ),
    ],
)
def test_a_context_that_tensorrt_does_not_prepare_is_an_error_of_one_line(opened, tiny_bundle, fault, says):
    world = opened(with_engine(tiny_bundle))
    setattr(world.trt, fault, True)
    with pytest.raises(EngineError, match=says):
        world.runner.run(*inputs(1, 64, 64))
    assert "execute" not in world.trt.calls
    setattr(world.trt, fault, False)
    world.check(*inputs(1, 64, 64))
