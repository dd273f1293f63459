"""Outputs that stay in the GPU's memory, and the caller's stream."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest

from fakes.tensorrt_bundles import ByDlpack, OnDevice, World, inputs, with_engine
from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.exchange import results
from glama_deploy.runtime.tensorrt import runner as tensorrt

#: What makes the host wait for the GPU, or copies between them.
HOST_WORK = {"upload", "download", "synchronize", "synchronize an event", "synchronize the GPU"}


def place(world: World, *arrays: np.ndarray, **changes: object) -> list[OnDevice]:
    return [OnDevice(world.device, array, **changes) for array in arrays]


def read(world: World, array: object) -> np.ndarray:
    """What lies at an array's address now; no stream is waited for."""
    there = array.__cuda_array_interface__
    dtype, shape = np.dtype(there["typestr"]), there["shape"]
    block = world.cuda.block(there["data"][0], int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(bytes(block), dtype).reshape(shape)


def make_stream(world: World) -> int:
    return world.cuda.cudaStreamCreateWithFlags(1)[1]


@pytest.fixture(params=["cuda-python", "pycuda"])
def either(request, opened, tiny_bundle) -> World:
    return opened(with_engine(tiny_bundle), pycuda=request.param == "pycuda")


@pytest.mark.parametrize("batch", [1, 2])
def test_a_new_result_lies_on_the_gpu_and_is_the_engines_output(either, batch):
    for seed in range(6):  # plain runs and memory that is used again
        image, mask = inputs(batch, 64, 72, seed)
        result = either.runner.run_on_device(*place(either, image, mask))
        assert (result.shape, result.dtype) == (image.shape, np.float32)
        assert result.nbytes == image.nbytes
        np.testing.assert_array_equal(read(either, result), either.expected(image, mask))


def test_an_array_of_the_caller_is_written_in_place_and_returned(either):
    out = OnDevice(either.device, np.zeros((1, 3, 64, 64), np.float32))
    for seed in range(4):
        image, mask = inputs(1, 64, 64, seed)
        assert either.runner.run_on_device(*place(either, image, mask), out=out) is out
        np.testing.assert_array_equal(read(either, out), either.expected(image, mask))


def test_nothing_is_copied_to_the_host_or_on_the_gpu(memory_world):
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32))
    pair = place(memory_world, *inputs(1, 64, 64))
    for target in (out, None):
        del memory_world.cuda.calls[:]
        memory_world.runner.run_on_device(*pair, out=target)
        assert not {"upload", "download", "copy", "pin"} & set(memory_world.cuda.names())


def test_a_run_at_fixed_addresses_is_replayed_as_a_graph(memory_world):
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32))
    pair = place(memory_world, *inputs(1, 64, 64))
    for _ in range(3):
        memory_world.runner.run_on_device(*pair, out=out)
    assert memory_world.cuda.names().count("launch") == 2
    np.testing.assert_array_equal(read(memory_world, out), memory_world.expected(*inputs(1, 64, 64)))


def test_axes_of_the_batch_may_be_left_out(memory_world):
    image, mask = inputs(1, 64, 64)
    result = memory_world.runner.run_on_device(*place(memory_world, image[0], mask[0]))
    assert result.shape == (3, 64, 64)
    np.testing.assert_array_equal(read(memory_world, result), memory_world.expected(image, mask)[0])
    out = OnDevice(memory_world.device, np.zeros((3, 64, 64), np.float32))
    memory_world.runner.run_on_device(*place(memory_world, image[0], mask[0]), out=out)
    np.testing.assert_array_equal(read(memory_world, out), memory_world.expected(image, mask)[0])


def test_the_image_may_be_filled_in_place_and_out_may_lie_at_any_address(either):
    """TensorRT writes neither over what it reads, nor to an address that is not a multiple of 256."""
    image, mask = inputs(1, 64, 64)
    there, hole = place(either, image, mask)
    either.runner.run_on_device(there, hole, out=there)
    np.testing.assert_array_equal(read(either, there), either.expected(image, mask))
    shifted = OnDevice(either.device, np.zeros_like(image), offset=12)
    for _ in range(3):
        either.runner.run_on_device(*place(either, image, mask), out=shifted)
        np.testing.assert_array_equal(read(either, shifted), either.expected(image, mask))


def test_the_second_output_stays_there_too(memory_world):
    image, mask = inputs(1, 64, 64)
    result = memory_world.runner.run_on_device(*place(memory_world, image, mask), output="predicted")
    np.testing.assert_array_equal(read(memory_world, result), memory_world.expected(image, mask, "predicted"))


# -- the caller's stream


def test_with_a_stream_the_host_neither_waits_nor_copies(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32))
    stream = make_stream(memory_world)
    memory_world.runner.run(*inputs(1, 64, 64))  # the first run of a size takes memory
    del memory_world.cuda.calls[:]
    memory_world.runner.run_on_device(*pair, out=out, stream=stream)
    assert not HOST_WORK & set(memory_world.cuda.names())
    assert not read(memory_world, out).any()  # nothing has run yet
    memory_world.cuda.cudaStreamSynchronize(stream)
    np.testing.assert_array_equal(read(memory_world, out), memory_world.expected(*inputs(1, 64, 64)))


def test_the_run_comes_after_the_work_in_the_callers_stream(either):
    image, mask = inputs(1, 64, 64)
    there, hole = place(either, np.zeros_like(image), mask)
    stream = make_stream(either)
    write = lambda: either.cuda.block(there.memory, image.nbytes).__setitem__(slice(None), image.tobytes())  # noqa: E731
    either.cuda.streams[stream].put(write)
    result = either.runner.run_on_device(there, hole, stream=stream)
    either.cuda.cudaStreamSynchronize(either.device.stream)  # the GPU may run our stream first
    either.cuda.cudaStreamSynchronize(stream)
    np.testing.assert_array_equal(read(either, result), either.expected(image, mask))


def test_later_work_in_the_callers_stream_comes_after_the_run(either):
    image, mask = inputs(1, 64, 64)
    there, hole = place(either, image, mask)
    stream, seen = make_stream(either), []
    result = either.runner.run_on_device(there, hole, stream=stream)
    either.cuda.streams[stream].put(lambda: seen.append(read(either, result)))
    either.cuda.cudaStreamSynchronize(stream)
    np.testing.assert_array_equal(seen[0], either.expected(image, mask))


def test_frames_follow_each_other_in_one_stream_without_a_wait(memory_world):
    """Each frame is read from the same memory, which the caller's stream fills anew behind the run before."""
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32))
    there, hole = place(memory_world, *inputs(1, 64, 64))
    stream, seen = make_stream(memory_world), []
    ours = memory_world.cuda.streams[stream]
    cases = [inputs(1, 64, 64, seed) for seed in range(3)]
    memory_world.runner.run(*cases[0])
    del memory_world.cuda.calls[:]
    for image, mask in cases:
        for array, values in ((there, image), (hole, mask)):
            block = memory_world.cuda.block(array.memory, values.nbytes)
            ours.put(lambda block=block, values=values: block.__setitem__(slice(None), values.tobytes()))
        memory_world.runner.run_on_device(there, hole, out=out, stream=stream)
        ours.put(lambda: seen.append(read(memory_world, out)))
    assert not HOST_WORK & set(memory_world.cuda.names())
    memory_world.cuda.cudaStreamSynchronize(memory_world.device.stream)
    memory_world.cuda.cudaStreamSynchronize(stream)
    for found, case in zip(seen, cases, strict=True):
        np.testing.assert_array_equal(found, memory_world.expected(*case))


def test_the_host_waits_for_the_oldest_of_many_runs_that_are_under_way(memory_world):
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32))
    stream = make_stream(memory_world)
    del memory_world.cuda.calls[:]
    for run in range(tensorrt._MAX_UNDER_WAY + 2):
        memory_world.runner.run_on_device(*place_quietly(memory_world, run), out=out, stream=stream)
    assert memory_world.cuda.names().count("synchronize an event") == 2
    memory_world.cuda.cudaStreamSynchronize(stream)
    memory_world.runner.run_on_device(*place_quietly(memory_world, 0), out=out, stream=stream)
    assert memory_world.cuda.names().count("synchronize an event") == 2
    assert len(memory_world.runner._under_way) == 1
    memory_world.cuda.cudaStreamSynchronize(stream)


def place_quietly(world: World, seed: int) -> list[OnDevice]:
    """Place inputs without the waiting that a copy from the host takes."""
    placed = []
    for array in inputs(1, 64, 64, seed):
        _, address = world.cuda.cudaMalloc(array.nbytes)
        world.cuda.block(address, array.nbytes)[:] = array.tobytes()
        facts = {"shape": array.shape, "typestr": array.dtype.str, "data": (address, False), "version": 3}
        placed.append(type("Placed", (), {"__cuda_array_interface__": facts})())
    return placed


def test_arrays_are_kept_until_the_run_is_done(memory_world):
    array = ByDlpack(memory_world.cuda, place(memory_world, inputs(1, 64, 64)[0])[0])
    mask = place(memory_world, inputs(1, 64, 64)[1])[0]
    stream = make_stream(memory_world)
    result = memory_world.runner.run_on_device(array, mask, stream=stream)
    is_gone = weakref.ref(array)
    del array
    gc.collect()
    assert is_gone() is not None
    memory_world.cuda.cudaStreamSynchronize(stream)
    memory_world.runner.run_on_device(result, mask, stream=stream)
    gc.collect()
    assert is_gone() is None
    memory_world.cuda.cudaStreamSynchronize(stream)


@pytest.mark.parametrize("stream", [None, 1, "other"])
def test_arrays_of_dlpack_wait_for_their_packages_stream(either, stream):
    image, mask = inputs(1, 64, 64)
    theirs = make_stream(either)
    there, hole, target = place(either, np.zeros_like(image), mask, np.zeros_like(image))
    write = lambda: either.cuda.block(there.memory, image.nbytes).__setitem__(slice(None), image.tobytes())  # noqa: E731
    either.cuda.streams[theirs].put(write)
    handle = make_stream(either) if stream == "other" else stream
    lazy, out = ByDlpack(either.cuda, there, stream=theirs), ByDlpack(either.cuda, target)
    assert either.runner.run_on_device(lazy, hole, out=out, stream=handle) is out
    assert lazy.waiting == [handle or 1]
    either.cuda.cudaStreamSynchronize(either.device.stream)
    if handle is not None:
        either.cuda.cudaStreamSynchronize(handle)
    np.testing.assert_array_equal(read(either, target), either.expected(image, mask))


def test_the_host_waits_before_a_graph_is_discarded_that_is_still_running(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    outs = place(memory_world, *np.zeros((2, 1, 3, 64, 64), np.float32))
    stream = make_stream(memory_world)
    for _ in range(2):
        memory_world.runner.run_on_device(*pair, out=outs[0])
    memory_world.runner.run_on_device(*pair, out=outs[0], stream=stream)
    assert memory_world.cuda.names()[-2:] == ["launch", "wait for"]
    memory_world.runner.run_on_device(*pair, out=outs[1], stream=stream)
    assert not memory_world.cuda.executables
    memory_world.cuda.cudaStreamSynchronize(stream)
    for out in outs:
        np.testing.assert_array_equal(read(memory_world, out), memory_world.expected(*inputs(1, 64, 64)))


def test_the_host_waits_before_a_context_is_dropped_whose_run_is_under_way(memory_world, monkeypatch):
    """The runner has contexts for four sizes, whatever the number of runs under way."""
    monkeypatch.setattr(tensorrt, "_MAX_UNDER_WAY", 9)
    sides = (128, 64, 72, 80, 88, 96)
    cases = [inputs(1, side, side) for side in sides]
    placed = [place(memory_world, image, mask, np.zeros_like(image)) for image, mask in cases]
    memory_world.runner.run(*cases[0])  # memory for the largest
    stream = make_stream(memory_world)
    for image, mask, out in placed[1:]:
        memory_world.runner.run_on_device(image, mask, out=out, stream=stream)
    memory_world.cuda.cudaStreamSynchronize(stream)
    for (_, _, out), case in zip(placed[1:], cases[1:], strict=True):
        np.testing.assert_array_equal(read(memory_world, out), memory_world.expected(*case))


# -- the result as other packages see it


def test_a_result_names_the_stream_that_waits_for_it(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    there = memory_world.runner.run_on_device(*pair).__cuda_array_interface__
    assert (there["version"], there["stream"], there["strides"], there["data"][1]) == (3, None, None, False)
    stream = make_stream(memory_world)
    result = memory_world.runner.run_on_device(*pair, stream=stream)
    assert result.__cuda_array_interface__["stream"] == stream
    memory_world.cuda.cudaStreamSynchronize(stream)


@pytest.mark.parametrize("reader", [None, 1, 2, "own", -1])
def test_the_stream_of_a_reader_of_dlpack_waits_for_the_result(either, reader):
    image, mask = inputs(1, 64, 64)
    stream, seen = make_stream(either), []
    result = either.runner.run_on_device(*place(either, image, mask), stream=stream)
    handle = make_stream(either) if reader == "own" else reader
    capsule = result.__dlpack__(stream=handle, max_version=(1, 0))
    assert result.__dlpack_device__() == (2, 0)
    if handle != -1:
        either.cuda.streams[handle or 1].put(lambda: seen.append(read(either, result)))
        either.cuda.cudaStreamSynchronize(handle or 1)
        np.testing.assert_array_equal(seen[0], either.expected(image, mask))
    either.cuda.cudaStreamSynchronize(stream)
    del capsule


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stream": 0}, "0 is not a stream of CUDA"),
        ({"stream": -2}, "-2 is not a stream of CUDA"),
        ({"stream": "1"}, "'1' is not a stream of CUDA"),
        ({"copy": True}, "copy it afterwards"),
        ({"dl_device": (1, 0)}, "the array lies on GPU 0; copy it"),
        ({"dl_device": (2, 1)}, "the array lies on GPU 0; copy it"),
    ],
)
def test_what_a_reader_of_dlpack_cannot_have_is_a_buffer_error(memory_world, options, says):
    result = memory_world.runner.run_on_device(*place(memory_world, *inputs(1, 64, 64)))
    with pytest.raises(BufferError, match=says):
        result.__dlpack__(**options)
    assert result.__dlpack__(dl_device=(2, 0), copy=False) is not None


def test_a_result_is_read_as_an_image(memory_world):
    """Without a copy: through its interface, and through its capsule."""
    image, mask = inputs(1, 64, 64)
    there, hole = place(memory_world, image, mask)
    first = memory_world.runner.run_on_device(there, hole)
    expected = memory_world.expected(memory_world.expected(image, mask), mask)
    by_dlpack = type("ByDlpack", (), {"__dlpack__": first.__dlpack__, "__dlpack_device__": first.__dlpack_device__})()
    by_dlpack.shape = first.shape
    del memory_world.cuda.calls[:]
    for array in (first, by_dlpack):
        np.testing.assert_array_equal(read(memory_world, memory_world.runner.run_on_device(array, hole)), expected)
    assert "copy" not in memory_world.cuda.names()


# -- the memory of results


def count_results(world: World) -> int:
    return len(world.runner._results._sizes)


def test_memory_of_a_result_is_kept_while_it_or_a_capsule_of_it_is_used(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    result = memory_world.runner.run_on_device(*pair)
    capsule = result.__dlpack__(max_version=(1, 0))
    del result
    gc.collect()
    assert count_results(memory_world) == 1
    del capsule
    gc.collect()
    assert count_results(memory_world) == 0


def test_memory_of_dropped_results_is_used_again_once_the_gpu_is_done(memory_world):
    """A stream that nobody told us of may still read a dropped result."""
    pair = place(memory_world, *inputs(1, 64, 64))
    seen, theirs = [], make_stream(memory_world)
    kept = memory_world.runner.run_on_device(*pair)
    expected = read(memory_world, kept)
    address = kept.__cuda_array_interface__["data"][0]
    memory_world.cuda.streams[theirs].put(
        lambda: seen.append(bytes(memory_world.cuda.block(address, expected.nbytes)) == expected.tobytes())
    )
    del kept
    addresses = set()
    other = place(memory_world, *inputs(1, 64, 64, seed=1))
    for _ in range(20):
        result = memory_world.runner.run_on_device(*other)
        addresses.add(result.__cuda_array_interface__["data"][0])
        del result
    assert seen == [True]
    assert address in addresses
    assert len(addresses) <= results._MAX_DROPPED + 1
    assert 3 <= memory_world.cuda.names().count("synchronize the GPU") <= 20 // results._MAX_DROPPED


def test_memory_of_another_size_is_freed(memory_world):
    sizes = [(64, 64), (128, 64), (64, 128), (128, 128)]
    for size in sizes * 4:
        memory_world.runner.run_on_device(*place_and_drop(memory_world, size))
    held = sum(size for _, size in memory_world.runner._results._idle)
    assert held <= 2 * results._MAX_DROPPED * 3 * 128 * 128 * 4


def place_and_drop(world: World, size: tuple[int, int]) -> list[OnDevice]:
    return place(world, *inputs(1, *size))


@pytest.mark.parametrize("pycuda", [False, True])
@pytest.mark.parametrize("is_closed_first", [False, True])
def test_a_result_outlives_its_runner(opened, tiny_bundle, pycuda, is_closed_first):
    world = opened(with_engine(tiny_bundle), pycuda=pycuda)
    image, mask = inputs(1, 64, 64)
    pair = place(world, image, mask)
    stream = make_stream(world)
    result = world.runner.run_on_device(*pair, stream=stream)
    world.cuda.cudaStreamSynchronize(stream)
    if is_closed_first:
        world.runner.close()
    world.runner = world.device = None
    gc.collect()
    np.testing.assert_array_equal(read(world, result), world.expected(image, mask))
    for array in pair:
        world.cuda.cudaFree(array.memory)
    world.cuda.cudaStreamDestroy(stream)
    del result
    gc.collect()
    assert not world.cuda.leaked


def test_a_full_gpu_takes_the_memory_of_dropped_results(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    image, mask = inputs(1, 128, 128)
    pair = place(world, image, mask)
    world.runner.run_on_device(*pair)
    gc.collect()
    world.cuda.room = sum(map(len, world.cuda.memory.values()))  # nothing is free
    result = world.runner.run_on_device(*pair)
    np.testing.assert_array_equal(read(world, result), world.expected(image, mask))


def test_too_little_memory_for_a_result_is_an_error_of_one_line(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle))
    pair = place(world, *inputs(1, 128, 128))
    kept = world.runner.run_on_device(*pair)
    world.cuda.room = sum(map(len, world.cuda.memory.values()))
    with pytest.raises(EngineError, match=r"^TensorRT 10\.3\.0 fp32 has no memory for 1 × 128x128 \([^\n]*out of mem"):
        world.runner.run_on_device(*pair)
    assert kept.shape == (1, 3, 128, 128)


def test_a_failed_run_gives_its_memory_back_and_the_next_run_works(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    stream = make_stream(memory_world)
    for caller in (None, stream):
        memory_world.trt.fails = True
        with pytest.raises(EngineError, match="failed to run; its log above says why"):
            memory_world.runner.run_on_device(*pair, stream=caller)
        assert count_results(memory_world) == 0
        memory_world.trt.fails = False
        result = memory_world.runner.run_on_device(*pair, stream=caller)
        memory_world.cuda.cudaStreamSynchronize(stream)
        np.testing.assert_array_equal(read(memory_world, result), memory_world.expected(*inputs(1, 64, 64)))
        del result


def test_memory_is_not_used_again_while_another_engine_is_captured(memory_world):
    """CUDA then refuses to wait for the GPU; a later run waits."""
    pair = place(memory_world, *inputs(1, 64, 64))
    other = make_stream(memory_world)
    for _ in range(results._MAX_DROPPED):
        memory_world.runner.run_on_device(*pair)
    memory_world.cuda.cudaDeviceSynchronize, before = (
        lambda: (memory_world.cuda.cudaError_t.cudaErrorStreamCaptureUnsupported,),
        memory_world.cuda.cudaDeviceSynchronize,
    )
    kept = [memory_world.runner.run_on_device(*pair)]
    memory_world.cuda.cudaDeviceSynchronize = before
    kept.append(memory_world.runner.run_on_device(*pair))
    for result in kept:
        np.testing.assert_array_equal(read(memory_world, result), memory_world.expected(*inputs(1, 64, 64)))
    assert memory_world.cuda.streams[other].queue == []


def test_results_may_be_dropped_in_any_thread(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    made = [memory_world.runner.run_on_device(*pair) for _ in range(6)]
    dropper = threading.Thread(target=made.clear)
    dropper.start()
    dropper.join()
    assert count_results(memory_world) == 0


# -- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typestr": "<f2"}, r"^out is float16 \[1, 3, 64, 64\], float32 \[1, 3, 64, 64\] \(NCHW\) is expected; pass"),
        ({"shape": (1, 3, 64, 56)}, r"^out is float32 \[1, 3, 64, 56\], float32 \[1, 3, 64, 64\]"),
        ({"shape": (2, 3, 64, 64)}, r"^out is float32 \[2, 3, 64, 64\], float32 \[1, 3, 64, 64\]"),
        ({"strides": (49152, 4, 768, 12)}, r"^out has strides .* make it contiguous first$"),
        ({"stream": 0}, r"^out names stream 0 .* use 1$"),
        ({"data": (7, False)}, r"^out does not lie in GPU memory \(CUDA knows no memory at 0x7\); copy it to GPU 0$"),
    ],
)
def test_an_out_that_cannot_be_written_is_an_error_of_one_line(memory_world, changes, message):
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32), **changes)
    with pytest.raises(EngineError, match=message) as refused:
        memory_world.runner.run_on_device(*place(memory_world, *inputs(1, 64, 64)), out=out)
    assert "\n" not in str(refused.value)


def test_a_read_only_out_is_refused(memory_world):
    out = OnDevice(memory_world.device, np.zeros((1, 3, 64, 64), np.float32))
    address, _ = out.__cuda_array_interface__["data"]
    out.__cuda_array_interface__["data"] = (address, True)
    pair = place(memory_world, *inputs(1, 64, 64))
    with pytest.raises(EngineError, match=r"^out is read-only; pass an array that may be written, or none$"):
        memory_world.runner.run_on_device(*pair, out=out)
    with pytest.raises(EngineError, match=r"^out is read-only;"):
        memory_world.runner.run_on_device(*pair, out=ByDlpack(memory_world.cuda, out))


def test_arrays_on_another_gpu_are_refused(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), gpu=1)
    image, mask = place(world, *inputs(1, 64, 64))
    for array in (image, mask):
        world.cuda.gpus[array.memory] = 0
        with pytest.raises(EngineError, match=r"lies on GPU 0, the engine runs on GPU 1; copy it there$"):
            world.runner.run_on_device(image, mask)
        world.cuda.gpus[array.memory] = 1
    assert world.runner.run_on_device(image, mask).__dlpack_device__() == (2, 1)


def test_managed_memory_is_read_and_written(memory_world):
    image, mask = inputs(1, 64, 64)
    arrays = place(memory_world, image, mask, np.zeros_like(image))
    memory_world.cuda.managed.update(array.memory for array in arrays)
    memory_world.runner.run_on_device(*arrays[:2], out=arrays[2])
    np.testing.assert_array_equal(read(memory_world, arrays[2]), memory_world.expected(image, mask))


def test_a_stream_of_another_gpu_or_a_closed_one_is_an_error_of_one_line(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), gpu=1)
    pair = place(world, *inputs(1, 64, 64))
    world.cuda.cudaSetDevice(0)
    foreign = make_stream(world)
    for stream in (foreign, 12345):
        with pytest.raises(
            EngineError, match=rf"^{stream} is not a stream of GPU 1 \(cudaEventRecord failed: .*\); pass"
        ):
            world.runner.run_on_device(*pair, stream=stream)
    with pytest.raises(EngineError, match=r"^the stream is 'mine'; a handle"):
        world.runner.run_on_device(*pair, stream="mine")


def test_a_closed_runner_refuses_frames(memory_world):
    pair = place(memory_world, *inputs(1, 64, 64))
    memory_world.runner.close()
    with pytest.raises(EngineError, match=r"was closed; open the bundle again"):
        memory_world.runner.run_on_device(*pair)


# -- GPUs that share the host's memory


@pytest.mark.parametrize("pycuda", [False, True])
def test_on_a_jetson_host_arrays_are_used_where_they_lie(opened, tiny_bundle, pycuda):
    world = opened(with_engine(tiny_bundle), integrated=True, maps=True, pycuda=pycuda)
    names = world.cuda.names
    assert (names().count("map"), names().count("pin")) == (3, 0)
    assert sum(map(len, world.cuda.memory.values())) == 3 * 64 * 64 * 4  # `predicted`, which nobody asked for
    for shape in ((1, 64, 64), (2, 128, 96), (1, 72, 64)):
        for output in ("inpainted", "predicted"):
            for seed in range(3):  # plain, captured, replayed
                world.check(*inputs(*shape, seed), output)
    assert not {"upload", "download", "copy"} & set(names())
    assert ("launch" in names()) != pycuda
    world.runner.close()
    assert not world.cuda.leaked


def test_on_a_jetson_that_cannot_map_memory_host_arrays_are_copied(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), integrated=True, maps=False)
    world.check(*inputs(1, 64, 64))
    assert {"upload", "download"} <= set(world.cuda.names())
    assert "map" not in world.cuda.names()


def test_on_a_desktop_gpu_host_arrays_are_copied_although_they_could_be_mapped(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), maps=True)
    world.check(*inputs(1, 64, 64))
    assert {"upload", "download"} <= set(world.cuda.names())


def test_on_a_jetson_frames_on_the_gpu_and_host_arrays_may_alternate(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), integrated=True, maps=True)
    for seed in range(3):
        image, mask = inputs(1, 64, 64, seed)
        world.check(image, mask)
        result = world.runner.run_on_device(*place(world, image, mask))
        np.testing.assert_array_equal(read(world, result), world.expected(image, mask))
