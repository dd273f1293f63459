"""The paths of image, mask and output, which stand behind their options or alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from glama_deploy.io.pipes import check_no_address


def take_paths(
    given: Sequence[Path],
    image: Path | None,
    mask: Path | None,
    out: Path | None,
    *,
    needs_mask: bool = True,
    needs_out: bool = True,
    takes_addresses: bool = False,
) -> tuple[Path, Path | None, Path | None]:
    """Complete the paths of the options with those that stand alone.

    Args:
        given: the paths that stand alone, in the order image, mask, output. The options' paths are left out. Fewer
            paths than names leave out a mask, or an output, that is not needed.
        image: the path of the image, or None.
        mask: the path of the mask, or None.
        out: the path of the output, or None.
        needs_mask: whether nothing else marks missing pixels.
        needs_out: whether the outputs do not replace the images.
        takes_addresses: whether a path may be an address such as `s3://bucket/folder`.

    Returns:
        The path of the image, and the paths of mask and output if they are given.

    Raises:
        GlamaError: a path is an address, and addresses are not taken.
        typer.BadParameter: there is no image, or there are too many paths.
    """
    named = {"image": image, "mask": mask, "out": out}
    open_names = [name for name, path in named.items() if path is None]
    if len(given) > len(open_names):
        raise typer.BadParameter(f"{given[len(open_names)]} is one path too many; IMAGE MASK OUT is expected")
    for name, is_needed in (("mask", needs_mask), ("out", needs_out)):
        if not is_needed and name in open_names and len(given) < len(open_names):
            open_names.remove(name)
    named.update(zip(open_names, given, strict=False))
    if named["image"] is None:
        raise typer.BadParameter("--image is missing")
    for name, path in named.items():
        if path is not None and not takes_addresses:
            check_no_address(path, name)
    return named["image"], named["mask"], named["out"]
