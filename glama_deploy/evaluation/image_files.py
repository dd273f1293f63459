"""The files of an evaluation by their names: photographs, and masks that lie in a folder.

In LaMa's programs (advimman/lama, `bin/gen_mask_dataset.py`, `saicinpainting/evaluation/data.py`) the mask
`image1_mask001.png` belongs to `image1.png`: what stands before the last `_mask` of a `.png` file is the image's name.
Here the suffix may be `.PNG`, too. An image may have several masks. Other folders have a mask of the image's own name
for each image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from glama_deploy.errors import GlamaError
from glama_deploy.io.images import SUFFIXES

#: The part of a name behind which LaMa's programs number the masks of an image, and the suffix of their masks.
MASK_PART, MASK_SUFFIX = "_mask", ".png"


def list_files(folder: Path) -> list[str]:
    """List the image files below a folder, masks included.

    Args:
        folder: the folder. Hidden files and folders are left out.

    Returns:
        Paths relative to the folder, with slashes, sorted.
    """
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    names = (path.relative_to(folder) for path in paths)
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def split_masks(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell photographs from the masks that lie beside them by LaMa's naming.

    Args:
        files: the image files of a folder, as :func:`list_files` returns them.

    Returns:
        The photographs, and the masks. A file that is named as a mask, but has no image beside it, is a photograph.
    """
    stems = {cut_suffix(file) for file in files}
    photographs, masks = list[str](), list[str]()
    for file in files:
        (masks if _find_image_stem(file) in stems else photographs).append(file)
    return photographs, masks


def cut_suffix(file: str) -> str:
    """Return a path without its last suffix.

    Args:
        file: the path, with slashes.

    Returns:
        The path, with slashes.
    """
    return PurePosixPath(file).with_suffix("").as_posix()


def _find_image_stem(file: str) -> str | None:
    """Return the path, without suffix, of the image that a mask of LaMa's naming belongs to; None for other names."""
    path = PurePosixPath(file)
    name, part, _ = path.name.rpartition(MASK_PART)
    return (path.parent / name).as_posix() if name and part and path.suffix.lower() == MASK_SUFFIX else None


def pair_masks(photographs: Path, images: Sequence[str], masks: Path) -> dict[str, list[str]]:
    """Find the masks of images by their names.

    The folder follows LaMa's naming if one of its files is the mask of an image by that naming. Files of other names
    are then no masks. In all other folders a mask has the path of its image, with any suffix.

    Args:
        photographs: the folder of the images.
        images: the images, relative to their folder.
        masks: the folder of the masks. It may be that of the images if the masks follow LaMa's naming.

    Returns:
        The masks of each image, relative to their folder, sorted; at least one each.

    Raises:
        GlamaError: an image has no mask, a mask has no image, or the names are ambiguous.
    """
    if not masks.is_dir():
        raise GlamaError(f"`masks` {masks} is no folder; give the folder of the masks")
    by_stem = _group(images, map(cut_suffix, images))
    files = list_files(masks)
    stems = [_find_image_stem(file) for file in files]
    follows_lama = any(stem in by_stem for stem in stems)
    if not follows_lama and masks.resolve() == photographs.resolve():
        expected = f"{cut_suffix(images[0])}{MASK_PART}000{MASK_SUFFIX}"
        raise GlamaError(f"{masks} has no masks beside its images: {expected} is expected beside {images[0]}")
    if not follows_lama:
        stems = [cut_suffix(file) for file in files]
    found: dict[str, list[str]] = {image: [] for image in images}
    for file, stem in zip(files, stems, strict=True):
        if stem is None:
            continue
        if stem not in by_stem:
            raise GlamaError(
                f"{masks / file} is a mask without an image: {photographs / stem}.png (or .jpg, …) is expected; remove "
                "the mask, or add the image"
            )
        if len(by_stem[stem]) > 1:
            both = " and ".join(by_stem[stem][:2])
            raise GlamaError(f"{masks / file} is the mask of two images, {both}; rename one")
        (image,) = by_stem[stem]
        found[image].append(file)
    for image, theirs in found.items():
        stem = cut_suffix(image)
        if not theirs:
            lama, own = f"{stem}{MASK_PART}000{MASK_SUFFIX}", f"{stem}.png"
            expected = lama if follows_lama else f"{own}, or {lama} as LaMa names masks,"
            raise GlamaError(f"{photographs / image} has no mask in {masks}: {expected} is expected")
        if len(theirs) > 1 and not follows_lama:
            raise GlamaError(f"{photographs / image} has two masks in {masks}, {theirs[0]} and {theirs[1]}; remove one")
    return found


def _group(values: Iterable[str], keys: Iterable[str]) -> dict[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for value, key in zip(values, keys, strict=True):
        found[key].append(value)
    return found
