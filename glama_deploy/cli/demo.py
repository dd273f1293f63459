"""glama-demo: export, build and run the embedded network on the sample photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image

import glama_deploy
from glama_deploy.bundle import MANIFEST
from glama_deploy.catalogue import OPENVINO, TENSORRT_RTX
from glama_deploy.cli.entry import Command, option
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.show import Steps, print_outcome
from glama_deploy.errors import GlamaError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.io.files import atomic_file, check_path, has_only_leftovers
from glama_deploy.io.images import read_image, write_image
from glama_deploy.io.mask_files import read_mask

ASSETS = Path(__file__).parent.parent / "assets"

#: The colour of missing pixels in the picture, RGB.
MISSING_COLOR = (255, 0, 128)


def glama_demo(
    out: Annotated[
        Path, option("--out", help="Folder for the bundle. The picture is written beside this folder.")
    ] = Path("demo"),
) -> int:
    """Export the embedded network to OpenVINO and TensorRT-RTX, and inpaint a photo.

    Writes OUT/bundle, OUT/inpainted.png and OUT.png (input, mask and result side by side). The exit codes are those of
    glama-export.
    """
    bundle, picture = out / "bundle", out.parent / f"{out.name}.png"
    _check_out(out, bundle, picture)
    with Steps() as steps:
        outcome = export(Request("default", bundle, (OPENVINO.target, TENSORRT_RTX.target), overwrite=True), steps)
        steps("inpainting the sample photo")
        photo, mask = read_image(ASSETS / "sample.jpg"), read_mask(ASSETS / "sample_mask.png")
        inpainter = glama_deploy.load(bundle)
        result = inpainter(photo.rgb, mask)
        write_image(out / "inpainted.png", replace(photo, rgb=result))
        sheet = join_side_by_side(photo.rgb, mask, result)
        with atomic_file(picture) as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
    console = Console()
    code = print_outcome(console, outcome)
    console.print(f"inpainted with {inpainter.description}")
    console.print(f"bundle:  {bundle}", soft_wrap=True)
    console.print(f"picture: {picture} (input, mask, result)", soft_wrap=True)
    return code


def _check_out(out: Path, bundle: Path, picture: Path) -> None:
    """Raise GlamaError if a file exists that the demo did not write. Leftovers of a killed run do not count."""
    check_path(bundle)
    check_path(picture)
    if (bundle / MANIFEST).is_file():
        return
    for path in (picture, out):
        if path.exists() and (path == picture or not has_only_leftovers(path)):
            raise GlamaError(f"{path} exists and was not made by the demo; choose another --out")


def join_side_by_side(image: np.ndarray, mask: np.ndarray, result: np.ndarray, gap: int = 8) -> np.ndarray:
    """Put an image, its mask and the result side by side.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W], True where pixels are missing. They have a signal colour in the picture.
        result: uint8 [H, W, 3].
        gap: The width of the white gaps, in pixels.

    Returns:
        The picture, uint8 [H, 3·W + 2·gap, 3].
    """
    shown = image.copy()
    shown[mask] = MISSING_COLOR
    white = np.full((image.shape[0], gap, 3), 255, np.uint8)
    black_and_white = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    return np.concatenate([shown, white, black_and_white, white, result], axis=1)


main = Command("glama-demo", glama_demo)
