"""Photos and masks to measure and calibrate engines on: the package's sample, or photos of the user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glama_deploy.bundle import ANY_SIZE, Io, SizeRange
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import tensors
from glama_deploy.inpainting.padding import compute_padding
from glama_deploy.io import images
from glama_deploy.masks import by_name
from glama_deploy.network import MIN_SIDE

#: The sample photo of the package.
SAMPLE = Path(images.__file__).parents[1] / "assets" / "sample.jpg"

#: Calibration takes this many photos of a folder at most. More photos cost time and hardly change the maxima.
MAX_CALIBRATION_PHOTOS = 16

#: The number of photos that the search for int8 measures each graph on.
MAX_CHECK_PHOTOS = 6


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: The name in messages and in the manifest.
        image: The images, uint8 [B, H, W, 3], RGB.
        missing: The masks, bool [B, H, W], True where pixels are missing.
    """

    name: str
    image: np.ndarray
    missing: np.ndarray

    def tensors(self, io: Io = "float", sizes: SizeRange = ANY_SIZE) -> tuple[np.ndarray, np.ndarray]:
        """Convert the case to tensors of a graph.

        Args:
            io: The type of the graph's inputs.
            sizes: The sizes that the graph takes. The images are padded to such a size.

        Returns:
            The tensors `image` and `mask`: float32 [B, 3, H, W] and [B, 1, H, W] in 0…1, or uint8 [B, H, W, 3] and
            [B, H, W].
        """
        height, width = self.missing.shape[1:]
        return tensors.to_tensors(self.image, self.missing, io, compute_padding(height, width, io, sizes))


def parity_cases(sizes: SizeRange, largest: tuple[int, int] = (512, 512)) -> list[Case]:
    """Make the cases that the parity of an engine is measured on.

    An engine of any size gets several sizes, odd ones among them, and a batch. The masks are strokes, a single pixel,
    the whole image, and no pixel.

    Args:
        sizes: The sizes that the engine takes.
        largest: The largest size (height, width) of a case.

    Returns:
        The cases. They are the same for each call.
    """
    if sizes.static:
        large = sizes.min[0] * sizes.min[1] > 768 * 768  # each case takes seconds
        kinds = ("strokes", "full") if large else ("strokes", "one pixel", "full", "empty")
        plan = [(1, sizes.min, kind) for kind in kinds]
    else:
        plan = [
            (1, (64, 64), "one pixel"),
            (3, (64, 96), "full"),
            (1, (256, 256), "strokes"),
            (1, (200, 312), "empty"),
            (1, (259, 245), "strokes"),
            (1, (512, 512), "strokes"),
        ]
        plan += [(1, (side, side), "strokes") for side in (1024, 2048, 4096)]
        plan = [(b, s, kind) for b, s, kind in plan if s[0] <= largest[0] and s[1] <= largest[1]]
        if largest not in [size for _, size, _ in plan]:
            plan.append((1, largest, "strokes"))
        plan = [(b, s, kind) for b, s, kind in plan if sizes.covers(*s)] or [(1, sizes.opt, "strokes")]
    most = sizes.max_batch or 3
    photo = images.read_image(SAMPLE).rgb
    return [_make_case(photo, min(b, most), size, kind, seed) for seed, (b, size, kind) in enumerate(plan)]


def calibration_cases(folder: Path | None, size: tuple[int, int], most: int = MAX_CALIBRATION_PHOTOS) -> list[Case]:
    """Make cases to calibrate a half type on, with strokes as masks.

    Args:
        folder: The folder of photos; None: the sample photo of the package.
        size: The size of the cases (height, width). Photos are cut or mirrored to this size.
        most: The largest number of photos.

    Returns:
        A case for each photo.

    Raises:
        GlamaError: The folder has no photos, or a photo is too small.
    """
    paths = [SAMPLE] if folder is None else _list_photos(folder)[:most]
    return [_make_case(_read_photo(path), 1, size, "strokes", seed) for seed, path in enumerate(paths)]


def int8_cases(
    folder: Path, size: tuple[int, int], largest: tuple[int, int], count: int | None = None
) -> tuple[list[Case], list[Case]]:
    """Make cases to calibrate int8 on and to measure it on, with the masks of training.

    Args:
        folder: The folder of photos.
        size: The size to calibrate at (height, width).
        largest: The second size to measure at (height, width).
        count: The number of photos; None: all, up to :data:`MAX_CALIBRATION_PHOTOS`.

    Returns:
        The cases to calibrate on, and the cases to measure on. The latter are up to :data:`MAX_CHECK_PHOTOS` of the
        photos with other cuts and masks, by turns at `size` and `largest`. A single photo is measured at both.

    Raises:
        GlamaError: The folder has no photos, fewer than `count`, or a photo is too small.
    """
    paths = _list_photos(folder)
    if len(paths) < (count or 1):
        raise GlamaError(
            f"`calibration={folder}` has {len(paths)} photos, and {count} are asked for; give more photos or a lower "
            "`calibration_images`"
        )
    photos = [_read_photo(path) for path in paths[: count or MAX_CALIBRATION_PHOTOS]]
    calibration = [_make_case(photo, 1, size, "general", seed) for seed, photo in enumerate(photos)]
    checks = [
        _make_case(photo, 1, largest if seed % 2 else size, "general", -1 - seed)
        for seed, photo in enumerate((photos * 2)[: max(2, min(len(photos), MAX_CHECK_PHOTOS))])
    ]
    return calibration, checks


def _read_photo(path: Path) -> np.ndarray:
    """Read a photo, uint8 [H, W, 3]. Raise GlamaError if it is not an image, or too small to inpaint."""
    rgb = images.read_bytes(path)
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise GlamaError(f"{path} is {height}x{width}; calibration takes photos of at least {MIN_SIDE}x{MIN_SIDE}")
    return rgb


def _list_photos(folder: Path) -> list[Path]:
    """List the photos of a folder by name. Raise GlamaError if there is none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in images.SUFFIXES)
    if not paths:
        raise GlamaError(f"`calibration={folder}` has no photos ({', '.join(sorted(images.SUFFIXES))})")
    return paths


def _make_case(photo: np.ndarray, batch: int, size: tuple[int, int], kind: str, seed: int) -> Case:
    """Cut a photo at random places, and draw a mask of the kind for each cut."""
    rng = np.random.default_rng(seed % 2**32)
    height, width = size
    beyond = [(0, max(0, side - there)) for side, there in zip(size, photo.shape[:2], strict=True)]
    photo = np.pad(photo, (*beyond, (0, 0)), mode="symmetric")
    crops, masks = [], []
    for _ in range(batch):
        y = int(rng.integers(photo.shape[0] - height + 1))
        x = int(rng.integers(photo.shape[1] - width + 1))
        crops.append(photo[y : y + height, x : x + width])
        mask = np.zeros(size, bool)
        if kind == "full":
            mask[:] = True
        elif kind == "one pixel":
            mask[height // 2, width // 3] = True
        elif kind in ("strokes", "general"):
            mask = by_name("MediumStrokes" if kind == "strokes" else kind)(height, width, rng)
        masks.append(mask)
    name = f"{height}x{width} {kind}" + (f" ×{batch}" if batch > 1 else "")
    return Case(name, np.stack(crops), np.stack(masks))
