"""Standard output and error of a command. Characters that their encoding does not have are replaced by others."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: The exit code of a program that a closed pipe ended, as shells report it: 128 + SIGPIPE.
CLOSED_PIPE = 141

#: ASCII for the characters in our own texts. Other characters that an encoding does not have become escape sequences.
_LOOKALIKES = {
    "≥": ">=",
    "≤": "<=",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "·": "*",
    "•": "*",
    "→": "->",
    "±": "+-",
    "’": "'",
    "α": "alpha",
    "β": "beta",
    "²": "2",
}

#: The name of the error handler that replaces characters.
_ERRORS = "glama_deploy.lookalikes"


def _replace(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    there = _LOOKALIKES.get(error.object[error.start])
    if there is not None:
        return there, error.start + 1
    alone = UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, error.reason)
    return codecs.backslashreplace_errors(alone)


codecs.register_error(_ERRORS, _replace)


def as_encodable(text: str, encoding: str) -> str:
    """Replace characters that an encoding does not have by similar ones, or by escape sequences.

    Args:
        text: The text.
        encoding: The name of the encoding.

    Returns:
        The text in characters of the encoding.
    """
    return text.encode(encoding, _ERRORS).decode(encoding)


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Let standard output and error replace characters that their encoding does not have.

    Yields:
        Nothing. At the end the streams fail again.
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with suppress(OSError):  # a full disk, which flush_output has reported
                stream.reconfigure(errors=errors)


def is_closed_pipe(error: BaseException | None) -> bool:
    """Return whether an error means that the program at the other end of a pipe has ended.

    Args:
        error: The error; None for none.

    Returns:
        True for a closed pipe. Windows reports it as an invalid argument, without a file name.
    """
    if sys.platform == "win32" and isinstance(error, OSError) and error.filename is None:
        return error.errno in (errno.EPIPE, errno.EINVAL)
    return isinstance(error, BrokenPipeError)


def flush_output() -> OSError | None:
    """Write out what was printed.

    If this fails, the rest goes to the null device. Otherwise Python would fail again at the end of the process.

    Returns:
        The error of standard output; None on success.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # a stream without a file; the commands do not use any
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        return error
    return None
