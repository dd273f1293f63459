"""The jobs: pictures and masks that anybody can make again, from the photographs in `benchmarks/photos`.

Large pictures are photographs that are enlarged, mirrored side by side, and covered with a little noise, which makes
their files as large as those of a camera. Everything is drawn from seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.io.images import read_image

#: A photograph is enlarged by this factor before it is mirrored side by side.
_ENLARGEMENT = 3

#: Standard deviation of the noise, in grey levels of 255.
_NOISE = 2.0

#: A file of the job's folder; it is written last, so a folder with this file is complete.
_DESCRIPTION = "job.json"

#: A picture, and its mask: uint8 [H, W, 3] and bool [H, W].
Scene = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Job:
    """A job of users.

    Attributes:
        letter: the job's short name.
        title: what is done.
        make_scenes: yields the pictures and masks, for a scale of 1 or less that multiplies sides and counts.
        suffix: suffix of the pictures' files.
        out_suffix: suffix of the results' files.
    """

    letter: str
    title: str
    make_scenes: Callable[[float], Iterator[Scene]]
    suffix: str = ".png"
    out_suffix: str = ".png"


@dataclass(frozen=True)
class Folders:
    """The files of a job.

    Attributes:
        images: folder of the pictures.
        masks: folder of the masks, with the names of the pictures.
    """

    images: Path
    masks: Path


def write_job(job: Job, scale: float, folder: Path) -> Folders:
    """Write the pictures and masks of a job, unless they are there.

    Args:
        job: the job.
        scale: multiplies sides and counts; 1 is the job's own size.
        folder: gets the folders `images` and `masks`.

    Returns:
        The folders.
    """
    folders = Folders(folder / "images", folder / "masks")
    done = folder / _DESCRIPTION
    description = json.dumps({"job": job.letter, "scale": scale})
    if done.is_file() and done.read_text(encoding="utf-8") == description:
        return folders
    for path in (folders.images, folders.masks):
        path.mkdir(parents=True, exist_ok=True)
    for number, (image, missing) in enumerate(job.make_scenes(scale)):
        options = {"quality": 92} if job.suffix == ".jpg" else {"compress_level": 1}
        Image.fromarray(image).save(folders.images / f"{number:03}{job.suffix}", **options)  # type: ignore[arg-type]
        Image.fromarray(missing).save(folders.masks / f"{number:03}.png")
    done.write_text(description, encoding="utf-8")
    return folders


def make_picture(height: int, width: int, seed: int) -> np.ndarray:
    """Make a picture of any size from one photograph.

    Args:
        height: height in pixels.
        width: width in pixels.
        seed: chooses the photograph, the part of it, and the noise.

    Returns:
        uint8 [H, W, 3].
    """
    rng = np.random.default_rng(seed)
    paths = list_photos(PHOTOS)
    photo = read_image(paths[seed % len(paths)]).rgb
    if max(height, width) > min(photo.shape[:2]):
        large = (photo.shape[1] * _ENLARGEMENT, photo.shape[0] * _ENLARGEMENT)
        photo = np.asarray(Image.fromarray(photo).resize(large, Image.Resampling.LANCZOS))
    high, wide = photo.shape[:2]
    top, left = int(rng.integers(max(1, high - height))), int(rng.integers(max(1, wide - width)))
    rows, columns = _mirror(top + np.arange(height), high), _mirror(left + np.arange(width), wide)
    noise = rng.standard_normal((256, 256, 3), np.float32) * _NOISE
    grain = np.rint(noise)[np.arange(height) % 256][:, np.arange(width) % 256].astype(np.int16)
    return (photo[rows][:, columns] + grain).clip(0, 255).astype(np.uint8)


def _mirror(places: np.ndarray, side: int) -> np.ndarray:
    """Return places that run forwards and backwards over a side."""
    turned = places % (2 * side)
    return np.minimum(turned, 2 * side - 1 - turned)


def draw_ellipse(missing: np.ndarray, top: int, left: int, height: int, width: int) -> None:
    """Draw an ellipse that fills a rectangle.

    Args:
        missing: bool [H, W], which is changed.
        top: first row.
        left: first column.
        height: number of rows.
        width: number of columns.
    """
    rows, columns = np.ogrid[:height, :width]
    inside = ((rows + 0.5) / height * 2 - 1) ** 2 + ((columns + 0.5) / width * 2 - 1) ** 2 <= 1
    missing[top : top + height, left : left + width] |= inside


def _scale(value: int, scale: float, least: int = 1) -> int:
    return max(least, round(value * scale))


def _make_object(scale: float) -> Iterator[Scene]:
    """Yield an object of 300×300 in 12 megapixels."""
    height, width, side = _scale(3000, scale, 64), _scale(4000, scale, 64), _scale(300, scale, 8)
    missing = np.zeros((height, width), bool)
    draw_ellipse(missing, height * 2 // 5, width // 3, side, side)
    yield make_picture(height, width, 1), missing


def _make_subtitles(scale: float) -> Iterator[Scene]:
    """Yield 60 frames with a strip of subtitles at one place."""
    height, width, count = _scale(1080, scale, 64), _scale(1920, scale, 64), _scale(60, scale, 2)
    high, wide = _scale(90, scale, 8), _scale(1200, scale, 32)
    missing = np.zeros((height, width), bool)
    top, left = height - 2 * high, (width - wide) // 2
    missing[top : top + high, left : left + wide] = True
    long = make_picture(height, width + 8 * count, 9)
    for number in range(count):  # the camera pans by 8 pixels a frame
        yield np.ascontiguousarray(long[:, 8 * number : 8 * number + width]), missing


def _make_specks(scale: float) -> Iterator[Scene]:
    """Yield forty specks of dust on a scan of 24 megapixels."""
    height, width = _scale(4000, scale, 64), _scale(6000, scale, 64)
    rng, missing = np.random.default_rng(3), np.zeros((height, width), bool)
    for _ in range(_scale(40, scale, 3)):
        side = int(rng.integers(4, 15))
        draw_ellipse(missing, int(rng.integers(height - side)), int(rng.integers(width - side)), side, side)
    yield make_picture(height, width, 3), missing


def _make_comic(scale: float) -> Iterator[Scene]:
    """Yield thirty regions of text on a comic page, in balloons on gray panels."""
    height, width, count = _scale(2339, scale, 256), _scale(1654, scale, 256), _scale(30, scale, 3)
    rng = np.random.default_rng(5)
    page, missing = np.full((height, width, 3), 255, np.uint8), np.zeros((height, width), bool)
    columns, rows = 3, -(-count // 3)
    high, wide = height // rows, width // columns
    for number in range(count):
        top, left = number // columns * high, number % columns * wide
        panel = make_picture(high - 8, wide - 8, number).mean(axis=2) // 64 * 64 + 32  # four gray levels
        canvas = Image.fromarray(np.repeat(panel.astype(np.uint8)[..., None], 3, axis=2))
        draw = ImageDraw.Draw(canvas)
        box_wide, box_high = (int(rng.uniform(0.35, 0.7) * side) for side in (wide, high))
        across, down = int(rng.integers(8, wide - box_wide - 16)), int(rng.integers(8, high - box_high - 16))
        draw.ellipse((across, down, across + box_wide, down + box_high), fill="white", outline="black", width=3)
        inset_wide, inset_high = box_wide * 3 // 20, box_high * 3 // 20
        for line in range(down + inset_high, down + box_high - inset_high, 14):
            draw.line((across + inset_wide, line, across + box_wide - inset_wide, line), fill="black", width=6)
        page[top : top + high - 8, left : left + wide - 8] = np.asarray(canvas)
        rows_of_text = slice(top + down + inset_high - 6, top + down + box_high - inset_high + 6)
        missing[rows_of_text, left + across + inset_wide - 6 : left + across + box_wide - inset_wide + 6] = True
    yield page, missing


def _make_large_hole(scale: float) -> Iterator[Scene]:
    """Yield a hole of 40 % in 1024×1024."""
    side = _scale(1024, scale, 64)
    missing = np.zeros((side, side), bool)
    across = round(side * (0.4 * 4 / np.pi) ** 0.5)
    draw_ellipse(missing, (side - across) // 2, (side - across) // 2, across, across)
    yield make_picture(side, side, 7), missing


def _make_folder(scale: float) -> Iterator[Scene]:
    """Yield fifty photographs of mixed sizes with one hole each."""
    rng = np.random.default_rng(11)
    for number in range(_scale(50, scale, 3)):
        height, width = (_scale(int(rng.integers(480, 1600)), scale, 64) for _ in range(2))
        high, wide = (_scale(int(rng.integers(60, 300)), scale, 8) for _ in range(2))
        missing = np.zeros((height, width), bool)
        draw_ellipse(missing, int(rng.integers(height - high)), int(rng.integers(width - wide)), high, wide)
        yield make_picture(height, width, number), missing


#: The jobs, by their letters.
JOBS = {
    job.letter: job
    for job in (
        Job("a", "a 300×300 object out of a 12-megapixel JPEG", _make_object, ".jpg", ".jpg"),
        Job("b", "a subtitle strip out of 60 frames of 1920×1080, one mask", _make_subtitles),
        Job("c", "forty specks out of a 24-megapixel scan", _make_specks),
        Job("d", "thirty text regions out of a 1654×2339 comic page", _make_comic),
        Job("e", "a hole of 40 % in 1024×1024", _make_large_hole),
        Job("f", "a folder of 50 photographs of mixed sizes, one hole each", _make_folder, ".jpg"),
    )
}
