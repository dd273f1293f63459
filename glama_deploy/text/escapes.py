"""Text from elsewhere (file names, tensor names, keys) as one harmless line."""

from __future__ import annotations

import re

#: Characters that move a terminal's cursor, break a line or change the order of letters: the control characters C0 and
#: C1 with DEL, the marks and overrides of bidirectional text, the line and paragraph separators. Lone surrogates too:
#: Python reads a file name that is not UTF-8 into them, and no encoding can write them.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Longest word of a message that is printed whole; paths and names that a user means are shorter.
_MAX_WORD = 1_000

#: Characters of a longer word that are printed, at its beginning and at its end.
_WORD_ENDS = 40


def escape_controls(text: str) -> str:
    r"""Return the text with every unsafe character as an escape sequence: a newline as `\n`, an ESC as `\x1b`.

    A byte of a file name that is not UTF-8 becomes `\x` and two digits. Escaping twice changes nothing more.
    """
    return _UNSAFE.sub(_escape, text)


def shorten_words(text: str) -> str:
    """Return the text with each word of more than 1,000 characters shortened to its beginning and end."""
    return re.sub(rf"\S{{{_MAX_WORD + 1},}}", _shorten, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode's place for the byte that is 0xDC00 less
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def _shorten(match: re.Match[str]) -> str:
    word = match[0]
    return f"{word[:_WORD_ENDS]}...({len(word) - 2 * _WORD_ENDS} more)...{word[-_WORD_ENDS:]}"
