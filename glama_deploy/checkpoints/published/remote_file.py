"""A file that can be downloaded, and the places of the file on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glama_deploy.io import cache

#: The folder in the cache.
_FOLDER = "models"

#: Digits of a SHA-256 that name the folder of a file.
_FOLDER_DIGITS = 16


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Attributes:
        subject: what users call the file, for messages.
        file: the name of the file.
        sha256: SHA-256 in lower-case hexadecimal.
        urls: checked addresses, which are tried in turn.
        size_bytes: size in bytes; None if unknown.
        is_size_exact: False if the size is only approximately known.
    """

    subject: str
    file: str
    sha256: str
    urls: tuple[str, ...]
    size_bytes: int | None = None
    is_size_exact: bool = False

    @property
    def exact_bytes(self) -> int | None:
        """The size in bytes where it is exactly known."""
        return self.size_bytes if self.is_size_exact else None

    @property
    def path(self) -> Path:
        """The path of the verified file in the cache. Raises GlamaError where the user has no home folder."""
        return cache.find_folder(_FOLDER) / self.sha256[:_FOLDER_DIGITS] / self.file

    @property
    def part(self) -> Path:
        """The path of a download that is not complete."""
        return self.path.with_name(f"{self.file}.part")

    @property
    def torch_path(self) -> Path:
        """The path at which programs that use torch.hub keep a file of this name."""
        base = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
        return Path(os.path.expanduser(base)) / "hub" / "checkpoints" / self.file


def format_size(remote: RemoteFile) -> str:
    """Format the size of a file.

    Args:
        remote: The file.

    Returns:
        Such as `206 MB`, `about 205 MB` or `size unknown`.
    """
    if remote.size_bytes is None:
        return "size unknown"
    return f"{'' if remote.is_size_exact else 'about '}{format_megabytes(remote.size_bytes)}"


def format_megabytes(size: int) -> str:
    """Format a number of bytes.

    Args:
        size: The bytes.

    Returns:
        Such as `206 MB` or `0.4 MB`.
    """
    return f"{size / 1e6:.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.1f} MB"
