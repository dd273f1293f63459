"""How much faster rewrites with fewer products are on OpenVINO, in CPU time and in wall time.

python benchmarks/speed/products.py --model BUNDLE [--precision fp32] [--size 512x512] [--runs 6] [--threads N]
    [--form any]

The bundle's graph is compiled for one size in four ways, and the ways run in turns: `before` has split and column
transforms only, `convolutions` has Winograd's method as well, `units` the Fourier units with the channels last, `both`
what the runner compiles. With `--form any` the graph of any size is compiled in two ways: `before` has direct
convolutions, `products` has the blocks as products of pixels. The first turn, which is the first run of the size, is
printed alone.

Ratios are medians over the turns. With `--threads 1`, CPU time is steady on a busy machine;
with more threads, waiting threads count as CPU time. `ONEDNN_MAX_CPU_ISA=AVX2` computes as an older CPU does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import (
    channels_last,
    column_convolutions,
    fed_bases,
    pixel_products,
    split_fft,
)

#: For each way, whether convolutions and Fourier units are rewritten.
WAYS = {"before": (False, False), "convolutions": (True, False), "units": (False, True), "both": (True, True)}

#: For each way of any size, whether the blocks are products of pixels.
ANY_SIZE_WAYS = {"before": False, "products": True}

#: The image's pixels for each pixel of the blocks' feature maps, along each side.
REDUCTION = 8

HINTS = {"fp32": "f32", "bf16": "bf16"}


def compile_way(file: Path, size: tuple[int, int], way: str, precision: str, threads: int) -> Any:
    """Compile a graph for one size.

    Args:
        file: the graph.
        size: height and width of the image, in pixels.
        way: a key of :data:`WAYS`.
        precision: a key of :data:`HINTS`.
        threads: number of threads, 0 for all.

    Returns:
        The infer request.
    """
    height, width = size
    model, half = openvino.core().read_model(str(file)), precision != "fp32"
    model.reshape({"image": [1, 3, height, width], "mask": [1, 1, height, width]})
    if not half:
        split_fft.rewrite(model)
    convolutions, units = WAYS[way]
    channels_last.rewrite(model, half=half, convolutions=convolutions, units=units)
    if half:
        column_convolutions.rewrite(model)
    return compile_model(model, precision, threads).create_infer_request()


def compile_any_size(file: Path, size: tuple[int, int], way: str, threads: int) -> tuple[Any, dict[str, np.ndarray]]:
    """Compile a graph for any size in fp32.

    Args:
        file: the graph.
        size: height and width of the image that will run, in pixels.
        way: a key of :data:`ANY_SIZE_WAYS`.
        threads: number of threads, 0 for all.

    Returns:
        The infer request, and the inputs beside image and mask.
    """
    model, (height, width) = openvino.core().read_model(str(file)), (side // REDUCTION for side in size)
    fed_bases.rewrite(model)
    values = fed_bases.compute(height, width)
    if ANY_SIZE_WAYS[way]:
        pixel_products.rewrite(model)
        values = pixel_products.compute_inputs(1, height, width)
    return compile_model(model, "fp32", threads).create_infer_request(), values


def compile_model(model: Any, precision: str, threads: int) -> Any:
    """Compile a model.

    Args:
        model: the `openvino.Model`.
        precision: a key of :data:`HINTS`.
        threads: number of threads, 0 for all.

    Returns:
        The compiled model.
    """
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    return openvino.core().compile_model(model, "CPU", settings)


def time_in_turns(runs: dict[str, Callable[[], object]], count: int) -> dict[str, list[tuple[float, float]]]:
    """Time functions in turns; the first turn is printed and does not count.

    Args:
        runs: the functions by name.
        count: number of turns that count.

    Returns:
        CPU seconds and wall seconds of each turn, by name.
    """
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in runs}
    for turn in range(count + 1):
        for way, run in runs.items():
            start, cpu = time.perf_counter(), time.process_time()
            run()
            if turn:
                times[way].append((time.process_time() - cpu, time.perf_counter() - start))
            else:
                print(f"{way}: the first run takes {1e3 * (time.perf_counter() - start):.0f} ms")
    return times


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--precision", choices=HINTS, default="fp32")
    parser.add_argument("--size", default="512x512")
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--form", choices=("one", "any"), default="one")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, height, width), np.float32)
    inputs = {"image": image, "mask": (rng.random((1, 1, height, width)) < 0.3).astype(np.float32)}
    file = options.model / "openvino" / "model.xml"
    runs: dict[str, Callable[[], object]] = {}
    if options.form == "any":
        if options.precision != "fp32":
            parser.error("--form any compares models in fp32")
        for way in ANY_SIZE_WAYS:
            request, values = compile_any_size(file, (height, width), way, options.threads)
            runs[way] = partial(request.infer, inputs | values)
    else:
        for way in WAYS:
            request = compile_way(file, (height, width), way, options.precision, options.threads)
            runs[way] = partial(request.infer, inputs)
    times = time_in_turns(runs, options.runs)
    before = times["before"]
    for way, found in times.items():
        ratios = [
            statistics.median(then[kind] / now[kind] for then, now in zip(before, found, strict=True))
            for kind in (0, 1)
        ]
        cpu, wall = (1e3 * min(each[kind] for each in found) for kind in (0, 1))
        print(f"{way}: {ratios[0]:.2f}x in CPU time ({cpu:.0f} ms at best), {ratios[1]:.2f}x in wall time ({wall:.0f})")


if __name__ == "__main__":
    main()
