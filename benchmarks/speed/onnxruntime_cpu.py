"""ONNX Runtime's CPU provider: a bundle's graphs as they are, and the fp32 graph with fewer multiplications.

python benchmarks/speed/onnxruntime_cpu.py --model BUNDLE [--sizes 256 512] [--rounds 9] [--threads 2] [--operators]

The forms run in turns. A ratio is the median over all rounds of the time of the first form, the fp32 graph as it is, by
the time of the other form in the same round: above 1 the other form is faster. Where other programs run, the ratio of
CPU seconds is the better one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.bundle import Bundle
from glama_deploy.node_names import IMAGE, INPAINTED, MASK
from glama_deploy.runtime.onnxruntime import model_file, winograd
from glama_deploy.runtime.onnxruntime.providers import require_onnxruntime

#: A function that runs a form on the inputs.
Run = Callable[[dict[str, np.ndarray]], np.ndarray]


def open_forms(bundle: Bundle, threads: int, profiles: Path | None) -> dict[str, tuple[Any, Run]]:
    """Open all forms of a bundle's graphs.

    Args:
        bundle: The bundle, whose inputs are float.
        threads: Threads inside an operator.
        profiles: The folder for profiles; None: no profiles.

    Returns:
        The sessions, and functions that run them, by the form's name. The first is the fp32 graph as it is.
    """
    onnxruntime = require_onnxruntime()
    opened: dict[str, tuple[Any, Run]] = {}

    def add(name: str, model: str | bytes, weights: dict[str, np.ndarray]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level, options.enable_mem_pattern = threads, 3, False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profiles is not None:
            options.enable_profiling, options.profile_file_prefix = True, str(profiles / name.replace(" ", "-"))
        start = time.perf_counter()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        print(f"{name}: the session opens in {time.perf_counter() - start:.2f} s")
        opened[name] = session, lambda inputs: session.run([INPAINTED], inputs | weights)[0]

    path = bundle.graph("fp32")
    add("fp32", str(path), {})
    start = time.perf_counter()
    model = model_file.read_model(path)
    found, weights = winograd.rewrite(model)
    print(f"{len(found)} convolutions are rewritten in {time.perf_counter() - start:.2f} s")
    add("fp32 winograd", model.SerializeToString(), weights)
    if "int8" in bundle.manifest.graphs:
        add("int8", str(bundle.graph("int8")), {})
    return opened


def measure(runs: dict[str, Run], inputs: dict[str, np.ndarray], rounds: int) -> None:
    """Time the forms in turns, and print the results.

    Args:
        runs: The forms by name.
        inputs: The inputs of each run.
        rounds: How often each form runs, besides the first time.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            found[name] = run(inputs)
            if turn:
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - start_cpu)
    first = next(iter(runs))
    for name in runs:
        by_wall, by_cpu = (
            statistics.median(a / b for a, b in zip(times[first], times[name], strict=True)) for times in (wall, cpu)
        )
        error = float(np.abs(found[name] - found[first]).max())
        milliseconds = [1e3 * statistics.median(times[name]) for times in (wall, cpu)]
        print(
            f"  {name:14s} {milliseconds[0]:6.0f} ms, CPU {milliseconds[1]:6.0f} ms; against {first}: {by_wall:.2f}x, "
            f"CPU {by_cpu:.2f}x, largest difference {error:.1e}",
            flush=True,
        )


def print_operators(path: Path, runs: int) -> None:
    """Print the time of each kind of operator.

    Args:
        path: A profile of ONNX Runtime.
        runs: How many runs it has.
    """
    seconds: Counter[str] = Counter()
    for event in json.loads(path.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seconds[event["args"]["op_name"]] += event["dur"] / 1e6
    print(", ".join(f"{kind} {1e3 * total / runs:.0f} ms" for kind, total in seconds.most_common(12)))


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="a bundle with float inputs")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--operators", action="store_true", help="print the time by operator (runs are slower)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        profiles = Path(folder) if options.operators else None
        forms = open_forms(Bundle.open(options.model), options.threads, profiles)
        for size in options.sizes:
            print(f"{size}x{size}")
            image = rng.random((1, 3, size, size), np.float32)
            mask = (rng.random((1, 1, size, size)) < 0.3).astype(np.float32)
            measure({name: run for name, (_, run) in forms.items()}, {IMAGE: image, MASK: mask}, options.rounds)
        for name, (session, _) in forms.items() if options.operators else ():
            print(f"{name}: ", end="")
            print_operators(Path(session.end_profiling()), len(options.sizes) * (options.rounds + 1))


if __name__ == "__main__":
    main()
