"""Time and memory of one image by its size, up to 4096×4096: what the engines' memory is estimated with.

    python benchmarks/speed/scale.py [--network lama|default] [--backend openvino] [--precisions fp32 bf16]
        [--forms one any] [--sizes 256 512 1024 2048 4096] [--hole 0] [--memory GB] [--static] [--out FOLDER]

Every size in a process of its own, which sees the whole image. A size that does not fit into the memory is a row that
says so. `--static` exports a graph for each size (`glama-export --size`), whose FFT is then the cheapest for it.
`--forms one` compiles a model for each size (OpenVINO), `any` does not. The memory of a run is the rise of the
process's peak in the first run of the size, which compiles: what the estimate stands beside. With
`ONEDNN_MAX_CPU_ISA=AVX2` in the environment OpenVINO computes as an older CPU.
With `--memory` so much counts as free, and what does not fit into it is filled by tiles (`--region auto`); `--hole` is
the side of a square hole in the middle, as a share of the image's, in place of a strip at the top.
`--out` writes scale.png.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glama_deploy.checkpoints import formats
from glama_deploy.export.pipeline import Request, export
from glama_deploy.io.files import atomic_file
from glama_deploy.network import NAMED

CHILD = """
import re, sys, time
import numpy as np
import glama_deploy
from glama_deploy import memory
model, backend, precision, form = sys.argv[1:5]
side, hole, free = int(sys.argv[5]), *map(float, sys.argv[6:])
memory.available = lambda: int(free * 1e9) if free else None

def held():
    # getrusage would count what the parent held when it forked
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

try:
    inpainter = glama_deploy.load(model, backend, precision, compile_sizes=form == "one")
    if precision != inpainter.precision:
        sys.exit(inpainter.description)
    mask = np.zeros((side, side), bool)
    rest = int(side * (1 - hole) / 2)
    mask[(slice(rest, side - rest),) * 2 if hole else slice(8)] = True
    if inpainter._runner.sizes.covers(64, 64):
        inpainter(np.zeros((64, 64, 3), np.uint8), mask[:64, :64])
    before, needed, rise = held(), inpainter._runner.memory_needed((side, side)), None
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    times = []
    while len(times) < 2 or (len(times) < 5 and sum(times) < 40):  # the first compiles, and counts for nothing
        start = time.perf_counter()
        inpainter(image, mask, region="auto" if free else "full")
        times.append(time.perf_counter() - start)
        rise = rise or held() - before
except glama_deploy.GlamaError as error:
    sys.exit(str(error))
print(held(), min(times[1:]), rise, needed)
"""


@dataclass(frozen=True)
class Point:
    """A size in a precision and a form.

    Attributes:
        precision: precision and form, for people.
        side: side of the image in pixels.
        peak: most bytes of the process.
        seconds: seconds of the fastest run.
        rise: bytes of the first run.
        estimated: bytes that the runner estimates for the first run.
        reason: why the size was not measured.
    """

    precision: str
    side: int
    peak: int = 0
    seconds: float = 0.0
    rise: int = 0
    estimated: int = 0
    reason: str = ""


def measure(model: Path, backend: str, precision: str, form: str, side: int, hole: float, free: float) -> Point:
    """Measure a size in a process of its own.

    Args:
        model: the bundle or checkpoint.
        backend: the backend.
        precision: the precision.
        form: `one` for a model of the size alone, `any` for one of any size.
        side: side of the image, in pixels.
        hole: side of a square hole, as a share of the image's side; 0 for a strip at the top.
        free: free memory to assume, in GB; 0 for the machine's.

    Returns:
        The figures, or the reason why there are none.
    """
    command = [sys.executable, "-c", CHILD, str(model), backend, precision, form, str(side), str(hole), str(free)]
    name = f"{precision}, {form} size"
    child = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if not child.returncode and free:
        print("\n".join(dict.fromkeys(child.stderr.splitlines())))  # what was filled by tiles
    if child.returncode:
        return Point(name, side, reason=(child.stderr.strip().splitlines() or ["its process was killed"])[-1])
    peak, seconds, rise, estimated = child.stdout.split()[-4:]
    return Point(name, side, int(peak), float(seconds), int(rise), int(estimated))


def print_table(console: Console, points: list[Point], name: str) -> None:
    """Print the figures of all sizes.

    Args:
        console: where the table is printed.
        points: the sizes.
        name: title of the table.
    """
    columns = ("precision", "size", "time", "a pixel", "against 512²", "peak memory", "of the run", "estimated")
    table = Table(*columns, title=name)
    base = {point.precision: point for point in points if point.side == 512 and not point.reason}
    for point in points:
        size = f"{point.side}×{point.side}"
        if point.reason:
            table.add_row(point.precision, size, point.reason)
            continue
        each = 1e9 * point.seconds / point.side**2
        against = ""
        if point.precision in base:
            against = f"{each / (1e9 * base[point.precision].seconds / 512**2):.2f}×"
        figures = (f"{point.seconds:.2f} s", f"{each:.0f} ns", against, f"{point.peak / 1e9:.2f} GB")
        estimated = f"{point.estimated / 1e9:.2f} GB ({point.estimated / max(1, point.rise):.2f}×)"
        table.add_row(point.precision, size, *figures, f"{point.rise / 1e9:.2f} GB", estimated)
    console.print(table)


def plot_points(points: list[Point], path: Path) -> None:
    """Plot time and memory by size.

    Args:
        points: the sizes.
        path: the PNG file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    all_sides = sorted({point.side for point in points})
    time, peak = figure.subplots(1, 2)
    for precision in dict.fromkeys(point.precision for point in points):
        there = [point for point in points if point.precision == precision and not point.reason]
        sides = [point.side for point in there]
        time.plot(sides, [1e9 * point.seconds / point.side**2 for point in there], "o-", label=precision)
        peak.plot(sides, [point.peak / 1e9 for point in there], "o-", label=precision)
    for axis, label in ((time, "ns a pixel"), (peak, "peak memory, GB")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(all_sides, [f"{side}²" for side in all_sides])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lama", choices=[*NAMED, "default"])
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--forms", nargs="+", default=["one"], choices=["one", "any"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--hole", type=float, default=0.0)
    parser.add_argument("--memory", type=float, default=0.0)
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    points = []
    with tempfile.TemporaryDirectory() as folder:
        from glama_deploy.reference.random_weights import untrained

        if options.network == "default":
            source = formats.find_weights_file("default")
        else:
            source, network = Path(folder) / "network.safetensors", NAMED[options.network]
            formats.save(source, network, untrained(network))
        for side in options.sizes:
            bundle = Path(folder) / (str(side) if options.static else "any")
            if options.backend != "torch" and not bundle.exists():
                size = (side, side) if options.static else None
                export(Request(source, bundle, ("openvino",), size=size, parity=False))
            model = source if options.backend == "torch" else bundle
            points += [
                measure(model, options.backend, precision, form, side, options.hole, options.memory)
                for precision in options.precisions
                for form in options.forms
            ]
    points.sort(key=lambda point: (point.precision, point.side))
    print_table(Console(width=130), points, options.network)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        plot_points(points, options.out / "scale.png")


if __name__ == "__main__":
    main()
