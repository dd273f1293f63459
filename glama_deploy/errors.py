"""Errors for a reason that the user can mend.

Every message is one line: what was found, what was expected, what to do. The commands print the message and leave with
:attr:`GlamaError.exit_code`. They catch no bugs, so a bug keeps its traceback.
"""

from __future__ import annotations

from glama_deploy.text.escapes import escape_controls


class GlamaError(Exception):
    """Bad input or a missing piece.

    The text is one line. Line breaks and terminal escapes in names from elsewhere are escaped.
    """

    exit_code = 2

    def __str__(self) -> str:
        return escape_controls(super().__str__())


class CheckpointError(GlamaError):
    """A checkpoint that is missing, damaged, of another network or at odds with its own config."""


class BundleError(GlamaError):
    """A bundle that is missing, incomplete, tampered with or of another schema."""


class ImageError(GlamaError):
    """An image or mask that cannot be inpainted as it is."""


class EngineError(GlamaError):
    """An engine that cannot be built or run here; the text says which piece is missing."""


class NotBuiltError(EngineError):
    """The one engine that a command was to build cannot be built here, while its input is sound."""

    exit_code = 4
