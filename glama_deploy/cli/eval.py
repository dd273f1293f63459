"""glama-eval: how well networks inpaint, on any engine and in any precision, by the paper's protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glama_deploy.bundle import parse_size
from glama_deploy.catalogue import PRECISIONS, listed
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics.registry import METRICS
from glama_deploy.inpainting.inpainter import Region
from glama_deploy.runtime.base import MAX_THREADS, require
from glama_deploy.text.escapes import escape_controls

#: Seven masks need so many columns; a narrower terminal folds lines.
_WIDTH = 120


class _Stopped(GlamaError):
    """A Ctrl-C, after which a run may go on."""

    exit_code = 130


def glama_eval(
    data: Annotated[list[str], option("--data", help="A folder of photographs, or NAME=FOLDER; may be given again.")],
    model: Annotated[
        list[str],
        option(
            "--model",
            help="A bundle, a checkpoint, 'default', or telea, navier-stokes, interpolation; may be given again. As "
            "MODEL@BACKEND or MODEL@BACKEND/PRECISION on that engine (BUNDLE@emulated/fp16: a TensorRT graph's "
            "arithmetic, on a CPU), as NAME=MODEL under that name.",
        ),
    ],
    out: Annotated[Path, option("--out", help="Folder of the results; a run that was cut short goes on there.")],
    masks: Annotated[
        list[str] | None,
        option(
            "--masks",
            help="general (the seven, by default), random-attribute, unseen, or a mask's name; may be given again.",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None, option("--backend", help="For models without their own; may be given again. auto by default.")
    ] = None,
    precision: Annotated[
        list[str] | None, option("--precision", help=f"The same: {listed(('auto', *PRECISIONS))}.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        option("--metric", help=f"{', '.join(METRICS)}; all by default."),
    ] = None,
    size: Annotated[str | None, option("--size", help="HxW that images are cut and brought to.")] = None,
    limit: Annotated[int | None, option("--limit", help="Only the first so many images of each folder.", min=1)] = None,
    seed: Annotated[int, option("--seed", help="Of the masks, with the image's name.", min=0)] = 0,
    region: Annotated[str, option("--region", help="What networks see: full, crop or auto.")] = "full",
    show: Annotated[int, option("--show", help="Images of each folder on sheet and page.", min=0, max=200)] = 14,
    reference: Annotated[
        str | None, option("--reference", help="The method (by its name in the table) that changes are against.")
    ] = None,
    weights: Annotated[Path | None, option("--weights", help="Folder with the weights of LPIPS and FID.")] = None,
    download: Annotated[bool, option("--download", help="Fetch those that are not there.")] = False,
    processes: Annotated[
        int | None,
        option("--processes", help="By default as many as cores, as far as the memory goes.", min=1, max=MAX_THREADS),
    ] = None,
    threads: Annotated[
        int, option("--threads", help="Of the engine and metrics in each process.", min=1, max=MAX_THREADS)
    ] = 1,
    device: Annotated[str, option("--device", help="Of the metrics' networks: cpu, or cuda.")] = "cpu",
    overwrite: Annotated[bool, option("--overwrite", help="Remove the results of another run first.")] = False,
    allow_engine_code: AllowEngineCode = False,
) -> int:
    """Evaluate networks and classical inpainting side by side: tables, sheets, spectra, and one HTML page.

    Every method sees the same holes. Results are kept image by image. Exit code: 0; 2 bad input, or an image or a
    method failed (the rest is there).
    """
    for package in ("torchmetrics", "torch_fidelity", "scipy", "matplotlib", "jinja2", "cv2"):
        require(package, package, "pip install 'glama-deploy[eval]'")
    from glama_deploy.evaluation.evaluate import Request, evaluate
    from glama_deploy.evaluation.records import PAGE
    from glama_deploy.evaluation.report import tables

    asked = Request(
        data=data,
        models=model,
        out=out,
        masks=masks or ["general"],
        backends=backend or ["auto"],
        precisions=precision or ["auto"],
        size=None if size is None else parse_size(size, "--size"),
        limit=limit,
        seed=seed,
        region=cast(Region, region),
        shown=show,
        reference=reference,
        weights=weights,
        download=download,
        processes=processes,
        threads=threads,
        device=device,
        overwrite=overwrite,
        allow_engine_code=allow_engine_code,
        **({"metrics": metric} if metric else {}),
    )
    screen = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen,
        speed_estimate_period=3600,  # of images that may take minutes
        transient=True,
        disable=not screen.is_terminal,
    )
    task = progress.add_task("opening the models", total=None)

    def on_progress(done: int, total: int, text: str) -> None:
        progress.update(task, completed=done, total=total, description=escape_controls(text))

    try:
        with progress:
            summary = evaluate(asked, on_progress)
    except KeyboardInterrupt as error:
        raise _Stopped(f"interrupted; images that are done are kept in {out}: the same command goes on") from error
    console = Console(width=max(Console().width, _WIDTH))
    tables.print_tables(console, summary)
    for line in summary.remarks:
        screen.print(f"glama-eval: {line}", soft_wrap=True)
    console.print(f"{out / PAGE}; tables and pictures beside it", soft_wrap=True)
    return 2 if summary.failures or summary.refused else 0


main = Command("glama-eval", glama_eval)
