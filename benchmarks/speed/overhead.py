"""What `Inpainter` does around the engine (checks, padding, conversion, compositing), as a share of the engine's time.

python benchmarks/speed/overhead.py --model BUNDLE [--backend openvino] [--size 512] [--runs 9]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.masks import by_name


def measure_overhead(inpainter: Inpainter, size: int, runs: int) -> float:
    """Measure the time that `Inpainter` takes around the engine.

    Args:
        inpainter: the inpainter; its runner is replaced by one that is timed.
        size: side of the image, in pixels.
        runs: number of runs that count.

    Returns:
        The median of the time around the engine, as a share of the engine's time.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3), np.uint8)
    mask = by_name("MediumStrokes")(size, size, rng)
    run, within = inpainter._runner.run, []

    def timed(*arguments: np.ndarray | str) -> np.ndarray:
        start = time.perf_counter()
        result = run(*arguments)  # type: ignore[arg-type]
        within.append(time.perf_counter() - start)
        return result

    inpainter._runner.run = timed  # type: ignore[assignment,method-assign]
    whole = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        inpainter(image, mask, region="full")
        whole.append(time.perf_counter() - start)
    pairs = list(zip(whole, within, strict=True))[1:]  # the first touches its memory for the first time
    return statistics.median((outer - inner) / inner for outer, inner in pairs)


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a bundle, a checkpoint or 'default'")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    inpainter = glama_deploy.load(options.model, options.backend)
    found = measure_overhead(inpainter, options.size, options.runs)
    print(f"{inpainter.description}, {options.size}×{options.size}: {found:.2%} of the engine's time around it")


if __name__ == "__main__":
    main()
