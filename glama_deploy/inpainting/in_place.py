"""Outputs that replace their pictures. The originals are kept.

The original is copied to its backup first, and then the picture is replaced. Both steps are done at one instant, so a
process that is killed leaves the old picture or the new one. A backup is never overwritten. A picture whose backup
differs from the picture was filled already. A backup that equals its picture is of a run that was killed between the
two steps, and the picture is filled again.

Pictures of two folders may have one name. So a folder of backups has a file that names the folder of the pictures, and
the pictures of another folder are refused.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glama_deploy.errors import ImageError
from glama_deploy.io.files import atomic_file, flush, flush_folder, rename, replace, temporary_beside, write_error
from glama_deploy.io.images import SUFFIXES

#: The end of the stem of a backup that lies beside its picture.
_BACKUP_END = ".orig"

#: The file that names the folder of the pictures, in each folder of backups apart from their pictures.
_ORIGIN_FILE = ".glama-originals-of"

#: What tells a file from an earlier version: length, time of the last change, number of the file.
Signature = tuple[int, int, int]


@dataclass(frozen=True)
class InPlace:
    """Where the originals of replaced pictures are kept.

    Attributes:
        backups: the folder of the originals, which have the names and the subfolders of their pictures. None: beside
            each picture, as NAME.orig.EXT.
    """

    backups: Path | None = None

    def place_backup(self, image: Path, folder: Path) -> Path:
        """Return the path of a picture's backup.

        Args:
            image: the picture.
            folder: the folder of the pictures.

        Returns:
            A path that need not exist.
        """
        if self.backups is not None:
            return self.backups / image.relative_to(folder)
        return image.with_name(f"{image.stem}{_BACKUP_END}{image.suffix}")


def is_backup(path: Path, *, in_place: bool) -> bool:
    """Tell whether a file is the backup of a picture beside it, by its name.

    Args:
        path: the file.
        in_place: whether the run replaces pictures. Then the picture of a backup need not exist.

    Returns:
        True for NAME.orig.EXT beside NAME.EXT.
    """
    if not path.stem.endswith(_BACKUP_END):
        return False
    return in_place or path.with_name(path.stem.removesuffix(_BACKUP_END) + path.suffix).exists()


def is_filled(image: Path, backup: Path) -> bool:
    """Tell whether a picture was replaced already.

    Args:
        image: the picture.
        backup: the picture's backup.

    Returns:
        True if the backup exists and differs from the picture. False if one of them cannot be read, or if the backup
        is of a picture in another folder; to read the picture then gives the reason.
    """
    try:
        check_origin(image, backup)
    except ImageError:
        return False
    try:
        return not filecmp.cmp(image, backup, shallow=False)
    except OSError:
        return False


def check_replaceable(image: Path) -> None:
    """Check that a picture may be replaced.

    Args:
        image: the picture.

    Raises:
        ImageError: the picture is a symbolic link, whose replacement would leave the picture itself as it was, or its
            format is not written.
    """
    if image.suffix.lower() not in SUFFIXES:
        raise ImageError(f"{image} is of a format that is only read, so `in_place` cannot replace it; give `out`")
    if image.is_symlink():
        raise ImageError(
            f"{image} is a symbolic link, which `in_place` does not replace; fill {os.path.realpath(image)}"
        )


def check_origin(image: Path, backup: Path) -> None:
    """Check that the folder of a backup keeps the originals of the picture's folder.

    Args:
        image: the picture.
        backup: the picture's backup.

    Raises:
        ImageError: the folder keeps the originals of another folder, or the file that names the folder cannot be read.
    """
    record, expected = backup.with_name(_ORIGIN_FILE), os.path.realpath(image.parent)
    try:
        found = record.read_text(encoding="utf-8") if record.exists() else expected
    except (OSError, ValueError) as error:
        raise ImageError(f"{record} cannot be read ({error}); choose another `backup_folder`") from error
    if found != expected:
        raise ImageError(
            f"{image}: {backup.parent} keeps the originals of {found}; choose another `backup_folder`, or remove "
            f"{record} if the pictures were moved"
        )


def keep_original(image: Path, backup: Path) -> None:
    """Copy a picture to its backup. A backup that exists stays as it is.

    Args:
        image: the picture.
        backup: the picture's backup. Its folder is made if it is missing.

    Raises:
        GlamaError: the backup cannot be written.
    """
    try:
        backup.parent.mkdir(parents=True, exist_ok=True)
        if backup.exists():
            return
        _name_origin(image, backup)
        with temporary_beside(backup) as temporary:
            shutil.copyfile(image, temporary)
            flush(temporary)
            shutil.copystat(image, temporary)  # now, because a file without the permission to write is not flushed
            _name(temporary, backup)
            flush_folder(backup.parent)
    except OSError as error:
        raise write_error(backup, error) from error


def _name_origin(image: Path, backup: Path) -> None:
    """Name the folder of a picture in the folder of its backup, if these are two folders."""
    record, folder = backup.with_name(_ORIGIN_FILE), os.path.realpath(image.parent)
    if folder != os.path.realpath(backup.parent) and not record.exists():
        with atomic_file(record) as temporary:
            temporary.write_text(folder, encoding="utf-8")


def _name(temporary: Path, backup: Path) -> None:
    """Give a file the name of the backup, unless another process has made the backup meanwhile."""
    if sys.platform == "win32":  # there, a rename replaces nothing, and no name of a read-only file can be removed
        with suppress(FileExistsError):
            rename(temporary, backup)
        return
    try:
        os.link(temporary, backup)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        replace(temporary, backup)


def sign(path: Path) -> Signature | None:
    """Return what tells a file from another version of the file.

    Args:
        path: the file.

    Returns:
        The signature; None if the file does not exist or cannot be read.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
