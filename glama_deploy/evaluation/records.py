"""Results on disk, image by image: a run that was cut short goes on where it stopped.

`protocol.json` says what is evaluated; `records.jsonl` has a line for each image that is done; `features/` has what
Inception saw in it, where FID is asked for; `pictures/` the results that are shown.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from pydantic import ConfigDict, Field, ValidationError

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics.pairs import Region
from glama_deploy.evaluation.protocol import Item, Protocol
from glama_deploy.frozen import FrozenModel
from glama_deploy.io import locks
from glama_deploy.io.files import PREFIX, atomic_file, has_only_leftovers, write_error

PROTOCOL, RECORDS = "protocol.json", "records.jsonl"

#: The lock file of the process that writes into the folder.
LOCK = f"{PREFIX}lock"

#: The folders that a run fills, and what is made of them: the page with everything on it, the same as text, numbers and
#: lines, and pictures, one of each for a dataset.
FEATURES, PICTURES = "features", "pictures"
PAGE, TEXT, JSON, CSV = "index.html", "RESULTS.md", "results.json", "results.csv"
SHEET, SPECTRA, RINGS = "sheet", "spectra", "rings"

#: What stands before a mask's name in a file of features. A mask may be called `file`, as an argument of numpy.savez.
_FEATURES_KEY = "mask "


class Result(FrozenModel):
    """The result of one method on one image with one mask.

    Attributes:
        values: by `metric/region`.
        rings: the spectrum's error by region and ring.
        changed: the share of the known pixels whose values the method changed, 0 to 1.
        largest_change: the largest change of a known pixel, 0 to 255.
        error: why there are no values; empty where there are.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    values: dict[str, float] = Field(default_factory=dict)
    rings: dict[Region, tuple[float | None, ...]] = Field(default_factory=dict)
    changed: float = 0.0
    largest_change: int = 0
    error: str = ""


class Record(FrozenModel):
    """The results of one item.

    Attributes:
        dataset: the name of the dataset.
        image: the name of the item: the path of the image below the dataset's folder, or of its given mask.
        digest: the SHA-256 of the item's files, which tells a change.
        height: in pixels, as evaluated.
        width: in pixels, as evaluated.
        results: by mask and method.
        broken: why the image could not be read; empty where it was.
        saved: the folder that these results were saved in; empty for none.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    dataset: str
    image: str
    digest: str = ""
    height: int = 0
    width: int = 0
    results: dict[str, dict[str, Result]] = Field(default_factory=dict)
    broken: str = ""
    saved: str = ""

    @property
    def failed(self) -> bool:
        """Whether a method has no result with some mask."""
        return any(result.error for results in self.results.values() for result in results.values())

    @property
    def empty(self) -> bool:
        """Whether no method has a result with any mask."""
        return all(result.error for results in self.results.values() for result in results.values())


class Folder:
    """The folder of a run. One process at a time writes into it."""

    def __init__(self, path: Path) -> None:
        """Name the folder. Nothing is made before it is held.

        Args:
            path: the folder, which need not exist.
        """
        self.path = path

    @contextmanager
    def hold(self, protocol: Protocol, *, overwrite: bool = False) -> Iterator[list[Record]]:
        """Hold the folder during the block.

        Args:
            protocol: what is evaluated.
            overwrite: whether to remove the results of another run.

        Yields:
            The records of this protocol that are there.

        Raises:
            GlamaError: the folder has results of another protocol, or files that are not an evaluation's, is in use, or
                cannot be written.
        """
        with self._locked():
            if overwrite:
                (self.path / RECORDS).unlink(missing_ok=True)
            else:
                check_protocol(self.path / PROTOCOL, protocol, "out")
            write_protocol(self.path / PROTOCOL, protocol)
            if overwrite:  # now that the folder says what it is of
                self._clear()
            (self.path / RECORDS).touch()  # a folder with records has a protocol
            yield self._read_records()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Make the folder where needed, and hold it. Raises GlamaError where another run holds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / PROTOCOL).exists() and not has_only_leftovers(self.path):
                raise GlamaError(f"{self.path} has files that are no evaluation's; choose another folder for `out`")
            lock = self._acquire()
        except OSError as error:
            raise write_error(self.path, error) from error
        with lock:
            yield

    def _acquire(self) -> ExitStack:
        """Hold the folder until the returned stack is closed."""
        with ExitStack() as stack:
            if not stack.enter_context(locks.try_hold(self.path / LOCK)):
                raise GlamaError(f"{self.path} is being written by another run; wait for it")
            return stack.pop_all()

    def _clear(self) -> None:
        """Remove features, pictures and everything that was made of records."""
        for name in (FEATURES, PICTURES):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (PAGE, TEXT, JSON, CSV, *(f"{kind}-*.png" for kind in (SHEET, SPECTRA, RINGS))):
            for path in self.path.glob(name):
                path.unlink()

    def _read_records(self) -> list[Record]:
        """Read the whole lines, and cut off a last line that a kill left unfinished."""
        path = self.path / RECORDS
        found: list[Record] = []
        whole = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    record = Record.model_validate_json(line) if line.endswith(b"\n") else None
                except ValidationError as error:
                    raise GlamaError(
                        f"{path} is damaged, or of another version, at line {len(found) + 1}; choose another `out` or "
                        "pass `overwrite=True`"
                    ) from error
                if record is None:
                    break
                found.append(record)
                whole += len(line)
        os.truncate(path, whole)
        return found

    def append(self, record: Record) -> None:
        """Add a line in one write, flushed to the disk.

        Args:
            record: the results of an image.

        Raises:
            GlamaError: the folder cannot be written.
        """
        path = self.path / RECORDS
        try:
            with path.open("ab", buffering=0) as file:
                file.write(record.model_dump_json().encode() + b"\n")
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(path, error) from error

    def save_features(self, item: Item, features: dict[str, np.ndarray]) -> None:
        """Write the features of an image.

        Args:
            item: the image.
            features: by mask, float32 [1 + methods, regions, D]: of the truth and of each method, NaN without a result.
        """
        path = self._features_path(item.dataset, item.name)
        with atomic_file_in_new_folder(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{_FEATURES_KEY + mask: of_mask for mask, of_mask in features.items()})  # type: ignore[arg-type]

    def load_features(self, record: Record, mask: str) -> np.ndarray:
        """Read what :meth:`save_features` wrote of a mask.

        Args:
            record: the results of the image.
            mask: the name of the mask.

        Returns:
            float32 [1 + methods, regions, D].

        Raises:
            GlamaError: the file is damaged.
        """
        path = self._features_path(record.dataset, record.image)
        try:
            with np.load(path) as arrays:  # which reads this mask's alone
                return arrays[_FEATURES_KEY + mask]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise GlamaError(f"{path} is damaged; remove it, and the same command makes it again") from error

    def has_features(self, item: Item) -> bool:
        """Return whether features of an image are there.

        Args:
            item: the image.

        Returns:
            Whether the file exists; it is not read.
        """
        return self._features_path(item.dataset, item.name).is_file()

    def _features_path(self, dataset: str, image: str) -> Path:
        return self.path / FEATURES / dataset / f"{image}.npz"

    def save_picture(self, item: Item, name: str, rgb: np.ndarray) -> None:
        """Write a picture of an image.

        Args:
            item: the image.
            name: the name of the picture.
            rgb: uint8 H×W×3.
        """
        with atomic_file_in_new_folder(self.picture_path(item, name)) as temporary:
            Image.fromarray(rgb).save(temporary, format="PNG")

    def remove_pictures_of(self, item: Item) -> None:
        """Remove the pictures that were kept of an image.

        Args:
            item: the image.
        """
        shutil.rmtree(self.picture_path(item, TRUTH).parent, ignore_errors=True)

    def remove_other_pictures(self, items: Iterable[Item]) -> None:
        """Remove the pictures that were kept of other images, or with other masks.

        Args:
            items: the images whose pictures stay.
        """
        kept = {(self.picture_path(item, TRUTH).parent, item.shown) for item in items if item.shown}
        for path in sorted((self.path / PICTURES).rglob("*.png")):
            if path.is_file() and (path.parent, path.name.rpartition("-")[0]) not in kept:
                path.unlink()
                with suppress(OSError):  # another is in it
                    path.parent.rmdir()

    def picture_path(self, item: Item, name: str) -> Path:
        """Return where a picture of an image is kept.

        Args:
            item: the image.
            name: the name of the picture.

        Returns:
            The path of a PNG file.
        """
        return self.path / PICTURES / item.dataset / item.name / f"{item.shown}-{name}.png"


def check_protocol(path: Path, protocol: Protocol, option: str) -> None:
    """Check that the results of a folder are of a protocol.

    Args:
        path: the file of the folder's protocol, which need not exist.
        protocol: what is evaluated.
        option: the option that named the folder, for messages.

    Raises:
        GlamaError: the file is damaged, or of another protocol.
    """
    if not path.exists():
        return
    remedy = f"choose another `{option}` or pass `overwrite=True`"
    difference = protocol.difference(read_protocol(path, remedy))
    if difference:
        raise GlamaError(f"{path.parent} has results of another configuration ({difference}); {remedy}")


def read_protocol(path: Path, remedy: str) -> Protocol:
    """Read the file of a protocol.

    Args:
        path: the file.
        remedy: what to do about a damaged file, for the message.

    Returns:
        The protocol.

    Raises:
        GlamaError: the file is damaged, or of another version.
    """
    try:
        return Protocol.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise GlamaError(f"{path} is damaged or of another version; {remedy}") from error


def write_protocol(path: Path, protocol: Protocol) -> None:
    """Write the file of a protocol, unless the same is there.

    Args:
        path: the file; its folders are made.
        protocol: what is evaluated.

    Raises:
        GlamaError: the file cannot be written.
    """
    text = protocol.model_dump_json(indent=1).encode() + b"\n"
    if not path.exists() or path.read_bytes() != text:
        with atomic_file_in_new_folder(path) as temporary:
            temporary.write_bytes(text)


@contextmanager
def atomic_file_in_new_folder(path: Path) -> Iterator[Path]:
    """Write a file as :func:`~glama_deploy.io.files.atomic_file` does, and make its folders where needed.

    Args:
        path: the file.

    Yields:
        The path of the temporary file.

    Raises:
        GlamaError: a folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with atomic_file(path) as temporary:
        yield temporary


#: Names of the pictures that are kept beside each method's. A method's picture has the number of the method as name.
TRUTH, KNOWN, MASK = "truth", "known", "mask"
