"""Small pictures of what the subjects made of a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from glama_deploy.benchmarks.jobs.scenes import Folders
from glama_deploy.inpainting.boxes import Span, find_holes
from glama_deploy.io.files import atomic_file

#: Side of a picture on the sheet, and the height of its caption, in pixels.
_SIDE, _CAPTION = 240, 16

#: Pictures in a row of the sheet.
_COLUMNS = 4

#: Pixels that are shown around the largest hole, as a share of its longer side, and at least.
_AROUND_SHARE, _AROUND_PIXELS = 0.3, 24


def draw_results(folders: Folders, results: Mapping[str, Path], path: Path) -> None:
    """Draw the surroundings of the largest hole of the first picture: the picture with its mask, and each result.

    Args:
        folders: the files of the job.
        results: folder of the results, by subject.
        path: the PNG file to write.
    """
    first = min(folders.images.iterdir())
    missing = np.asarray(Image.open(folders.masks / f"{first.stem}.png").convert("L")) > 0
    span = _look_at_hole(missing)
    image = np.asarray(Image.open(first).convert("RGB")).copy()
    image[missing] = (255, 0, 255)
    shown = {"missing": image[span.slices]}
    for name, folder in results.items():
        for found in folder.glob(f"{first.stem}.*"):
            shown[name] = np.asarray(Image.open(found).convert("RGB"))[span.slices]
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + 4), rows * (_SIDE + _CAPTION + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, pixels) in enumerate(shown.items()):
        left, top = number % _COLUMNS * (_SIDE + 4), number // _COLUMNS * (_SIDE + _CAPTION + 4)
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        scale = _SIDE / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, top + _CAPTION))
        draw.text((left + 2, top + 2), name, fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        sheet.save(temporary, format="PNG")


def _look_at_hole(missing: np.ndarray) -> Span:
    """Return the largest hole with its surroundings, within the picture."""
    hole = max(find_holes(missing), key=lambda hole: hole.size[0] * hole.size[1])
    wide = hole.grown(max(_AROUND_PIXELS, round(_AROUND_SHARE * max(hole.size))))
    height, width = missing.shape
    return Span(max(0, wide.top), max(0, wide.left), min(height, wide.bottom), min(width, wide.right))
