"""Inputs that already lie in the GPU's memory."""

from __future__ import annotations

import numpy as np
import pytest

from fakes.tensorrt_bundles import OnDevice, inputs
from fakes.tensorrt_runtime import MemoryContext
from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.runner import TensorRTRunner


def test_arrays_in_device_memory_give_the_same_result_as_in_host_memory(world):
    for seed in range(4):
        image, mask = inputs(1, 64, 64, seed)
        for pair in (
            (OnDevice(world.device, image), OnDevice(world.device, mask)),
            (OnDevice(world.device, image), mask),
            (image, OnDevice(world.device, mask, strides=(64 * 64 * 4, 0, 64 * 4, 4), stream=1)),
            (OnDevice(world.device, image, offset=12), OnDevice(world.device, mask, version=2)),
        ):
            result = world.runner.run(*pair)
            np.testing.assert_allclose(result, world.expected(image, mask), rtol=0, atol=world.tolerance)


def test_arrays_in_device_memory_are_not_copied(memory_world):
    pair = [OnDevice(memory_world.device, array) for array in inputs(1, 64, 64)]
    del memory_world.cuda.calls[:]
    memory_world.runner.run(*pair)
    assert not {"upload", "copy", "wait for"} & set(memory_world.cuda.names())


def test_a_graph_is_captured_only_for_addresses_that_repeat(memory_world):
    image, mask = inputs(1, 64, 64)
    kept = [(OnDevice(memory_world.device, image), OnDevice(memory_world.device, mask)) for _ in range(2)]
    for pair in (kept[0], kept[1], kept[0]):
        memory_world.runner.run(*pair)
    assert not memory_world.cuda.executables
    for _ in range(2):
        np.testing.assert_array_equal(memory_world.runner.run(*kept[0]), memory_world.expected(image, mask))
    assert len(memory_world.cuda.executables) == 1
    np.testing.assert_array_equal(memory_world.runner.run(*kept[1]), memory_world.expected(image, mask))
    assert not memory_world.cuda.executables  # that graph read from elsewhere
    assert len([context for context in memory_world.trt.contexts if context()]) == 1


@pytest.mark.parametrize("runs", [1, 3])  # plain; captured
def test_after_a_failure_halfway_all_addresses_are_set_again(memory_world, monkeypatch, runs):
    cases = [inputs(1, 64, 64, seed) for seed in range(2)]
    first, second = ([OnDevice(memory_world.device, array) for array in case] for case in cases)
    for _ in range(runs):
        memory_world.runner.run(*first)
    set_address = MemoryContext.set_tensor_address
    monkeypatch.setattr(
        MemoryContext, "set_tensor_address", lambda context, *at: at[0] != "mask" and set_address(context, *at)
    )
    with pytest.raises(EngineError, match="no tensor 'mask'"):
        memory_world.runner.run(*second)
    monkeypatch.setattr(MemoryContext, "set_tensor_address", set_address)
    np.testing.assert_array_equal(memory_world.runner.run(*first), memory_world.expected(*cases[0]))


@pytest.mark.parametrize("stream", [1, 2, "other"])
def test_the_runner_waits_for_the_stream_that_still_writes_an_input(memory_world, stream):
    cuda = memory_world.cuda
    if stream == "other":
        _, stream = cuda.cudaStreamCreateWithFlags(1)
    image, mask = inputs(1, 64, 64)
    late = OnDevice(memory_world.device, np.zeros_like(image), stream=stream)
    cuda.streams[stream].put(lambda: cuda.block(late.memory, image.nbytes).__setitem__(slice(None), image.tobytes()))
    np.testing.assert_array_equal(memory_world.runner.run(late, mask), memory_world.expected(image, mask))


def test_arrays_of_interface_version_2_wait_for_the_default_stream(memory_world):
    image, mask = inputs(1, 64, 64)
    memory_world.runner.run(OnDevice(memory_world.device, image, version=2), mask)
    assert ("wait for", 1) in memory_world.cuda.calls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"typestr": "<f2"},
            r"^image is float16 \[1, 3, 64, 64\], float32 \[1, 3, 64, 64\] \(NCHW\) is expected; cast",
        ),
        ({"shape": (1, 64, 64, 3)}, r"^image is float32 \[1, 64, 64, 3\], float32 \[1, 3, 64, 3\]"),
        (
            {"strides": (49152, 4, 768, 12)},
            r"^image has strides \[49152, 4, 768, 12\] in device memory, C order .* make it contiguous first$",
        ),
        ({"stream": 0}, r"^image names stream 0 .* use 1$"),
    ],
)
def test_a_wrong_array_in_device_memory_is_an_error_of_one_line(memory_world, changes, message):
    image, mask = inputs(1, 64, 64)
    with pytest.raises(EngineError, match=message):
        memory_world.runner.run(OnDevice(memory_world.device, image, **changes), mask)


def test_the_runner_says_that_it_takes_arrays_in_device_memory():
    assert TensorRTRunner.takes_device_arrays
