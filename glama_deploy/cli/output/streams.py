"""Standard output and error of a command: what their encoding lacks is shown by other characters, and never fails."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: What a shell reports of a program that a closed pipe ended: 128 + SIGPIPE.
CLOSED_PIPE = 141

#: ASCII for the characters that our own texts use. Other characters that an encoding lacks become escape sequences.
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
    """Return the text in characters that the encoding has: look-alikes, else escape sequences, for the others."""
    return text.encode(encoding, _ERRORS).decode(encoding)


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Meanwhile, standard output and error print look-alikes for characters that their encoding lacks."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            with suppress(OSError):  # a full disk, which flush_output has told of
                stream.reconfigure(errors=errors)


def flush_output() -> OSError | None:
    """Write out what was printed; return the error where standard output takes no more.

    Then what is left goes to the null device, or Python would fail once more when the process ends.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError):  # a stream without a file, which none of ours is
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        return error
    return None
