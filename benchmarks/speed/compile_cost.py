"""What compiling one size costs with OpenVINO, what a compiled model saves, and what keeping it on disk would cost.

python benchmarks/speed/compile_cost.py BUNDLE [--sizes 256 512] [--precisions fp32 bf16] [--rounds 7]

Costs are CPU seconds, so that other processes on the machine matter less. Runs of the two forms alternate.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.bundle import Bundle
from glama_deploy.node_names import PREDICTED
from glama_deploy.psnr import compute_psnr
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.openvino import compiled_models
from glama_deploy.runtime.openvino.runner import OpenVINORunner


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    exact = OpenVINORunner(bundle, Request("fp32", compile_sizes=False))
    for precision in options.precisions:
        any_size, compiled = (
            OpenVINORunner(bundle, Request(precision, compile_sizes=compiles)) for compiles in (False, True)
        )
        if any_size.precision != precision:
            print(f"{precision}: {any_size.description}")
            continue
        measure_costs(f"{precision} any size", any_size, any_size._model.clone)
        for side in options.sizes:
            measure_costs(f"{precision} {side}x{side}", compiled, partial(compiled._fix_size, 1, side, side))
            compare_runs(exact, any_size, compiled, side, options.rounds)


def measure_costs(name: str, runner: OpenVINORunner, make: Callable[[], Any]) -> None:
    """Print what compiling, storing and importing a model cost.

    Args:
        name: What to call the model.
        runner: A runner, whose settings are used.
        make: Makes the model.
    """
    model, rewriting = measure(make)
    compiled, compiling = measure(lambda: runner._core.compile_model(model, "CPU", runner._config))
    data, exporting = measure(compiled.export_model)
    data = data if isinstance(data, bytes) else data.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.compiled"
        _, writing = measure(lambda: compiled_models.write(path, data))
        imported, importing = measure(lambda: runner._import(path))
        del imported
    print(
        f"{name}: rewrite {rewriting:.2f} s, compile {compiling:.2f} s; on disk {len(data) / 1e6:.0f} MB, "
        f"export and write {exporting + writing:.2f} s, import {importing:.2f} s (CPU)",
        flush=True,
    )


def compare_runs(
    exact: OpenVINORunner, any_size: OpenVINORunner, compiled: OpenVINORunner, side: int, rounds: int
) -> None:
    """Print the speed of two forms of a model in turns, and their distance from fp32.

    Args:
        exact: The model of any size in fp32.
        any_size: The model of any size.
        compiled: The runner that compiles the size.
        side: Height and width of the image in pixels.
        rounds: Runs of each form.
    """
    given = make_inputs(exact, side)
    expected = exact.run(*given, PREDICTED)
    errors = [runner.run(*given, PREDICTED) - expected for runner in (any_size, compiled)]
    decibels = [compute_psnr(float((error.astype(np.float64) ** 2).mean())) for error in errors]
    seconds = np.array(
        [[measure(partial(runner.run, *given))[1] for runner in (any_size, compiled)] for _ in range(rounds)]
    )
    ratio = np.median(seconds[:, 1] / seconds[:, 0])
    print(
        f"  {side}x{side}: any size {np.median(seconds[:, 0]):.2f} s (CPU), compiled {ratio:.2f} of it; "
        f"to fp32 of any size {decibels[0]:.1f} and {decibels[1]:.1f} dB",
        flush=True,
    )


def measure(call: Callable[[], Any]) -> tuple[Any, float]:
    """Call a function.

    Args:
        call: The function.

    Returns:
        Its result, and its CPU time in seconds.
    """
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def make_inputs(runner: OpenVINORunner, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth image with a square hole, as the runner takes them.

    Args:
        runner: The runner, whose tensors are float.
        side: Height and width in pixels.

    Returns:
        The image [1, 3, side, side] and the mask [1, 1, side, side], float32.
    """
    y, x = np.mgrid[:side, :side]
    image = np.stack([0.5 + 0.4 * np.sin(x / 17 + phase) * np.cos(y / 23 - phase) for phase in range(3)])
    mask = np.zeros((1, 1, side, side), np.float32)
    mask[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    return image[None].astype(np.float32), mask


if __name__ == "__main__":
    main()
