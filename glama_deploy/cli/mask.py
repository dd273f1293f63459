"""glama-mask: write the mask that glama-inpaint would fill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.options.mask_sources import MaskOptions
from glama_deploy.cli.options.paths import take_paths
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.run_report import RunReport
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import folder as batch
from glama_deploy.inpainting.pairing import BY_STEM, FolderRule, Job, describe_left_out, pair_jobs
from glama_deploy.io.files import check_path, write_error
from glama_deploy.io.images import FileRule
from glama_deploy.io.mask_files import write_mask


def glama_mask(
    masks: MaskOptions,
    paths: Annotated[
        list[Path] | None,
        argument(help="The paths of --image, --mask and --out, in this order.", metavar="IMAGE MASK OUT"),
    ] = None,
    image: Annotated[Path | None, option("--image", help="Image, or folder of images. [required]")] = None,
    mask: Annotated[
        Path | None,
        option("--mask", help="Mask file, or folder of masks. For a folder of images, one mask may serve all."),
    ] = None,
    out: Annotated[
        Path | None, option("--out", help="Mask to write (PNG); for folders, the folder of the masks. [required]")
    ] = None,
    mask_name: Annotated[
        str, option("--mask-name", help="For folders: the name of an image's mask, such as {stem}_mask.png.")
    ] = BY_STEM.mask_name,
    recursive: Annotated[
        bool, option("--recursive", help="For folders: read the images of subfolders, too, and keep the subfolders.")
    ] = False,
    frame: Annotated[
        int | None, option("--frame", help="For animated and many-paged files: the frame, from 0.")
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", help="Replace masks that exist. Without --overwrite, a folder's are skipped.")
    ] = False,
) -> int:
    """Write the mask of an image, so that you see the mask before glama-inpaint fills it. Missing pixels are white.

    The options are those of glama-inpaint. glama-masks (with an s) is another command: glama-masks draws the random
    masks of the paper. Exit codes: 0 success; 2 bad input, or a file of a folder failed.
    """
    image, mask, out = take_paths(paths or [], image, mask, out, needs_mask=not masks.has_marks)
    check_path(image)
    made = masks.read(mask)
    if out is None:
        raise GlamaError("no output is given; give `out`")
    if not image.is_dir() and not out.is_dir() and out.suffix.lower() != ".png":
        raise GlamaError(f"`out` is {out}; a .png is written")
    rule = FolderRule(mask_name, recursive, "png" if image.is_dir() else BY_STEM.format)
    target = out / f"{image.stem}.png" if out.is_dir() and not image.is_dir() else out
    files = FileRule(frame)
    jobs = [replace(job, files=files) for job in pair_jobs(image, mask, target, overwrite=overwrite, rule=rule)]
    report = RunReport(Console(stderr=True))
    if not image.is_dir():
        _write_mask(jobs[0], made)
        report.console.print(str(jobs[0].out), soft_wrap=True)
        return 0
    for result in _write_masks(jobs, made, overwrite=overwrite):
        report.add(result)
    return report.finish(left_out=describe_left_out(image, mask, out, rule))


def _write_masks(jobs: list[Job], masks: batch.Masks, *, overwrite: bool) -> Iterator[batch.Result]:
    """Write the masks of a folder's pictures. A bad file is a result like the others."""
    for job in jobs:
        if job.is_done() and not overwrite:
            yield batch.Result(job, "skipped")
            continue
        try:
            _write_mask(job, masks)
        except batch.FAILURES as error:
            yield batch.make_failure(job, error)
        else:
            yield batch.Result(job, "written")


def _write_mask(job: Job, masks: batch.Masks) -> None:
    """Write the mask of a picture, and make its folder if it is missing."""
    _, mask = batch.read_job(job, masks)
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(job.out, error) from error
    write_mask(job.out, mask)


main = Command("glama-mask", glama_mask)
