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
from glama_deploy.io.files import PREFIX, atomic_file, write_error

PROTOCOL, RECORDS = "protocol.json", "records.jsonl"

#: The lock file of the process that writes into the folder.
LOCK = f"{PREFIX}lock"

#: The folders that a run fills, and what is made of them: the page with everything on it, the same as text, numbers and
#: lines, and pictures, one of each for a dataset.
FEATURES, PICTURES = "features", "pictures"
PAGE, TEXT, JSON, CSV = "index.html", "RESULTS.md", "results.json", "results.csv"
SHEET, SPECTRA, RINGS = "sheet", "spectra", "rings"


class Result(FrozenModel):
    """Of one method on one image with one mask: values by `metric/region` and the spectrum's error by region and ring,
    or why there are none."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    values: dict[str, float] = Field(default_factory=dict)
    rings: dict[Region, tuple[float | None, ...]] = Field(default_factory=dict)
    error: str = ""


class Record(FrozenModel):
    """Of one image, which its file's SHA-256 tells from another of that name: results by mask and method, or why it
    could not be read."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    dataset: str
    image: str
    digest: str = ""
    height: int = 0
    width: int = 0
    results: dict[str, dict[str, Result]] = Field(default_factory=dict)
    broken: str = ""

    @property
    def failed(self) -> bool:
        """Whether a method has no result with some mask."""
        return any(result.error for results in self.results.values() for result in results.values())

    @property
    def empty(self) -> bool:
        """Whether no method has a result with any mask."""
        return all(result.error for results in self.results.values() for result in results.values())


class Folder:
    """The folder of a run, which one process at a time writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self, protocol: Protocol, *, overwrite: bool = False) -> Iterator[list[Record]]:
        """The records that are there already of this protocol; nobody else writes into the folder meanwhile.

        With `overwrite` what another run left is removed. Raises GlamaError: results of another protocol, a folder that
        is no run's, in use, or cannot be written.
        """
        with self._locked():
            if overwrite:
                os.truncate(self.path / RECORDS, 0)
            else:
                self._check(protocol)
            text = protocol.model_dump_json(indent=1).encode() + b"\n"
            if not (self.path / PROTOCOL).exists() or (self.path / PROTOCOL).read_bytes() != text:
                with atomic_file(self.path / PROTOCOL) as temporary:
                    temporary.write_bytes(text)
            if overwrite:  # now that the folder says what it is of
                self._clear()
            yield self._read()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder, which is made where it is not there. Raises GlamaError where another run holds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self._ours():
                raise GlamaError(f"{self.path} has files that are no evaluation's; choose another folder for --out")
            lock = self._held_by_us()
        except OSError as error:
            raise write_error(self.path, error) from error
        with lock:
            yield

    def _held_by_us(self) -> ExitStack:
        """Hold the folder until the returned stack is closed."""
        with ExitStack() as stack:
            if not stack.enter_context(locks.try_hold(self.path / LOCK)):
                raise GlamaError(f"{self.path} is being written by another run; wait for it")
            (self.path / RECORDS).touch()
            return stack.pop_all()

    def _ours(self) -> bool:
        """Whether the folder is an evaluation's, or empty but for what one leaves that is killed at once."""
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(PREFIX)}
        return PROTOCOL in names or not names or (names == {RECORDS} and not (self.path / RECORDS).stat().st_size)

    def _clear(self) -> None:
        """Remove what an evaluation keeps of its images, and what was made of that."""
        for name in (FEATURES, PICTURES):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (PAGE, TEXT, JSON, CSV, *(f"{kind}-*.png" for kind in (SHEET, SPECTRA, RINGS))):
            for path in self.path.glob(name):
                path.unlink()

    def _check(self, protocol: Protocol) -> None:
        path = self.path / PROTOCOL
        if not path.exists():
            return
        try:
            there = Protocol.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise GlamaError(
                f"{path} is damaged or of another version; choose another --out or pass --overwrite"
            ) from error
        difference = protocol.difference(there)
        if difference:
            raise GlamaError(
                f"{self.path} has results of another configuration ({difference}); choose another --out or pass "
                "--overwrite"
            )

    def _read(self) -> list[Record]:
        """The whole lines, of an image that was looked at again the last; one that a kill cut off is removed."""
        path = self.path / RECORDS
        found: list[Record] = []
        whole = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    record = Record.model_validate_json(line) if line.endswith(b"\n") else None
                except ValidationError as error:
                    raise GlamaError(
                        f"{path} is damaged, or of another version, at line {len(found) + 1}; choose another --out or "
                        "pass --overwrite"
                    ) from error
                if record is None:
                    break
                found.append(record)
                whole += len(line)
        os.truncate(path, whole)
        return found

    def append(self, record: Record) -> None:
        """Add a line in one write, flushed to the disk. Raises GlamaError where that fails."""
        path = self.path / RECORDS
        try:
            with path.open("ab", buffering=0) as file:
                file.write(record.model_dump_json().encode() + b"\n")
                os.fsync(file.fileno())
        except OSError as error:
            raise write_error(path, error) from error

    def save_features(self, item: Item, features: dict[str, np.ndarray]) -> None:
        """By mask, float32 [1 + methods, regions, 2048]: of the truth and of each method, NaN where there is no
        result."""
        path = self._features(item.dataset, item.image)
        with _file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **features)  # type: ignore[arg-type]

    def features(self, record: Record, mask: str) -> np.ndarray:
        """What :meth:`save_features` was given. Raises GlamaError for a file that is damaged."""
        path = self._features(record.dataset, record.image)
        try:
            with np.load(path) as arrays:  # which reads this mask's alone
                return arrays[mask]
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise GlamaError(f"{path} is damaged; remove it, and the same command makes it again") from error

    def has_features(self, item: Item) -> bool:
        return self._features(item.dataset, item.image).is_file()

    def _features(self, dataset: str, image: str) -> Path:
        return self.path / FEATURES / dataset / f"{image}.npz"

    def save_picture(self, item: Item, name: str, rgb: np.ndarray) -> None:
        """rgb uint8 H×W×3."""
        with _file(self.picture(item, name)) as temporary:
            Image.fromarray(rgb).save(temporary, format="PNG")

    def remove_pictures_of(self, item: Item) -> None:
        """Remove what was kept of the image before."""
        shutil.rmtree(self.picture(item, TRUTH).parent, ignore_errors=True)

    def remove_pictures_but_of(self, items: Iterable[Item]) -> None:
        """Remove what was kept of other images, or with other masks."""
        kept = {(self.picture(item, TRUTH).parent, item.shown) for item in items if item.shown}
        for path in sorted((self.path / PICTURES).rglob("*.png")):
            if path.is_file() and (path.parent, path.name.partition("-")[0]) not in kept:
                path.unlink()
                with suppress(OSError):  # another is in it
                    path.parent.rmdir()

    def picture(self, item: Item, name: str) -> Path:
        return self.path / PICTURES / item.dataset / item.image / f"{item.shown}-{name}.png"


@contextmanager
def _file(path: Path) -> Iterator[Path]:
    """A file that is there when it is whole, with its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    with atomic_file(path) as temporary:
        yield temporary


#: Names of the pictures that are kept beside each method's, which bears its number.
TRUTH, KNOWN, MASK = "truth", "known", "mask"
