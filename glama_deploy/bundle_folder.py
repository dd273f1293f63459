"""The folder of a bundle while it is written: at every instant the folder holds the old bundle or the new one.

One process at a time writes: it holds a lock file in the folder, which readers do not need. A new bundle appears by one
rename of a whole folder. A bundle that exists is changed in place, in four steps:

1. The new files and the new manifest are made in the folder `.glama-work`, and flushed to the disk.
2. `.glama-work` is renamed to `.glama-next`.
3. `.glama-next/manifest.json` replaces `manifest.json`. This one rename is the commit: before it the bundle is the old
   one, after it the new one. A reader looks for a file of the manifest at its place and, where the file there has
   another SHA-256, in `.glama-next` (:meth:`glama_deploy.bundle.Bundle.files`).
4. The files of the old bundle that the new one does not have are removed, the files in `.glama-next` move to their
   places, and `.glama-next` is removed.

A process can be killed between any two system calls. The next writer calls :func:`settle`: a `.glama-next` that still
has a manifest was not committed and is removed; one without a manifest was committed, and step 4 is done to its end.
Only renames within one folder are used, which every operating system and file system has. Files in the folder that are
not the bundle's own stay.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from glama_deploy.bundle import MANIFEST, NEXT, Bundle, EngineName, Precision, graph_name
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.io import locks
from glama_deploy.io.files import (
    PREFIX,
    check_path,
    flush,
    flush_folder,
    has_only_leftovers,
    remove,
    remove_leftovers,
    temporary_beside,
    write_error,
)

#: The lock file, and the folder in which new files are made, both within the bundle's folder.
LOCK = ".glama-lock"
WORK = ".glama-work"

#: In `.glama-next`: the paths, relative to the bundle, of the files that go with the commit, one a line.
_OBSOLETE = ".glama-obsolete"

#: The engines that have a folder of their own.
_ENGINES: tuple[EngineName, ...] = tuple(name for name in get_args(EngineName) if name != "onnx")

#: A script that is the bundle's own, though the manifest does not name it (see
#: :mod:`glama_deploy.engines.tensorrt.build_script`).
SCRIPT = "build.sh"


@contextmanager
def whole(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder for a whole bundle, which stands at `path` when the block ends well.

    Args:
        path: the bundle's folder. Of a link, the folder that the link points to is written.
        overwrite: whether a bundle at `path` may be replaced. It stays usable until the new one counts.

    Yields:
        The folder in which the block makes all files of the bundle, `manifest.json` among them.

    Raises:
        GlamaError: there is a bundle at `path` already, or the place cannot be written. What was at `path` stays, and
            nothing else is left.
    """
    if not is_free(path) and not overwrite:
        raise GlamaError(f"{path} exists already; choose another folder or pass --overwrite")
    path = path.resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        if path.exists():
            with changed(path) as work:
                yield work
                publish(path, work, _own(path))
            return
        with temporary_beside(path) as temporary:
            temporary.mkdir()
            yield temporary
            flush(temporary)
            _appear(temporary, path, overwrite=overwrite)
    except OSError as error:
        raise write_error(path, error) from error


def is_free(path: Path) -> bool:
    """Whether a new bundle can be made at `path`: nothing is there, or only what a killed process left.

    Raises GlamaError where no file can have the path.
    """
    check_path(path)
    if not path.is_dir():
        return not path.exists()
    return any(path.iterdir()) and has_only_leftovers(path)


def _appear(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a whole bundle its name; another process may have made a bundle of that name meanwhile."""
    try:
        temporary.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not overwrite:
            raise GlamaError(
                f"{path} appeared while it was being made; choose another folder or pass --overwrite"
            ) from error
        with changed(path) as work:
            work.rmdir()
            temporary.rename(work)
            publish(path, work, _own(path))
    flush_folder(path.parent)


@contextmanager
def changed(path: Path) -> Iterator[Path]:
    """Hold the bundle at `path` for writing, and yield an empty folder in it for new files.

    What a killed process left is finished or removed first. The folder is removed at the end of the block: new files
    count when the block gives them to :func:`publish`. Raises OSError where the bundle's folder cannot be written.
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
    """Make what is in `work`, which :func:`changed` gave, count in the bundle at `path`.

    Args:
        path: the bundle's folder, which this process holds.
        work: new files, at their paths relative to the bundle, and the new `manifest.json`.
        obsolete: the paths, relative to the bundle, of files that go, but for those that `work` has, too.
    """
    new = {file.relative_to(work).as_posix() for file in _files(work)}
    (work / _OBSOLETE).write_text("\n".join(sorted(set(obsolete) - new)), encoding="utf-8")
    flush(work)
    work.rename(path / NEXT)
    flush_folder(path)
    try:
        (path / NEXT / MANIFEST).replace(path / MANIFEST)
        flush_folder(path)
    finally:
        settle(path)


def settle(path: Path) -> None:
    """Finish what was committed to the bundle at `path`, and remove what was not. The caller holds the bundle."""
    remove(path / WORK)
    remove_leftovers(path)
    if (path / NEXT).is_symlink():  # not of this module: it would lead out of the bundle
        remove(path / NEXT)
    if (path / NEXT / MANIFEST).exists():
        # Removed file by file under this name, a folder that a kill left without its manifest would count as committed.
        (path / NEXT).rename(path / WORK)
        remove(path / WORK)
    elif (path / NEXT).is_dir():
        _move_in(path)
    _undo_exchange(path)


def _move_in(path: Path) -> None:
    """Step 4 of a change that was committed. A bundle may come from elsewhere: nothing outside of its folder changes.

    Raises BundleError for a file whose place is outside, by a link.
    """
    obsolete = path / NEXT / _OBSOLETE
    if obsolete.is_file():
        listed = obsolete.read_text(encoding="utf-8", errors="replace").splitlines()
        for name in _own(path).intersection(listed):
            (path / name).unlink(missing_ok=True)
    for file in _files(path / NEXT):
        if file != obsolete:
            place = path / file.relative_to(path / NEXT)
            if not place.parent.resolve().is_relative_to(path.resolve()):
                raise BundleError(f"{place} leads out of the bundle by a link; remove the link and run again")
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
            flush_folder(place.parent)
    shutil.rmtree(path / NEXT)
    for folder in (path / name for name in _ENGINES):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if not path.is_dir()]


def _own(path: Path) -> set[str]:
    """The paths, relative to the bundle's folder, of all files there that are the bundle's own."""
    names = {SCRIPT, *(graph_name(precision) for precision in get_args(Precision))}
    for engine in _ENGINES:
        names |= engine_files(path, engine)
    return {name for name in names if (path / name).exists() or (path / name).is_symlink()}


def engine_files(path: Path, engine: EngineName) -> set[str]:
    """The paths, relative to the bundle's folder, of the files in an engine's folder, but for temporary ones."""
    if (path / engine).is_symlink():
        return {engine}
    files = _files(path / engine)
    return {file.relative_to(path).as_posix() for file in files if not file.name.startswith(PREFIX)}


def _undo_exchange(path: Path) -> None:
    """Undo or finish the exchange of an engine that version 0.1 was killed in (`.openvino.tmp`, `.openvino.old`)."""
    for name in _ENGINES:
        remove(path / f".{name}.tmp")
        aside = path / f".{name}.old"
        if not aside.is_dir():
            continue
        try:
            Bundle.open(path).files(name)
        except BundleError:
            remove(path / name)
            aside.rename(path / name)
        else:
            remove(aside)
