"""glama-masks: draw a contact sheet of the masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from glama_deploy.bundle import parse_size
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.output.console import Console
from glama_deploy.errors import GlamaError
from glama_deploy.io.files import atomic_file, check_overwrite
from glama_deploy.masks import NAMED, contact_sheet


def glama_masks(
    out: Annotated[Path, option("--out", help="Output file (PNG).")],
    masks: Annotated[
        list[str] | None,
        option("--masks", help="Mask or mixture (all by default). May be given several times."),
    ] = None,
    count: Annotated[int, option("--count", help="Number of masks of each kind.", min=1, max=50)] = 5,
    size: Annotated[str, option("--size", help="HxW: size of a mask.")] = "128x128",
    seed: Annotated[int, option("--seed", help="Seed of the random numbers.", min=0)] = 0,
    overwrite: Annotated[bool, option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Draw the seven masks of the paper, with fixed and with random settings, and their mixtures.

    Missing pixels are white. glama-mask (without an s) is another command: glama-mask writes the mask of your picture.
    """
    if out.suffix.lower() != ".png":
        raise GlamaError(f"--out is {out}; a .png is written")
    check_overwrite(out, is_there=out.exists(), overwrite=overwrite, place="name")
    sheet = contact_sheet.draw(masks or list(NAMED), count, *parse_size(size, "--size"), seed)
    with atomic_file(out) as temporary:
        sheet.save(temporary, format="PNG")
    Console().print(str(out), soft_wrap=True)


main = Command("glama-masks", glama_masks)
