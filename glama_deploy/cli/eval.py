"""glama-eval: evaluate networks on any engine and in any precision, by the paper's protocol."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, cast

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from glama_deploy.bundle import parse_size
from glama_deploy.catalogue import join_names, requested_precisions
from glama_deploy.checkpoints.published.references import locate
from glama_deploy.cli.entry import Command, ResumableInterrupt, option
from glama_deploy.cli.options.completion import list_backends, list_models
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.output.console import Console
from glama_deploy.evaluation.arguments import Request, check_arguments
from glama_deploy.evaluation.metrics.registry import DEFAULT_METRICS, METRICS
from glama_deploy.inpainting.inpainter import Region
from glama_deploy.runtime.base import MAX_THREADS, require
from glama_deploy.text.escapes import escape_controls

_log = logging.getLogger("glama_deploy")

#: Columns of the table with all seven masks. A narrower terminal folds its lines.
_TABLE_WIDTH = 120

#: Metrics that are computed only where they are named.
_OTHER_METRICS = [name for name in METRICS if name not in DEFAULT_METRICS]


def glama_eval(
    data: Annotated[
        list[str], option("--data", help="Folder of photographs, or NAME=FOLDER. May be given several times.")
    ],
    out: Annotated[Path, option("--out", help="Folder of the figures. A run that was interrupted continues there.")],
    model: Annotated[
        list[str] | None,
        option(
            "--model",
            list_values=list_models,
            help="Bundle, checkpoint, name of glama-models list, 'default', telea, navier-stokes or interpolation. May "
            "be given several times. "
            "MODEL@BACKEND or MODEL@BACKEND/PRECISION chooses the engine (BUNDLE@emulated/fp16: emulate TensorRT's "
            "arithmetic on a CPU). NAME=MODEL chooses the name in the table.",
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        option(
            "--results",
            help="Folder of pictures that another program made, or NAME=FOLDER: measured as they are. The pictures "
            "have the names of the masks, as LaMa's predict.py writes them, or of the images. May be given several "
            "times.",
        ),
    ] = None,
    masks: Annotated[
        list[str] | None,
        option(
            "--masks",
            help="general (the seven masks, the default), random-attribute, unseen, or a mask's name; may be given "
            "several times. Or one folder of masks, FOLDER or NAME=FOLDER: image1_mask001.png, as LaMa names masks, or "
            "image1.png.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        option("--save", help="Folder for the pictures of all results, as PNGs that --results reads again."),
    ] = None,
    backend: Annotated[
        list[str] | None,
        option(
            "--backend",
            list_values=list_backends,
            help="Backend of the models without @BACKEND (auto by default). May be given several times.",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        option(
            "--precision",
            list_values=requested_precisions,
            help=f"Precision of the models without @BACKEND: {join_names(requested_precisions())} (auto by default). "
            "May be given several times.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        option(
            "--metric",
            help=f"{join_names(METRICS)} (all but {join_names(_OTHER_METRICS, 'and')} by default). "
            "May be given several times.",
        ),
    ] = None,
    size: Annotated[str | None, option("--size", help="HxW: crop and scale the images to this size.")] = None,
    limit: Annotated[
        int | None, option("--limit", help="Number of images of each folder (all by default).", min=1)
    ] = None,
    seed: Annotated[
        int, option("--seed", help="Seed of the masks. The image's name changes the seed, too.", min=0)
    ] = 0,
    region: Annotated[
        str, option("--region", help="What the network sees: full, crop or auto, as in glama-inpaint.")
    ] = "full",
    show: Annotated[
        int, option("--show", help="Number of images of each folder on the sheets and on the page.", min=0, max=200)
    ] = 14,
    reference: Annotated[
        str | None,
        option("--reference", help="Method that the others are compared with, by its name in the table."),
    ] = None,
    weights: Annotated[Path | None, option("--weights", help="Folder with the weights of LPIPS and FID.")] = None,
    download: Annotated[bool, option("--download", help="Download missing weights.")] = False,
    processes: Annotated[
        int | None,
        option(
            "--processes",
            help="Number of processes (by default one for each core, if the memory suffices).",
            min=1,
            max=MAX_THREADS,
        ),
    ] = None,
    threads: Annotated[
        int,
        option("--threads", help="CPU threads of the engine and the metrics in each process.", min=1, max=MAX_THREADS),
    ] = 1,
    device: Annotated[str, option("--device", help="Device of the metrics' networks: cpu or cuda.")] = "cpu",
    engine_device: Annotated[
        str | None, option("--engine-device", help="Device of the engines, as glama-inpaint takes --device.")
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Remove the results of another run first.")] = False,
    allow_engine_code: AllowEngineCode = False,
) -> int:
    """Evaluate networks, classical methods and results of other programs side by side.

    The results are tables, sheets, spectra and an HTML page.

    Every method fills the same holes. Results are saved after each image. Exit codes: 0 success; 2 bad input, or an
    image or a method failed (the other results are there).
    """
    asked = Request(
        data=data,
        models=model or [],
        out=out,
        masks=masks or [],
        results=results or [],
        save=save,
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
        engine_device=engine_device,
        overwrite=overwrite,
        allow_engine_code=allow_engine_code,
        **({"metrics": metric} if metric else {}),
    )
    checked = check_arguments(asked)
    # the imports take seconds, so they follow the check
    for package in ("torchmetrics", "torch_fidelity", "scipy", "matplotlib", "jinja2", "cv2"):
        require(package, package, "pip install 'glama-deploy[eval]'")
    for spec in checked.specs:
        if spec.has_weights:
            locate(spec.model)  # the bar of a download must not meet the bar of the evaluation
    from glama_deploy.evaluation.evaluate import evaluate
    from glama_deploy.evaluation.records import PAGE
    from glama_deploy.evaluation.report import tables

    screen = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen,
        speed_estimate_period=3600,  # s; one image may take minutes
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
        raise ResumableInterrupt(
            f"interrupted; images that are done are kept in {out}: the same command goes on"
        ) from error
    console = Console(width=max(Console().width, _TABLE_WIDTH))
    tables.print_tables(console, summary)
    for line in summary.notes:
        _log.warning("%s", line)
    for line in summary.remarks:
        screen.print_failure(f"glama-eval: {line}")
    console.print(f"{out / PAGE}; tables and pictures beside it", soft_wrap=True)
    return 2 if summary.failures or summary.refused else 0


main = Command("glama-eval", glama_eval)
