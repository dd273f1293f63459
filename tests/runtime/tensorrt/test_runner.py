"""The TensorRT runner over a CUDA driver in memory: results, buffers, errors and graphs with uint8 inputs.

The engine in memory runs the bundle's ONNX model on ONNX Runtime, from and into the addresses that it was given, and
holds the runner to TensorRT's rules. Those tests that say only what comes back run on a real engine too (`gpu`).
"""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from fakes.tensorrt_bundles import inputs, with_engine
from fakes.tensorrt_runtime import SCRATCH
from glama_deploy.bundle import Bundle, Graph, Tensor, artifact
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import RunTimes


@pytest.mark.parametrize("output", ["inpainted", "predicted"])
def test_the_result_is_the_engines_output(world, output):
    for shape in ((1, 64, 64), (2, 128, 96), (1, 72, 64)):  # larger, then smaller: the buffers are reused
        world.check(*inputs(*shape), output)


def test_every_run_of_a_size_sees_its_own_inputs(world):
    for seed in range(5):  # plain, captured, replayed
        world.check(*inputs(1, 64, 72, seed))


def test_sizes_and_outputs_may_alternate(world):
    for turn in range(3):
        for shape in ((1, 64, 64), (1, 96, 64), (2, 64, 64)):
            world.check(*inputs(*shape, turn), ("inpainted", "predicted")[turn % 2])


def test_a_result_is_the_callers_own(world):
    image, mask = inputs(1, 64, 64)
    first = world.runner.run(image, mask)
    kept = first.copy()
    world.runner.run(*inputs(1, 64, 64, seed=1))
    np.testing.assert_array_equal(first, kept)
    assert first.flags.owndata


def test_inputs_may_be_views_with_negative_strides(world):
    image, mask = inputs(1, 64, 96)
    world.check(image[..., ::-1], mask[..., ::-1])


def test_threads_may_share_a_runner(world):
    cases = [inputs(1, 64 + 8 * (n % 3), 64, seed=n) for n in range(9)]
    wrong: list[int] = []

    def run(n: int) -> None:
        if np.abs(world.runner.run(*cases[n]) - world.expected(*cases[n])).max() > world.tolerance:
            wrong.append(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("settings", [{"gpu": 1}, {"index": 1}, {"index": 1, "pycuda": True}])
def test_a_runner_stays_on_its_gpu_whichever_thread_runs_it(opened, tiny_bundle, settings):
    """Its GPU is the one that is current when it is opened, or the one that the user names."""
    world = opened(with_engine(tiny_bundle), **settings)
    cases = [inputs(1, side, 64, seed) for seed, side in enumerate((64, 64, 64, 128))]  # it captures, replays, grows
    results: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: results.extend(world.runner.run(*case) for case in cases))
    thread.start()
    thread.join()
    for result, case in zip(results, cases, strict=True):
        np.testing.assert_array_equal(result, world.expected(*case))
    assert set(world.cuda.gpus.values()) == {1}


def test_a_run_is_two_uploads_the_engine_one_download_and_one_wait(memory_world):
    calls, image_bytes, mask_bytes = memory_world.cuda.calls, 3 * 64 * 64 * 4, 64 * 64 * 4
    assert sorted(name for name, _ in calls) == ["malloc"] * 4 + ["pin"] * 3 + ["synchronize"] * 4
    memory_world.runner.run(*inputs(1, 64, 64))
    del calls[:]
    once = [("upload", image_bytes), ("upload", mask_bytes), ("download", image_bytes), ("synchronize", 0)]
    memory_world.runner.run(*inputs(1, 64, 64))
    memory_world.runner.run(*inputs(1, 64, 64))
    launch = [("launch", 0)]
    assert calls == [*once[:2], ("capture", 0), *launch, *once[2:], *once[:2], *launch, *once[2:]]


@pytest.mark.parametrize("pycuda", [False, True])
def test_the_times_of_a_run_are_those_of_its_copies_and_of_the_network(opened, tiny_bundle, pycuda):
    world = opened(with_engine(tiny_bundle), pycuda=pycuda)
    read_times, cuda = world.runner.time_copies(), world.cuda
    with pytest.raises(EngineError, match="no run has copied its inputs"):
        read_times()
    for side in (64, 64, 64, 128):  # plain, captured, replayed, and another size
        world.check(*inputs(1, side, side))
        found, milliseconds_per_plane = read_times(), cuda.COPY_MS_PER_BYTE * 4 * side * side
        assert found.upload == pytest.approx((3 + 1) * milliseconds_per_plane / 1000)
        assert found.compute == pytest.approx(cuda.RUN_MS / 1000)
        assert found.download == pytest.approx(3 * milliseconds_per_plane / 1000)
    assert len(cuda.times) == 2 * 3  # the events are recorded again
    world.runner.close()
    world.runner = world.device = read_times = None
    gc.collect()
    assert not cuda.events


def test_a_gpu_that_uses_the_hosts_memory_copies_nothing_and_has_no_time_of_copies(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), integrated=True, maps=True)
    read_times = world.runner.time_copies()
    world.check(*inputs(1, 64, 64))
    assert read_times() == RunTimes(upload=0, compute=pytest.approx(world.cuda.RUN_MS / 1000), download=0)


@pytest.mark.gpu
@pytest.mark.parametrize("world", ["real"], indirect=True)
def test_the_times_of_a_run_on_a_gpu_are_within_the_time_that_the_host_sees(world):
    read_times = world.runner.time_copies()
    for _ in range(3):
        start = time.perf_counter()
        world.runner.run(*inputs(1, 64, 64))
        seconds, found = time.perf_counter() - start, read_times()
        assert min(found.upload, found.compute, found.download) > 0
        assert found.upload + found.compute + found.download < seconds


def test_buffers_exist_before_the_first_run_and_grow_only_for_larger_images(memory_world):
    names = memory_world.cuda.names
    for side, mallocs, frees in ((64, 4 + 1, 0), (128, 9 + 1, 4 + 1), (96, 10, 5), (128, 10, 5)):
        memory_world.runner.run(*inputs(1, side, side))
        assert (names().count("malloc"), names().count("free")) == (mallocs, frees), side
    pixels = 128 * 128
    assert sum(map(len, memory_world.cuda.memory.values())) == (3 + 1 + 3 + 3) * pixels * 4 + SCRATCH * pixels
    assert sum(map(len, memory_world.cuda.pinned.values())) == (3 + 1 + 3) * pixels * 4


@pytest.mark.parametrize("pycuda", [False, True])
def test_all_gpu_memory_is_freed_when_the_runner_is_garbage_collected(opened, tiny_bundle, pycuda):
    world = opened(with_engine(tiny_bundle), pycuda=pycuda)
    for _ in range(3):
        world.runner.run(*inputs(1, 64, 64))
    world.runner = world.device = None
    gc.collect()
    assert not world.cuda.memory
    assert not world.cuda.pinned
    assert not world.cuda.executables
    assert len(world.cuda.streams) == 2  # CUDA's own
    assert not [context for context in world.trt.contexts if context()]


def test_a_closed_runner_refuses_to_run(memory_world):
    memory_world.runner.run(*inputs(1, 64, 64))
    memory_world.runner.close()
    memory_world.runner.close()
    assert not memory_world.cuda.leaked
    assert memory_world.trt.engine() is None  # its weights are on the GPU too
    with pytest.raises(EngineError, match=r"was closed; open the bundle again"):
        memory_world.runner.run(*inputs(1, 64, 64))


def test_a_run_that_waits_while_the_runner_is_closed_is_refused(memory_world, monkeypatch):
    runner = memory_world.runner

    class ClosedMeanwhile:
        """The runner's lock, which another thread holds to close the runner."""

        def __enter__(self) -> None:
            runner._finish()

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(runner, "_lock", ClosedMeanwhile())
    with pytest.raises(EngineError, match=r"was closed; open the bundle again"):
        runner.run(*inputs(1, 64, 64))
    assert not memory_world.cuda.leaked


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_wrong_shapes_types_and_outputs_are_errors_of_one_line(opened, tiny_bundle):
    runner = opened(with_engine(tiny_bundle)).runner
    with pytest.raises(EngineError, match=r"^the batch is 3, this engine takes up to 2; .*`max_batch`$"):
        runner.run(*inputs(3, 64, 64))
    with pytest.raises(
        EngineError, match=r"the image is 48x64, the batch 1; this engine takes 64x64…256x256 \(batch up"
    ):
        runner.run(*inputs(1, 48, 64))
    with pytest.raises(EngineError, match="no output 'depth'"):
        runner.run(*inputs(1, 64, 64), "depth")
    image, mask = inputs(1, 64, 64)
    with pytest.raises(
        EngineError, match=r"^image is float64 \[1, 3, 64, 64\], float32 \[1, 3, 64, 64\] \(NCHW\) is expected; cast"
    ):
        runner.run(image.astype(np.float64), mask)
    with pytest.raises(EngineError, match=r"^mask is float32 \[1, 64, 64\], float32 \[1, 1, 64, 64\] \(NCHW\) is exp"):
        runner.run(image, mask[0])
    with pytest.raises(EngineError, match=r"^mask is float32 \[1, 1, 56, 64\], float32 \[1, 1, 64, 64\]"):
        runner.run(image, mask[:, :, 8:])


def test_a_failed_run_is_an_error_and_the_next_run_works(memory_world):
    memory_world.trt.fails = True
    for _ in range(3):
        with pytest.raises(EngineError, match=r"^TensorRT 10\.3\.0 fp32 failed to run; its log above says why$"):
            memory_world.runner.run(*inputs(1, 64, 64))
    memory_world.trt.fails = False
    for seed in range(3):
        memory_world.check(*inputs(1, 64, 64, seed))


@pytest.mark.parametrize("pycuda", [False, True])
@pytest.mark.parametrize("room", [700_000, 1_200_000])  # not enough for the tensors; for them but not for the scratch
def test_too_little_memory_is_an_error_of_one_line_and_frees_all_memory(opened, tiny_bundle, pycuda, room):
    world = opened(with_engine(tiny_bundle), room=room, pycuda=pycuda)
    world.check(*inputs(1, 64, 64))
    with pytest.raises(
        EngineError,
        match=r"^TensorRT 10\.3\.0 fp32 has no memory for 1 × 160x160 \([^\n]*out of memory\); "
        r"use a smaller image or export with smaller `max_size`$",
    ):
        world.runner.run(*inputs(1, 160, 160))
    assert not world.cuda.memory
    assert not world.cuda.pinned
    for seed in range(3):
        world.check(*inputs(1, 64, 64, seed))


def test_too_little_memory_for_the_usual_size_is_an_error_at_opening(opened, tiny_bundle):
    with pytest.raises(EngineError, match=r"no memory for the engine's usual size .* smaller `max_size`$"):
        opened(with_engine(tiny_bundle), room=1000)
    gc.collect()
    assert not opened.last.cuda.leaked


@pytest.mark.parametrize("pycuda", [False, True])
def test_the_memory_that_is_needed_bounds_what_a_run_takes(opened, tiny_bundle, pycuda):
    world = opened(with_engine(tiny_bundle), pycuda=pycuda)
    before = world.runner.memory_available()
    needed = world.runner.memory_needed((160, 128), 2)
    held = sum(map(len, world.cuda.memory.values()))
    world.check(*inputs(2, 160, 128))
    taken = sum(map(len, world.cuda.memory.values()))
    assert before == world.cuda.room - held
    assert taken <= needed <= 1.5 * taken  # the margin of the estimate
    assert world.runner.memory_needed((4096, 4096)) == 0  # a size that the engine does not take
    most = world.runner.memory_needed((256, 256), 2)
    assert most == 10 * 2 * 256 * 256 * 4 + 2 * SCRATCH * 256 * 256  # no margin above the profile's own memory
    world.runner.close()
    assert (world.runner.memory_available(), world.runner.memory_needed((64, 64))) == (None, 0)


def test_a_jetson_counts_the_hosts_memory_and_the_copies_that_it_has_of_a_tensor(opened, tiny_bundle, monkeypatch):
    plain = opened(with_engine(tiny_bundle)).runner.memory_needed((64, 64))
    runner = opened(with_engine(tiny_bundle), integrated=True).runner
    monkeypatch.setattr("glama_deploy.memory.available", lambda: 12345)
    assert runner.memory_available() == 12345
    assert runner.memory_needed((64, 64)) - plain == 10 * 64 * 64 * 4
    assert opened(with_engine(tiny_bundle), integrated=True, maps=True).runner.memory_needed((64, 64)) == plain


def test_a_gpu_that_is_full_gets_tiles_instead_of_an_error(opened, tiny_bundle, caplog):
    world = opened(with_engine(tiny_bundle))
    inpainter = Inpainter(world.runner, NetworkConfig(ngf=8))
    rng = np.random.default_rng(0)
    photo, hole = rng.integers(0, 256, (256, 256, 3), np.uint8), np.ones((256, 256), bool)
    beside = 40 * 256 * 256  # bytes of the picture that tiles are blended in
    free = world.runner.memory_needed((160, 160)) + beside
    assert world.runner.memory_needed((256, 256)) > free
    world.cuda.room = sum(map(len, world.cuda.memory.values())) + free
    with pytest.raises(ImageError, match=r"the image is 256x256 and needs about \d.* GB.* are free; scale"):
        inpainter(photo, hole, region="full")
    out = inpainter(photo, hole)
    assert out.shape == photo.shape
    assert "by tiles" in caplog.text


def test_an_image_outside_the_profile_names_the_range_and_the_command(memory_world, photo, hole):
    inpainter = Inpainter(memory_world.runner, NetworkConfig(ngf=8))
    out = inpainter(photo, hole)
    np.testing.assert_array_equal(out[~hole], photo[~hole])
    with pytest.raises(ImageError, match=r"48x120, this engine takes 64x64…256x256; export again with `min_size="):
        inpainter(photo[:48], hole[:48])


@pytest.fixture
def uint8_bundle(tiny_bundle, tmp_path) -> Bundle:
    """A bundle whose graph takes and gives uint8 NHWC: missing pixels are inverted, `predicted` is half of 0…1."""
    shape, mask_shape = ["batch", "height", "width", 3], ["batch", "height", "width"]
    constants = {"zero": np.uint8(0), "white": np.uint8(255), "half": np.float32(1 / 510)}
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [3])
    graph = helper.make_graph(
        [
            helper.make_node("Greater", ["mask", "zero"], ["missing"]),
            helper.make_node("Unsqueeze", ["missing", "axes"], ["missing3"]),
            helper.make_node("Sub", ["white", "image"], ["inverted"]),
            helper.make_node("Where", ["missing3", "inverted", "image"], ["inpainted"]),
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "half"], ["predicted"]),
        ],
        "uint8",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, shape),
            helper.make_tensor_value_info("mask", TensorProto.UINT8, mask_shape),
        ],
        [
            helper.make_tensor_value_info("inpainted", TensorProto.UINT8, shape),
            helper.make_tensor_value_info("predicted", TensorProto.FLOAT, shape),
        ],
        [axes, *(onnx.numpy_helper.from_array(np.array(value), name) for name, value in constants.items())],
    )
    path = tmp_path / "bundle" / "model.onnx"
    path.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    file = artifact(path.parent, path)

    def tensor(name: str, dtype: str, layout: str, shape: list[str | int]) -> Tensor:
        return Tensor(name=name, dtype=dtype, layout=layout, shape=tuple(shape), range=(0, 255), meaning="")

    update = {
        "io": "uint8",
        "inputs": (tensor("image", "uint8", "NHWC", shape), tensor("mask", "uint8", "NHW", mask_shape)),
        "outputs": (tensor("inpainted", "uint8", "NHWC", shape), tensor("predicted", "float32", "NHWC", shape)),
        "graphs": {"fp32": Graph(file=file, opset=17)},
    }
    bundle = Bundle(path.parent, tiny_bundle.manifest.model_copy(update=update))
    return with_engine(bundle, files=(file,))


@pytest.mark.parametrize("pycuda", [False, True])
def test_a_uint8_graph_takes_and_gives_bytes_of_any_size(opened, uint8_bundle, pycuda):
    world = opened(uint8_bundle, pycuda=pycuda)
    assert world.runner.io == "uint8"
    rng = np.random.default_rng(0)
    for height, width in ((65, 99), (64, 64), (65, 99), (65, 99)):
        image = rng.integers(0, 256, (2, height, width, 3), np.uint8)
        mask = rng.integers(0, 2, (2, height, width), np.uint8)
        for output, dtype in (("inpainted", np.uint8), ("predicted", np.float32)):
            assert world.runner.run(image, mask, output).dtype == dtype
            world.check(image, mask, output)
    with pytest.raises(EngineError, match=r"^mask is bool \[2, 65, 99\], uint8 \[2, 65, 99\] \(NHW\) is expected"):
        world.runner.run(image, mask > 0)
