"""Errors that the user can mend.

Every message is one line: what was found, what is expected, and what to do. A message names a field of the library in
backticks, such as `max_size` or `fft=matmul`, and uses backticks for nothing else. The commands show the option instead
(:mod:`glama_deploy.cli.output.option_names`). The commands print the message and exit with
:attr:`GlamaError.exit_code`. The commands do not catch other exceptions, so a bug keeps its traceback.
"""

from __future__ import annotations

from glama_deploy.text.escapes import escape_controls


class GlamaError(Exception):
    """Bad input or a missing piece.

    The text is one line. Line breaks and terminal escapes, which a file name may contain, are escaped.

    Attributes:
        exit_code: Exit code of a command that ends with this error.
    """

    exit_code = 2

    def __str__(self) -> str:
        return escape_controls(super().__str__())


class CheckpointError(GlamaError):
    """A checkpoint that is missing, damaged, of another network, or contradicts its own config."""


class DownloadError(CheckpointError):
    """A published checkpoint that cannot be downloaded, or whose SHA-256 is not the expected one."""


class BundleError(GlamaError):
    """A bundle that is missing, incomplete, changed after the export, or of another schema."""


class ImageError(GlamaError):
    """An image or mask that is missing, damaged, or not supported."""


class MemoryShortageError(ImageError):
    """An image that needs more memory than is free. The same image may succeed later."""


class EngineError(GlamaError):
    """An engine that cannot be built or run on this machine. The text names the missing piece."""


class NotBuiltError(EngineError):
    """The only engine that a command builds cannot be built on this machine, and the input is valid."""

    exit_code = 4
