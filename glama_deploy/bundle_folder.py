"""Write a bundle's folder so that it holds the old bundle or the new bundle at every instant.

One process at a time writes. This process holds a lock file in the folder; readers need no lock. A new bundle appears
by one rename of a whole folder. An existing bundle is changed in place, in four steps:

1. The new files and the new manifest are written in the folder `.glama-work`, and flushed to the disk.
2. `.glama-work` is renamed to `.glama-next`.
3. `.glama-next/manifest.json` replaces `manifest.json`. This rename is the commit: the bundle is the old bundle before
   the rename and the new bundle after the rename. A reader looks for each file of the manifest at the file's place. If
   the file there has another SHA-256, the reader looks in `.glama-next`
   (:meth:`glama_deploy.bundle.Bundle.files`).
4. Files of the old bundle that the new bundle does not have are removed. The files in `.glama-next` move to their
   places, and `.glama-next` is removed.

A process can be killed between any two system calls. The next writer calls :func:`settle`. A `.glama-next` with a
manifest was not committed and is removed. A `.glama-next` without a manifest was committed, and step 4 is completed.
All renames stay within one folder, so they work on every operating system and file system. Other files in the folder
are not changed.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from glama_deploy import catalogue
from glama_deploy.bundle import MANIFEST, NEXT, Bundle, EngineName, graph_name
from glama_deploy.errors import BundleError
from glama_deploy.io import locks
from glama_deploy.io.files import (
    PREFIX,
    check_overwrite,
    check_path,
    flush,
    flush_folder,
    has_only_leftovers,
    remove,
    remove_leftovers,
    rename,
    replace,
    temporary_beside,
    write_error,
)

#: Name of the lock file in the bundle's folder.
LOCK = ".glama-lock"

#: Name of the folder in the bundle's folder in which new files are written.
WORK = ".glama-work"

#: Name of the file in `.glama-next` that lists the files to remove after the commit: one path relative to the bundle's
#: folder for each line.
_OBSOLETE = ".glama-obsolete"

#: A script that belongs to the bundle, although the manifest does not list it. See
#: :mod:`glama_deploy.engines.tensorrt.build_script`.
SCRIPT = "build.sh"


@contextmanager
def create(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder for a new bundle, which appears at `path` when the block ends without an exception.

    Args:
        path: The bundle's folder. Where `path` is a link, the folder behind the link is written.
        overwrite: Replace an existing bundle at `path`, which stays usable until the new bundle is complete.

    Yields:
        The folder in which the block writes all files of the bundle, including `manifest.json`.

    Raises:
        GlamaError: A bundle exists at `path`, or the folder cannot be written. The content of `path` is not changed,
            and no other file is left.
    """
    check_overwrite(path, is_there=not is_free(path), overwrite=overwrite)
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        if path.exists():
            with open_for_changes(path) as work:
                yield work
                publish(path, work, _list_own(path))
            return
        with temporary_beside(path) as temporary:
            temporary.mkdir()
            yield temporary
            flush(temporary)
            _rename_to(temporary, path, overwrite=overwrite)
    except OSError as error:
        raise write_error(path, error) from error


def is_free(path: Path) -> bool:
    """Tell whether a new bundle can be written at a path.

    Args:
        path: The bundle's folder.

    Returns:
        True where nothing exists at `path`, or only files that a killed process left.

    Raises:
        GlamaError: The path is too long, or in a folder without permission.
    """
    check_path(path)
    if not path.is_dir():
        return not path.exists()
    return any(path.iterdir()) and has_only_leftovers(path)


def _rename_to(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Rename a complete bundle to `path`. Another process may have written a bundle at `path` meanwhile."""
    try:
        rename(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        check_overwrite(path, is_there=True, overwrite=overwrite, found="appeared while it was being made")
        with open_for_changes(path) as work:
            work.rmdir()
            rename(temporary, work)
            publish(path, work, _list_own(path))
    flush_folder(path.parent)


@contextmanager
def open_for_changes(path: Path) -> Iterator[Path]:
    """Lock the bundle at `path` for writing, and yield an empty folder for new files.

    Changes of a killed process are completed or removed first. The yielded folder is removed at the end of the block.
    New files become part of the bundle when the block calls :func:`publish`.

    Args:
        path: The bundle's folder.

    Yields:
        The folder for new files.

    Raises:
        OSError: The bundle's folder cannot be written.
    """
    with locks.hold(path / LOCK, str(path)):
        settle(path)
        work = path / WORK
        work.mkdir()
        try:
            yield work
        finally:
            remove(work)


def publish(path: Path, work: Path, obsolete: Iterable[str]) -> None:
    """Commit new files to the bundle at `path`.

    Args:
        path: The bundle's folder, which this process has locked.
        work: The folder that :func:`open_for_changes` yielded, with the new `manifest.json` and the new files at their
            paths relative to the bundle's folder.
        obsolete: Paths, relative to the bundle's folder, of files to remove. A path that exists in `work` is ignored.
    """
    new = {file.relative_to(work).as_posix() for file in _list_files(work)}
    (work / _OBSOLETE).write_text("\n".join(sorted(set(obsolete) - new)), encoding="utf-8")
    flush(work)
    rename(work, path / NEXT)
    flush_folder(path)
    try:
        replace(path / NEXT / MANIFEST, path / MANIFEST)
        flush_folder(path)
    finally:
        settle(path)


def settle(path: Path) -> None:
    """Complete a committed change of a bundle, and remove changes that were not committed.

    Args:
        path: The bundle's folder, which this process has locked.
    """
    remove(path / WORK)
    remove_leftovers(path)
    if (path / NEXT).is_symlink():  # this module makes no links, and the link may lead out of the bundle
        remove(path / NEXT)
    if (path / NEXT / MANIFEST).exists():
        # Without the rename, a kill between two removals could leave a folder without a manifest, as after a commit.
        rename(path / NEXT, path / WORK)
        remove(path / WORK)
    elif (path / NEXT).is_dir():
        _move_in(path)
    _undo_exchange(path)


def _move_in(path: Path) -> None:
    """Do step 4 of a committed change. Nothing outside of the bundle's folder is changed.

    Raises:
        BundleError: A file's place is outside of the bundle's folder because of a link.
    """
    obsolete = path / NEXT / _OBSOLETE
    if obsolete.is_file():
        listed = obsolete.read_text(encoding="utf-8", errors="replace").splitlines()
        for name in _list_own(path).intersection(listed):
            (path / name).unlink(missing_ok=True)
    for file in _list_files(path / NEXT):
        if file != obsolete:
            place = path / file.relative_to(path / NEXT)
            if not place.parent.resolve().is_relative_to(path.resolve()):
                raise BundleError(f"{place} leads out of the bundle by a link; remove the link and run again")
            place.parent.mkdir(parents=True, exist_ok=True)
            replace(file, place)
            flush_folder(place.parent)
    shutil.rmtree(path / NEXT)
    for folder in (path / name for name in _engine_folders()):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _engine_folders() -> list[EngineName]:
    """Return the names of the engines that have a folder in the bundle."""
    return [record.name for record in catalogue.ENGINES.values() if record.builder]


def _list_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if not path.is_dir()]


def _list_own(path: Path) -> set[str]:
    """Return the paths of all files of the bundle, relative to the bundle's folder."""
    names = {SCRIPT, *(graph_name(precision) for precision in catalogue.bundle_precisions())}
    for engine in _engine_folders():
        names |= list_engine_files(path, engine)
    return {name for name in names if (path / name).exists() or (path / name).is_symlink()}


def list_engine_files(path: Path, engine: EngineName) -> set[str]:
    """List the files in an engine's folder, except temporary files.

    Args:
        path: The bundle's folder.
        engine: The engine, which is also the name of the folder.

    Returns:
        Paths relative to the bundle's folder.
    """
    if (path / engine).is_symlink():
        return {engine}
    files = _list_files(path / engine)
    return {file.relative_to(path).as_posix() for file in files if not file.name.startswith(PREFIX)}


def _undo_exchange(path: Path) -> None:
    """Undo or complete the replacement of an engine after a kill of version 0.1 (`.openvino.tmp`, `.openvino.old`)."""
    for name in _engine_folders():
        remove(path / f".{name}.tmp")
        aside = path / f".{name}.old"
        if not aside.is_dir():
            continue
        try:
            Bundle.open(path).files(name)
        except BundleError:
            remove(path / name)
            rename(aside, path / name)
        else:
            remove(aside)
