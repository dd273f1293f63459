"""Files that are whole or not there at all: written under a temporary name, flushed, then renamed."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glama_deploy.errors import GlamaError

_REASONS = {
    errno.ENOSPC: "no space is left on the disk; free some and run again",
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


def write_error(path: Path, error: OSError) -> GlamaError:
    """The one line for a failed write of `path`."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return GlamaError(f"cannot write {path}: {reason}")


def check_path(path: Path) -> None:
    """Raise GlamaError for a path that cannot be looked at: too long, or in a folder without permission."""
    try:
        path.exists()
    except OSError as error:
        shown = str(path)
        if len(shown) > _PATH_SHOWN_CHARACTERS:
            shown = f"{shown[:_PATH_SHOWN_CHARACTERS]}… ({len(shown)} characters)"
        raise GlamaError(f"{shown}: {error.strerror}; check the path") from error


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
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well, else remove it.

    Raises GlamaError where the place cannot be written (read-only, full, missing), with nothing left behind.
    """
    temporary = path.parent / f".glama-{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with suppress(OSError):  # where nothing can be written there is nothing to remove
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path` when the block ends well, else it is removed.

    An existing `path` is replaced only with `overwrite`; it stays whole until the new one is.
    """
    if path.exists() and not overwrite:
        raise GlamaError(f"{path} exists already; choose another folder or pass --overwrite")
    path = path.resolve()  # of a link, what it points to is replaced
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".glama-", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists() and overwrite:
            with exchanged(temporary, path, temporary.with_suffix(".old")):
                pass
        elif path.exists():
            raise GlamaError(f"{path} appeared while it was being made; choose another folder or pass --overwrite")
        else:
            temporary.rename(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def exchanged(new: Path, path: Path, aside: Path) -> Iterator[None]:
    """Put the folder `new` in the place of `path`, for good when the block ends well; else `path` is as it was before.

    What was there, if anything, lies at `aside` meanwhile: all three are on one file system.
    """
    replaced = path.exists()
    if replaced:
        path.rename(aside)
    try:
        new.rename(path)
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        if replaced:
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def sha256(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
