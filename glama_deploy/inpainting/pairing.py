"""Pair images with masks: two files, two folders by name, or a folder with one mask for all.

Links to files are read as files. Links to folders are not followed below a folder, so that a circle of links ends.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.in_place import InPlace, check_replaceable, is_backup, is_filled
from glama_deploy.io import images
from glama_deploy.io.files import check_overwrite, check_path, check_writable
from glama_deploy.io.images import AS_THE_INPUT, FileRule
from glama_deploy.io.pipes import Source
from glama_deploy.video.options import is_video

#: Format of the outputs of a folder. keep: that of each image.
OutputFormat = Literal["keep", "png", "jpg", "webp"]

#: Names of left out files that a message lists, of each kind.
_MAX_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Job:
    """One image to inpaint.

    Attributes:
        image: path of the image, or the image from a pipe.
        mask: path of the mask, or the mask from a pipe; None if the image has none.
        out: path of the output.
        expected_mask: names of masks that would have been taken, for messages. Empty if there are no masks.
        backup: where the original is kept if the output replaces the image; None if it does not.
        files: how the image is read, and how the output is written.
    """

    image: Source
    mask: Source | None
    out: Path
    expected_mask: str = ""
    backup: Path | None = None
    files: FileRule = AS_THE_INPUT

    @property
    def file(self) -> Path:
        """The image's file, of a job whose image is not from a pipe."""
        assert isinstance(self.image, Path)
        return self.image

    @property
    def source(self) -> Source:
        """The file that is read: the original, also if the image was replaced by an earlier run."""
        return self.backup if self.backup is not None and self.backup.exists() else self.image

    @property
    def lacks_mask(self) -> bool:
        """Whether the folder of masks has no mask for the image."""
        return self.mask is None and bool(self.expected_mask)

    def is_done(self) -> bool:
        """Tell whether an earlier run made the output.

        Returns:
            True if the output exists; if the output replaces the image, True if the image was replaced.
        """
        return self.out.exists() if self.backup is None else is_filled(self.file, self.backup)


@dataclass(frozen=True)
class FolderRule:
    """How the images of a folder find their masks, and how outputs are stored.

    Attributes:
        mask_name: the name of an image's mask. `{stem}` stands for the image's name without its suffix. `{n}` stands
            for a number or nothing: an image may then have several masks, and an output for each, which has the mask's
            name. Without a suffix, the mask may have any format.
        recursive: whether images in subfolders are filled, too. Masks and outputs have the same subfolders.
        format: the format of the outputs. keep: that of each image; PNG where images of a format are not written.

    Raises:
        GlamaError: a value is not supported.
    """

    mask_name: str = "{stem}"
    recursive: bool = False
    format: OutputFormat = "keep"

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
        pattern = re.escape(self.mask_name).replace(r"\{stem\}", "(.+)").replace(r"\{n\}", r"\d*")
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


#: Masks have the stems of their images, subfolders are left out, and outputs have the formats of their images.
BY_STEM = FolderRule()


def pair_jobs(
    image: Path,
    mask: Path | None,
    out: Path | InPlace,
    *,
    overwrite: bool = False,
    rule: FolderRule = BY_STEM,
    may_be_empty: bool = False,
) -> list[Job]:
    """Pair images with masks: a file with its mask, two folders by name, or a folder with one mask for all.

    Args:
        image: path of an image, or of a folder of images.
        mask: path of the mask, or of the folder of masks. Images and masks may lie in one folder if the masks' names
            differ from those of images. None: no image has a mask file.
        out: path of the output, or of the folder of outputs; or how outputs replace their images.
        overwrite: whether a single output that exists is replaced.
        rule: how the images of a folder find their masks, and how outputs are stored.
        may_be_empty: whether a folder without images, or without a mask for any of them, is accepted. That the outputs
            can be written is not checked then (:func:`check_target`).

    Returns:
        The jobs. Images of one stem, such as a.png and a.jpg, may have masks of their full name: a.png.png. Outputs
        that would have one name have the full name of their image before the suffix.

    Raises:
        GlamaError: a path does not exist, or the paths do not go together. A folder has no images, no mask for any
            image, or two masks for one image where the rule allows one. The output cannot be written, exists and may
            not be overwritten, or is an input or another output.
    """
    kind = _check_inputs(image, mask, rule)
    folder = out.backups if isinstance(out, InPlace) else out
    out_kind = _find_kind(folder) if folder is not None else None
    if kind == "file":
        if rule != BY_STEM:
            raise GlamaError(f"`image` {image} is a file; `mask_name`, `recursive` and `format` are for folders")
        return [_pair_file(image, mask, out, out_kind, overwrite)]
    what = "backup_folder" if isinstance(out, InPlace) else "out"
    if out_kind == "file":
        raise GlamaError(f"`{what}` {folder} is a file; a folder is needed for a folder of images")
    if folder is not None and out_kind is None and folder.suffix.lower() in images.READ_SUFFIXES:
        raise GlamaError(f"`image` {image} is a folder, and `{what}` {folder} has the name of a picture; give a folder")
    if folder is not None and out_kind == "folder" and any(folder.samefile(each) for each in (image, mask) if each):
        raise GlamaError(f"`{what}` {folder} is a folder of the inputs; choose another")
    if isinstance(out, InPlace) and rule.format != "keep":
        raise GlamaError(
            f"`format` is {rule.format}, and `in_place` keeps the format of each image; leave `format` out"
        )
    if isinstance(out, InPlace) and rule.has_several:
        raise GlamaError("`mask_name` has {n}, and `in_place` supports one mask for each image; leave {n} out")
    jobs = _pair_folder(image, mask, out, rule)
    if not jobs and not may_be_empty:
        left = "".join(f"; it has {part}" for part in describe_left_out(image, mask, out, rule))
        raise GlamaError(f"{image} has no images ({', '.join(sorted(images.READ_SUFFIXES))}){left}")
    if not may_be_empty and all(job.lacks_mask for job in jobs):
        raise GlamaError(
            f"{mask} has no mask for any of the {len(jobs)} images of {image}: {jobs[0].expected_mask} is expected for "
            f"{jobs[0].image.name}; rename the masks, or set `mask_name`"
        )
    if not may_be_empty:
        check_target(image, out)
    return jobs


def check_target(image: Path, out: Path | InPlace) -> None:
    """Check that outputs can be written, without writing one.

    Args:
        image: the folder of images.
        out: the folder of outputs, or how outputs replace their images.

    Raises:
        GlamaError: a folder cannot be written.
    """
    folders = [image, out.backups] if isinstance(out, InPlace) else [out]
    for folder in folders:
        if folder is not None:
            check_writable(folder)


def _check_inputs(image: Path, mask: Path | None, rule: FolderRule) -> Literal["file", "folder"]:
    """Return the kind of the image's path. Raises GlamaError where image and mask do not go together."""
    kind = _find_kind(image)
    if kind is None:
        raise GlamaError(f"no image at {image}; check the path")
    if mask is None:
        if rule.mask_name != BY_STEM.mask_name:
            raise GlamaError("`mask_name` is set without `mask`; give the folder of the masks")
        return kind
    mask_kind = _find_kind(mask)
    if mask_kind is None:
        raise GlamaError(f"no mask at {mask}; check the path")
    if kind == "file" and mask_kind == "folder":
        raise GlamaError(f"`image` {image} is a file, and `mask` {mask} a folder; give the mask of the image")
    if image.samefile(mask) and (kind == "file" or rule.mask_name == BY_STEM.mask_name):
        remedy = "pass the masks' own" + (", or set `mask_name`" if kind == "folder" else "")
        raise GlamaError(f"`image` {image} and `mask` {mask} are the same {kind}; {remedy}")
    return kind


def _pair_file(image: Path, mask: Path | None, out: Path | InPlace, kind: str | None, overwrite: bool) -> Job:
    if isinstance(out, InPlace):
        return _pair_in_place(image, mask, out, overwrite)
    target = out / f"{image.stem}{images.choose_suffix(image)}" if kind == "folder" else out
    there = _find_kind(target) is not None
    if there and any(target.samefile(each) for each in (image, mask) if each):
        raise GlamaError(f"{target} is an input itself; choose another output")
    check_overwrite(target, is_there=there, overwrite=overwrite, place="output")
    check_writable(target)
    return Job(image, mask, target)


def _pair_in_place(image: Path, mask: Path | None, out: InPlace, overwrite: bool) -> Job:
    check_replaceable(image)
    if is_backup(image, in_place=True):
        raise GlamaError(f"{image} has the name of a backup; give the image itself, or rename it")
    job = Job(image, mask, image, backup=out.place_backup(image, image.parent))
    if job.is_done() and not overwrite:
        raise GlamaError(
            f"{image} was filled already: its original is {job.backup}; choose another `backup_folder`, or pass "
            "`overwrite=True` to fill the original again"
        )
    for path in (image, job.backup):
        if path is not None:
            check_writable(path)
    return job


def _pair_folder(image: Path, mask: Path | None, out: Path | InPlace, rule: FolderRule) -> list[Job]:
    masks = (mask, _list_masks(mask, out, rule)) if mask is not None and mask.is_dir() else None
    return pair_names(image, _list_sources(image, mask, out, rule), masks, mask, out, rule)


def pair_names(
    image: Path,
    images: Sequence[Path],
    masks: tuple[Path, Sequence[Path]] | None,
    mask: Path | None,
    out: Path | InPlace,
    rule: FolderRule,
) -> list[Job]:
    """Pair images with masks by their names. No file is read, so the paths may stand for those of another storage.

    Args:
        image: the folder of images.
        images: the images, in order.
        masks: the folder of masks and its files, in order; None if `mask` or other marks serve all images.
        mask: the mask of all images; None for none.
        out: the folder of outputs, or how outputs replace their images.
        rule: how images find their masks, and how outputs are stored.

    Returns:
        The jobs, as :func:`pair_jobs` returns them.

    Raises:
        GlamaError: an image has two masks where the rule allows one, or an output is an input or another output.
    """
    sources, has_folder = images, masks is not None
    found_masks = _sort_masks(*masks, rule) if masks is not None else {}
    stems = Counter((path.parent, _compose(path.stem)) for path in sources)
    jobs = []
    for path in sources:
        folder = path.parent.relative_to(image)
        is_one_of_several = stems[path.parent, _compose(path.stem)] > 1
        names = (path.name, path.stem) if is_one_of_several else (path.stem,)
        keys = [(folder, _compose(name)) for name in names]
        found: Sequence[Path | None] = next((found_masks[key] for key in keys if key in found_masks), ())
        expected = rule.describe_mask(names[0]) if has_folder else ""
        for each in found or [None if has_folder else mask]:
            if isinstance(out, InPlace):
                jobs.append(Job(path, each, path, expected, out.place_backup(path, image)))
                continue
            base = each.stem if each is not None and rule.has_several else path.stem
            jobs.append(Job(path, each, out / folder / f"{base}{_choose_suffix(path, rule)}", expected))
    return jobs if isinstance(out, InPlace) else _keep_apart(jobs, rule)


def _choose_suffix(image: Path, rule: FolderRule) -> str:
    """Return the suffix of an image's output."""
    return images.choose_suffix(image) if rule.format == "keep" else f".{rule.format}"


def _keep_apart(jobs: Sequence[Job], rule: FolderRule) -> list[Job]:
    """Return the jobs with the full names of images in outputs that would have one name.

    Raises:
        GlamaError: two outputs still have one name, or an output is an input.
    """
    counts = Counter((job.out.parent, _fold(_compose(job.out.name))) for job in jobs)
    apart = [
        replace(job, out=job.out.with_name(_name_fully(job.file, rule)))
        if counts[job.out.parent, _fold(_compose(job.out.name))] > 1 and not rule.has_several
        else job
        for job in jobs
    ]
    find_place = cache(_resolve)  # of folders, which are few
    inputs = {
        (find_place(path.parent), _fold(path.name))
        for job in jobs
        for path in (job.image, job.mask)
        if isinstance(path, Path)
    }
    first: dict[tuple[Path, str], Job] = {}
    for job in apart:
        if (find_place(job.out.parent), _fold(job.out.name)) in inputs:
            raise GlamaError(f"{job.out} is an input itself; choose another output")
        other = first.setdefault((job.out.parent, _fold(job.out.name)), job)
        if other is not job:
            raise GlamaError(
                f"{other.image} and {job.file.name} would both be written as {job.out}; rename one, or give each masks "
                "of its full name"
            )
    return apart


def _name_fully(image: Path, rule: FolderRule) -> str:
    """Return the full name of an image, and the suffix of the output unless the name has the suffix."""
    suffix = _choose_suffix(image, rule)
    return image.name if rule.format == "keep" and suffix == image.suffix else f"{image.name}{suffix}"


def _list_sources(image: Path, mask: Path | None, out: Path | InPlace, rule: FolderRule) -> list[Path]:
    """Return the images of a folder, without its masks and its backups."""
    is_mask: Callable[[Path], bool] = lambda path: False  # noqa: E731
    if mask is not None and mask.is_dir() and mask.samefile(image):
        is_mask = lambda path: rule.find_stem(path) is not None  # noqa: E731
    elif mask is not None and mask.is_file():
        is_mask = lambda path: _resolve(path) == _resolve(mask)  # noqa: E731
    listed = _list_files(image, rule, _find_others(mask, out))
    return [path for path in listed if _is_image(path) and not is_mask(path) and not _is_backup(path, out)]


def _is_backup(path: Path, out: Path | InPlace) -> bool:
    return is_backup(path, in_place=isinstance(out, InPlace))


def _find_others(mask: Path | None, out: Path | InPlace) -> list[Path]:
    """Return the folders below the images that have no images: those of the masks, the outputs and the backups."""
    folders = [out.backups if isinstance(out, InPlace) else out, mask if mask is not None and mask.is_dir() else None]
    return [folder for folder in folders if folder is not None]


def _list_files(folder: Path, rule: FolderRule, others: Sequence[Path]) -> list[Path]:
    """Return the files of a folder, in order, without those of other folders below."""
    if not rule.recursive:
        return sorted(path for path in folder.iterdir() if not path.is_dir())
    kept = [_resolve(other) for other in others if _resolve(other) != _resolve(folder)]
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".") and _resolve(here / name) not in kept]
        found += [here / name for name in files if not (here / name).is_dir()]
    return sorted(found)


def _resolve(path: Path) -> Path:
    """Return a path without links. `Path.resolve` refuses a circle of links before Python 3.13."""
    return Path(os.path.realpath(path))


def _list_masks(mask: Path, out: Path | InPlace, rule: FolderRule) -> list[Path]:
    """Return the files of a folder of masks, in order."""
    return _list_files(mask, rule, _find_others(None, out))


def _sort_masks(mask: Path, files: Sequence[Path], rule: FolderRule) -> dict[tuple[Path, str], list[Path]]:
    """Return the masks of a folder by their subfolder and their image's stem.

    A file that is not an image stands for its stem where no image has the stem. Reading the file explains its kind.

    Raises:
        GlamaError: two images are masks of one stem, and the rule allows one.
    """
    found: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
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


def _fold(name: str) -> str:
    """Return a name as the file system compares names. Windows and macOS ignore case, and macOS ignores composition."""
    return _compose(name).casefold() if sys.platform in ("win32", "darwin") else name


def _find_kind(path: Path) -> Literal["file", "folder"] | None:
    """Return the kind of entry at a path; None if the path does not exist. Raises GlamaError for a bad path."""
    check_path(path)
    if path.is_dir():
        return "folder"
    return "file" if path.exists() else None


def _is_image(path: Path) -> bool:
    """Return whether an entry of a folder is an image, by its name."""
    return path.suffix.lower() in images.READ_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _is_other_file(path: Path) -> bool:
    return not (_is_image(path) or path.name.startswith(".") or path.is_dir())


def describe_left_out(image: Path, mask: Path | None, out: Path | InPlace, rule: FolderRule = BY_STEM) -> list[str]:
    """Describe the files that a run over a folder does not read.

    Args:
        image: the folder of images.
        mask: the folder of masks, or the mask of all images; None for none.
        out: the folder of outputs, or how outputs replace their images. The folder and its parents are not counted.
        rule: how images find their masks.

    Returns:
        Parts of a sentence; empty if the run reads everything.
    """
    given = [image, *([mask] if mask is not None else []), *_find_others(None, out)]
    own = {each for path in map(_resolve, given) for each in (path, *path.parents)}
    entries = [path for path in sorted(image.iterdir()) if _resolve(path) not in own]
    hidden = [path for path in entries if path.name.startswith(".")]
    folders = [path for path in entries if path.is_dir() and path not in hidden and not rule.recursive]
    files = _list_files(image, rule, _find_others(mask, out))
    videos = [path for path in files if _is_other_file(path) and is_video(path)]
    others = [path for path in files if _is_other_file(path) and path not in videos]
    unused: list[Path] = []
    if mask is not None and mask.is_dir():
        used = {job.mask for job in _pair_folder(image, mask, out, rule)}
        unused = [
            path
            for found in _sort_masks(mask, _list_masks(mask, out, rule), rule).values()
            for path in found
            if path not in used
        ]
    no_masks = [path for path in unused if _is_other_file(path) and path not in (*others, *videos)]
    linked, unreadable = _find_closed_folders(image) if rule.recursive else ([], [])
    backups = [path for path in files if _is_image(path) and _is_backup(path, out)]
    if isinstance(out, InPlace):  # the run itself makes the backups of its images
        backups = [path for path in backups if not is_backup(path, in_place=False)]
    parts = [
        _describe_count(videos, "video, which is given by itself", "videos, which are given one by one"),
        _describe_count(others, "file that is not a supported image", "files that are not supported images"),
        _describe_count(folders, "subfolder", "subfolders"),
        _describe_count(linked, "linked folder", "linked folders"),
        _describe_count(unreadable, "subfolder that cannot be read", "subfolders that cannot be read"),
        _describe_count(backups, "backup", "backups"),
        _describe_count(
            [path for path in unused if _is_image(path)], "mask without an image", "masks without an image"
        ),
        _describe_count(no_masks, "file that is not a supported mask", "files that are not supported masks"),
    ]
    if hidden:
        parts.append(f"{len(hidden)} hidden {'file' if len(hidden) == 1 else 'files'}")
    return [part for part in parts if part]


def _find_closed_folders(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the links to folders below a folder, which are not followed, and the folders that cannot be read."""
    unreadable: list[Path] = []
    linked: list[Path] = []
    for place, folders, _ in os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += [Path(place) / name for name in folders if (Path(place) / name).is_symlink()]
    return sorted(linked), sorted(unreadable)


def _describe_count(paths: Sequence[Path], one: str, several: str) -> str:
    """Describe a number of files, for example "2 subfolders (a, b)"; empty for none."""
    if not paths:
        return ""
    names = [path.name for path in paths[:_MAX_NAMES_SHOWN]] + ["…"] * (len(paths) > _MAX_NAMES_SHOWN)
    return f"{len(paths)} {one if len(paths) == 1 else several} ({', '.join(names)})"
