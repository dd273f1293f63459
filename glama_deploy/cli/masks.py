"""glama-masks: draw a contact sheet of the masks, or write images with masks beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from glama_deploy.bundle import parse_size
from glama_deploy.cli.entry import Command, ResumableInterrupt, option
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.mask_dataset import Crop, Settings, make_dataset
from glama_deploy.io.files import atomic_file, check_overwrite
from glama_deploy.masks import NAMED, contact_sheet
from glama_deploy.runtime.base import MAX_THREADS
from glama_deploy.system.processors import count_processors

#: The masks of each kind on a sheet, and their size.
_SHEET_COUNT, _SHEET_SIZE = 5, "128x128"


def glama_masks(
    out: Annotated[Path, option("--out", help="Output file (PNG); with --dataset, the output folder.")],
    dataset: Annotated[
        Path | None,
        option("--dataset", help="Folder of images: write them with masks beside them, as LaMa's evaluation has them."),
    ] = None,
    masks: Annotated[
        list[str] | None,
        option("--masks", help="Mask or mixture (on a sheet, all by default). May be given several times for a sheet."),
    ] = None,
    count: Annotated[
        int | None, option("--count", help=f"Number of masks of each kind on a sheet ({_SHEET_COUNT}).", min=1, max=50)
    ] = None,
    size: Annotated[
        str | None,
        option("--size", help=f"HxW: size of a mask ({_SHEET_SIZE} on a sheet; the images' own with --dataset)."),
    ] = None,
    crop: Annotated[
        str | None,
        option("--crop", help="How --size cuts images: middle (default), or lama, a square that the mask reaches."),
    ] = None,
    variants: Annotated[
        int | None, option("--variants", help="Number of masks of each image of --dataset (1).", min=1, max=1000)
    ] = None,
    processes: Annotated[
        int | None,
        option("--processes", help="Number of processes for --dataset (one for each core).", min=1, max=MAX_THREADS),
    ] = None,
    seed: Annotated[
        int, option("--seed", help="Seed of the random numbers. With --dataset, the image's name changes it.", min=0)
    ] = 0,
    overwrite: Annotated[bool, option("--overwrite", help="Replace a sheet that exists.")] = False,
) -> int:
    """Draw the seven masks of the paper, with fixed and with random settings, and their mixtures.

    With --dataset, write each image with masks beside it: image1_crop000.png and image1_crop000_mask000.png, as LaMa's
    gen_mask_dataset.py does. An interrupted run continues there. Missing pixels are white. glama-mask (without an s) is
    another command: glama-mask writes the mask of your picture.
    """
    if dataset is None:
        for name, value in (("crop", crop), ("variants", variants), ("processes", processes)):
            if value is not None:
                raise GlamaError(f"`{name}` is for the images of `dataset`; give their folder, or leave it out")
        _draw_sheet(out, masks or list(NAMED), count or _SHEET_COUNT, size or _SHEET_SIZE, seed, overwrite=overwrite)
        return 0
    if count is not None or overwrite:
        raise GlamaError(
            f"--{'count' if count is not None else 'overwrite'} is for a sheet; leave it out with --dataset"
        )
    if not masks or len(masks) > 1:
        raise GlamaError(
            f"--masks names {len(masks or ())} masks; one is expected with --dataset, such as ThickStrokes"
        )
    if crop not in (None, *get_args(Crop)):
        raise GlamaError(f"--crop is {crop!r}; expected {', '.join(get_args(Crop))}")
    settings = Settings(
        dataset=dataset.resolve(),
        mask=masks[0],
        size=None if size is None else parse_size(size, "--size"),
        crop=cast(Crop, crop or "middle"),
        variants=variants or 1,
        seed=seed,
    )
    return _write_dataset(settings, out, processes or count_processors())


def _draw_sheet(out: Path, masks: list[str], count: int, size: str, seed: int, *, overwrite: bool) -> None:
    if out.suffix.lower() != ".png":
        raise GlamaError(f"--out is {out}; a .png is written")
    check_overwrite(out, is_there=out.exists(), overwrite=overwrite, place="name")
    sheet = contact_sheet.draw(masks, count, *parse_size(size, "--size"), seed)
    with atomic_file(out) as temporary:
        sheet.save(temporary, format="PNG")
    Console().print(str(out), soft_wrap=True)


def _write_dataset(settings: Settings, out: Path, processes: int) -> int:
    screen = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    task = progress.add_task("masks", total=None)
    try:
        with progress:
            failures = make_dataset(
                settings, out, processes, lambda done, total: progress.update(task, completed=done, total=total)
            )
    except KeyboardInterrupt as error:
        raise ResumableInterrupt(f"interrupted; what is written in {out} is kept: the same command goes on") from error
    for line in failures:
        screen.print_failure(f"glama-masks: {line}")
    Console().print(str(out), soft_wrap=True)
    return 2 if failures else 0


main = Command("glama-masks", glama_masks)
