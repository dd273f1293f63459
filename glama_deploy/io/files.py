"""Write files and folders completely or not at all: under a temporary name first, then flushed and renamed.

A temporary file or folder `.glama-<number>.tmp` has a lock file `.glama-<number>.lock` beside it, which its process
holds. If no process holds the lock, a killed process left the temporary. The next process that writes into the same
folder removes such temporaries. The age of a file does not matter.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glama_deploy.errors import GlamaError
from glama_deploy.io import locks
from glama_deploy.text.excerpts import excerpt

log = logging.getLogger("glama_deploy")

#: The reason of a failed write and the remedy, by error number.
_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some and run again",
    errno.EFBIG: "the file is larger than the file system or this account's limit (ulimit -f) allows; raise the limit",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; choose a place you may write to",
    errno.EPERM: "permission denied; choose a place you may write to",
    errno.ENOENT: "a folder of the path does not exist; create the folder first",
    errno.EEXIST: "a file of that name is in the way; choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space and run again",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}

#: Error numbers of Windows for a file that is open or mapped in a program: ERROR_SHARING_VIOLATION,
#: ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE.
_IN_USE = frozenset((32, 33, 1224))

#: The reason of a write that failed because of such a program, and the remedy.
_IN_USE_REASON = "another program has a file open that is replaced; end that program and run again"

#: Pauses in seconds before a rename is tried again on Windows. A virus scanner or the search index opens a new file for
#: a moment, and Windows renames and replaces no open file.
_RENAME_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

#: A longer path is shortened in messages.
_MAX_SHOWN_PATH_CHARACTERS = 200

#: The first characters of every temporary name.
PREFIX = ".glama-"

#: Suffixes of temporaries and of their locks. Only version 0.1 wrote `.old`.
_SUFFIXES = (".tmp", ".lock", ".old")

#: Folders from which this process has removed the leftovers of killed processes.
_cleaned: set[Path] = set()


def write_error(path: Path, error: OSError) -> GlamaError:
    """Build the error for a failed write.

    Args:
        path: The file or folder that was written.
        error: The operating system's error.

    Returns:
        An error whose message names the path, the reason and the remedy.
    """
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    if getattr(error, "winerror", None) in _IN_USE:
        reason = _IN_USE_REASON
    return GlamaError(f"cannot write {path}: {reason}")


def check_path(path: Path) -> None:
    """Check that the operating system accepts a path.

    Args:
        path: The path. It need not exist.

    Raises:
        GlamaError: The path is too long, or lies in a folder without permission.
    """
    try:
        path.exists()
    except OSError as error:
        length = len(str(path))
        size = f" ({length} characters)" if length > _MAX_SHOWN_PATH_CHARACTERS else ""
        shown = excerpt(str(path), _MAX_SHOWN_PATH_CHARACTERS + 1)  # with the ellipsis
        raise GlamaError(f"{shown}{size}: {error.strerror}; check the path") from error


def check_writable(path: Path) -> None:
    """Check that a file or folder can be written, without creating one.

    Args:
        path: The file or folder to write later.

    Raises:
        GlamaError: The file, or a file in the folder, cannot be written.
    """
    check_path(path)
    above = path.absolute().parents
    there = path if path.is_dir() else next(folder for folder in above if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise write_error(path, error) from error


def check_overwrite(
    path: Path, *, is_there: bool, overwrite: bool, place: str = "folder", found: str = "exists already"
) -> None:
    """Refuse to replace an output that is there, unless the caller may.

    Args:
        path: the output.
        is_there: whether something is at the path that would be replaced.
        overwrite: whether the output may be replaced.
        place: what to choose another of, for the message.
        found: what is at the path, for the message.

    Raises:
        GlamaError: the output is there and may not be replaced.
    """
    if is_there and not overwrite:
        raise GlamaError(f"{path} {found}; choose another {place} or pass `overwrite=True`")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file completely or not at all. A file that replaces another keeps the permissions of that file.

    The block writes a temporary file, which is renamed to `path` when the block ends without an exception. Otherwise
    the temporary file is removed and `path` is not changed.

    Args:
        path: The file to write. Its folder must exist.

    Yields:
        The path of the temporary file, which does not exist yet.

    Raises:
        GlamaError: The file cannot be written: the folder is read-only, full or missing. The reason is also found where
            a library raised an exception of its own from the operating system's error.
    """
    try:
        with temporary_beside(path) as temporary:
            yield temporary
            flush(temporary)
            _copy_permissions(path, temporary)
            replace(temporary, path)
            flush_folder(path.parent)
    except GlamaError:
        raise
    except Exception as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise write_error(path, cause) from error


def _copy_permissions(path: Path, temporary: Path) -> None:
    """Give a temporary file the permissions of the file that it replaces, where there is one."""
    with suppress(OSError):  # no file is replaced, or the file system has no permissions
        if path.is_file():
            shutil.copymode(path, temporary)


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the first OSError among an exception and its causes, which `torch.save` hides behind another one."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Reserve a temporary name beside a path. No other process uses or removes the name during the block.

    Args:
        path: The path. Its folder must exist.

    Yields:
        A path that does not exist. A file or folder that has this path when the block ends is removed.

    Raises:
        OSError: The folder is missing or cannot be written.
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


def publish_folder(folder: Path, out: Path) -> None:
    """Flush a finished folder, and rename it to its place. A folder that is there moves away first, and is removed.

    Args:
        folder: The finished folder, beside `out` (:func:`temporary_beside`).
        out: The place. Where `out` is a link, the folder behind the link is replaced.

    Raises:
        OSError: The folder cannot be renamed. A folder that was at `out` is there again.
    """
    flush(folder)
    out = out.resolve()
    with temporary_beside(out) as old:
        if out.exists():
            rename(out, old)
        try:
            rename(folder, out)
        except OSError:
            if old.exists():
                rename(old, out)
            raise
    flush_folder(out.parent)


def has_only_leftovers(path: Path) -> bool:
    """Tell whether a folder is empty, except for temporaries and lock files.

    Args:
        path: The path to check.

    Returns:
        True for such a folder. False for other folders, for files, and where nothing exists.
    """
    return path.is_dir() and all(entry.name.startswith(PREFIX) for entry in path.iterdir())


def remove_leftovers_once(folder: Path) -> None:
    """Call :func:`remove_leftovers` once for each folder in a process.

    Args:
        folder: The folder. Later calls with the same folder do nothing.
    """
    if folder.resolve() not in _cleaned:
        _cleaned.add(folder.resolve())
        remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders whose lock no process holds.

    Args:
        folder: The folder that contains the temporaries.
    """
    try:
        found = {path for path in folder.iterdir() if path.name.startswith(PREFIX)}
    except PermissionError:  # a folder may be writable without being readable
        return
    for lock in sorted({path.with_suffix(".lock") for path in found if path.suffix in _SUFFIXES}):
        try:
            with locks.try_hold(lock) as ours:
                for suffix in (".tmp", ".old") if ours else ():
                    leftover = lock.with_suffix(suffix)
                    if leftover in found:
                        remove(leftover)
                        log.info("removed %s, a leftover of a killed process", leftover)
        except OSError as error:  # a file of another account
            log.info("%s cannot be removed: %s", lock, error.strerror)


def replace(source: Path, target: Path) -> None:
    """Rename a file, and replace the file at the target. On Windows, wait for programs that have one open for a moment.

    Args:
        source: The file.
        target: The new path, in the same folder or on the same file system.

    Raises:
        OSError: The file cannot be renamed.
    """
    _insist(source.replace, target)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder. On Windows, wait for programs that have a file open for a moment.

    Args:
        source: The file or folder.
        target: The new path, in the same folder or on the same file system. Nothing may exist there; Linux and macOS
            replace an existing file or empty folder all the same.

    Raises:
        OSError: The file or folder cannot be renamed.
    """
    _insist(source.rename, target)


def _insist(act: Callable[[Path], object], target: Path) -> None:
    """Call a function again as long as Windows denies it, at most for the seconds of `_RENAME_PAUSES`."""
    for pause in _RENAME_PAUSES if sys.platform == "win32" else ():
        try:
            act(target)
            return
        except PermissionError:  # of an open file, and of a folder with an open file
            time.sleep(pause)
    act(target)


def link_or_copy(source: Path, target: Path) -> None:
    """Link to a file, or copy the file where no link can be made: Windows makes links for few accounts.

    Args:
        source: The file.
        target: The path of the link or the copy, where nothing exists.

    Raises:
        OSError: The file cannot be read, or the copy cannot be written.
    """
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its contents. Files that cannot be removed stay, without an error.

    Args:
        path: The file or folder. It need not exist.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):  # if the folder is not writable, this process wrote nothing
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            if sys.platform != "win32":
                raise
            path.chmod(stat.S_IWRITE)  # Windows removes no file that is read-only
            path.unlink()


def flush(path: Path) -> None:
    """Flush a file, or all files in a folder, to the disk.

    Args:
        path: The file or folder.
    """
    if path.is_dir():
        for entry in sorted(path.iterdir()):
            flush(entry)
        flush_folder(path)
        return
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the names of a folder to the disk. On Windows, which cannot flush folders, nothing is done.

    Args:
        folder: The folder.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
