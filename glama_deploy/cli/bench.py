"""glama-bench: measure a network on every installed engine, against PyTorch and the machine's limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from glama_deploy.bundle import MANIFEST, Bundle, parse_size
from glama_deploy.catalogue import join_names
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.options.completion import list_models
from glama_deploy.cli.options.engine import DeviceName
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError, NotBuiltError
from glama_deploy.io.files import atomic_file, check_overwrite, check_path, check_writable
from glama_deploy.runtime.base import MAX_THREADS, installed
from glama_deploy.runtime.devices import parse_device
from glama_deploy.system.processors import count_processors

if TYPE_CHECKING:
    from glama_deploy.benchmarks.jobs.run import JobResults

_JSON, _JOBS_JSON = "results.json", "jobs.json"

#: The package that plots results.
_PLOTTER = "matplotlib"


def glama_bench(
    model: Annotated[
        str,
        option(
            "--model",
            list_values=list_models,
            help="Bundle, checkpoint, name of glama-models list, or 'default' for the embedded network.",
        ),
    ] = "default",
    checkpoint: Annotated[
        str | None,
        option(
            "--ckpt",
            list_values=list_models,
            help="Checkpoint of the bundle, or name of glama-models list, for PyTorch and other peers.",
        ),
    ] = None,
    subjects: Annotated[
        list[str] | None,
        option(
            "--subject",
            help="What to measure (all that is installed by default). May be given several times. NAME@5 is an engine "
            "of this project on a hole of 5 % of the image.",
        ),
    ] = None,
    jobs: Annotated[
        bool, option("--jobs", help="Measure whole jobs of users, from file to file, instead of sizes.")
    ] = False,
    letters: Annotated[
        list[str] | None, option("--job", help="Letter of a job, a to f (all by default). May be given several times.")
    ] = None,
    scale: Annotated[
        float, option("--scale", help="Scale the sides and counts of jobs, for a quick run.", min=0.01, max=1)
    ] = 1.0,
    sizes: Annotated[
        list[str] | None,
        option(
            "--size",
            help="HxW: size of the image (by default the tuned size of each TensorRT profile, or 512x512). May be "
            "given several times.",
        ),
    ] = None,
    batches: Annotated[
        list[int] | None, option("--batch", help="Images at once (1 by default). May be given several times.", min=1)
    ] = None,
    threads: Annotated[
        list[int] | None,
        option(
            "--threads",
            help="CPU threads (all cores by default). May be given several times.",
            min=1,
            max=MAX_THREADS,
        ),
    ] = None,
    runs: Annotated[
        int | None,
        option("--runs", help="Number of runs of each subject (7, with --jobs 3). The subjects take turns.", min=1),
    ] = None,
    profile: Annotated[
        bool, option("--profile", help="Also measure the time of the network's parts on OpenVINO.")
    ] = False,
    out: Annotated[
        Path | None, option("--out", help="Folder for RESULTS.md, results.json and results.png (none by default).")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace the results of another run.")] = False,
    device: DeviceName = None,
    as_json: Annotated[bool, option("--json", help="Print JSON, with the fields of results.json.")] = False,
    allow_engine_code: AllowEngineCode = False,
) -> None:
    """Measure engines, precisions and peers in turns.

    The tables have medians, percentiles, images a second, ratios against TorchScript, shares of the machine's limit,
    and peak memory. They also have the time by part: copies to and from the device, computation, and the host's part.
    PyTorch is not needed. A subject that cannot run on this machine has a row with the reason.

    With --jobs the command measures what people do, from file to file: (a) an object out of a large photograph, (b)
    subtitles out of a film, (c) specks out of a scan, (d) text out of a comic page, (e) a large hole, (f) a folder of
    photographs. Each run is a fresh process.

    Exit codes: 0 success; 2 bad input; 4 no subject could be measured on this machine.
    """
    from glama_deploy.benchmarks.bench import results
    from glama_deploy.benchmarks.bench import run as bench
    from glama_deploy.benchmarks.bench.contenders import describe_subjects, is_subject

    if jobs:
        unused = {"--size": sizes, "--batch": batches, "--profile": profile or None, "--device": device}
        _check_unused(unused | {"--json": as_json or None}, "with --jobs")
        _bench_jobs(_JobOptions(model, checkpoint, subjects, letters, scale, threads, runs or 3, out, overwrite))
        return
    _check_unused({"--job": letters, "--scale": None if scale == 1 else scale}, "without --jobs")
    unknown = [name for name in subjects or () if not is_subject(name)]
    if unknown:
        raise GlamaError(f"--subject is {unknown[0]!r}; expected {describe_subjects()}")
    asked = [parse_size(text, "--size") for text in sizes or ()]
    place = parse_device(device)
    bundle, weights = _open_model(model, checkpoint)
    if out is not None:
        _check_out(out, out / _JSON, overwrite)
    console, progress = Console(width=130), Console(stderr=True, style="dim")
    counts = threads or [count_processors()]
    if subjects is None:
        subjects = _choose_subjects(progress, has_checkpoint=weights is not None)
    # one line for each step: an animated spinner would change the measured times
    found = bench.measure(
        bundle,
        weights,
        subjects,
        asked or bench.list_usual_sizes(bundle),
        batches or [1],
        counts,
        runs or 7,
        profile,
        progress.print,
        allow_engine_code=allow_engine_code,
        device=str(place or ""),
    )
    if as_json:
        print(found.model_dump_json(indent=1))
    else:
        results.print_results(console, found)
    if not any(row.seconds for row in found.rows):
        raise NotBuiltError("nothing was measured, so nothing is written; each row says why")
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / "RESULTS.md") as temporary:
        temporary.write_text(results.format_markdown(found), encoding="utf-8")
    if installed(_PLOTTER):
        with atomic_file(out / "results.png") as temporary:
            results.plot_results(found, temporary)
    else:
        progress.print(f"note: {_PLOTTER} is not installed, so results.png is not written; pip install {_PLOTTER}")
    # written last: a folder with this file is complete, and needs --overwrite
    with atomic_file(out / _JSON) as temporary:
        temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    progress.print(f"written to {out}")


def _choose_subjects(progress: Console, *, has_checkpoint: bool) -> list[str]:
    """Return the subjects whose packages are installed and whose weights are given. A note names the others."""
    from glama_deploy.benchmarks.bench.contenders import SUBJECTS, list_missing, runs_checkpoint

    without_weights = [subject for subject in SUBJECTS if runs_checkpoint(subject) and not has_checkpoint]
    if without_weights:
        progress.print(
            "note: a bundle does not hold the checkpoint that these subjects need, so they are left out: "
            f"{', '.join(without_weights)}; give --ckpt"
        )
    missing = {subject: list_missing(subject) for subject in SUBJECTS if subject not in without_weights}
    left_out = [subject for subject, modules in missing.items() if modules]
    if left_out:
        modules = list(dict.fromkeys(module for subject in left_out for module in missing[subject]))
        said = f"{join_names(modules, 'and')} {'is' if len(modules) == 1 else 'are'} not installed"
        progress.print(f"note: {said}, so these subjects are left out: {', '.join(left_out)}")
    return [subject for subject, modules in missing.items() if not modules]


@dataclass(frozen=True)
class _JobOptions:
    """The options of --jobs."""

    model: str
    checkpoint: str | None
    subjects: list[str] | None
    letters: list[str] | None
    scale: float
    threads: list[int] | None
    runs: int
    out: Path | None
    overwrite: bool


def _bench_jobs(options: _JobOptions) -> None:
    """Measure jobs, and write what was measured. Jobs of an earlier run that are not measured again are kept."""
    from glama_deploy.benchmarks.jobs import pictures, results
    from glama_deploy.benchmarks.jobs import run as bench
    from glama_deploy.benchmarks.jobs.scenes import JOBS
    from glama_deploy.benchmarks.jobs.subjects import SUBJECTS

    for name, given, known in (("--subject", options.subjects, SUBJECTS), ("--job", options.letters, JOBS)):
        for value in given or ():
            if value not in known:
                raise GlamaError(f"{name} is {value!r}; expected {', '.join(known)}")
    if len(options.threads or ()) > 1:
        raise GlamaError("--threads is given several times; with --jobs one number is expected")
    bundle, checkpoint = _open_model(options.model, options.checkpoint)
    earlier, out = None, options.out
    if out is not None:
        _check_out(out, out / _JOBS_JSON, options.overwrite)
        if (out / _JOBS_JSON).is_file():
            earlier = _read_jobs(out / _JOBS_JSON)
    console, progress = Console(width=160), Console(stderr=True, style="dim")
    threads = options.threads[0] if options.threads else None
    setting = bench.Setting(options.scale, options.runs, threads, progress.print)
    if earlier is not None:  # before minutes of measuring
        bench.prepare(bundle, setting).check_continues(earlier)
    found, views = bench.measure(
        bundle, checkpoint, options.letters or list(JOBS), options.subjects or list(SUBJECTS), setting
    )
    results.print_results(console, found)
    if out is None:
        return
    if earlier is not None:
        found = found.replace(earlier)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / "RESULTS-JOBS.md") as temporary:
        temporary.write_text(results.format_markdown(found), encoding="utf-8")
    for letter, shown in views.items():
        if shown:
            subjects = [row.subject for row in found.rows if row.job == letter and row.seconds]
            pictures.write_views(shown, letter, subjects, out)
    with atomic_file(out / _JOBS_JSON) as temporary:
        temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    console.print(f"written to {out}")


def _read_jobs(path: Path) -> JobResults:
    """Read the results of an earlier run. Raises GlamaError where the file is damaged or of another version."""
    from pydantic import ValidationError

    from glama_deploy.benchmarks.jobs.run import JobResults

    try:
        return JobResults.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise GlamaError(f"{path} is damaged or of another version; choose another folder") from error


def _open_model(model: str, checkpoint: str | None) -> tuple[Bundle, Path | None]:
    """Open the bundle of a model. Return the bundle and its checkpoint, which is None if only a bundle is given."""
    from glama_deploy.checkpoints.embedded import find_checkpoint
    from glama_deploy.checkpoints.published.references import locate
    from glama_deploy.loading import cached_bundle

    model = str(locate(model))
    given = None if checkpoint is None else Path(locate(checkpoint))
    check_path(Path(model))
    if (Path(model) / MANIFEST).is_file():
        return Bundle.open(model), given
    return cached_bundle(model), given or find_checkpoint(model) or Path(model)


def _check_out(out: Path, file: Path, overwrite: bool) -> None:
    """Raise GlamaError if the folder cannot be written or has results, before minutes of measuring."""
    check_path(out)
    if out.exists() and not out.is_dir():
        raise GlamaError(f"--out {out} is a file; a folder is needed")
    check_overwrite(out, is_there=file.exists(), overwrite=overwrite, found="has results already")
    check_writable(out)


def _check_unused(given: Mapping[str, object], needed: str) -> None:
    """Raise GlamaError if an option is given that has no effect."""
    for name, value in given.items():
        if value is not None:
            raise GlamaError(f"{name} has no effect {needed}; leave the option out")


main = Command("glama-bench", glama_bench)
