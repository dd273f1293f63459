"""Files and folders that are whole or not there at all: written under a temporary name, flushed, then renamed.

A temporary file or folder `.glama-<number>.tmp` has a lock file `.glama-<number>.lock` beside it, which its process
holds. A temporary whose lock nobody holds was left by a killed process; the next process that writes into the same
folder removes it. The age of a file plays no part.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glama_deploy.errors import GlamaError
from glama_deploy.io import locks
from glama_deploy.text.excerpts import excerpt

log = logging.getLogger("glama_deploy")

_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some and run again",
    errno.EFBIG: "the file is larger than the file system or this account's limit (ulimit -f) allows; raise the limit",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose a place you may write to",
    errno.EPERM: "permission denied; choose a place you may write to",
    errno.ENOENT: "a folder on the way does not exist; create it first",
    errno.EEXIST: "a file of that name is in the way; choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}

#: A longer path is cut in messages.
_PATH_SHOWN_CHARACTERS = 200

#: What every temporary name begins with, and the names of temporaries: `.old` is of version 0.1.
PREFIX = ".glama-"
_SUFFIXES = (".tmp", ".lock", ".old")

#: Folders in which this process has looked for what killed processes left.
_cleaned: set[Path] = set()


def write_error(path: Path, error: OSError) -> GlamaError:
    """The one line for a failed write of `path`."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return GlamaError(f"cannot write {path}: {reason}")


def check_path(path: Path) -> None:
    """Raise GlamaError for a path that cannot be looked at: too long, or in a folder without permission."""
    try:
        path.exists()
    except OSError as error:
        length = len(str(path))
        size = f" ({length} characters)" if length > _PATH_SHOWN_CHARACTERS else ""
        shown = excerpt(str(path), _PATH_SHOWN_CHARACTERS + 1)  # with the ellipsis
        raise GlamaError(f"{shown}{size}: {error.strerror}; check the path") from error


def check_writable(path: Path) -> None:
    """Raise GlamaError where a file of this name, or files in a folder of it, cannot be written. Makes nothing."""
    check_path(path)
    above = path.absolute().parents
    there = path if path.is_dir() else next(folder for folder in above if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise write_error(path, error) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename the file to `path` when the block ends well, else remove the file.

    Args:
        path: the file to write. Its folder must exist.

    Yields:
        A name that no file has. The block writes the file of that name.

    Raises:
        GlamaError: the place cannot be written (read-only, full, missing), also where a library hid the reason behind
            an exception of its own. Nothing is left behind, and what was at `path` stays.
    """
    try:
        with temporary_beside(path) as temporary:
            yield temporary
            flush(temporary)
            temporary.replace(path)
            flush_folder(path.parent)
    except GlamaError:
        raise
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise write_error(path, cause) from error


def _os_error(error: BaseException | None) -> OSError | None:
    """The first OSError among an exception and those that it was raised from, as `torch.save` hides one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a free temporary name beside `path`, which no other process takes or removes during the block.

    What has the name when the block ends is removed. Raises OSError where the folder cannot be written.
    """
    folder = path.parent
    if not folder.is_dir():
        code = errno.ENOTDIR if folder.exists() else errno.ENOENT
        raise OSError(code, os.strerror(code), str(folder))
    remove_leftovers_once(folder)
    while True:
        temporary = folder / f"{PREFIX}{secrets.token_hex(4)}.tmp"
        with locks.try_hold(temporary.with_suffix(".lock")) as ours:
            if not ours or temporary.exists():
                continue
            try:
                yield temporary
            finally:
                remove(temporary)
            return


def has_only_leftovers(path: Path) -> bool:
    """Whether `path` is a folder with nothing in it but temporaries and lock files, or with nothing at all."""
    return path.is_dir() and all(entry.name.startswith(PREFIX) for entry in path.iterdir())


def remove_leftovers_once(folder: Path) -> None:
    """Do as :func:`remove_leftovers` at this process's first call for `folder`, and nothing at later ones."""
    if folder.resolve() not in _cleaned:
        _cleaned.add(folder.resolve())
        remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose lock no process holds."""
    try:
        found = {path for path in folder.iterdir() if path.name.startswith(PREFIX)}
    except PermissionError:  # a folder may be open for writing and closed for reading
        return
    for lock in sorted({path.with_suffix(".lock") for path in found if path.suffix in _SUFFIXES}):
        try:
            with locks.try_hold(lock) as ours:
                for suffix in (".tmp", ".old") if ours else ():
                    leftover = lock.with_suffix(suffix)
                    if leftover in found:
                        remove(leftover)
                        log.info("removed %s, which a process left that did not end by itself", leftover)
        except OSError as error:  # another account's
            log.info("%s cannot be removed: %s", lock, error.strerror)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # where nothing can be written there is nothing to remove
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk hold the contents of a file, or of all files in a folder, before a rename makes them count."""
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            flush(entry)
        flush_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Have the disk hold the names in a folder, where the operating system can flush folders (not on Windows)."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
