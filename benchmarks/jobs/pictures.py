"""Small pictures of what the subjects made of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


#: The name of the view of the picture with its mask.
MISSING = "missing"


def cut_views(folders: Folders, results: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Cut out the surroundings of the largest hole of the first picture.

    Args:
        folders: the files of the job.
        results: folder of the results, by subject.

    Returns:
        The picture with its mask, called `MISSING`, and each result by subject: uint8 [H, W, 3], and the longer side
        has `_SIDE` pixels.
    """
    first = min(folders.images.iterdir())
    missing = np.asarray(Image.open(folders.masks / f"{first.stem}.png").convert("L")) > 0
    span = _look_at_hole(missing)
    image = np.asarray(Image.open(first).convert("RGB")).copy()
    image[missing] = (255, 0, 255)
    views = {MISSING: _shrink(image[span.slices])}
    for name, folder in results.items():
        for found in folder.glob(f"{first.stem}.*"):
            views[name] = _shrink(np.asarray(Image.open(found).convert("RGB"))[span.slices])
    return views


def write_views(views: Mapping[str, np.ndarray], letter: str, subjects: Sequence[str], out: Path) -> None:
    """Write the views of a job, and draw a sheet of these and of the views that an earlier run has left.

    Args:
        views: the views of this run, uint8 [H, W, 3].
        letter: the letter of the job.
        subjects: the subjects on the sheet, in order.
        out: the folder. The sheet is `job-LETTER.png`, the views are in the folder `views`.
    """
    (out / "views").mkdir(parents=True, exist_ok=True)
    shown = {}
    for name in (MISSING, *subjects):
        path = out / "views" / f"{letter}-{name.replace(':', '-')}.png"
        if name in views:
            _save(Image.fromarray(views[name]), path)
        if path.is_file():
            shown[name] = Image.open(path).convert("RGB")
    _save(_draw_sheet(shown), out / f"job-{letter}.png")


def _draw_sheet(shown: Mapping[str, Image.Image]) -> Image.Image:
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + 4), rows * (_SIDE + _CAPTION + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, picture) in enumerate(shown.items()):
        left, top = number % _COLUMNS * (_SIDE + 4), number // _COLUMNS * (_SIDE + _CAPTION + 4)
        sheet.paste(picture, (left, top + _CAPTION))
        draw.text((left + 2, top + 2), name, fill="black")
    return sheet


def _shrink(pixels: np.ndarray) -> np.ndarray:
    """Return a view whose longer side has `_SIDE` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = _SIDE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG")


def _look_at_hole(missing: np.ndarray) -> Span:
    """Return the largest hole with its surroundings, within the picture."""
    hole = max(find_holes(missing), key=lambda hole: hole.size[0] * hole.size[1])
    wide = hole.grown(max(_AROUND_PIXELS, round(_AROUND_SHARE * max(hole.size))))
    height, width = missing.shape
    return Span(max(0, wide.top), max(0, wide.left), min(height, wide.bottom), min(width, wide.right))
