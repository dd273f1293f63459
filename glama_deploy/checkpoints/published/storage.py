"""The files of published models on this machine: found, verified, downloaded once, and removed.

PyTorch's folder of downloads, in which other programs keep the same files, is searched first and never changed. The
cache is searched next. A file is verified before its path is given to a reader. A file with a wrong SHA-256 gets
another name, under which nothing reads it.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from glama_deploy.checkpoints.published import addresses, progress
from glama_deploy.checkpoints.published.remote_file import RemoteFile, format_megabytes, format_size
from glama_deploy.checkpoints.published.transfer import AddressFailedError, Patience, Transfer, download
from glama_deploy.errors import DownloadError, GlamaError
from glama_deploy.io import locks
from glama_deploy.io.files import PREFIX, flush_folder, remove_leftovers_once, replace, sha256, write_error

log = logging.getLogger("glama_deploy")

#: Digits of the wrong SHA-256 in the name of a file that is kept aside.
_ASIDE_DIGITS = 12

#: Free bytes that a download leaves on the disk.
_SPARE_BYTES = 16 << 20

#: Files that this process has verified, by path, length and times.
_verified: dict[tuple[str, int, int, int], str] = {}


def find(remote: RemoteFile) -> Path | None:
    """Find a verified file on this machine.

    Args:
        remote: The file.

    Returns:
        The path in PyTorch's folder or in the cache; None where no file has the right SHA-256.

    Raises:
        DownloadError: A file cannot be read.
    """
    shared = remote.torch_path
    is_shared = os.path.isfile(shared) and os.access(shared, os.R_OK)  # another user's folder may not be readable
    if is_shared and _is_right(shared, remote):
        _note_use(remote.subject, shared)
        return shared
    if os.path.isfile(remote.path):
        if _is_right(remote.path, remote):
            return remote.path
        log.warning("%s was changed since its download; the file is not used", remote.path)
    if is_shared:
        log.warning("%s does not have the SHA-256 of %s; the file is neither used nor changed", shared, remote.subject)
    return None


@dataclass(frozen=True)
class State:
    """What this machine has of a file, without a look at the content.

    Attributes:
        name: `downloaded`, `shared` (in PyTorch's folder), `partial` or `absent`.
        path: the file, also an incomplete one; None where nothing is there.
        size_bytes: size of the file in bytes.
    """

    name: Literal["downloaded", "shared", "partial", "absent"]
    path: Path | None = None
    size_bytes: int = 0


def find_state(remote: RemoteFile) -> State:
    """Find out what this machine has of a file. Nothing is verified.

    Args:
        remote: The file.

    Returns:
        The state. Files of a wrong size in PyTorch's folder do not count.
    """
    names: tuple[tuple[Literal["shared", "downloaded", "partial"], Path], ...] = (
        ("shared", remote.torch_path),
        ("downloaded", remote.path),
        ("partial", remote.part),
    )
    for name, path in names:
        size = path.stat().st_size if os.path.isfile(path) else 0
        if size and (name == "partial" or remote.exact_bytes in (None, size)):
            return State(name, path, size)
    return State("absent")


def pull(remote: RemoteFile, patience: Patience | None = None) -> Path:
    """Return a verified file, and download the file first where this machine does not have it.

    Several processes that need one file download it once.

    Args:
        remote: The file.
        patience: How often a download is tried again; None: the default.

    Returns:
        The path.

    Raises:
        DownloadError: Downloads are forbidden, no address gives the file, or the SHA-256 is wrong.
        GlamaError: The file cannot be written.
    """
    found = find(remote)
    if found is not None:
        return found
    check_downloads(remote)
    urls = addresses.list_addresses(remote.urls, remote.file)
    folder = remote.path.parent
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_once(folder.parent)
        lock = folder.with_name(f"{PREFIX}{folder.name}.lock")
        with locks.hold(lock, f"the download of {remote.subject}"):
            if remote.path.is_file():  # another process was faster, or the file is damaged
                if _is_right(remote.path, remote):
                    return remote.path
                log.warning("%s is kept as %s", remote.path, _put_aside(remote.path).name)
            folder.mkdir(exist_ok=True)
            _download_from_any(remote, urls, patience or Patience())
            replace(remote.part, remote.path)
            remote.part.with_name(f"{remote.part.name}.json").unlink(missing_ok=True)
            flush_folder(folder)
    except OSError as error:
        reason = write_error(Path(error.filename or folder), error)
        raise GlamaError(f"{reason} (GLAMA_CACHE names another folder for the cache)") from error
    return remote.path


def check_downloads(remote: RemoteFile) -> None:
    """Check that a file which is not on this machine may be downloaded.

    Args:
        remote: The file.

    Raises:
        DownloadError: An environment variable forbids downloads.
    """
    if variable := addresses.find_offline_variable():
        raise DownloadError(
            f"{remote.subject} is not on this machine, and {variable} forbids downloads; unset the variable, or put "
            f"the file {remote.file} at {remote.path}"
        )


def remove_files(remote: RemoteFile) -> int:
    """Remove a file from the cache, with incomplete downloads and files that were kept aside.

    Args:
        remote: The file. PyTorch's folder is not changed.

    Returns:
        The number of removed bytes. 0 where nothing was there.

    Raises:
        GlamaError: A file cannot be removed.
    """
    folder = remote.path.parent
    if not folder.is_dir():
        return 0
    try:
        lock = folder.with_name(f"{PREFIX}{folder.name}.lock")
        with locks.hold(lock, f"the download of {remote.subject}"):
            if not folder.is_dir():  # another process was faster
                return 0
            size = sum(path.stat().st_size for path in folder.iterdir())
            shutil.rmtree(folder)
    except OSError as error:
        raise write_error(Path(error.filename or folder), error) from error
    return size


def _download_from_any(remote: RemoteFile, urls: list[str], patience: Patience) -> None:
    """Download from the first address that gives the right file. The file is then at `remote.part`, verified.

    Raises:
        DownloadError: no address gives the file.
        GlamaError: the disk is full, or cannot be written.
    """
    failures: list[str] = []
    for url in urls:
        if failures:
            log.warning("%s", failures[-1])
        _check_room(remote)
        _log_begin(remote, url)
        try:
            with progress.show_progress(remote.subject) as report:
                wrong = _download_verified(remote, url, Transfer(remote.part, remote.exact_bytes, report, patience))
        except AddressFailedError as error:
            failures.append(f"{addresses.find_host(url)}: {error}")
            continue
        if wrong is None:
            return
        failures.append(
            f"{addresses.find_host(url)}: the SHA-256 of the file is {wrong.sha256[:_ASIDE_DIGITS]}…, "
            f"{remote.sha256[:_ASIDE_DIGITS]}… is expected; the file is kept as {wrong.path} and is not read"
        )
    raise DownloadError(
        f"{remote.subject} cannot be downloaded ({'; '.join(failures)}); check the network and the address, set "
        f"{addresses.MIRROR_VARIABLE}, or put the file {remote.file} at {remote.path}"
    )


@dataclass(frozen=True)
class _WrongFile:
    """A downloaded file with a wrong SHA-256, and where the file is kept."""

    sha256: str
    path: Path


def _download_verified(remote: RemoteFile, url: str, transfer: Transfer) -> _WrongFile | None:
    """Download from one address and verify the file. A file that was continued may be of two contents: begin again."""
    was_continued = transfer.done > 0
    download(url, transfer)
    found = sha256(transfer.part)
    if found != remote.sha256 and was_continued:
        log.warning("the continued download of %s has a wrong SHA-256; the download begins again", remote.subject)
        transfer.discard()
        download(url, transfer)
        found = sha256(transfer.part)
    if found == remote.sha256:
        return None
    transfer.mark.unlink(missing_ok=True)
    return _WrongFile(found, _put_aside(transfer.part, found))


def _put_aside(path: Path, found: str = "") -> Path:
    """Give a file with a wrong SHA-256 a name that nothing reads. Return the new path."""
    name = path.name.removesuffix(".part")
    aside = path.with_name(f"{name}.wrong-{(found or sha256(path))[:_ASIDE_DIGITS]}")
    replace(path, aside)
    return aside


def _check_room(remote: RemoteFile) -> None:
    """Raise DownloadError if the disk does not have room for the missing bytes."""
    if remote.size_bytes is None:
        return
    there = remote.part.stat().st_size if remote.part.is_file() else 0
    free = shutil.disk_usage(remote.part.parent).free
    needed = remote.size_bytes - there + _SPARE_BYTES
    if free < needed:
        raise DownloadError(
            f"{remote.subject} needs {format_megabytes(needed)}, and {format_megabytes(free)} are "
            f"free at {remote.part.parent}; free some space, or set GLAMA_CACHE to a folder on another disk"
        )


def _log_begin(remote: RemoteFile, url: str) -> None:
    there = remote.part.stat().st_size if remote.part.is_file() else 0
    continued = f", continued at {format_megabytes(there)}" if there else ""
    log.warning("downloading %s (%s%s) from %s", remote.subject, format_size(remote), continued, url)


def _is_right(path: Path, remote: RemoteFile) -> bool:
    """Tell whether a file has the right SHA-256. A file is read once in a process, unless the file changes.

    Raises:
        DownloadError: the file cannot be read.
    """
    try:
        status = path.stat()
        if remote.exact_bytes not in (None, status.st_size):
            return False
        key = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
        if key not in _verified:
            _verified[key] = sha256(path)
    except OSError as error:
        raise DownloadError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    return _verified[key] == remote.sha256


@cache
def _note_use(subject: str, path: Path) -> None:
    """Log once that a file of another program is used."""
    log.warning("using %s for %s; its SHA-256 is right", path, subject)
