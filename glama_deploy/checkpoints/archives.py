"""Find the checkpoint in a zip archive, as LaMa's models are downloaded, and read the checkpoint from there.

The network that an archive contains is unpacked into a file without a name. The operating system removes such a file
when the process ends, even if the process is killed. Readers open the file by its path below `/proc/self/fd`. Systems
without such paths get a temporary folder.
"""

from __future__ import annotations

import logging
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from glama_deploy.checkpoints.torch_zip import MAX_ENTRIES, report_damage
from glama_deploy.errors import CheckpointError
from glama_deploy.io.files import write_error
from glama_deploy.text.excerpts import excerpt

log = logging.getLogger("glama_deploy")

#: Largest checkpoint in an archive. LaMa's with 18 blocks has 0.4 GB, with the states of its optimizers 1.2 GB.
MAX_UNPACKED_BYTES = 4 << 30

#: Largest config that is unpacked. The reader of configs takes less.
_MAX_CONFIG_BYTES = 1 << 20

#: The checkpoint of a LaMa model folder, the one of a training that was stopped, and the config.
_BEST, _LAST, _CONFIG = "models/best.ckpt", "models/last.ckpt", "config.yaml"

#: Suffixes of checkpoints that lie in an archive without a LaMa model folder.
_SUFFIXES = frozenset((".ckpt", ".pt", ".pth", ".safetensors"))

#: Names of checkpoints that a message shows.
_MAX_SHOWN_NAMES = 12

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """The checkpoint in an archive.

    Attributes:
        weights: name of the entry with the parameters.
        config: name of the entry with LaMa's config; None for a file of parameters alone.
    """

    weights: str
    config: str | None = None


def find_member(path: Path) -> Member | None:
    """Find the checkpoint in a zip archive.

    Args:
        path: The archive.

    Returns:
        The checkpoint. None for an archive of torch itself, and for an archive without a checkpoint.

    Raises:
        CheckpointError: The archive is damaged, contains several checkpoints, a LaMa model folder without a config, or
            a config in another place than a LaMa model folder has it.
    """
    with report_damage(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if len(names) > MAX_ENTRIES or any(PurePosixPath(name).name == "data.pkl" for name in names):
        return None
    if len(set(names)) < len(names):  # of two entries with one name, readers choose different ones
        raise CheckpointError(f"{path} has two entries of one name; unpack the archive and give the checkpoint")
    folders = _find_model_folders(names)
    inside = tuple(f"{folder}models/" for folder in folders)  # of these folders, one checkpoint each is read
    found = list(folders.values())
    found += [name for name in names if _is_checkpoint(name) and not name.startswith(inside)]
    if len(found) > 1:
        shown = ", ".join(excerpt(name) for name in sorted(found)[:_MAX_SHOWN_NAMES])
        more = ", …" if len(found) > _MAX_SHOWN_NAMES else ""
        raise CheckpointError(
            f"{path} contains {len(found)} checkpoints: {shown}{more}; unpack the archive and give one of them"
        )
    if not found:
        return None
    config = f"{next(iter(folders), '')}{_CONFIG}"
    if not folders:
        _check_without_config(path, names, found[0])
        return Member(found[0])
    if config not in names:
        raise CheckpointError(
            f"{path} has {excerpt(found[0])} without {excerpt(config)}; an archive of a LaMa model folder is expected"
        )
    if found[0].endswith(_LAST):
        log.warning("%s has no %s; reading %s", path, _BEST, excerpt(found[0]))
    return Member(found[0], config)


@contextmanager
def unpack(path: Path, name: str) -> Iterator[Path]:
    """Unpack an entry of an archive for the time of the block.

    Args:
        path: The archive.
        name: The name of the entry.

    Yields:
        A path of the unpacked entry.

    Raises:
        CheckpointError: The entry is damaged, encrypted, or larger than `MAX_UNPACKED_BYTES` (a config: 1 MiB).
        GlamaError: The temporary folder has no room.
    """
    with tempfile.TemporaryFile() as file:
        place = Path(f"/proc/self/fd/{file.fileno()}")
        if place.exists():
            _copy(path, name, file)
            yield place
            return
    with tempfile.TemporaryDirectory(prefix="glama-") as folder:
        place = Path(folder) / "checkpoint"
        with place.open("wb") as named:
            _copy(path, name, named)
        yield place


@contextmanager
def name_members(shown: Mapping[Path, str]) -> Iterator[None]:
    """Name the entries of an archive in messages, in place of the paths of unpacked entries.

    Args:
        shown: What messages show for each path of an unpacked entry.

    Yields:
        None.

    Raises:
        CheckpointError: The block raised a CheckpointError.
    """
    try:
        yield
    except CheckpointError as error:
        text = str(error)
        for path, name in shown.items():
            text = re.sub(rf"{re.escape(str(path))}(?!\d)", lambda match, name=name: name, text)  # type: ignore[misc]
        raise CheckpointError(text) from error


def _is_checkpoint(name: str) -> bool:
    """Tell whether an entry has the suffix of a checkpoint. macOS adds entries that begin with `._`."""
    path = PurePosixPath(name)
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith("._")


def _find_model_folders(names: Sequence[str]) -> dict[str, str]:
    """Return the checkpoint of each LaMa model folder: as in a folder on the disk, the best one or else the last one.

    A `last.ckpt` without a config is a file of parameters like any other.
    """
    found: dict[str, str] = {}
    for wanted in (_LAST, _BEST):
        for name in names:
            folder = name.removesuffix(wanted)
            is_there = folder != name and (folder == "" or folder.endswith("/"))
            if is_there and (wanted == _BEST or f"{folder}{_CONFIG}" in names):
                found[folder] = name
    return found


def _check_without_config(path: Path, names: Sequence[str], weights: str) -> None:
    """Raise CheckpointError for a config that would not be read, because its place is not that of a LaMa folder."""
    for name in names:
        if PurePosixPath(name).name == _CONFIG:
            raise CheckpointError(
                f"{path} has {excerpt(weights)} and {excerpt(name)}, which are not in the places of a LaMa model "
                f"folder ({_CONFIG} and {_BEST}); unpack the archive and arrange the files so, or give the checkpoint"
            )


def _copy(path: Path, name: str, file: IO[bytes]) -> None:
    """Copy an entry into a file."""
    with report_damage(f"{path}: {excerpt(name)}"), zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
        if entry.flag_bits & 1:
            raise CheckpointError(f"{path}: {excerpt(name)} is encrypted; unpack the archive and give the checkpoint")
        most = _MAX_CONFIG_BYTES if PurePosixPath(name).name == _CONFIG else MAX_UNPACKED_BYTES
        if entry.file_size > most:
            raise CheckpointError(f"{path}: {excerpt(name)} has {entry.file_size} bytes; at most {most} are expected")
        with archive.open(entry) as source:
            while chunk := source.read(_CHUNK_BYTES):
                _write(file, chunk)
    _write(file, b"")


def _write(file: IO[bytes], chunk: bytes) -> None:
    """Write bytes; with no bytes, flush the file. Raises GlamaError where the disk is full."""
    try:
        file.write(chunk)
        if not chunk:
            file.flush()
    except OSError as error:
        raise write_error(Path(tempfile.gettempdir()), error) from error
