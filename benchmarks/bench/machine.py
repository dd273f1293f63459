"""The machine that a benchmark runs on: what it is, and the most that it can multiply."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from glama_deploy.runtime.base import installed
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.system.packages import read_versions
from glama_deploy.system.processors import count_processors

#: What of a CPU's features decides how fast a network runs.
FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
)

_LOAD = "load before"

#: Side of the square matrices whose product is timed; large enough that nothing but multiplying counts.
SIDE = 1536

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


def describe() -> dict[str, str]:
    """CPU, cores, features, memory, system and the versions of the packages that were measured."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    machine = {
        "CPU": info.get("model name") or platform.processor() or platform.machine(),
        "cores": str(count_processors()),
        "features": " ".join(name for name in FEATURES if name in flags) or "unknown",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()}, Python {platform.python_version()}",
        _LOAD: f"{psutil.getloadavg()[0]:.1f}",
    }
    gpu = _gpu()
    if gpu:
        machine["GPU"] = gpu
    return machine | read_versions(*_PACKAGES)


def busy(described: dict[str, str]) -> str | None:
    """What to say where a machine did other things before: PyTorch's threads wait for one another then, ours less."""
    if float(described[_LOAD]) < 0.5:
        return None
    return (
        f"the load is {described[_LOAD]} already: PyTorch loses more by what else runs than the engines do, and the "
        "ratios are too high; measure on a machine that does nothing else"
    )


def _gpu() -> str | None:
    """Name and driver of the first GPU, as NVIDIA's own tool has them; None where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False)
    return said.stdout.splitlines()[0].replace(", ", ", driver ") if said.returncode == 0 and said.stdout else None


def _cpuinfo() -> dict[str, str]:
    """Return what Linux says of the first CPU; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def peak(precision: str, threads: int, seconds: float = 2.0) -> float | None:
    """Multiply-adds a second × 2 (FLOP/s, or OP/s in int8) of a matrix product; None where this CPU, or what is
    installed, has none in that precision.

    OpenVINO's, which reaches what the CPU can; without it NumPy's, in fp32 alone.
    """
    if not installed("openvino"):
        return _rate(_numpy_product(), seconds) if precision == "fp32" else None
    core = openvino.core()
    able = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}[precision]
    if able not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return None
    hint = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision]
    config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(_product(precision == "int8"), "CPU", config)
    request = compiled.create_infer_request()
    left = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    request.infer([left])

    def run() -> None:
        request.infer()

    return _rate(run, seconds)


def _numpy_product() -> Callable[[], object]:
    left = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    return lambda: left @ left


def _product(quantized: bool) -> Any:
    """A model of one product with a constant matrix."""
    import openvino
    from openvino import opset13

    left = opset13.parameter([SIDE, SIDE], np.float32)
    right = opset13.constant(np.random.default_rng(1).standard_normal((SIDE, SIDE), np.float32))
    if quantized:
        ends = [opset13.constant(np.array(value, np.float32)) for value in (-4, 4, -4, 4)]
        left, right = (opset13.fake_quantize(x, *ends, levels=256 - n) for n, x in enumerate((left, right)))
        return openvino.Model([opset13.matmul(left, right, False, False)], [left.input_value(0).get_node()], "product")
    return openvino.Model([opset13.matmul(left, right, False, False)], [left], "product")


def _rate(run: Callable[[], object], seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
