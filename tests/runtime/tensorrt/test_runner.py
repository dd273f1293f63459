"""The TensorRT runner over a CUDA driver in memory: the order of its calls, its buffers, plans and graphs, its errors.

The engine in memory runs the bundle's ONNX model on ONNX Runtime, from and into the addresses that it was given, and
holds the runner to TensorRT's rules. Those tests that say only what comes back run on a real engine too (`gpu`).
"""

from __future__ import annotations

import gc
import importlib.machinery
import logging
import re
import shutil
import sys
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from glama_deploy.bundle import Artifact, BuildSettings, Bundle, Engine, Graph, SizeRange, Tensor, artifact
from glama_deploy.errors import BundleError, EngineError, ImageError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.cuda.pycuda import PyCudaDevice
from glama_deploy.runtime.tensorrt import runner as tensorrt
from glama_deploy.runtime.tensorrt.runner import TensorRTRunner, find_tightest_profile

SIZES = SizeRange(min=(64, 64), opt=(64, 64), max=(256, 256), max_batch=2)

#: Bytes of scratch memory that the engine in memory asks for, per pixel.
SCRATCH = 32


# -- TensorRT in memory


@dataclass
class MemoryTensorRT:
    """A stand-in for the packages `tensorrt` and `tensorrt_rtx`: an engine's bytes are an ONNX model."""

    cuda: Any
    profiles: tuple[SizeRange, ...]
    fails: bool = False
    captures: bool = True
    accepts: bool = True
    contexts: list[weakref.ref[MemoryContext]] = field(default_factory=list)
    engine: Any = None
    serialized: int = 0
    calls: list[str] = field(default_factory=list)
    refits: dict[str, Any] = field(default_factory=dict)
    kernels: bytes = b""
    stored: list[bytes] = field(default_factory=list)

    def module(self, name: str, version: str) -> ModuleType:
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        members = {
            "__version__": version,
            "Logger": type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None}),
            "Runtime": lambda logger: MemoryTrtRuntime(self),
            "ExecutionContextAllocationStrategy": SimpleNamespace(USER_MANAGED="user managed"),
            "CudaGraphStrategy": SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph"),
            "Refitter": self._refitter,
            "OnnxParserRefitter": self._onnx_refitter,
        }
        vars(module).update(members)
        return module

    def _refitter(self, engine: Any, logger: Any) -> Any:
        if self.refits.get("not refittable"):
            raise TypeError("factory function returned nullptr")
        return SimpleNamespace(
            refit_cuda_engine=lambda: not self.refits.get("missing"),
            get_missing_weights=lambda: self.refits.get("missing", []),
        )

    def _onnx_refitter(self, refitter: Any, logger: Any) -> Any:
        def from_file(path: str) -> bool:
            self.calls.append(f"refit {Path(path).name}")
            return not self.refits.get("parser")

        errors = [SimpleNamespace(desc=lambda: "weights of conv1 have another shape\nmore")]
        return SimpleNamespace(refit_from_file=from_file, num_errors=1, get_error=lambda index: errors[index])


class MemoryTrtRuntime:
    engine_host_code_allowed = False

    def __init__(self, trt: MemoryTensorRT) -> None:
        self._trt = trt

    def deserialize_cuda_engine(self, data: bytes) -> MemoryEngine | None:
        self._trt.calls.append(f"deserialize, host code {self.engine_host_code_allowed}")
        if not self._trt.accepts:
            return None
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        engine = MemoryEngine(self._trt, session)
        self._trt.engine = weakref.ref(engine)
        return engine


@dataclass
class MemoryEngine:
    trt: MemoryTensorRT
    session: onnxruntime.InferenceSession

    def create_execution_context(self, settings: Any) -> MemoryContext | None:
        assert settings == "user managed" or (settings.strategy == "user managed" and settings.cache is not None)
        context = MemoryContext(self, captured_by_itself=getattr(settings, "cuda_graph_strategy", ""))
        self.trt.contexts.append(weakref.ref(context))
        return context

    def create_runtime_config(self) -> MemoryConfig:
        return MemoryConfig(self.trt)


class MemoryConfig:
    """Does not keep its cache alive, as TensorRT-RTX's does not."""

    cuda_graph_strategy = "disabled"

    def __init__(self, trt: MemoryTensorRT) -> None:
        self._trt, self.strategy = trt, "static"

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> MemoryCache:
        return MemoryCache(self._trt)

    def set_runtime_cache(self, cache: MemoryCache) -> bool:
        self._cache = weakref.ref(cache)
        return True

    @property
    def cache(self) -> MemoryCache | None:
        return self._cache()


class MemoryCache:
    def __init__(self, trt: MemoryTensorRT) -> None:
        self._trt = trt

    def deserialize(self, data: bytes) -> bool:
        self._trt.stored.append(data)
        if data.startswith(b"kernels"):
            self._trt.kernels = data
            return True
        return False

    def serialize(self) -> bytes:
        self._trt.serialized += 1
        return self._trt.kernels


class MemoryContext:
    """Asserts what TensorRT's documentation asks for; returns False where TensorRT does."""

    def __init__(self, engine: MemoryEngine, captured_by_itself: str) -> None:
        self._engine, self._cuda = engine, engine.trt.cuda
        self.captured_by_itself = captured_by_itself
        self.profile: int | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        self._state = self._runs = 0
        self._inputs = [tensor.name for tensor in engine.session.get_inputs()]
        self._outputs = [tensor.name for tensor in engine.session.get_outputs()]

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream in self._cuda.streams
        assert not self.shapes, "a profile forgets all shapes"
        self.profile = index
        return index < len(self._engine.trt.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None, "the profile comes first"
        profile = self._engine.trt.profiles[self.profile]
        height, width = shape[2:] if len(shape) == 4 and shape[1] in (1, 3) else shape[1:3]
        self.shapes[name] = shape
        self._state += 1
        return name in self._inputs and profile.covers(height, width) and shape[0] <= (profile.max_batch or shape[0])

    def update_device_memory_size_for_shapes(self) -> int:
        assert set(self.shapes) == set(self._inputs), "all shapes come first"
        return SCRATCH * int(np.prod(self.shapes["mask"]))

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0
        assert size >= self.update_device_memory_size_for_shapes()
        self._cuda.block(address, size)
        self._scratch = (address, size)
        self._state += 1

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0
        self._addresses[name] = address
        self._state += 1
        return name in (*self._inputs, *self._outputs)

    def execute_async_v3(self, stream: int) -> bool:
        assert set(self._addresses) == {*self._inputs, *self._outputs}, "a tensor has no address"
        assert self._scratch is not None
        assert self._cuda.takes_work(stream), "another GPU is current"
        trt = self._engine.trt
        if self._cuda.streams[stream].captured is not None:
            assert self._runs, "a capture before the first run"
            if not trt.captures:
                self._cuda.cudaMalloc(16)  # breaks the capture
                return False
        if trt.fails:
            return False
        self._runs += 1
        trt.calls.append("execute")
        # a graph keeps no context alive
        this, state = weakref.ref(self), self._state

        def work() -> None:
            context = this()
            assert context is not None, "its context is gone"
            assert context._state == state, "its context was changed"
            context._run()

        self._cuda.streams[stream].put(work)
        return True

    def _run(self) -> None:
        self._cuda.block(*self._scratch)[:] = b"\xab" * self._scratch[1]
        feeds = {}
        for tensor in self._engine.session.get_inputs():
            dtype = np.dtype({"tensor(float)": "float32", "tensor(uint8)": "uint8"}[tensor.type])
            shape = self.shapes[tensor.name]
            size = int(np.prod(shape)) * dtype.itemsize
            feeds[tensor.name] = np.frombuffer(self._cuda.block(self._addresses[tensor.name], size), dtype).reshape(
                shape
            )
        for name, values in zip(self._outputs, self._engine.session.run(self._outputs, feeds), strict=True):
            self._cuda.block(self._addresses[name], values.nbytes)[:] = values.tobytes()


# -- bundles, and runners of them


def with_engine(bundle: Bundle, name: str = "tensorrt", **changes: Any) -> Bundle:
    """The bundle, saying that it has a TensorRT engine too, which is its ONNX model."""
    package = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[name]
    onnx_engine = bundle.manifest.engines["onnx"]
    facts = {"name": name, "precision": "fp32", "sizes": SIZES, "files": onnx_engine.files}
    facts |= {"versions": {package: "10.3.0"}, "parity": onnx_engine.parity}
    engines = {**bundle.manifest.engines, name: Engine(**facts | changes)}
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"engines": engines}))


@dataclass
class World:
    """A runner and what it runs on."""

    bundle: Bundle
    runner: TensorRTRunner
    device: Any
    tolerance: float = 0.0
    cuda: Any = None
    trt: Any = None

    def expected(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        path = self.bundle.path / self.bundle.manifest.graphs["fp32"].file.path
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run([output], {"image": image, "mask": mask})[0]

    def check(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> None:
        np.testing.assert_allclose(
            self.runner.run(image, mask, output), self.expected(image, mask, output), rtol=0, atol=self.tolerance
        )


@pytest.fixture
def opened(monkeypatch, memory_runtime, memory_pycuda):
    """A function that opens a bundle's engine, in memory; its `last` is what it made, also where opening fails."""

    def make(
        bundle: Bundle,
        name: str = "tensorrt",
        *,
        room: int = 1 << 30,
        pycuda: bool = False,
        gpu: int = 0,
        allow_engine_code: bool = False,
        **trt: Any,
    ) -> World:
        engine = bundle.manifest.engines[name]
        cuda = memory_runtime(room, count=gpu + 1)
        cuda.cudaSetDevice(gpu)
        fake = MemoryTensorRT(cuda, engine.profiles or (engine.sizes,), **trt)
        package = name.replace("-", "_")
        monkeypatch.setitem(sys.modules, package, fake.module(package, "10.3.0"))
        device = PyCudaDevice(memory_pycuda(cuda)) if pycuda else CudaPythonDevice(cuda)
        monkeypatch.setattr(tensorrt, "open_device", lambda: device)
        world = World(bundle, None, device, cuda=cuda, trt=fake)
        make.last = world
        world.runner = tensorrt.open(bundle, Request(engine=name, allow_engine_code=allow_engine_code))
        return world

    return make


@pytest.fixture(
    params=[
        "cuda-python",
        "pycuda",
        pytest.param("real", marks=pytest.mark.gpu),
    ]
)
def world(request, opened, tiny, tiny_bundle, make_bundle) -> World:
    """A runner over cuda-python and pycuda in memory, and of a real engine where there is a GPU."""
    if request.param != "real":
        return opened(with_engine(tiny_bundle), pycuda=request.param == "pycuda")
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    bundle = make_bundle(tiny, ("trt-rtx",), profile=SIZES)
    # fp32 without TF32: as for the engines on a CPU
    return World(bundle, tensorrt.open(bundle, Request(engine="tensorrt-rtx")), CudaPythonDevice(), tolerance=2e-5)


@pytest.fixture
def memory_world(opened, tiny_bundle) -> World:
    return opened(with_engine(tiny_bundle))


def inputs(batch: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(height + seed)
    mask = (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)
    return rng.random((batch, 3, height, width), np.float32), mask


# -- what comes back


@pytest.mark.parametrize("output", ["inpainted", "predicted"])
def test_what_comes_back_is_what_the_engine_computed(world, output):
    for shape in ((1, 64, 64), (2, 128, 96), (1, 72, 64)):  # larger, then smaller: the buffers are reused
        world.check(*inputs(*shape), output)


def test_every_run_of_a_size_sees_its_own_inputs(world):
    for seed in range(5):  # plain, captured, replayed
        world.check(*inputs(1, 64, 72, seed))


def test_sizes_take_turns_and_outputs_too(world):
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


def test_inputs_that_are_views_of_others_are_read_right(world):
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


def test_a_runner_stays_on_its_gpu_whichever_thread_runs_it(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle), gpu=1)
    cases = [inputs(1, side, 64, seed) for seed, side in enumerate((64, 64, 64, 128))]  # it captures, replays, grows
    results: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: results.extend(world.runner.run(*case) for case in cases))
    thread.start()
    thread.join()
    for result, case in zip(results, cases, strict=True):
        np.testing.assert_array_equal(result, world.expected(*case))
    assert set(world.cuda.gpus.values()) == {1}


# -- calls and buffers


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


def test_buffers_are_there_before_the_first_run_and_grow_only_where_an_image_is_larger(memory_world):
    names = memory_world.cuda.names
    for side, mallocs, frees in ((64, 4 + 1, 0), (128, 9 + 1, 4 + 1), (96, 10, 5), (128, 10, 5)):
        memory_world.runner.run(*inputs(1, side, side))
        assert (names().count("malloc"), names().count("free")) == (mallocs, frees), side
    pixels = 128 * 128
    assert sum(map(len, memory_world.cuda.memory.values())) == (3 + 1 + 3 + 3) * pixels * 4 + SCRATCH * pixels
    assert sum(map(len, memory_world.cuda.pinned.values())) == (3 + 1 + 3) * pixels * 4


@pytest.mark.parametrize("pycuda", [False, True])
def test_everything_is_given_back_when_nobody_holds_the_runner(opened, tiny_bundle, pycuda):
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


def test_a_closed_runner_says_so(memory_world):
    memory_world.runner.run(*inputs(1, 64, 64))
    memory_world.runner.close()
    memory_world.runner.close()
    assert not memory_world.cuda.leaked
    assert memory_world.trt.engine() is None  # its weights are on the GPU too
    with pytest.raises(EngineError, match=r"was closed; open the bundle again"):
        memory_world.runner.run(*inputs(1, 64, 64))


def test_a_run_that_waited_while_the_runner_was_closed_says_so(memory_world, monkeypatch):
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


# -- graphs and plans


def test_a_size_runs_plainly_once_is_captured_the_second_time_and_replayed_from_then_on(memory_world):
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


def test_the_size_seen_longest_ago_is_given_up(memory_world):
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
def test_what_cannot_be_captured_runs_plainly_and_is_not_tried_again(opened, tiny_bundle, reason, caplog):
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


# -- optimization profiles

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


# -- errors


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_what_an_engine_cannot_do_is_one_line(opened, tiny_bundle):
    runner = opened(with_engine(tiny_bundle)).runner
    with pytest.raises(EngineError, match=r"^the batch is 3, this engine takes up to 2; .*--max-batch$"):
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


def test_an_engine_that_fails_says_so_and_runs_again_when_it_can(memory_world):
    memory_world.trt.fails = True
    for _ in range(3):
        with pytest.raises(EngineError, match=r"^TensorRT 10\.3\.0 fp32 failed to run; its log above says why$"):
            memory_world.runner.run(*inputs(1, 64, 64))
    memory_world.trt.fails = False
    for seed in range(3):
        memory_world.check(*inputs(1, 64, 64, seed))


@pytest.mark.parametrize("pycuda", [False, True])
@pytest.mark.parametrize("room", [700_000, 1_200_000])  # not enough for the tensors; for them but not for the scratch
def test_too_little_memory_is_one_line_and_everything_is_given_back(opened, tiny_bundle, pycuda, room):
    world = opened(with_engine(tiny_bundle), room=room, pycuda=pycuda)
    world.check(*inputs(1, 64, 64))
    with pytest.raises(
        EngineError,
        match=r"^TensorRT 10\.3\.0 fp32 has no memory for 1 × 160x160 \([^\n]*out of memory\); "
        r"use a smaller image or export with smaller --max-size$",
    ):
        world.runner.run(*inputs(1, 160, 160))
    assert not world.cuda.memory
    assert not world.cuda.pinned
    for seed in range(3):
        world.check(*inputs(1, 64, 64, seed))


def test_too_little_memory_for_the_usual_size_is_said_at_opening(opened, tiny_bundle):
    with pytest.raises(EngineError, match=r"no memory for the engine's usual size .* smaller --max-size$"):
        opened(with_engine(tiny_bundle), room=1000)
    gc.collect()
    assert not opened.last.cuda.leaked


def test_an_image_outside_the_profile_names_the_range_and_the_command(memory_world, photo, hole):
    inpainter = Inpainter(memory_world.runner, NetworkConfig(ngf=8))
    out = inpainter(photo, hole)
    np.testing.assert_array_equal(out[~hole], photo[~hole])
    with pytest.raises(ImageError, match=r"48x120, this engine takes 64x64…256x256; export again with --min-size"):
        inpainter(photo[:48], hole[:48])


# -- arrays in device memory


class OnDevice:
    """An array in device memory, as `__cuda_array_interface__` shows it; `changes` to what it says."""

    def __init__(self, device: Any, array: np.ndarray, offset: int = 0, **changes: Any) -> None:
        array = np.ascontiguousarray(array)
        with device.active():
            self.memory = device.allocate(array.nbytes + offset)
            block = device.pin(array.nbytes)
            block[:] = array.view(np.uint8).ravel()
            device.upload(self.memory + offset, block)
            device.synchronize()
            device.unpin(block)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.memory + offset, False),
            "version": 3,
            "stream": None,
            **changes,
        }


def test_arrays_in_device_memory_give_what_those_in_host_memory_give(world):
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


def test_what_lies_in_device_memory_is_not_copied(memory_world):
    pair = [OnDevice(memory_world.device, array) for array in inputs(1, 64, 64)]
    del memory_world.cuda.calls[:]
    memory_world.runner.run(*pair)
    assert not {"upload", "copy", "wait for"} & set(memory_world.cuda.names())


def test_addresses_that_come_back_are_captured_and_others_run_plainly(memory_world):
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
def test_addresses_that_were_set_in_part_are_all_set_again(memory_world, monkeypatch, runs):
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


def test_before_version_three_the_default_stream_is_waited_for(memory_world):
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
def test_an_array_in_device_memory_that_does_not_fit_is_one_line(memory_world, changes, message):
    image, mask = inputs(1, 64, 64)
    with pytest.raises(EngineError, match=message):
        memory_world.runner.run(OnDevice(memory_world.device, image, **changes), mask)


def test_the_runner_says_that_it_takes_arrays_in_device_memory():
    assert TensorRTRunner.takes_device_arrays


# -- uint8 graphs


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


# -- before an engine is opened


@pytest.mark.parametrize(
    ("capabilities", "runs"),
    [
        ((), True),
        (("8.9",), True),
        (("8.6", "8.9"), True),
        (("8.0+",), True),
        (("8.9+",), True),
        (("8.6",), False),
        (("9.0+",), False),
        (("12.0", "10.0+"), False),
    ],
)
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_for_other_gpus_names_both_and_the_command(opened, tiny_bundle, name, capabilities, runs):
    versions = {"tensorrt": "10.3.0", "tensorrt_rtx": "10.3.0"}
    bundle = with_engine(tiny_bundle, name, compute_capabilities=capabilities, versions=versions)
    if runs:
        opened(bundle, name).check(*inputs(1, 64, 64))
        return
    target = "--target trt" if name == "tensorrt" else r"--target trt-rtx --gpu 8\.9"
    with pytest.raises(
        EngineError,
        match=rf"^{name}: the engine is for GPUs of compute capability {re.escape(', '.join(capabilities))}, "
        rf"Memory GPU has 8\.9; rebuild with: glama-build \S+ {target}$",
    ):
        opened(bundle, name)
    assert not opened.last.cuda.leaked
    assert not opened.last.trt.calls  # it was never deserialized


@pytest.mark.parametrize(
    ("name", "built", "compatible", "runs"),
    [
        ("tensorrt", "10.3.0", False, True),
        ("tensorrt", "10.2.9", False, False),
        ("tensorrt", "10.2.9", True, True),
        ("tensorrt", "10.10.0", True, False),  # made by a newer one
        ("tensorrt", "9.3.0", True, False),
        ("tensorrt", "unknown", True, False),
        ("tensorrt-rtx", "10.2.9", True, False),  # which has no such engines
    ],
)
def test_an_engine_runs_on_the_version_that_built_it_or_if_made_so_on_later_ones(
    opened, tiny_bundle, name, built, compatible, runs
):
    versions = {name.replace("-", "_"): built}
    bundle = with_engine(tiny_bundle, name, versions=versions, settings=BuildSettings(version_compatible=compatible))
    if runs:
        world = opened(bundle, name, allow_engine_code=True)
        world.check(*inputs(1, 64, 64))
        assert f"deserialize, host code {compatible}" in world.trt.calls  # allowed, where the engine needs that
    else:
        with pytest.raises(
            EngineError, match=rf"built with \w+ {built}, 10\.3\.0 is installed; rebuild with: glama-build"
        ):
            opened(bundle, name)


def test_a_bundle_cannot_allow_the_code_of_its_own_engine(opened, tiny_bundle):
    """The manifest says that the engine is version-compatible; the user has not said to trust the engine."""
    settings = BuildSettings(version_compatible=True)
    bundle = with_engine(tiny_bundle, versions={"tensorrt": "10.2.9"}, settings=settings)
    says = r"^tensorrt: the engine is version-compatible.*native code.*allow_engine_code=True[^\n]*$"
    with pytest.raises(EngineError, match=says):
        opened(bundle)
    assert not opened.last.trt.calls  # TensorRT saw no byte of the engine
    assert not opened.last.cuda.leaked


def test_an_engine_that_was_changed_or_is_not_accepted_is_one_line(opened, tiny_bundle):
    with pytest.raises(
        EngineError, match=r"^tensorrt: \S+ was not accepted on this GPU; rebuild with: glama-build [^\n]*$"
    ):
        opened(with_engine(tiny_bundle), accepts=False)
    assert not opened.last.cuda.leaked
    good = tiny_bundle.manifest.engines["onnx"].files[0]
    changed = Artifact(path=good.path, sha256="0" * 64, bytes=good.bytes)
    with pytest.raises(BundleError, match="its SHA-256 differs"):
        opened(with_engine(tiny_bundle, files=(changed,)))
    assert not opened.last.cuda.leaked
    assert not opened.last.trt.calls


def test_an_engine_without_weights_gets_the_bundles_own(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle, settings=BuildSettings(stripped=True)))
    assert world.trt.calls == ["deserialize, host code False", "refit model.onnx"]
    world.check(*inputs(1, 64, 64))


@pytest.mark.parametrize(
    ("refits", "message"),
    [
        ({"not refittable": True}, "was built without weights and takes none; rebuild with"),
        ({"parser": True}, r"do not fit the engine \(weights of conv1 have another shape\); rebuild with"),
        ({"missing": ["a", "b"]}, r"model\.onnx lacks 2 of the engine's weights; rebuild with"),
    ],
)
def test_weights_that_do_not_go_in_are_one_line(opened, tiny_bundle, refits, message):
    with pytest.raises(EngineError, match=message) as raised:
        opened(with_engine(tiny_bundle, settings=BuildSettings(stripped=True)), refits=refits)
    assert "\n" not in str(raised.value)
    assert not opened.last.cuda.leaked


def test_an_engine_with_plugins_has_them_registered_first(opened, tiny_bundle, monkeypatch):
    bundle = with_engine(tiny_bundle)
    bundle = Bundle(bundle.path, bundle.manifest.model_copy(update={"fft": "plugin"}))
    plugins = ModuleType("glama_deploy.runtime.tensorrt.plugins")
    registered = []

    def register(trt: Any) -> None:
        registered.append((trt.__name__, list(opened.last.trt.calls)))

    plugins.register = register
    monkeypatch.setitem(sys.modules, "glama_deploy.runtime.tensorrt.plugins", plugins)
    opened(bundle)
    assert registered == [("tensorrt", [])]

    def refuse(trt: Any) -> None:
        raise EngineError("no plugins here; export with --fft matmul")

    plugins.register = refuse
    with pytest.raises(EngineError, match="no plugins here"):
        opened(bundle)
    assert not opened.last.cuda.leaked


# -- TensorRT-RTX's compiled kernels


@pytest.fixture
def rtx_bundle(tiny_bundle, tmp_path) -> Bundle:
    """The tiny bundle with a TensorRT-RTX engine in a folder of its own, to be written into."""
    folder = tmp_path / "rtx"
    shutil.copytree(tiny_bundle.path, folder)
    (folder / "tensorrt-rtx").mkdir()
    path = Path(shutil.copy(folder / "model.onnx", folder / "tensorrt-rtx" / "model.engine"))
    versions = {"tensorrt_rtx": "10.3.0"}
    bundle = Bundle(folder, tiny_bundle.manifest)
    return with_engine(bundle, "tensorrt-rtx", files=(artifact(folder, path),), versions=versions)


def finished(world: World) -> World:
    world.runner.close()
    return world


def test_compiled_kernels_are_kept_beside_the_engine_for_the_next_time(opened, rtx_bundle):
    file = rtx_bundle.path / "tensorrt-rtx" / "runtime.cache"
    world = opened(rtx_bundle, "tensorrt-rtx")
    assert world.trt.stored == []
    world.trt.kernels = b"kernels of 64x64"
    world.runner.run(*inputs(1, 64, 64))
    written = file.read_bytes()  # after a new size, not only at the end
    before = file.stat().st_mtime_ns
    for _ in range(3):
        world.runner.run(*(OnDevice(world.device, array) for array in inputs(1, 64, 64)))
    assert world.trt.serialized == 1  # a size that has run before brings nothing new
    finished(world)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (written, before)  # nothing new
    again = opened(rtx_bundle, "tensorrt-rtx")
    assert again.trt.stored == [b"kernels of 64x64"]
    again.trt.kernels += b", and those that were compiled since"
    finished(again)
    assert finished(opened(rtx_bundle, "tensorrt-rtx")).trt.stored == [again.trt.kernels]


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_file_of_kernels_never_reaches_the_engine_and_is_written_anew(opened, rtx_bundle, damage):
    file = rtx_bundle.path / "tensorrt-rtx" / "runtime.cache"
    finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x" if damage is None else damage)
    world = finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels"))
    assert world.trt.stored == []
    assert file.read_bytes() == whole


def test_kernels_of_another_gpu_are_left_out_and_written_over(opened, rtx_bundle):
    finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"for another GPU"))
    world = opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels")
    world.check(*inputs(1, 64, 64))
    finished(world)
    assert finished(opened(rtx_bundle, "tensorrt-rtx")).trt.stored == [b"kernels"]


@pytest.mark.parametrize("cache", [True, False])
def test_a_bundle_that_cannot_be_written_keeps_kernels_in_the_users_cache_or_not_at_all(
    opened, rtx_bundle, tmp_path, monkeypatch, caplog, cache
):
    caplog.set_level(logging.INFO, "glama_deploy")
    from glama_deploy.runtime.tensorrt import kernel_cache as rtx

    atomic_file = rtx.atomic_file

    def refuse(path: Path) -> Any:
        return atomic_file(path if path.is_relative_to(tmp_path / "cache") else path / "no folder")

    monkeypatch.setattr(rtx, "atomic_file", refuse)
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    if not cache:
        (tmp_path / "cache").write_text("in the way")
    world = opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels")
    world.check(*inputs(1, 64, 64))
    finished(world)
    assert "compiled kernels are not kept there: cannot write" in caplog.text
    assert finished(opened(rtx_bundle, "tensorrt-rtx")).trt.stored == ([b"kernels"] if cache else [])


def test_the_kernels_are_no_part_of_the_bundles_files(opened, rtx_bundle):
    finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels"))
    assert [path.name for path in rtx_bundle.files("tensorrt-rtx")] == ["model.engine"]


@pytest.mark.gpu
def test_a_real_engine_keeps_its_kernels(tiny, make_bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    folder = tmp_path / "copy"
    shutil.copytree(make_bundle(tiny, ("trt-rtx",), profile=SIZES).path, folder)
    bundle = Bundle.open(folder)
    results = []
    for _ in range(2):
        runner = tensorrt.open(bundle, Request(engine="tensorrt-rtx"))
        results.append([runner.run(*inputs(1, 64, 64, seed)) for seed in range(3)])
        runner.close()
        assert (folder / "tensorrt-rtx" / "runtime.cache").stat().st_size > 32
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=2e-5)  # other kernels may serve, in fp32 as exact
