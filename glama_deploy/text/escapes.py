"""Turn text from files and users (file names, tensor names, keys) into one line without terminal escapes."""

from __future__ import annotations

import re

#: Characters that move a terminal's cursor, break a line or change the order of letters: the control characters C0 and
#: C1 with DEL, the marks and overrides of bidirectional text, the line and paragraph separators, and lone surrogates.
#: Python reads bytes of a file name that are not UTF-8 as lone surrogates, which no encoding can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Longer words of a message are shortened. Ordinary paths and names are not longer.
_MAX_WORD_CHARACTERS = 1_000

#: Number of characters of a shortened word that are kept at its beginning, and at its end.
_KEPT_CHARACTERS = 40


def escape_controls(text: str) -> str:
    r"""Escape all characters that are not safe to print: a newline becomes `\n`, an ESC becomes `\x1b`.

    Args:
        text: Any text.

    Returns:
        The escaped text. A byte of a file name that is not UTF-8 becomes `\x` and two digits. Escaping an escaped text
        changes nothing.
    """
    return _UNSAFE.sub(_escape, text)


def shorten_words(text: str) -> str:
    """Shorten each word of more than 1,000 characters to its beginning and end.

    Args:
        text: Any text.

    Returns:
        The text with shortened words, each with the number of removed characters.
    """
    return re.sub(rf"\S{{{_MAX_WORD_CHARACTERS + 1},}}", _shorten, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode reads the byte b as the code 0xDC00 + b
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def _shorten(match: re.Match[str]) -> str:
    word = match[0]
    return f"{word[:_KEPT_CHARACTERS]}...({len(word) - 2 * _KEPT_CHARACTERS} more)...{word[-_KEPT_CHARACTERS:]}"
