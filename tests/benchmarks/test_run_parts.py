"""The parts of a run: a CPU's, a GPU's over a simulated driver, percentiles, and the GPU memory that is used."""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import pytest

import glama_deploy
from fakes.cuda_runtime import MemoryRuntime
from fakes.tensorrt_bundles import SIZES, with_engine
from fakes.tensorrt_runtime import MemoryTensorRT
from glama_deploy.benchmarks.bench import contenders, results, run, run_parts
from glama_deploy.benchmarks.bench.contenders import Task
from glama_deploy.benchmarks.bench.run import Results, Row
from glama_deploy.benchmarks.bench.run_parts import EngineClock, GpuMemory, Percentiles, compute_percentiles
from glama_deploy.bundle import SizeRange
from glama_deploy.errors import EngineError
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.tensorrt import runner as tensorrt

#: The three optimization profiles of an engine, the smallest first.
PROFILES = tuple(
    SizeRange(min=(64, 64), opt=(side, side), max=(most, most), max_batch=2)
    for side, most in ((128, 192), (256, 320), (512, 1024))
)


@pytest.fixture
def cuda(monkeypatch) -> MemoryRuntime:
    """A simulated driver, with a TensorRT whose engines take 5 ms of its time."""
    runtime = MemoryRuntime()
    monkeypatch.setitem(sys.modules, "tensorrt", MemoryTensorRT(runtime, (SIZES,)).module("tensorrt", "10.3.0"))
    for module in (tensorrt, run_parts):
        monkeypatch.setattr(module, "open_device", lambda index=None: CudaPythonDevice(runtime, index))
    return runtime


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((96, 128), bool)
    mask[20:60, 30:90] = True
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8), mask


def test_a_run_on_a_gpu_has_copies_and_computation_by_the_gpus_clock(cuda, tiny_bundle, scene):
    bundle = with_engine(tiny_bundle)
    inpainter = Inpainter(tensorrt.open(bundle, Request(engine="tensorrt")), bundle.manifest.network)
    clock = EngineClock(inpainter)
    byte_seconds = cuda.COPY_MS_PER_BYTE / 1000
    for _ in range(3):  # plain, captured, replayed
        inpainter(*scene, region="full")
        found = clock.take_parts()
        assert set(found) == {"upload", "compute", "download"}
        assert found["upload"] == pytest.approx((3 + 1) * 4 * 96 * 128 * byte_seconds)
        assert found["compute"] == pytest.approx(cuda.RUN_MS / 1000)
        assert found["download"] == pytest.approx(3 * 4 * 96 * 128 * byte_seconds)
    assert clock.take_parts() == {}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_computation_of_a_cpu_is_what_its_engine_takes_of_the_run(tiny_bundle, scene, backend):
    inpainter = glama_deploy.load(tiny_bundle.path, backend)
    clock = EngineClock(inpainter)
    start = time.perf_counter()
    filled = inpainter(*scene)
    seconds = time.perf_counter() - start
    found = clock.take_parts()
    assert set(found) == {"compute"}
    assert 0 < found["compute"] < seconds
    np.testing.assert_array_equal(filled, glama_deploy.load(tiny_bundle.path, backend)(*scene))


def test_several_runs_of_an_engine_in_one_call_are_summed(tiny_bundle, scene):
    """Two holes of different sizes are two runs."""
    image, mask = np.tile(scene[0], (8, 8, 1)), np.zeros((768, 1024), bool)
    mask[10:20, 10:20] = mask[600:700, 800:960] = True
    inpainter = glama_deploy.load(tiny_bundle.path, "onnxruntime")
    runs = []
    engine = inpainter._runner
    for name in ("run", "run_window"):
        each = getattr(engine, name)
        setattr(engine, name, lambda *values, each=each: (runs.append(1), time.sleep(0.05), each(*values))[2])
    clock = EngineClock(inpainter)
    inpainter(image, mask, region="crop")
    assert len(runs) == 2
    assert clock.take_parts()["compute"] > 0.1  # both runs wait


def test_percentiles_interpolate_between_the_nearest_runs():
    seconds = [float(value) for value in np.random.default_rng(0).permutation(200) ** 1.5]
    found, cuts = compute_percentiles(seconds), statistics.quantiles(seconds, n=100, method="inclusive")
    # NumPy's sum has another order
    assert (found.p50, found.p90, found.p99) == pytest.approx((cuts[49], cuts[89], cuts[98]), rel=1e-12)


@pytest.mark.parametrize(
    ("runs", "known"), [(1, (True, False, False)), (10, (True, True, False)), (99, (True, True, False))]
)
def test_few_runs_do_not_tell_high_percentiles(runs, known):
    found = compute_percentiles([1.0] * runs)
    assert tuple(value is not None for value in (found.p50, found.p90, found.p99)) == known


def test_the_gpu_memory_is_what_was_free_before(cuda):
    memory = GpuMemory()
    assert memory.read_used() == 0
    cuda.cudaMalloc(3 << 20)
    assert memory.read_used() == 3 << 20


def test_the_gpu_memory_of_a_jetson_and_of_a_machine_without_a_gpu_is_not_known(cuda, monkeypatch):
    cuda.is_integrated = True
    assert GpuMemory().read_used() is None

    def fail(index: int | None) -> None:
        raise EngineError("no NVIDIA driver or GPU here")

    monkeypatch.setattr(run_parts, "open_device", fail)
    assert GpuMemory().read_used() is None


@pytest.mark.parametrize(
    ("subject", "device", "opened"),
    [
        ("tensorrt", "", [None]),
        ("tensorrt", "cuda:1", [1]),
        ("torch:cuda", "cuda:1", [None]),  # a peer computes where its name says
        ("torch:cuda:fp16", "cuda:1", [1]),
        ("onnxruntime:webgpu", "", []),  # CUDA does not know the memory of other GPUs
        ("openvino", "GPU", []),
        ("openvino", "", []),
    ],
)
def test_the_gpu_memory_is_that_of_the_gpu_that_computes(monkeypatch, tiny_bundle, subject, device, opened):
    asked = []
    monkeypatch.setattr(contenders, "GpuMemory", asked.append)
    contenders._watch_memory(Task(subject, tiny_bundle.path, None, (64, 64), 1, 1, device=device))
    assert asked == opened


def test_a_size_of_each_optimization_profile_is_measured_and_named(tiny_bundle):
    bundle = with_engine(tiny_bundle, profiles=PROFILES)
    assert run.list_usual_sizes(bundle) == [(128, 128), (256, 256), (512, 512)]
    assert run.list_usual_sizes(tiny_bundle) == [(512, 512)]
    task = Task("tensorrt", bundle.path, None, (256, 256), 1, 1)
    assert run._name_profile(bundle, task) == "2 of 3"
    for other in ({"subject": "openvino"}, {"size": (2048, 2048)}, {"batch": 3}):
        assert run._name_profile(bundle, Task(**{**vars(task), **other})) == ""


def test_a_bundle_of_one_size_is_measured_at_its_size(tiny, make_bundle):
    assert run.list_usual_sizes(make_bundle(tiny, ("onnx",), size=(64, 72))) == [(64, 72)]


def test_the_limit_of_the_cpu_is_not_measured_for_a_gpu_alone(tiny_bundle, monkeypatch):
    monkeypatch.setattr(run, "_measure_in_turns", lambda tasks, runs, step: [])
    monkeypatch.setattr(run.machine, "measure_peak", lambda precision, threads: 1e9)
    for subjects, peaks in ((["tensorrt"], set()), (["tensorrt", "openvino"], {"fp32", "bf16", "int8"})):
        found = run.measure(tiny_bundle, None, subjects, [(64, 64)], [1], [1], 1)
        assert set(found.peaks) == peaks
        assert ("A matrix product reaches" in results.format_markdown(found)) == bool(peaks)


def test_the_tables_show_each_part_and_a_dash_for_what_is_not_known():
    def same(seconds: float) -> Percentiles:
        return Percentiles(p50=seconds, p90=seconds, p99=None)

    latency = {"total": same(0.0123), "upload": same(0.0004), "compute": same(0.01), "download": same(0.0003)}
    row = Row(
        subject="tensorrt",
        size=(256, 256),
        batch=1,
        threads=2,
        description="TensorRT 10.3.0 fp16",
        profile="2 of 3",
        seconds=(0.0123,) * 10,
        latency={**latency, "host": same(0.0016)},
        images_per_second=81.3,
        gpu_bytes=250_000_000,
    )
    on_cpu = row.model_copy(
        update={"profile": "", "description": "CPU", "latency": {"total": same(0.7)}, "gpu_bytes": None}
    )
    text = results.format_markdown(Results(network="n", machine={}, runs=10, peaks={}, rows=(row, on_cpu)))
    line = "| TensorRT 10.3.0 fp16, profile 2 of 3 | 12.3 | 12.3 | – | 81.3 | 0.40 | 10.0 | 0.30 | 1.60 | 0.25 GB |"
    assert line in text
    assert "| CPU | 700 | 700 | – | 81.3 | – | – | – | – | – |" in text
