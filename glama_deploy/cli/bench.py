"""glama-bench: measure a network on every installed engine, against PyTorch and the machine's limit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from glama_deploy.bundle import MANIFEST, Bundle, parse_size
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.io.files import atomic_file, check_overwrite, check_path, check_writable
from glama_deploy.runtime.base import MAX_THREADS
from glama_deploy.system.processors import count_processors

_JSON = "results.json"


def glama_bench(
    model: Annotated[
        str, option("--model", help="Bundle, checkpoint, or 'default' for the embedded network.")
    ] = "default",
    checkpoint: Annotated[
        Path | None, option("--ckpt", help="Checkpoint of the bundle, for PyTorch and the other peers.")
    ] = None,
    subjects: Annotated[
        list[str] | None,
        option(
            "--subject",
            help="What to measure (all by default). May be given several times. NAME@5 is an engine of this project "
            "on a hole of 5 % of the image.",
        ),
    ] = None,
    sizes: Annotated[
        list[str] | None,
        option("--size", help="HxW: size of the image (512x512 by default). May be given several times."),
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
    runs: Annotated[int, option("--runs", help="Number of runs of each subject. The subjects take turns.", min=1)] = 7,
    profile: Annotated[
        bool, option("--profile", help="Also measure the time of the network's parts on OpenVINO.")
    ] = False,
    out: Annotated[
        Path | None, option("--out", help="Folder for RESULTS.md, results.json and results.png (none by default).")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace the results of another run.")] = False,
    allow_engine_code: AllowEngineCode = False,
) -> None:
    """Measure engines, precisions and peers in turns.

    The table has medians, ratios against TorchScript, shares of the machine's limit, and peak memory. A subject that is
    not installed, or cannot run on this machine, has a row with the reason.
    """
    from glama_deploy.benchmarks.bench import results
    from glama_deploy.benchmarks.bench import run as bench
    from glama_deploy.benchmarks.bench.contenders import SUBJECTS, is_subject
    from glama_deploy.checkpoints.formats import DEFAULT
    from glama_deploy.loading import cached_bundle

    unknown = [name for name in subjects or () if not is_subject(name)]
    if unknown:
        raise GlamaError(f"--subject is {unknown[0]!r}; expected {', '.join(SUBJECTS)}, or one of ours with @5 behind")
    asked = [parse_size(text, "--size") for text in sizes or ["512x512"]]
    check_path(Path(model))
    if (Path(model) / MANIFEST).is_file():
        bundle = Bundle.open(model)
    else:
        checkpoint = checkpoint or (DEFAULT if model == "default" else Path(model))
        bundle = cached_bundle(model)
    if out is not None:
        _check_out(out, overwrite)
    console, progress = Console(width=130), Console(stderr=True, style="dim")
    counts = threads or [count_processors()]
    # one line for each step: an animated spinner would change the measured times
    found = bench.measure(
        bundle,
        checkpoint,
        subjects or SUBJECTS,
        asked,
        batches or [1],
        counts,
        runs,
        profile,
        progress.print,
        allow_engine_code=allow_engine_code,
    )
    results.print_results(console, found)
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / "RESULTS.md") as temporary:
        temporary.write_text(results.format_markdown(found), encoding="utf-8")
    with atomic_file(out / "results.png") as temporary:
        results.plot_results(found, temporary)
    # written last: a folder with this file is complete, and needs --overwrite
    with atomic_file(out / _JSON) as temporary:
        temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    console.print(f"written to {out}")


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise GlamaError if the folder cannot be written or has results, before minutes of measuring."""
    check_path(out)
    if out.exists() and not out.is_dir():
        raise GlamaError(f"--out {out} is a file; a folder is needed")
    check_overwrite(out, is_there=(out / _JSON).exists(), overwrite=overwrite, found="has results already")
    check_writable(out)


main = Command("glama-bench", glama_bench)
