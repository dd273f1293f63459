"""glama-inpaint: fill the missing pixels of one image, or of a folder of images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, cast

import glama_deploy
from glama_deploy.catalogue import EngineRecord, backends, join_names, requested_precisions
from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.options.iopaint import IopaintOptions, pair_picture
from glama_deploy.cli.options.paths import take_paths
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import folder as batch
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.inpainting.mask_edits import MaskEdits
from glama_deploy.inpainting.pairing import BY_STEM, FolderRule, OutputFormat, describe_left_out, pair_jobs
from glama_deploy.io.mask_files import MaskRule, MaskSource
from glama_deploy.io.pipes import is_pipe
from glama_deploy.runtime.base import MAX_THREADS


def _describe_backend(record: EngineRecord) -> str:
    """Describe a backend in the help."""
    providers = ", ".join(f":{provider}" for provider in record.providers)
    return f"{record.backend} (with a provider: {record.backend}{providers})" if providers else record.backend


def glama_inpaint(
    iopaint: IopaintOptions,
    paths: Annotated[
        list[Path] | None,
        argument(help="The paths of --image, --mask and --out, in this order.", metavar="IMAGE MASK OUT"),
    ] = None,
    image: Annotated[
        Path | None, option("--image", help="Image, or folder of images; - for standard input. [required]")
    ] = None,
    mask: Annotated[
        Path | None,
        option(
            "--mask",
            help="Mask (white = missing). For a folder of images: the folder of masks, or one mask for all. - for "
            "standard input. [required]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", help="Output file; for folders, the folder of the outputs; - for standard output. [required]"),
    ] = None,
    model: Annotated[
        str, option("--model", help="Bundle, checkpoint, or 'default' for the embedded network.")
    ] = "default",
    backend: Annotated[
        str,
        option(
            "--backend",
            help=f"Engine: {join_names(('auto', *map(_describe_backend, backends().values()), 'torch'))}.",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        option(
            "--precision",
            help=f"{join_names(requested_precisions())}. Not every engine supports all of them. fastest: measured here "
            "once, at least 40 dB against fp32.",
        ),
    ] = "auto",
    threads: Annotated[
        int | None, option("--threads", help="CPU threads (all cores by default).", min=1, max=MAX_THREADS)
    ] = None,
    region: Annotated[
        str,
        option(
            "--region",
            help="What the network sees. full: the whole image. crop: boxes around the holes. auto: crop if this is "
            "cheaper. With crop and auto, tiles fill holes that do not fit the engine or the memory.",
        ),
    ] = "auto",
    grow: Annotated[
        int, option("--grow", help="Pixels by which holes grow, so that an object's edge and shadow are filled, too.")
    ] = 0,
    shrink: Annotated[int, option("--shrink", help="Pixels by which holes shrink before they grow.")] = 0,
    feather: Annotated[
        int,
        option("--feather", help="Pixels of the rim over which result and image are blended, at most --grow."),
    ] = 0,
    mask_from: Annotated[
        str,
        option(
            "--mask-from",
            help="What marks missing pixels. auto: bright pixels, or paint on a transparent layer. alpha: opaque "
            "pixels. inverse-alpha: transparent pixels. luma, red: bright pixels of this channel.",
        ),
    ] = "auto",
    threshold: Annotated[
        int | None,
        option("--threshold", help="Pixels above this value, 0 to 254, are missing (soft edges and gray by default)."),
    ] = None,
    invert: Annotated[bool, option("--invert", help="The mask is black where pixels are missing.")] = False,
    mask_name: Annotated[
        str,
        option(
            "--mask-name",
            help="For folders: the name of an image's mask, such as {stem}_mask.png; {stem}_mask{n} for any number "
            "and format.",
        ),
    ] = BY_STEM.mask_name,
    recursive: Annotated[
        bool, option("--recursive", help="For folders: fill the images of subfolders, too, and keep the subfolders.")
    ] = False,
    format: Annotated[
        str | None,
        option(
            "--format",
            help="For folders and standard output: png, jpg or webp; keep: the format of each image. (png for folders, "
            "keep for standard output.)",
        ),
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", help="Replace outputs that exist. Without --overwrite, a folder's are skipped.")
    ] = False,
    allow_engine_code: AllowEngineCode = False,
) -> int:
    """Fill the missing pixels of an image. Known pixels stay bit-exact in PNG and other lossless formats.

    With folders, the command continues after a bad file, and lists failed and skipped files at the end. Run it again to
    fill only the missing outputs. Exit codes: 0 success; 2 bad input, or a file of a folder failed.
    """
    check_region(region)
    iopaint.check()
    if iopaint.output is not None and out is not None:
        raise GlamaError("`out` and `output` are both given; give one of them")
    image, mask, out = take_paths(paths or [], image, mask, out or iopaint.output)
    region, model = iopaint.choose_region(region), iopaint.choose_model(model)
    overwrite = overwrite or iopaint.output is not None
    rule = iopaint.choose_rule(MaskRule(cast(MaskSource, mask_from), threshold, invert))
    masks = batch.Masks(rule, MaskEdits(grow, shrink, feather))
    folder = FolderRule(mask_name, recursive, cast(OutputFormat, format or BY_STEM.format))
    piped = None
    if any(map(is_pipe, (image, mask, out))):
        from glama_deploy.inpainting.piped import make_job

        piped = make_job(image, mask, out, format, overwrite=overwrite)
        jobs = [piped.job]
    elif iopaint.output is not None and image.is_file():
        jobs = pair_picture(image, mask, out)
    else:
        jobs = pair_jobs(image, mask, out, overwrite=overwrite, rule=folder)
    # a bad image or mask is reported before the model is opened
    inputs = None if piped is None and image.is_dir() else batch.read_job(jobs[0], masks)
    todo = [job for job in jobs if job.mask is not None and (overwrite or not job.out.exists())]
    streams = batch.count_streams(todo, threads)
    load = partial(glama_deploy.load, model, streams=streams, allow_engine_code=allow_engine_code)
    inpainter = iopaint.open_on_device(lambda backend: load(backend, precision, threads), backend)
    console = Console(stderr=True)
    console.print(inpainter.description, style="dim")
    fill = masks.edits.blend(partial(inpainter, region=cast(Region, region)))
    if piped is not None and piped.target is not None and inputs is not None:
        piped.write(batch.fill_inputs(fill, jobs[0], *inputs))
        return 0
    if inputs is not None:
        batch.fill_job(fill, jobs[0], *inputs)
        console.print(str(jobs[0].out), soft_wrap=True)
        return 0
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # takes 30 ms

    columns = (TextColumn("inpainting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    counts = {"written": 0, "skipped": 0, "failed": 0}
    failures = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("inpainting", total=len(jobs))
        for result in batch.run_jobs(fill, jobs, overwrite=overwrite, at_once=inpainter.streams, masks=masks):
            counts[result.state] += 1
            if result.state == "failed":
                failures.append(result.reason)
            progress.advance(task)
    for reason in failures:
        console.print_failure(f"failed: {reason}")
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))
    if left_out := describe_left_out(image, mask, out, folder):
        console.print(f"left out: {', '.join(left_out)}", soft_wrap=True, markup=False)
    return 2 if counts["failed"] else 0


main = Command("glama-inpaint", glama_inpaint)
