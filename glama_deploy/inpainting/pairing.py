"""Pair images with masks: two files, two folders by name, or a folder with one mask for all."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from glama_deploy.errors import GlamaError
from glama_deploy.io import images
from glama_deploy.io.files import check_overwrite, check_path, check_writable
from glama_deploy.io.pipes import Source

#: Format of the outputs of a folder. keep: that of each image.
OutputFormat = Literal["keep", "png", "jpg", "webp"]

#: Names of left out files that a message lists, of each kind.
_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """One image to inpaint.

    Attributes:
        image: path of the image, or the image from a pipe.
        mask: path of the mask, or the mask from a pipe; None if the folder of masks has no mask for the image.
        out: path of the output.
        expected_mask: names of masks that would have been taken, for messages.
    """

    image: Source
    mask: Source | None
    out: Path
    expected_mask: str = ""


@dataclass(frozen=True)
class FolderRule:
    """How the images of a folder find their masks, and how outputs are stored.

    Attributes:
        mask_name: the name of an image's mask. `{stem}` stands for the image's name without its suffix. `{n}` stands
            for a number: an image may then have several masks, and an output for each, which has the mask's name.
            Without a suffix, the mask may have any format.
        recursive: whether images in subfolders are filled, too. Masks and outputs have the same subfolders.
        format: the format of the outputs.

    Raises:
        GlamaError: a value is not supported.
    """

    mask_name: str = "{stem}"
    recursive: bool = False
    format: OutputFormat = "png"

    def __post_init__(self) -> None:
        if self.mask_name.count("{stem}") != 1 or "/" in self.mask_name:
            raise GlamaError(
                f"`mask_name` is {self.mask_name!r}; a name with {{stem}} once is expected, such as {{stem}}_mask.png"
            )
        if self.format not in get_args(OutputFormat):
            raise GlamaError(f"`format` is {self.format!r}; expected {', '.join(get_args(OutputFormat))}")

    @property
    def has_several(self) -> bool:
        """Whether an image may have several masks."""
        return "{n}" in self.mask_name

    def find_stem(self, mask: Path) -> str | None:
        """Return the stem of the image that a mask belongs to.

        Args:
            mask: path of a file.

        Returns:
            The stem, in Unicode's composed form (NFC); None if the file's name is no mask's.
        """
        has_suffix = Path(self.mask_name).suffix.lower() in images.SUFFIXES
        pattern = re.escape(self.mask_name).replace(r"\{stem\}", "(.+)").replace(r"\{n\}", r"\d+")
        found = re.fullmatch(pattern, mask.name if has_suffix else mask.stem)
        return _compose(found[1]) if found else None

    def describe_mask(self, stem: str) -> str:
        """Describe the names of an image's mask.

        Args:
            stem: the image's stem.

        Returns:
            A name, for example `a_mask.png (or .jpg, …)`.
        """
        name = self.mask_name.replace("{stem}", stem)
        has_suffix = Path(self.mask_name).suffix.lower() in images.SUFFIXES
        return name if has_suffix else f"{name}.png (or .jpg, …)"


#: Masks have the stems of their images, subfolders are left out, and outputs are PNG.
BY_STEM = FolderRule()


def pair_jobs(image: Path, mask: Path, out: Path, *, overwrite: bool = False, rule: FolderRule = BY_STEM) -> list[Job]:
    """Pair images with masks: a file with its mask, two folders by name, or a folder with one mask for all.

    Args:
        image: path of an image, or of a folder of images.
        mask: path of the mask, or of the folder of masks. Images and masks may lie in one folder if the masks' names
            differ from those of images.
        out: path of the output, or of the folder of outputs.
        overwrite: whether a single output that exists is replaced.
        rule: how the images of a folder find their masks, and how outputs are stored.

    Returns:
        The jobs. Images of one stem, such as a.png and a.jpg, have masks and outputs of their full name: a.png.png.

    Raises:
        GlamaError: a path does not exist, or the paths do not go together. A folder has no images, or two masks for one
            image where the rule allows one. The output cannot be written, or exists and may not be overwritten.
    """
    kinds = {path: _find_kind(path) for path in (image, mask, out)}
    for path, what in ((image, "image"), (mask, "mask")):
        if kinds[path] is None:
            raise GlamaError(f"no {what} at {path}; check the path")
    if kinds[image] == "file" and kinds[mask] == "folder":
        raise GlamaError(f"`image` {image} is a file, and `mask` {mask} a folder; give the mask of the image")
    if image.samefile(mask) and (kinds[image] == "file" or rule.mask_name == BY_STEM.mask_name):
        remedy = "pass the masks' own" + (", or set `mask_name`" if kinds[image] == "folder" else "")
        raise GlamaError(f"`image` {image} and `mask` {mask} are the same {kinds[image]}; {remedy}")
    if kinds[image] == "file":
        if rule != BY_STEM:
            raise GlamaError(f"`image` {image} is a file; `mask_name`, `recursive` and `format` are for folders")
        return [_pair_file(image, mask, out, kinds[out], overwrite)]
    if kinds[out] == "file":
        raise GlamaError(f"`out` {out} is a file; a folder is needed for a folder of images")
    if kinds[out] == "folder" and (out.samefile(image) or out.samefile(mask)):
        raise GlamaError(f"`out` {out} is a folder of the inputs; choose another")
    jobs = _pair_folder(image, mask, out, rule)
    if not jobs:
        left = "".join(f"; it has {part}" for part in describe_left_out(image, mask, out, rule))
        raise GlamaError(f"{image} has no images ({', '.join(sorted(images.SUFFIXES))}){left}")
    check_writable(out)
    return jobs


def _pair_file(image: Path, mask: Path, out: Path, kind: str | None, overwrite: bool) -> Job:
    target = out / f"{image.stem}.png" if kind == "folder" else out
    there = _find_kind(target) is not None
    if there and (target.samefile(image) or target.samefile(mask)):
        raise GlamaError(f"{target} is an input itself; choose another output")
    check_overwrite(target, is_there=there, overwrite=overwrite, place="output")
    check_writable(target)
    return Job(image, mask, target)


def _pair_folder(image: Path, mask: Path, out: Path, rule: FolderRule) -> list[Job]:
    sources = _list_sources(image, mask, out, rule)
    masks = _find_masks(mask, out, rule) if mask.is_dir() else {}
    stems = Counter((path.parent, _compose(path.stem)) for path in sources)
    jobs = []
    for path in sources:
        folder = path.parent.relative_to(image)
        is_one_of_several = stems[path.parent, _compose(path.stem)] > 1
        names = (path.name, path.stem) if is_one_of_several else (path.stem,)
        keys = [(folder, _compose(name)) for name in names]
        found: Sequence[Path | None] = next((masks[key] for key in keys if key in masks), ())
        for each in found or [None if mask.is_dir() else mask]:
            base = each.stem if each is not None and rule.has_several else names[0]
            name = f"{base}.{rule.format}"
            if rule.format == "keep":
                name = f"{base}{path.suffix}" if rule.has_several else path.name
            jobs.append(Job(path, each, out / folder / name, rule.describe_mask(names[0])))
    return jobs


def _list_sources(image: Path, mask: Path, out: Path, rule: FolderRule) -> list[Path]:
    """Return the images of a folder, without its masks."""
    is_mask: Callable[[Path], bool] = lambda path: False  # noqa: E731
    if mask.is_dir() and mask.samefile(image):
        is_mask = lambda path: rule.find_stem(path) is not None  # noqa: E731
    elif mask.is_file():
        is_mask = lambda path: path.samefile(mask)  # noqa: E731
    listed = _list_files(image, rule, [out, mask] if mask.is_dir() else [out])
    return [path for path in listed if _is_image(path) and not is_mask(path)]


def _list_files(folder: Path, rule: FolderRule, others: Sequence[Path]) -> list[Path]:
    """Return the files of a folder, in order, without those of other folders below."""
    if not rule.recursive:
        return sorted(path for path in folder.iterdir() if not path.is_dir())
    kept = [other.resolve() for other in others if other.resolve() != folder.resolve()]
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
        if not path.is_dir() and not hidden and not any(path.resolve().is_relative_to(other) for other in kept):
            found.append(path)
    return found


def _find_masks(mask: Path, out: Path, rule: FolderRule) -> dict[tuple[Path, str], list[Path]]:
    """Return the masks of a folder by their subfolder and their image's stem.

    A file that is not an image stands for its stem where no image has the stem. Reading the file explains its kind.

    Raises:
        GlamaError: two images are masks of one stem, and the rule allows one.
    """
    found: dict[tuple[Path, str], list[Path]] = {}
    for path in _list_files(mask, rule, [out]):
        stem = rule.find_stem(path)
        if stem is None or path.name.startswith("."):
            continue
        others = found.setdefault((path.parent.relative_to(mask), stem), [])
        if not _is_image(path):
            others[:] = others or [path]
            continue
        others[:] = [*filter(_is_image, others), path]
        if len(others) > 1 and not rule.has_several:
            raise GlamaError(f"{others[0]} and {path.name} are masks of one image, {stem}; remove or rename one")
    return found


def _compose(name: str) -> str:
    """Return a name in Unicode's composed form. Some systems store letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def _find_kind(path: Path) -> Literal["file", "folder"] | None:
    """Return the kind of entry at a path; None if the path does not exist. Raises GlamaError for a bad path."""
    check_path(path)
    if path.is_dir():
        return "folder"
    return "file" if path.exists() else None


def _is_image(path: Path) -> bool:
    """Return whether an entry of a folder is an image, by its name."""
    return path.suffix.lower() in images.SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _is_other_file(path: Path) -> bool:
    return not (_is_image(path) or path.name.startswith(".") or path.is_dir())


def describe_left_out(image: Path, mask: Path, out: Path, rule: FolderRule = BY_STEM) -> list[str]:
    """Describe the files that a run over a folder does not read.

    Args:
        image: the folder of images.
        mask: the folder of masks, or the mask of all images.
        out: the folder of outputs. The folder and its parents are not counted.
        rule: how images find their masks.

    Returns:
        Parts of a sentence; empty if the run reads everything.
    """
    own = {each for path in (image, mask, out) for each in (path.resolve(), *path.resolve().parents)}
    entries = [path for path in sorted(image.iterdir()) if path.resolve() not in own]
    hidden = [path for path in entries if path.name.startswith(".")]
    folders = [path for path in entries if path.is_dir() and path not in hidden and not rule.recursive]
    files = _list_files(image, rule, [out, mask] if mask.is_dir() else [out])
    others = [path for path in files if _is_other_file(path)]
    unused: list[Path] = []
    if mask.is_dir():
        used = {job.mask for job in _pair_folder(image, mask, out, rule)}
        unused = [path for found in _find_masks(mask, out, rule).values() for path in found if path not in used]
    no_masks = [path for path in unused if _is_other_file(path) and path not in others]
    parts = [
        _describe_count(others, "file that is not a supported image", "files that are not supported images"),
        _describe_count(folders, "subfolder", "subfolders"),
        _describe_count(
            [path for path in unused if _is_image(path)], "mask without an image", "masks without an image"
        ),
        _describe_count(no_masks, "file that is not a supported mask", "files that are not supported masks"),
    ]
    if hidden:
        parts.append(f"{len(hidden)} hidden {'file' if len(hidden) == 1 else 'files'}")
    return [part for part in parts if part]


def _describe_count(paths: Sequence[Path], one: str, several: str) -> str:
    """Describe a number of files, for example "2 subfolders (a, b)"; empty for none."""
    if not paths:
        return ""
    names = [path.name for path in paths[:_MAX_NAMES_SHOWN]] + ["…"] * (len(paths) > _MAX_NAMES_SHOWN)
    return f"{len(paths)} {one if len(paths) == 1 else several} ({', '.join(names)})"
