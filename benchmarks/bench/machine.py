"""The machine that a benchmark runs on: its description, and its peak throughput of multiplications."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from glama_deploy.runtime.base import installed
from glama_deploy.runtime.openvino.core import core
from glama_deploy.system import cpu, power
from glama_deploy.system.packages import read_versions
from glama_deploy.system.processors import count_processors

#: The entry of a machine's description that differs from run to run.
LOAD_KEY = "load before"

#: Side of the square matrices whose product is timed. They are so large that only multiplying counts.
MATRIX_SIDE = 1536

PRECISIONS = ("fp32", "bf16", "int8")

_PACKAGES = (
    "glama-deploy",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "opencv-python-headless",
    "tensorrt",
    "tensorrt-rtx",
)


def describe_machine() -> dict[str, str]:
    """Describe the machine.

    Returns:
        The CPU, cores, features, memory, system, load, power mode and the versions of the measured packages.
    """
    machine = {
        "CPU": cpu.read_model() or platform.machine(),
        "cores": str(count_processors()),
        "features": " ".join(name for name in cpu.SPEED_FEATURES if name in cpu.features()) or "unknown",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        LOAD_KEY: f"{psutil.getloadavg()[0]:.1f}",
        **power.describe_power(),
    }
    gpu = _read_gpu()
    if gpu:
        machine["GPU"] = gpu
    return machine | read_versions(*_PACKAGES)


def warn_of_load(machine: dict[str, str]) -> str | None:
    """Check whether the machine was busy before a run.

    Args:
        machine: the result of :func:`describe_machine` before the run.

    Returns:
        A warning, or None where the machine was idle.
    """
    if float(machine[LOAD_KEY]) < 0.5:
        return None
    return (
        f"the load is {machine[LOAD_KEY]} already: PyTorch loses more by what else runs than the engines do, and the "
        "ratios are too high; measure on a machine that does nothing else"
    )


def _read_gpu() -> str | None:
    """Return the name and driver of each kind of GPU here as nvidia-smi prints them, or None without a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    kinds = [line.replace(", ", ", driver ") for line in dict.fromkeys(said.stdout.splitlines())]
    return "; ".join(kinds) if said.returncode == 0 and kinds else None


def measure_peak(precision: str, threads: int, seconds: float = 2.0) -> float | None:
    """Measure the peak throughput of a matrix product.

    OpenVINO computes the product, because it reaches the limit of the CPU. Without OpenVINO NumPy does, in fp32 alone.

    Args:
        precision: one of PRECISIONS.
        threads: the number of threads.
        seconds: how long to measure.

    Returns:
        Twice the multiply-adds a second (FLOP/s, or OP/s in int8); None where this CPU or the installed packages do not
        support the precision.
    """
    if not installed("openvino"):
        return _measure_rate(_make_numpy_product(), seconds) if precision == "fp32" else None
    engine = core()
    able = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}[precision]
    is_switched_off = precision == "bf16" and cpu.is_half_switched_off("bf16")
    if is_switched_off or able not in engine.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    hint = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision]
    config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = engine.compile_model(_build_product(precision == "int8"), "CPU", config)
    request = compiled.create_infer_request()
    left = np.random.default_rng(0).standard_normal((MATRIX_SIDE, MATRIX_SIDE), np.float32)
    request.infer([left])

    def run() -> None:
        request.infer()

    return _measure_rate(run, seconds)


def _make_numpy_product() -> Callable[[], object]:
    left = np.random.default_rng(0).standard_normal((MATRIX_SIDE, MATRIX_SIDE), np.float32)
    return lambda: left @ left


def _build_product(quantized: bool) -> Any:
    """Build a model of one product with a constant matrix."""
    import openvino
    from openvino import opset13

    left = opset13.parameter([MATRIX_SIDE, MATRIX_SIDE], np.float32)
    right = opset13.constant(np.random.default_rng(1).standard_normal((MATRIX_SIDE, MATRIX_SIDE), np.float32))
    if quantized:
        ends = [opset13.constant(np.array(value, np.float32)) for value in (-4, 4, -4, 4)]
        left, right = (opset13.fake_quantize(x, *ends, levels=256 - n) for n, x in enumerate((left, right)))
        return openvino.Model([opset13.matmul(left, right, False, False)], [left.input_value(0).get_node()], "product")
    return openvino.Model([opset13.matmul(left, right, False, False)], [left], "product")


def _measure_rate(run: Callable[[], object], seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return 2 * MATRIX_SIDE**3 / best
