"""The paths of image, mask and output, which stand behind their options or alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from glama_deploy.io.pipes import check_no_address


def take_paths(
    given: Sequence[Path], image: Path | None, mask: Path | None, out: Path | None
) -> tuple[Path, Path, Path]:
    """Complete the paths of the options with those that stand alone.

    Args:
        given: the paths that stand alone, in the order image, mask, output. The options' paths are left out.
        image: the path of the image, or None.
        mask: the path of the mask, or None.
        out: the path of the output, or None.

    Returns:
        The paths of image, mask and output.

    Raises:
        GlamaError: a path is an address of the web.
        typer.BadParameter: there are too few or too many paths.
    """
    named = {"image": image, "mask": mask, "out": out}
    open_names = [name for name, path in named.items() if path is None]
    if len(given) > len(open_names):
        raise typer.BadParameter(f"{given[len(open_names)]} is one path too many; IMAGE MASK OUT is expected")
    named.update(zip(open_names, given, strict=False))
    missing = [f"--{name}" for name, path in named.items() if path is None]
    if missing:
        raise typer.BadParameter(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    taken = {name: path for name, path in named.items() if path is not None}
    for name, path in taken.items():
        check_no_address(path, name)
    return taken["image"], taken["mask"], taken["out"]
