"""A published file of weights that a metric needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        names: the file's names, PyTorch's own first.
        url: the address of a file that can be downloaded.
        package: the package of a file that is installed, as pip names it.
    """

    names: tuple[str, ...]
    url: str = ""
    package: str = ""

    @property
    def digest(self) -> str:
        """The first characters of the file's SHA-256, which end its name."""
        return Path(self.names[0]).stem.rpartition("-")[2]
