"""glama-demo: the embedded network, exported, built and run on the sample photo."""

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

#: How missing pixels are shown in the input.
MISSING = (255, 0, 128)


def glama_demo(
    out: Annotated[Path, option("--out", help="Folder for the bundle; the picture is written beside it.")] = Path(
        "demo"
    ),
) -> int:
    """Export the embedded network to OpenVINO and TensorRT-RTX, inpaint a photo, and show both.

    Writes OUT/bundle, OUT/inpainted.png and OUT.png (input, mask, result side by side). Exit code as glama-export's.
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
        sheet = side_by_side(photo.rgb, mask, result)
        with atomic_file(picture) as temporary:
            Image.fromarray(sheet).save(temporary, format="PNG")
    console = Console()
    code = print_outcome(console, outcome)
    console.print(f"inpainted with {inpainter.description}")
    console.print(f"bundle:  {bundle}", soft_wrap=True)
    console.print(f"picture: {picture} (input, mask, result)", soft_wrap=True)
    return code


def _check_out(out: Path, bundle: Path, picture: Path) -> None:
    """Raise GlamaError where there is something that the demo did not make; what a killed run left is not counted."""
    check_path(bundle)
    check_path(picture)
    if (bundle / MANIFEST).is_file():
        return
    for path in (picture, out):
        if path.exists() and (path == picture or not has_only_leftovers(path)):
            raise GlamaError(f"{path} exists and was not made by the demo; choose another --out")


def side_by_side(image: np.ndarray, mask: np.ndarray, result: np.ndarray, gap: int = 8) -> np.ndarray:
    """Input (missing pixels in a signal colour), mask and result, uint8 H×W×3 each, on white."""
    shown = image.copy()
    shown[mask] = MISSING
    white = np.full((image.shape[0], gap, 3), 255, np.uint8)
    black_and_white = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    return np.concatenate([shown, white, black_and_white, white, result], axis=1)


main = Command("glama-demo", glama_demo)
