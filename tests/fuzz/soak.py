"""Many requests from several threads on one inpainter: equal results, flat memory (`make soak`).

A child process computes the right results one after the other. Another child then serves the requests, so that the
memory which is measured is the service's alone. Sizes that the service did not meet before keep coming until the end:
an engine that keeps something for every size grows.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import psutil
from pydantic import TypeAdapter

import glama_deploy
from fuzz.report import table
from glama_deploy.inpainting.inpainter import Inpainter

#: Sides of the pictures in pixels, and how many different pictures there are.
_SIDES, _PICTURES = (64, 160), 400

#: Pictures of a batch request, and the share of the requests that are batches.
_BATCH, _BATCH_SHARE = 3, 0.05

#: Requests between two looks at the memory; fewer in a short run, which needs several samples of a tenth of the run.
_SAMPLE_REQUESTS, _LEAST_SAMPLES = 100, 50

#: The service has warmed up after this share of the requests; from there on memory may grow by the second number.
_WARM_SHARE, MAX_GROWTH = 0.2, 0.05

#: Every so many requests ONNX Runtime gets one, as that engine serves one request at a time.
_SHARES = {"openvino": 1, "onnxruntime": 5}


@dataclass(frozen=True)
class Request:
    """A picture by its number, and how the inpainter is asked."""

    picture: int
    way: Literal["auto", "full", "batch"]


@dataclass(frozen=True)
class Outcome:
    """What a service measured; memory is resident, in bytes, and percentiles are in seconds."""

    requests: int
    wrong: int
    failed: tuple[str, ...]
    seconds: float
    median: float
    percentile_99: float
    memory: dict[int, int]
    growth: float

    @property
    def passed(self) -> bool:
        return not self.wrong and not self.failed and self.growth <= MAX_GROWTH


def picture(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture of a number (uint8 H×W×3) and its mask (bool H×W): the same in every process."""
    rng = np.random.default_rng(number)
    height, width = rng.integers(_SIDES[0], _SIDES[1] + 1, 2)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(y / rng.uniform(3, 40) + x / rng.uniform(3, 40)) for _ in range(3)]
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 4)):
        top, left = rng.integers(height - 20), rng.integers(width - 20)
        mask[top : top + rng.integers(4, 20), left : left + rng.integers(4, 20)] = True
    return np.stack(waves, axis=2).astype(np.uint8), mask


def requests(count: int, seed: int) -> list[Request]:
    """Return the requests in order; each may have any picture of a share of all pictures that grows to the end."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        known = max(1, round(_PICTURES * (number + 1) / count))
        way = "batch" if rng.random() < _BATCH_SHARE else rng.choice(("auto", "full"))
        made.append(Request(rng.randrange(known), cast(Literal["auto", "full", "batch"], way)))
    return made


def answer(inpainter: Inpainter, request: Request) -> np.ndarray:
    """Return the inpainter's answer to a request; of a batch of equal pictures, which must be equal, one."""
    image, mask = picture(request.picture)
    if request.way != "batch":
        return inpainter(image, mask, region=request.way)
    several = inpainter.batch(np.stack([image] * _BATCH), np.stack([mask] * _BATCH))
    if any(not np.array_equal(each, several[0]) for each in several):
        raise ValueError("equal pictures of a batch have different results")
    return np.asarray(several[0])


def load(backend: str, streams: int) -> Inpainter:
    """Return the embedded network on a backend; no size is compiled for itself, which would change results."""
    return glama_deploy.load("default", backend, compile_sizes=False, streams=streams)


def write_truth(backend: str, streams: int, asked: list[Request], out: Path) -> None:
    """Compute the answer to every different request, one after the other, and write the answers."""
    inpainter = load(backend, streams)
    with zipfile.ZipFile(out, "w") as archive:
        for request in dict.fromkeys(asked):
            with archive.open(f"{_key(request)}.npy", "w") as file:
                np.save(file, answer(inpainter, request))


def _key(request: Request) -> str:
    return f"{request.way}-{request.picture}"


def serve(backend: str, streams: int, threads: int, asked: list[Request], truth: Path) -> Outcome:
    """Answer the requests from several threads, compare, and measure the memory."""
    with np.load(truth) as arrays:
        right = {name: arrays[name] for name in arrays.files}
    inpainter = load(backend, streams)
    answer(inpainter, asked[0])
    process, every = psutil.Process(), max(1, min(_SAMPLE_REQUESTS, len(asked) // _LEAST_SAMPLES))
    memory: dict[int, int] = {}
    failed: list[str] = []
    wrong, done, lock = [0], [0], threading.Lock()

    def one(request: Request) -> float:
        start = time.perf_counter()
        try:
            found = answer(inpainter, request)
        except Exception as error:  # noqa: BLE001  (every failure is counted and makes the run fail)
            with lock:
                failed.append(f"{type(error).__name__}: {error}")
            found = right[_key(request)]
        seconds = time.perf_counter() - start
        equal = np.array_equal(found, right[_key(request)])
        with lock:
            wrong[0] += not equal
            done[0] += 1
            if done[0] % every == 0:
                memory[done[0]] = process.memory_info().rss
        return seconds

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        seconds = sorted(pool.map(one, asked))
    return Outcome(
        requests=len(asked),
        wrong=wrong[0],
        failed=tuple(failed),
        seconds=time.perf_counter() - start,
        median=statistics.median(seconds),
        percentile_99=seconds[int(0.99 * (len(seconds) - 1))],
        memory=memory,
        growth=growth(memory),
    )


def growth(memory: dict[int, int]) -> float:
    """Return by which share the memory is larger in the last tenth of the requests than after the warm-up.

    Both are medians of the samples of a tenth of the run, so that one sample decides nothing.

    Args:
        memory: bytes by the number of requests that were done.
    """
    last = max(memory)
    warm = [size for done, size in memory.items() if _WARM_SHARE * last <= done <= (_WARM_SHARE + 0.1) * last]
    end = [size for done, size in memory.items() if done >= 0.9 * last]
    return statistics.median(end) / statistics.median(warm) - 1


def row(backend: str, threads: int, outcome: Outcome) -> tuple[object, ...]:
    """Return an outcome as a row of the table."""
    last = max(outcome.memory)

    def megabytes(share: float) -> str:
        nearest = min(outcome.memory, key=lambda done: abs(done - share * last))
        return f"{outcome.memory[nearest] / 1e6:.0f}"

    memory = (megabytes(0.1), megabytes(0.5), megabytes(1.0), f"{outcome.growth:+.1%}")
    times = (f"{1e3 * outcome.median:.0f}", f"{1e3 * outcome.percentile_99:.0f}", f"{outcome.seconds:.0f}")
    return (backend, outcome.requests, threads, outcome.wrong, len(outcome.failed), *memory, *times)


COLUMNS = (
    *("engine", "requests", "threads", "wrong", "failed", "MB at 10 %", "MB at 50 %", "MB at the end"),
    *("growth", "median, ms", "99 %, ms", "seconds"),
)


def run(backend: str, count: int, threads: int, seed: int, folder: Path) -> Outcome:
    """Run truth and service of a backend, each in a process of its own. Raises CalledProcessError where one fails."""
    truth, result = folder / f"{backend}.npz", folder / f"{backend}.json"
    command = [sys.executable, "-m", "fuzz.soak", "--requests", str(count), "--threads", str(threads)]
    command += ["--seed", str(seed), "--backend", backend, "--truth", str(truth)]
    subprocess.run(command, check=True)
    subprocess.run([*command, "--result", str(result)], check=True)
    return TypeAdapter(Outcome).validate_json(result.read_bytes())


def main() -> int:
    """Return 1 where a result was wrong, a request failed, or the memory grew."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", action="append", choices=tuple(_SHARES), help="both by default")
    parser.add_argument("--truth", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.truth is None:
        return _all(options.backend or list(_SHARES), options.requests, options.threads, options.seed)
    (backend,) = options.backend
    streams = min(2, os.cpu_count() or 1) if backend == "openvino" else 1
    asked = requests(options.requests, options.seed)
    if options.result is None:
        write_truth(backend, streams, asked, options.truth)
    else:
        outcome = serve(backend, streams, options.threads, asked, options.truth)
        options.result.write_bytes(TypeAdapter(Outcome).dump_json(outcome))
    return 0


def _all(backends: list[str], count: int, threads: int, seed: int) -> int:
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        os.environ["GLAMA_CACHE"] = str(Path(name) / "cache")
        outcomes = {backend: run(backend, count // _SHARES[backend], threads, seed, Path(name)) for backend in backends}
    print(table(COLUMNS, [row(backend, threads, outcome) for backend, outcome in outcomes.items()]))
    for backend, outcome in outcomes.items():
        if outcome.failed:
            print(f"{backend}: {outcome.failed[0]}")
    return 0 if all(outcome.passed for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
