"""Images with masks beside them, as LaMa's evaluation reads them.

`image1.jpg` becomes `image1_crop000.png` with the mask `image1_crop000_mask000.png`. LaMa's `bin/gen_mask_dataset.py`
gives these names. Each further mask of the image has the next number, and an image of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation import image_files, protocol
from glama_deploy.evaluation.protocol import Dataset
from glama_deploy.evaluation.records import atomic_file_in_new_folder
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import check
from glama_deploy.io import locks
from glama_deploy.io.files import PREFIX, check_path, has_only_leftovers, write_error
from glama_deploy.io.images import SUFFIXES, read_bytes
from glama_deploy.io.mask_files import write_mask
from glama_deploy.masks import MASKS_VERSION, by_name
from glama_deploy.masks.base import MAX_DRAWS, draw_until
from glama_deploy.system.workers import work_in_processes
from glama_deploy.text.escapes import escape_controls

#: How images are cut to a size. middle: the largest part of that shape in the middle. lama: the smaller side is scaled,
#: and a square that the mask reaches is cut, as LaMa does.
Crop = Literal["middle", "lama"]

#: The file that says how the images and masks were made.
SETTINGS = "masks.json"

#: The largest missing share of a square that is cut by `lama` (LaMa's `max_tamper_area`), unless the mask of the whole
#: image has more.
_MAX_COVERAGE = 0.5


class Settings(FrozenModel):
    """What the images and masks depend on, except the contents of the images.

    Attributes:
        dataset: the folder of the images.
        mask: the name of the mask.
        size: height and width of the images; None keeps their own sizes.
        crop: how images are cut to the size.
        variants: the number of masks of each image.
        seed: the seed of the masks, together with the image's name.
        mask_definitions: the version of what the masks' names draw.
    """

    dataset: Path
    mask: str
    size: tuple[int, int] | None = None
    crop: Crop = "middle"
    variants: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    mask_definitions: int = MASKS_VERSION


def make_dataset(
    settings: Settings,
    out: Path,
    processes: int = 1,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write images with masks beside them, or continue where an earlier run of the same settings ended.

    Args:
        settings: what is written.
        out: the folder.
        processes: the number of processes. It changes no byte of the files.
        on_progress: called with the number of images that are done, and of all.

    Returns:
        A line for each image that cannot be used. The other images are written.

    Raises:
        GlamaError: bad input, or the folder has other files.
    """
    images = _check(settings, out)
    with _hold(out, settings):
        todo = [image for image in images if not all(p.is_file() for p in _list_masks(settings, out, image))]
        on_progress(len(images) - len(todo), len(images))
        make = partial(_make_pairs, settings, out)
        failures: list[str] = []
        count = min(processes, len(todo))
        with closing(work_in_processes(make, todo, count) if count > 1 else (make(image) for image in todo)) as done:
            for number, failure in enumerate(done, len(images) - len(todo) + 1):
                failures += [failure] if failure else []
                on_progress(number, len(images))
    return failures


def _check(settings: Settings, out: Path) -> list[str]:
    """Return the images. Raises GlamaError for settings or paths that cannot be used."""
    folder = settings.dataset
    check_path(folder)
    if not folder.is_dir():
        raise GlamaError(f"`dataset` {folder} is no folder; give one with images ({', '.join(sorted(SUFFIXES))})")
    by_name(settings.mask)
    if settings.crop == "lama" and (settings.size is None or settings.size[0] != settings.size[1]):
        raise GlamaError("`crop=lama` cuts squares; give `size`, such as 512x512")
    if out.resolve().is_relative_to(folder.resolve()):
        raise GlamaError(f"`out` {out} lies in `dataset` {folder}, all of which is read; choose another folder")
    images = protocol.list_photographs(Dataset(name="dataset", folder=folder))
    if not images:
        raise GlamaError(f"`dataset` {folder} has no images ({', '.join(sorted(SUFFIXES))}); give a folder that has")
    taken: dict[str, str] = {}
    for image in images:
        other = taken.setdefault(image_files.cut_suffix(image), image)
        if other != image:
            raise GlamaError(f"{folder / other} and {folder / image} would have outputs of one name; rename one")
    return images


@contextmanager
def _hold(out: Path, settings: Settings) -> Iterator[None]:
    """Hold the folder during the block. Raises GlamaError where it has files of other settings, or is in use."""
    path = out / SETTINGS
    try:
        if out.is_dir() and not path.exists() and not has_only_leftovers(out):
            raise GlamaError(f"{out} has files that were not made from a `dataset`; choose another folder")
        out.mkdir(parents=True, exist_ok=True)
        with locks.try_hold(out / f"{PREFIX}lock") as ours:
            if not ours:
                raise GlamaError(f"{out} is being written by another run; wait for it")
            if path.exists():
                _compare(path, settings)
            else:
                with atomic_file_in_new_folder(path) as temporary:
                    temporary.write_text(settings.model_dump_json(indent=1) + "\n", encoding="utf-8")
            yield
    except OSError as error:
        raise write_error(out, error) from error


def _compare(path: Path, settings: Settings) -> None:
    """Raise GlamaError where a folder was made with other settings."""
    try:
        there = Settings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise GlamaError(f"{path} is damaged or of another version; choose another folder") from error
    for name in Settings.model_fields:
        if getattr(there, name) != getattr(settings, name):
            raise GlamaError(
                f"{path.parent} was made with {name} {getattr(there, name)}, not {getattr(settings, name)}; choose "
                "another folder"
            )


def _list_masks(settings: Settings, out: Path, image: str) -> list[Path]:
    """Return the files of an image's masks. A mask is written after its image."""
    stem = image_files.cut_suffix(image)
    return [out / f"{stem}_crop{number:03}_mask{number:03}.png" for number in range(settings.variants)]


def _make_pairs(settings: Settings, out: Path, image: str) -> str:
    """Write an image and its masks that are not there. Return why this is not possible; empty if it is."""
    path = settings.dataset / image
    try:
        protocol.check_name(path)
        rgb = read_bytes(path)
        for number, mask_path in enumerate(_list_masks(settings, out, image)):
            if mask_path.is_file():
                continue
            cut, missing = (
                _cut_square(rgb, settings, image, number)
                if settings.crop == "lama"
                else _cut_middle(rgb, settings, image, number)
            )
            check(cut, missing)
            if not missing.any():
                raise ImageError(f"the mask misses no pixel of an image of {cut.shape[0]}x{cut.shape[1]}")
            with atomic_file_in_new_folder(Path(f"{str(mask_path).rpartition('_mask')[0]}.png")) as temporary:
                Image.fromarray(cut).save(temporary, format="PNG")
            write_mask(mask_path, missing)
    except (ImageError, MemoryError) as error:
        reason = str(error) or "the memory that is free does not hold it"
        name = escape_controls(str(path))  # as the error has it
        return reason if name in reason else f"{name}: {reason}"
    return ""


def _cut_middle(rgb: np.ndarray, settings: Settings, image: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle of an image at the size, uint8 H×W×3, and the mask that an evaluation would draw, bool H×W."""
    cut = protocol.cut_middle(rgb, settings.size)
    height, width = cut.shape[:2]
    return cut, protocol.draw_missing(settings.mask, image, height, width, settings.seed, number)


def _cut_square(rgb: np.ndarray, settings: Settings, image: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a square of the scaled image that the mask reaches, uint8 H×H×3, and its mask, bool H×H."""
    assert settings.size is not None
    scaled = _scale(rgb, settings.size[0])
    rng = protocol.make_generator(settings.mask, image, settings.seed, number)
    kind, squares = by_name(settings.mask), list[tuple[slice, slice]]()
    height, width = scaled.shape[:2]

    def draw() -> np.ndarray:
        mask = kind(height, width, rng)
        if not mask.any():
            return mask
        square = choose_square(mask, rng)
        squares.append(square)
        cut = mask[square]
        return cut if cut.mean() <= max(_MAX_COVERAGE, mask.mean()) else np.ones_like(cut)

    try:
        missing = draw_until(draw, lambda cut: bool(cut.any()) and not cut.all())
    except GlamaError as error:
        raise ImageError(
            f"none of {MAX_DRAWS} draws of {settings.mask} on {height}x{width} pixels has a square with enough known "
            "pixels; leave out `crop=lama`, or choose another mask"
        ) from error
    return scaled[squares[-1]], missing


def _scale(rgb: np.ndarray, side: int) -> np.ndarray:
    """Return an image whose smaller side has this length in pixels, scaled as LaMa does."""
    height, width = rgb.shape[:2]
    factor = side / min(height, width)
    size = round(width * factor), round(height * factor)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def choose_square(mask: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
    """Choose a square that the missing pixels reach, as LaMa's `propose_random_square_crop` with an overlap of 1.

    The square has the smaller side of the image. Along the other side its first pixel is drawn between the last missing
    pixel less the square's side and the last missing pixel, as far as the image goes.

    Args:
        mask: bool H×W with a missing pixel.
        rng: generator of random numbers.

    Returns:
        The rows and columns of the square.
    """
    height, width = mask.shape
    side, longer = min(height, width), max(height, width)
    last = int(np.flatnonzero(mask.any(axis=0 if height < width else 1))[-1])
    first = max(0, min(longer - side - 1, last - side))
    start = int(rng.integers(first, max(first + 1, min(longer - side, last))))
    along, across = slice(start, start + side), slice(0, side)
    return (across, along) if height < width else (along, across)
