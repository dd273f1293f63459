"""Run subjects in turns; compute medians, ratios to TorchScript, and shares of the machine's peak throughput."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from glama_deploy import cost
from glama_deploy.benchmarks.bench import layer_times, machine
from glama_deploy.benchmarks.bench.contenders import HOLE_MARK, Running, Task, Timing, runs_on_gpu
from glama_deploy.benchmarks.bench.layer_times import Part
from glama_deploy.benchmarks.bench.run_parts import HOST, TOTAL, Percentiles, compute_percentiles
from glama_deploy.bundle import Bundle, EngineName, Size, SizeRange
from glama_deploy.catalogue import ENGINES, OPENVINO, PRECISIONS
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.runtime.tensorrt.runner import find_tightest_profile

#: The ratios of other subjects are to this one, on a GPU to the next: popular inpainting apps run LaMa in TorchScript.
BASE_SUBJECT = "torchscript"
_GPU_BASE_SUBJECT = f"{BASE_SUBJECT}:cuda"

#: The size that is measured where none is given.
USUAL_SIZE = (512, 512)

#: The answer of a subject.
Answer = TypeVar("Answer")


class Row(FrozenModel):
    """A subject at one size, batch and number of threads.

    `latency` has the whole run and its parts, as `run_parts` names them. `reason` says why the subject was not
    measured. `parts` has the time of each part of the network, where this was asked for. `gpu_bytes` is None where the
    GPU memory is not known.
    """

    subject: str
    size: tuple[int, int]
    batch: int
    threads: int
    description: str = ""
    precision: str = ""
    profile: str = ""
    seconds: tuple[float, ...] = ()
    latency: dict[str, Percentiles] = {}  # noqa: RUF012  # pydantic copies it
    images_per_second: float | None = None
    ratio: float | None = None
    share: float | None = None
    peak_bytes: int | None = None
    gpu_bytes: int | None = None
    reason: str = ""
    parts: tuple[Part, ...] = ()
    #: Where the engines of this project computed, if the user named a device.
    device: str = ""

    @property
    def median(self) -> float:
        """Return the median seconds of a run."""
        return statistics.median(self.seconds)


class Results(FrozenModel):
    """All that one run of `glama-bench` measured; its JSON file has the same fields."""

    schema_version: Literal[1, 2] = 2
    network: str
    machine: dict[str, str]
    runs: int
    #: FLOP/s (int8: OP/s) of a matrix product, by precision and threads.
    peaks: dict[str, dict[int, float]]
    rows: tuple[Row, ...]


def list_usual_sizes(bundle: Bundle) -> list[Size]:
    """List the sizes that are measured where none is given.

    Args:
        bundle: the bundle.

    Returns:
        Heights and widths in pixels: the tuned size of each optimization profile; without profiles 512x512, or the
        bundle's own size.
    """
    if bundle.sizes.static:
        return [bundle.sizes.opt]
    sizes = [profile.opt for name in bundle.manifest.engines for profile in _list_profiles(bundle, name)]
    return list(dict.fromkeys(sizes)) or [USUAL_SIZE]


def _list_profiles(bundle: Bundle, name: EngineName) -> tuple[SizeRange, ...]:
    """Return the optimization profiles of an engine; none for an engine that takes all sizes alike."""
    engine = bundle.manifest.engines[name]
    return engine.profiles or ((engine.sizes,) if ENGINES[name].devices == ("cuda",) else ())


def _name_profile(bundle: Bundle, task: Task) -> str:
    """Name the optimization profile that runs a task; empty for an engine without several profiles."""
    for name in bundle.manifest.engines:
        profiles = _list_profiles(bundle, name)
        if ENGINES[name].backend == task.engine and len(profiles) > 1:
            number = find_tightest_profile(profiles, task.batch, *task.size)
            return "" if number is None else f"{number + 1} of {len(profiles)}"
    return ""


def measure(
    bundle: Bundle,
    checkpoint: Path | None,
    subjects: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    batches: Sequence[int],
    threads: Sequence[int],
    runs: int,
    profile: bool = False,
    step: Callable[[str], None] = lambda text: None,
    *,
    allow_engine_code: bool = False,
    device: str = "",
) -> Results:
    """Measure every subject at every size, batch and number of threads.

    Args:
        bundle: the bundle.
        checkpoint: the bundle's checkpoint, for the peers that run checkpoints.
        subjects: the subjects.
        sizes: heights and widths, in pixels.
        batches: numbers of images in one run.
        threads: numbers of CPU threads.
        runs: number of runs of each subject.
        profile: also measure the parts of the subjects that run on OpenVINO.
        step: called with a line before each step.
        allow_engine_code: see :func:`glama_deploy.load`.
        device: where the engines of this project compute, as `load` takes it; empty: as each subject says.

    Returns:
        The results. A subject that does not run has a row with the reason.
    """
    # the limits are the CPU's
    precisions = machine.PRECISIONS if any(not runs_on_gpu(subject, device) for subject in subjects) else ()
    described, before = machine.describe_machine(), _measure_limits(precisions, threads, step)
    busy = machine.warn_of_load(described)
    if busy and any(subject.startswith("torch") for subject in subjects):
        step(f"note: {busy}")
    rows: list[Row] = []
    for size in sizes:
        for batch in batches:
            for count in threads:
                tasks = [
                    Task(name, bundle.path, checkpoint, size, batch, count, allow_engine_code, device)
                    for name in dict.fromkeys(subjects)
                ]
                step(f"{size[0]}x{size[1]}, batch {batch}, {count} threads")
                profiles = {task.subject: _name_profile(bundle, task) for task in tasks}
                measured = _measure_in_turns(tasks, runs, step)
                rows += [row.model_copy(update={"profile": profiles[row.subject]}) for row in measured]
    # the clock of a shared machine changes: what it reached once is its limit
    peaks = {
        precision: {count: max(rate, before[precision][count]) for count, rate in found.items()}
        for precision, found in _measure_limits(precisions, threads, step).items()
    }
    limits = [_add_share(row, bundle, peaks) for row in rows]
    if profile:
        limits = [_add_parts(row, bundle, runs, step) for row in limits]
    manifest = bundle.manifest
    name = f"{manifest.network.n_blocks} blocks, {manifest.network.ngf} channels ({manifest.checkpoint.file})"
    return Results(network=name, machine=described, runs=runs, peaks=peaks, rows=tuple(limits))


def _measure_limits(
    precisions: Sequence[str], threads: Sequence[int], step: Callable[[str], None]
) -> dict[str, dict[int, float]]:
    """Measure the peak throughput of a matrix product, by precision and threads."""
    rates: dict[str, dict[int, float]] = {}
    for count in threads:
        for precision in precisions:
            step(f"the machine's own limit in {precision}, {count} threads")
            found = machine.measure_peak(precision, count)
            if found is not None:
                rates.setdefault(precision, {})[count] = found
    return rates


def _measure_in_turns(tasks: Sequence[Task], runs: int, step: Callable[[str], None]) -> list[Row]:
    """Run the subjects in turns (A B C, A B C, …), because other load then slows all of them alike."""
    running: dict[Task, Running] = {}
    rows: dict[Task, Row] = {}
    for task in tasks:
        step(f"opening {task.subject} for {task.size[0]}x{task.size[1]}")
        row = Row(subject=task.subject, size=task.size, batch=task.batch, threads=task.threads, device=task.device)
        update: dict[str, object]
        try:
            running[task] = Running(task)
            update = {"description": running[task].description, "precision": running[task].precision}
        except GlamaError as error:
            update = {"reason": _shorten_reason(task, error)}
        rows[task] = row.model_copy(update=update)

    def ask_all(ask: Callable[[Running], Answer]) -> dict[Task, Answer]:
        """Return the answers of the subjects that still run."""
        found = {}
        for task, subject in list(running.items()):
            try:
                found[task] = ask(subject)
            except GlamaError as error:  # it ran, and ended: the others go on
                del running[task]
                rows[task] = rows[task].model_copy(update={"reason": _shorten_reason(task, error)})
        return found

    turns = [ask_all(lambda subject: subject.time_run()) for _ in range(runs)]
    held = ask_all(lambda subject: subject.stop())
    timings = {task: [turn[task] for turn in turns] for task in held}
    seconds = {task: [timing.seconds for timing in found] for task, found in timings.items()}
    of_base = {task.subject: seconds[task] for task in held if task.subject in (BASE_SUBJECT, _GPU_BASE_SUBJECT)}
    for task, (peak, on_gpu) in held.items():
        update = {"seconds": tuple(seconds[task]), "peak_bytes": peak, "gpu_bytes": on_gpu}
        update["latency"] = _summarize(timings[task])
        update["images_per_second"] = task.batch * len(seconds[task]) / sum(seconds[task])
        base = of_base.get(_GPU_BASE_SUBJECT if task.is_on_gpu else BASE_SUBJECT)
        if base:
            pairs = zip(base, seconds[task], strict=True)
            update["ratio"] = statistics.median([theirs / mine for theirs, mine in pairs])
        rows[task] = rows[task].model_copy(update=update)
    return list(rows.values())


def _summarize(timings: Sequence[Timing]) -> dict[str, Percentiles]:
    """Return the percentiles of the whole run and of its parts. The host's part is what the engine leaves."""
    found = {TOTAL: compute_percentiles([timing.seconds for timing in timings])}
    for part in timings[0].parts:
        found[part] = compute_percentiles([timing.parts[part] for timing in timings])
    if timings[0].parts:
        found[HOST] = compute_percentiles([timing.seconds - sum(timing.parts.values()) for timing in timings])
    return found


def _shorten_reason(task: Task, error: GlamaError) -> str:
    return str(error).replace(str(task.bundle), "BUNDLE")


def _add_share(row: Row, bundle: Bundle, peaks: dict[str, dict[int, float]]) -> Row:
    """Add the share of the machine's limit that the network's FLOPs a second reach.

    The FLOPs are those of the graph. PyTorch's FFTs are not matrix products, and are not counted.
    """
    precision = PRECISIONS.get(row.precision)  # "": the row was not measured
    limit = peaks.get(precision.stored, {}).get(row.threads) if precision else None
    # (of a hole it does less work than the graph's; the limits are the CPU's)
    if not row.seconds or limit is None or HOLE_MARK in row.subject or runs_on_gpu(row.subject, row.device):
        return row
    fft = "dft" if row.subject.startswith("torch") else bundle.manifest.fft
    work = 2 * sum(cost.count_multiply_adds(bundle.manifest.network, row.size, fft).values()) * row.batch
    return row.model_copy(update={"share": work / row.median / limit})


def _add_parts(row: Row, bundle: Bundle, runs: int, step: Callable[[str], None]) -> Row:
    if not row.seconds or not row.subject.startswith(OPENVINO.backend) or HOLE_MARK in row.subject:
        return row
    if runs_on_gpu(row.subject, row.device):
        step("not profiled: the parts are measured on the CPU alone")
        return row
    step(f"the parts of {row.subject} at {row.size[0]}x{row.size[1]}")
    try:
        found = layer_times.measure_parts(bundle, row.precision, row.size, row.threads, runs)
    except GlamaError as error:
        step(f"not profiled: {error}")
        return row
    return row.model_copy(update={"parts": found})
