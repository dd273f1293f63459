"""What a size costs that an engine has not run yet, and what several sizes in turn cost, for a model of any size.

    python benchmarks/speed/new_sizes.py [--model default] [--backend openvino] [--side 320] [--rounds 3]

The first part runs sizes of nearly one area, each twice: the first run of a size minus its second run is the cost of a
new size. The second part runs 1, 2, 4, 8 and 16 known sizes in turns: a run then costs more than where one size is
repeated, if the engine forgets sizes. Costs are in seconds, and in pixels: the pixels that take the same time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from rich.console import Console
from rich.table import Table

import glama_deploy
from glama_deploy.inpainting.inpainter import Inpainter

#: Numbers of sizes that run in turns.
SIZES_IN_TURNS = (1, 2, 4, 8, 16)


def list_sizes(side: int, count: int) -> list[tuple[int, int]]:
    """List sizes of nearly one area.

    Args:
        side: side of the square with that area, in pixels.
        count: number of sizes.

    Returns:
        Heights and widths in pixels, multiples of 8.
    """
    return [(side + 8 * step, side - 8 * step) for step in range(-(count // 2), count - count // 2)]


def time_run(inpainter: Inpainter, size: tuple[int, int]) -> float:
    """Run the network once on noise with a hole in the middle.

    Args:
        inpainter: the network.
        size: height and width in pixels.

    Returns:
        Seconds of the run.
    """
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    missing = np.zeros(size, bool)
    missing[size[0] // 3 : 2 * size[0] // 3, size[1] // 3 : 2 * size[1] // 3] = True
    start = time.perf_counter()
    inpainter(image, missing, region="full")
    return time.perf_counter() - start


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    inpainter = glama_deploy.load(options.model, options.backend, options.precision, compile_sizes=False)
    sizes = list_sizes(options.side, max(SIZES_IN_TURNS))
    for _ in range(2):
        time_run(inpainter, (options.side + 64, options.side + 64))  # starts threads, and fills caches of the system
    pairs = [(time_run(inpainter, size), time_run(inpainter, size)) for size in sizes]
    again = statistics.median(second for _, second in pairs)
    new = statistics.median(first - second for first, second in pairs)
    print(f"{inpainter.description}, {options.side}x{options.side}")
    print(f"a run takes {again:.3f} s; a new size costs {new:.3f} s more, {new / again * options.side**2:.0f} pixels")
    table = Table("sizes in turns", "seconds of a run", "against one size", title="known sizes")
    found: dict[int, list[float]] = {count: [] for count in SIZES_IN_TURNS}
    for _ in range(options.rounds):
        for count in SIZES_IN_TURNS:
            start = (len(sizes) - count) // 2
            chosen = sizes[start : start + count]
            for size in chosen:
                time_run(inpainter, size)
            repeats = max(1, 8 // count)
            found[count] += [time_run(inpainter, size) for _ in range(repeats) for size in chosen]
    for count, seconds in found.items():
        middle = statistics.median(seconds)
        table.add_row(str(count), f"{middle:.3f}", f"{middle / statistics.median(found[1]):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
