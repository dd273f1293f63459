"""Photos and masks that engines are measured and calibrated on: the package's sample, or a folder of the user's."""

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

SAMPLE = Path(images.__file__).parents[1] / "assets" / "sample.jpg"

#: Calibration takes the first so many photos of a folder; more would cost time and move no maximum far.
MOST_PHOTOS = 16

#: What int8 costs is measured on so many, again and again.
MOST_CHECKS = 6


@dataclass(frozen=True)
class Case:
    """One input: image uint8 [B, H, W, 3], missing bool [B, H, W], and what to call it."""

    name: str
    image: np.ndarray
    missing: np.ndarray

    def tensors(self, io: Io = "float", sizes: SizeRange = ANY_SIZE) -> tuple[np.ndarray, np.ndarray]:
        """What a graph with these tensors and sizes takes."""
        height, width = self.missing.shape[1:]
        return tensors.to_tensors(self.image, self.missing, io, compute_padding(height, width, io, sizes))


def parity_cases(sizes: SizeRange, largest: tuple[int, int] = (512, 512)) -> list[Case]:
    """What an engine of these sizes is measured on: several sizes up to `largest`, odd ones and some between the
    corners of its profiles among them, batches, and the masks that break things."""
    if sizes.static:
        large = sizes.min[0] * sizes.min[1] > 768 * 768  # where each takes its time
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
    return [_case(photo, min(b, most), size, kind, seed) for seed, (b, size, kind) in enumerate(plan)]


def calibration_cases(folder: Path | None, size: tuple[int, int], most: int = MOST_PHOTOS) -> list[Case]:
    """Photos of `folder` (or the sample), so many at most, cut or mirrored to `size`, with strokes. Raises GlamaError:
    no photo there."""
    paths = [SAMPLE] if folder is None else _photos(folder)[:most]
    return [_case(_photo(path), 1, size, "strokes", seed) for seed, path in enumerate(paths)]


def int8_cases(
    folder: Path, size: tuple[int, int], largest: tuple[int, int], count: int | None = None
) -> tuple[list[Case], list[Case]]:
    """Photos of `folder` under the masks of training: `count` of them (by default up to :data:`MOST_PHOTOS`) at `size`
    to calibrate on, and up to :data:`MOST_CHECKS` of them, cut and masked otherwise, by turns at `size` and `largest`,
    to measure on (at both, if there is but one photo). Raises GlamaError: no photo there, or fewer than asked for."""
    paths = _photos(folder)
    if len(paths) < (count or 1):
        raise GlamaError(
            f"`calibration={folder}` has {len(paths)} photos, and {count} are asked for; give more photos or a lower "
            "`calibration_images`"
        )
    photos = [_photo(path) for path in paths[: count or MOST_PHOTOS]]
    calibration = [_case(photo, 1, size, "general", seed) for seed, photo in enumerate(photos)]
    checks = [
        _case(photo, 1, largest if seed % 2 else size, "general", -1 - seed)
        for seed, photo in enumerate((photos * 2)[: max(2, min(len(photos), MOST_CHECKS))])
    ]
    return calibration, checks


def _photo(path: Path) -> np.ndarray:
    """uint8 H×W×3. Raises GlamaError for one that is no image, or smaller than any that is inpainted."""
    rgb = images.read_image(path).rgb
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise GlamaError(f"{path} is {height}x{width}; calibration takes photos of at least {MIN_SIDE}x{MIN_SIDE}")
    return rgb


def _photos(folder: Path) -> list[Path]:
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in images.SUFFIXES)
    if not paths:
        raise GlamaError(f"`calibration={folder}` has no photos ({', '.join(sorted(images.SUFFIXES))})")
    return paths


def _case(photo: np.ndarray, batch: int, size: tuple[int, int], kind: str, seed: int) -> Case:
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
