"""glama-bench: how fast a network is on every engine that is here, against PyTorch and the machine's own limit."""

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
    model: Annotated[str, option("--model", help="A bundle, a checkpoint, or 'default'.")] = "default",
    checkpoint: Annotated[
        Path | None, option("--ckpt", help="The checkpoint of a bundle, for PyTorch and the other peers.")
    ] = None,
    subjects: Annotated[
        list[str] | None,
        option(
            "--subject", help="What to measure; may be given again. All by default. Ours with @5 behind: a hole of 5 %."
        ),
    ] = None,
    sizes: Annotated[list[str] | None, option("--size", help="HxW; may be given again. 512x512 by default.")] = None,
    batches: Annotated[list[int] | None, option("--batch", help="May be given again. 1 by default.", min=1)] = None,
    threads: Annotated[
        list[int] | None, option("--threads", help="May be given again. All cores by default.", min=1, max=MAX_THREADS)
    ] = None,
    runs: Annotated[int, option("--runs", help="Of each subject, in turns.", min=1)] = 7,
    profile: Annotated[bool, option("--profile", help="Also where the time goes on OpenVINO, by part.")] = False,
    out: Annotated[
        Path | None, option("--out", help="Folder for RESULTS.md, results.json and results.png; none by default.")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace the results of another run.")] = False,
    allow_engine_code: AllowEngineCode = False,
) -> None:
    """Measure engines, precisions and peers in turns: medians, ratios against TorchScript, shares of the machine's
    limit, peak memory.

    What is not installed, or cannot run here, is a row that says so.
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
    # a line for each step, and nothing that moves: a spinner would be measured too
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
    # the last file: a folder that has it is complete, and needs --overwrite
    with atomic_file(out / _JSON) as temporary:
        temporary.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    console.print(f"written to {out}")


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise GlamaError where the folder cannot be written, or holds results: before minutes of measuring."""
    check_path(out)
    if out.exists() and not out.is_dir():
        raise GlamaError(f"--out {out} is a file; a folder is needed")
    check_overwrite(out, is_there=(out / _JSON).exists(), overwrite=overwrite, found="has results already")
    check_writable(out)


main = Command("glama-bench", glama_bench)
