"""A fuzzed input, and what every subject of the campaign provides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

#: The subjects of the campaign; each is a module of `fuzz.generators`.
SUBJECTS = ("checkpoints", "documents", "pictures", "bundles", "arguments")


@dataclass(frozen=True)
class Case:
    """An input that a seed stands for.

    Args:
        label: the kind of mutation, such as `zip: deep dict`; faults are reported under this name.
        files: contents by path, relative to the case's own folder.
        links: targets of symbolic links by path, relative to the case's own folder.
        arguments: the command and its arguments, where the subject is the command line.
        expected: the answer that the generator knows, for the subject's own check.
    """

    label: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    expected: object = None

    def write(self, folder: Path) -> None:
        """Write the case's files and links below `folder`."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for name, target in self.links.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)


class Subject(Protocol):
    """What the module of a subject offers.

    Attributes:
        GROWTH_BYTES: most memory that a case may add to the process at any instant.
        ADDRESS_BYTES: address space that the process may add; an allocation beyond raises MemoryError.
    """

    GROWTH_BYTES: int
    ADDRESS_BYTES: int

    def prepare(self, base: Path) -> None:
        """Write the valid inputs that cases are mutated from into the empty folder `base`."""

    def generate(self, seed: int, base: Path) -> Case:
        """Return the case of a seed. The same seed gives the same case."""

    def check(self, case: Case, folder: Path, base: Path) -> None:
        """Read the case, which is written in `folder`, and compare the result with an outside truth.

        Returns where the result is right. Raises GlamaError where the input is refused, and Wrong where the result is
        not what the outside truth says.
        """

    def may_remain(self, case: Case, name: str, refused: bool) -> bool:
        """Return whether a new file of this name in the case's folder is a documented output."""


class Wrong(AssertionError):
    """A result that contradicts the outside truth."""


def load_subject(name: str) -> Subject:
    """Return the module of a subject of `SUBJECTS`."""
    return cast(Subject, import_module(f"fuzz.generators.{name}"))
