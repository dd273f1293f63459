"""The time of each part of a network on OpenVINO, which `glama-bench --profile` prints."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Sequence

from glama_deploy import cost
from glama_deploy.bundle import Bundle
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.node_names import (
    BOTTLENECK,
    COARSE_PICTURE,
    COARSE_PREFIX,
    DOWN,
    ENLARGE,
    FFT,
    GLOBAL,
    GLOBAL_TO_GLOBAL,
    GLOBAL_TO_LOCAL,
    HEAD,
    LOCAL,
    LOCAL_TO_GLOBAL,
    LOCAL_TO_LOCAL,
    PAD,
    SHRINK,
    STEM,
    UP,
)
from glama_deploy.runtime.base import Request, require
from glama_deploy.runtime.openvino import runner as openvino

#: The columns of :func:`format_parts`.
COLUMNS = ("part", "median", "share", "GFLOP/s")

#: The part of a node by its name in the graph; the first that is found counts. Beside the parts of :data:`cost.PARTS`
#: there is what multiplies nothing.
_NAMES = (
    ("reorders", r"_abcd_|_acdb_|(?i:reorder)"),
    ("pads", rf"(_|/){PAD}$"),
    ("coarse", rf"^({COARSE_PREFIX}|{SHRINK}|{ENLARGE}|{COARSE_PICTURE})"),
    ("stem", rf"^{STEM}"),
    ("down", rf"^{DOWN}"),
    ("up", rf"^{UP}"),
    ("head", rf"^{HEAD}"),
    ("fft", FFT),
    ("spectral", rf"/{GLOBAL_TO_GLOBAL}/"),
    ("local", rf"/({LOCAL_TO_LOCAL}|{LOCAL_TO_GLOBAL}|{GLOBAL_TO_LOCAL})"),
    ("sums", rf"/({LOCAL}|{GLOBAL})|^{BOTTLENECK}"),
)

#: The part of a node whose name the engine made up, by its kind.
_KINDS = {"Reorder": "reorders", "ConvolutionBackpropData": "up"}


class Part(FrozenModel):
    """A part of the network and its time.

    Args:
        name: the part's name.
        seconds: median time in a run.
        share: share of the run, 0…1.
        rate: FLOP/s; None for a part without multiplications.
    """

    name: str
    seconds: float
    share: float
    rate: float | None


def measure_parts(bundle: Bundle, precision: str, size: tuple[int, int], threads: int, runs: int) -> tuple[Part, ...]:
    """Measure the time of each part of the network on OpenVINO.

    OpenVINO fuses nodes. A fused node counts for the part that its name says.

    Args:
        bundle: the bundle.
        precision: the precision to run in.
        size: height and width of the image, in pixels.
        threads: number of CPU threads.
        runs: number of runs that count.

    Returns:
        The parts, the longest time first.

    Raises:
        GlamaError: OpenVINO is not installed, or does not support the bundle or the precision.
    """
    require("openvino", "OpenVINO", "pip install openvino")
    runner = openvino.OpenVINORunner(bundle, Request(precision, threads, compile_sizes=True))
    if precision not in ("auto", runner.precision):
        raise GlamaError(f"this CPU has no {precision}")
    found: dict[str, list[float]] = defaultdict(list)
    for number, nodes in enumerate(runner.profile(*size, runs + 1)):
        if number == 0:
            continue  # memory is touched for the first time
        total: dict[str, float] = defaultdict(float)
        for node, kind, seconds in nodes:
            total[find_part(node, kind)] += seconds
        for name, seconds in total.items():
            found[name].append(seconds)
    return _make_parts({name: statistics.median(times) for name, times in found.items()}, bundle, size)


def find_part(node: str, kind: str) -> str:
    """Find the part that a node belongs to.

    Args:
        node: the node's name in the graph.
        kind: the node's type in OpenVINO.

    Returns:
        The part's name.
    """
    if kind in _KINDS:
        return _KINDS[kind]
    return next((name for name, pattern in _NAMES if re.search(pattern, node)), "ends")


def _make_parts(times: dict[str, float], bundle: Bundle, size: tuple[int, int]) -> tuple[Part, ...]:
    work = cost.count_multiply_adds(bundle.manifest.network, size, bundle.manifest.fft)
    whole = sum(times.values())
    parts = (
        Part(
            name=name, seconds=time, share=time / whole, rate=2 * work[name] / time if time and work.get(name) else None
        )
        for name, time in times.items()
    )
    return tuple(sorted(parts, key=lambda part: -part.seconds))


def format_parts(parts: Sequence[Part]) -> list[tuple[str, str, str, str]]:
    """Format parts as rows of text.

    Args:
        parts: the parts.

    Returns:
        One row for each part, in the order of :data:`COLUMNS`.
    """
    return [
        (
            part.name,
            f"{1000 * part.seconds:.1f} ms",
            f"{part.share:.0%}",
            "" if part.rate is None else f"{part.rate / 1e9:.0f}",
        )
        for part in parts
    ]
