"""Pictures that come from standard input and other pipes, and pictures that go to them.

A pipe is `-`, or a path that is not a regular file, such as the `/dev/fd/63` of a shell's process substitution. A pipe
can be read once, so it is read into memory. Addresses of the web are refused: a path loses one of their slashes.
"""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from glama_deploy.errors import GlamaError, ImageError

#: The path that stands for standard input and output.
STANDARD = Path("-")

#: The longest file that is read from a pipe, in bytes: the largest picture of four 16-bit channels, uncompressed.
MAX_PIPED_BYTES = 16384 * 16384 * 8 + (1 << 20)

#: An address, as a path shows it: `https://a/b` has become `https:/a/b`.
_ADDRESS = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+:/|data:)")


@dataclass(frozen=True)
class PipedFile:
    """A file that was read from a pipe.

    Attributes:
        name: the pipe's name in messages.
        data: the bytes of the file.
    """

    name: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def stem(self) -> str:
        """The name, which has no suffix."""
        return self.name

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file in memory.

        Args:
            mode: `rb`, as for a path.

        Returns:
            The file, at its beginning.
        """
        assert mode == "rb"
        return io.BytesIO(self.data)


#: Where a picture is read from.
Source = Path | PipedFile


def check_no_address(path: Path, name: str) -> None:
    """Check that a path is not an address of the web.

    Args:
        path: the path.
        name: the field that has the path, for the message.

    Raises:
        GlamaError: the path begins like an address, and no such file exists.
    """
    if _ADDRESS.match(path.as_posix()) and not path.exists():
        raise GlamaError(
            f"`{name}` is the address {restore_address(path)}, and a file is expected; download the file first"
        )


def restore_address(path: Path) -> str | None:
    """Return the address that a path was made from.

    Args:
        path: the path, which has lost one of the address's slashes.

    Returns:
        The address as it was given. A data URL is shortened. None for a path that is not an address.
    """
    if not _ADDRESS.match(path.as_posix()) or path.exists():
        return None
    scheme, _, rest = path.as_posix().partition(":")
    return f"{scheme}:…" if scheme == "data" else f"{scheme}://{rest.lstrip('/')}"


def is_pipe(path: Path) -> bool:
    """Return whether a path is a pipe or another special file.

    Args:
        path: the path.

    Returns:
        True for `-`, and for what exists and is neither a regular file nor a folder.
    """
    if path == STANDARD:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def read_source(path: Path, name: str) -> Source:
    """Read a pipe, or leave a path as it is.

    Args:
        path: the path.
        name: the field that has the path, for messages.

    Returns:
        The path; the file in memory for a pipe.

    Raises:
        GlamaError: the pipe is a terminal, is too long, or cannot be read.
    """
    if not is_pipe(path):
        return path
    if path == STANDARD:
        return PipedFile("standard input", _read(open_standard_input(f"`{name}` is -"), "standard input"))
    try:
        with path.open("rb") as file:
            _check_no_terminal(file, f"`{name}` is {path}, and this file", "pipe a file into the command")
            return PipedFile(str(path), _read(file, str(path)))
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); check the pipe") from error


def open_standard_input(reason: str) -> BinaryIO:
    """Return standard input as bytes.

    Args:
        reason: the beginning of the message: what asks for standard input.

    Returns:
        The open stream.

    Raises:
        GlamaError: standard input is closed, or is a terminal.
    """
    return _open_standard(sys.stdin, f"{reason}, and standard input", "pipe a file into the command")


def open_standard_output(reason: str) -> BinaryIO:
    """Return standard output for bytes.

    Args:
        reason: the beginning of the message: what asks for standard output.

    Returns:
        The open stream.

    Raises:
        GlamaError: standard output is closed, or is a terminal.
    """
    remedy = "redirect standard output to a file or a program"
    return _open_standard(sys.stdout, f"{reason}, and standard output", remedy)


def _open_standard(stream: TextIO | None, reason: str, remedy: str) -> BinaryIO:
    """Return a standard stream as bytes. Raises GlamaError if it is closed, or is a terminal."""
    if stream is None or stream.closed:
        raise GlamaError(f"{reason} is closed; {remedy}")
    _check_no_terminal(stream.buffer, reason, remedy)
    return stream.buffer


def _check_no_terminal(file: BinaryIO, reason: str, remedy: str) -> None:
    if os.isatty(file.fileno()):
        raise GlamaError(f"{reason} is a terminal; {remedy}")


def _read(file: BinaryIO, name: str) -> bytes:
    data = file.read(MAX_PIPED_BYTES + 1)
    if len(data) > MAX_PIPED_BYTES:
        raise ImageError(f"{name} has more than {MAX_PIPED_BYTES >> 20} MiB, which no supported picture has")
    return data
