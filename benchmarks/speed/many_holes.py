"""Pictures with many holes, or a long one: boxes, planning time, seconds and peak memory with `region="auto"`.

    python benchmarks/speed/many_holes.py [--model default] [--backend auto] [--cases "25 specks" ...] [--plan-only]

Each case runs in a process of its own, with an image of noise: only time and memory are measured. A case runs once,
with the sizes that it meets for the first time; CPU seconds hold on a busy machine where seconds do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

CHILD = """
import json, re, sys, time
import numpy as np
import glama_deploy
from glama_deploy.benchmarks.speed.many_holes import CASES
from glama_deploy.inpainting.planner import plan_image
name, model, backend, plan_only = sys.argv[1:]
missing = CASES[name].mask()
inpainter = glama_deploy.load(model, backend)
seconds = []
for _ in range(3):
    start = time.process_time()
    with inpainter._admit(lambda limits: plan_image(missing, "auto", limits)) as (plan, _):
        pass
    seconds.append(time.process_time() - start)
boxes = [box.span.size for batch in plan.batches for box in batch]
found = {"boxes": len(boxes), "sizes": len(set(boxes)), "megapixels": sum(h * w for h, w in boxes) / 1e6,
         "tiled": len(plan.tiles), "plan": min(seconds)}
if plan_only != "True":
    image = np.random.default_rng(0).integers(0, 256, (*missing.shape, 3), np.uint8)
    start, cpu = time.perf_counter(), time.process_time()
    inpainter(image, missing)
    found |= {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    found["peak"] = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6
print(json.dumps(found))
"""


def draw_specks(count: int, height: int, width: int, apart: int = 0) -> np.ndarray:
    """Draw specks of 3 to 12 pixels at random places.

    Args:
        count: number of specks.
        height: height of the mask, in pixels.
        width: width of the mask, in pixels.
        apart: least distance between specks, in pixels.

    Returns:
        The mask, bool [H, W].
    """
    rng, missing = np.random.default_rng(0), np.zeros((height, width), bool)
    while count:
        side = int(rng.integers(3, 13))
        top, left = int(rng.integers(height - side)), int(rng.integers(width - side))
        if not missing[max(0, top - apart) : top + side + apart, max(0, left - apart) : left + side + apart].any():
            missing[top : top + side, left : left + side] = True
            count -= 1
    return missing


def draw_lines(count: int) -> np.ndarray:
    """Draw evenly spaced lines of text, 24 rows high and 400 columns wide.

    Args:
        count: number of lines.

    Returns:
        The mask, bool [15000, 800].
    """
    missing = np.zeros((15000, 800), bool)
    for number in range(count):
        top = int((number + 0.5) * 15000 / count)
        missing[top : top + 24, 200:600] = True
    return missing


def draw_strip() -> np.ndarray:
    """Draw one strip of 14000 rows and 40 columns.

    Returns:
        The mask, bool [15000, 800].
    """
    missing = np.zeros((15000, 800), bool)
    missing[500:14500, 380:420] = True
    return missing


def draw_noise() -> np.ndarray:
    """Draw missing pixels at random places, 30 % of the mask.

    Returns:
        The mask, bool [4000, 6000].
    """
    return np.random.default_rng(0).random((4000, 6000)) < 0.3


@dataclass(frozen=True)
class Case:
    """A mask that is measured.

    Args:
        mask: draws the mask.
        plan_only: only plan the mask: the image is too large to run on this machine.
    """

    mask: Callable[[], np.ndarray]
    plan_only: bool = False


CASES = {
    "24 specks, 6 megapixels": Case(lambda: draw_specks(24, 2000, 3000, apart=300)),
    "25 specks, 6 megapixels": Case(lambda: draw_specks(25, 2000, 3000, apart=300)),
    "500 specks, 24 megapixels": Case(lambda: draw_specks(500, 4000, 6000)),
    "5000 specks, 24 megapixels": Case(lambda: draw_specks(5000, 4000, 6000), plan_only=True),
    "20 lines, 15000x800": Case(lambda: draw_lines(20)),
    "41 lines, 15000x800": Case(lambda: draw_lines(41)),
    "a strip, 15000x800": Case(draw_strip),
    "noise, 24 megapixels": Case(draw_noise, plan_only=True),
}


def measure(name: str, model: str, backend: str, plan_only: bool) -> dict[str, float]:
    """Measure one case in a process of its own.

    Args:
        name: name of the case.
        model: the model, as `load()` takes it.
        backend: the backend.
        plan_only: do not run the network.

    Returns:
        The figures by name.

    Raises:
        RuntimeError: The process failed; the message has its last line.
    """
    command = [sys.executable, "-c", CHILD, name, model, backend, str(plan_only or CASES[name].plan_only)]
    child = subprocess.run(command, capture_output=True, encoding="utf-8")
    if child.returncode:
        raise RuntimeError(f"{name}: {(child.stderr.strip().splitlines() or ['its process was killed'])[-1]}")
    found: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--plan-only", action="store_true", help="do not run the network")
    options = parser.parse_args()
    table = Table("case", "boxes", "sizes", "megapixels", "tiled holes", "planning", "seconds", "CPU seconds", "peak")
    for name in options.cases:
        found = measure(name, options.model, options.backend, options.plan_only)
        ran = [f"{found['seconds']:.1f}", f"{found['cpu']:.1f}", f"{found['peak']:.2f} GB"] if "cpu" in found else []
        planned = [f"{found['boxes']:.0f}", f"{found['sizes']:.0f}", f"{found['megapixels']:.2f}"]
        table.add_row(name, *planned, f"{found['tiled']:.0f}", f"{found['plan']:.3f} s", *ran)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
