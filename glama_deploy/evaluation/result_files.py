"""Results as files: pictures that other programs made, and pictures that an evaluation saves for other programs.

A result has the name that LaMa's programs give to it (advimman/lama, `bin/predict.py`): the path of its mask. Drawn
masks have no files. Their results have the names that the masks would have, in a folder of the mask's name:
`ThickStrokes/image1_mask000.png`. With several datasets these paths begin with the dataset's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import image_files
from glama_deploy.evaluation.image_files import MASK_PART
from glama_deploy.evaluation.methods import Spec
from glama_deploy.evaluation.protocol import Item, Protocol
from glama_deploy.evaluation.records import PROTOCOL, atomic_file_in_new_folder, check_protocol, read_protocol
from glama_deploy.io.decoding import read_upright_size
from glama_deploy.io.files import PREFIX, has_only_leftovers, remove_leftovers, write_error

#: What some programs add to the names of their results, and what LaMa's evaluation expects by default.
_RESULT_PART = "_inpainted"


def name_result(item: Item, mask: str) -> str:
    """Return the name of a result.

    Args:
        item: the image.
        mask: the mask of the column.

    Returns:
        The path below the folder of a method, without suffix.
    """
    if item.mask:
        return (PurePosixPath(item.place) / image_files.cut_suffix(item.mask)).as_posix()
    return (PurePosixPath(item.place) / mask / f"{image_files.cut_suffix(item.image)}{MASK_PART}000").as_posix()


def _list_names(item: Item, mask: str) -> tuple[str, ...]:
    """Return the names that a result may have: the mask's, and the image's if the image has no other mask."""
    name = name_result(item, mask)
    own = PurePosixPath(item.place) / ("" if item.mask else mask) / image_files.cut_suffix(item.image)
    return tuple(dict.fromkeys((name, name + _RESULT_PART, *([own.as_posix()] if item.is_only else []))))


def check_names(items: Sequence[Item], masks: Sequence[str]) -> None:
    """Check that no two results have one name.

    Args:
        items: the images.
        masks: the masks of the columns.

    Raises:
        GlamaError: two images would have results of one name.
    """
    taken: dict[str, Item] = {}
    for item in items:
        for mask in masks:
            name = name_result(item, mask)
            if name in taken:
                raise GlamaError(f"{taken[name].path} and {item.path} have results of one name, {name}.png; rename one")
            taken[name] = item


def find_results(items: Sequence[Item], specs: Sequence[Spec], masks: Sequence[str]) -> list[Item]:
    """Find the results that other programs made.

    Args:
        items: the images.
        specs: the methods.
        masks: the masks of the columns.

    Returns:
        The images with the files of their results.

    Raises:
        GlamaError: a result is not there, or has two files.
    """
    specs = [spec for spec in specs if spec.pictures is not None]
    if not specs:
        return list(items)
    check_names(items, masks)
    files = {spec.label: _sort_files(spec.pictures) for spec in specs if spec.pictures is not None}
    return [
        item.model_copy(
            update={
                "results": {
                    spec.label: {mask: _find_file(item, mask, spec, files[spec.label]) for mask in masks}
                    for spec in specs
                }
            }
        )
        for item in items
    ]


def _sort_files(folder: Path) -> dict[str, list[str]]:
    """Return the pictures below a folder by their paths without suffix."""
    found = defaultdict[str, list[str]](list)
    for file in image_files.list_files(folder):
        found[image_files.cut_suffix(file)].append(file)
    return found


def _find_file(item: Item, mask: str, spec: Spec, files: dict[str, list[str]]) -> Path:
    assert spec.pictures is not None
    names = _list_names(item, mask)
    found = [file for name in names for file in files.get(name, ())]
    with_mask = item.mask or mask
    if not found:
        expected = " or ".join(f"{name}.png" for name in names)
        raise GlamaError(f"{spec.pictures} has no result of {item.path} with {with_mask}: {expected} is expected")
    if len(found) > 1:
        raise GlamaError(
            f"{spec.pictures} has two results of {item.path} with {with_mask}, {found[0]} and {found[1]}; remove one"
        )
    return spec.pictures / found[0]


def check_sizes(items: Sequence[Item], size: tuple[int, int] | None) -> None:
    """Check by the headers of files that given masks and results have the sizes of their images, as evaluated.

    Args:
        items: the images. An image that cannot be read is not checked here.
        size: height and width that the images are brought to; None keeps their own.

    Raises:
        GlamaError: a mask or a result cannot be read, or has another size than its image.
    """
    for item in items:
        others = item.files[1:]
        if not others:
            continue
        try:
            expected = read_upright_size(item.path) if size is None else size
        except GlamaError:  # which the evaluation names, beside the results of the others
            continue
        for other in others:
            height, width = read_upright_size(other)
            if (height, width) != expected:
                brought = "" if size is None else " by `size`"
                raise GlamaError(
                    f"{other} is {height}x{width}, and {item.path} {expected[0]}x{expected[1]}{brought}; pictures of "
                    "one size are expected"
                )


def check_folder(folder: Path, protocol: Protocol, *, overwrite: bool) -> list[Path]:
    """Check that results may be saved in a folder. Nothing is written.

    Args:
        folder: the folder.
        protocol: what is evaluated.
        overwrite: whether to remove the results that are there.

    Returns:
        The results that are to be removed.

    Raises:
        GlamaError: the folder has results of another configuration, or files that no evaluation has saved.
    """
    path = folder / PROTOCOL
    if folder.exists() and not folder.is_dir():
        raise GlamaError(f"`save` {folder} is a file; choose another folder")
    if folder.exists() and not path.exists() and not has_only_leftovers(folder):
        raise GlamaError(f"`save` {folder} has files that no evaluation has saved; choose another folder")
    there = read_protocol(path, "choose another `save`") if path.exists() else None
    if overwrite:
        return _list_saved(folder, there)
    check_protocol(path, protocol, "save")
    return []


def _list_saved(folder: Path, there: Protocol | None) -> list[Path]:
    """Return the results in a folder, which are of the protocol there. Raises GlamaError for files that are not ours.

    A link is not ours, because a link may lead to any folder.
    """
    places, ending = set[Path](), ".png"
    if there is not None:
        datasets = [dataset.name for dataset in there.datasets] if len(there.datasets) > 1 else [""]
        masks, ending = (there.masks, f"{MASK_PART}000.png") if there.given is None else (("",), ".png")
        places = {folder / each.label / name / mask for each in there.methods for name in datasets for mask in masks}
    links_and_files = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    results: list[Path] = []
    for path in links_and_files:
        if path.name.endswith(ending) and not places.isdisjoint(path.parents) and not path.is_symlink():
            results.append(path)
        elif path != folder / PROTOCOL and not path.name.startswith(PREFIX):
            raise GlamaError(f"{path} was not saved by the evaluation of {PROTOCOL}; choose another `save`")
    return results


def remove_saved(results: Sequence[Path], folder: Path) -> None:
    """Remove saved results, and the folders that are then empty.

    Args:
        results: what :func:`check_folder` returned.
        folder: the folder of saved results, which stays.

    Raises:
        GlamaError: a result cannot be removed.
    """
    for path in results:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
    for parent in sorted({each for path in results for each in path.parents if folder in each.parents}, reverse=True):
        remove_leftovers(parent)
        with suppress(OSError):  # another file is in it
            parent.rmdir()


def place_result(folder: Path, label: str, item: Item, mask: str) -> Path:
    """Return the file of a saved result.

    Args:
        folder: the folder of saved results.
        label: the label of the method.
        item: the image.
        mask: the mask of the column.

    Returns:
        The path of a PNG file.
    """
    return folder / label / f"{name_result(item, mask)}.png"


def save_result(path: Path, rgb: np.ndarray) -> None:
    """Write a result, whole or not at all.

    Args:
        path: the file; its folders are made.
        rgb: uint8 H×W×3.

    Raises:
        GlamaError: the file cannot be written.
    """
    with atomic_file_in_new_folder(path) as temporary:
        Image.fromarray(rgb).save(temporary, format="PNG")
