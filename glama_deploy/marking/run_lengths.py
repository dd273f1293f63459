"""Run lengths of a mask, as COCO's annotations have them.

The runs count the pixels column by column from the top left corner. The first run is of known pixels, the next of
missing pixels, and so on. Compressed runs are a text. Each run, or from the fourth run on its difference to the run two
before, is a number of groups of five bits, the lowest group first. A character has the code 48 plus a group, plus 32 if
another group follows. The highest bit of the last group is the sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glama_deploy.errors import GlamaError

#: The code of the first character, and the characters that a text may have.
_FIRST_CODE, _CODES = 48, 64

#: Bits of a group; the bit of a group that is the sign; the bit that says that another group follows.
_GROUP_BITS, _SIGN_BIT, _MORE_BIT = 5, 0x10, 0x20

#: The largest number of groups of a run. A picture of 16384x16384 pixels needs six.
_MAX_GROUPS = 7

#: The first run that is stored as a difference.
_FIRST_DIFFERENCE = 3


def decode_counts(text: str) -> list[int]:
    """Decode compressed runs.

    Args:
        text: the text.

    Returns:
        The length of each run.

    Raises:
        GlamaError: the text is damaged. The message is the end of a sentence.
    """
    counts: list[int] = []
    value, groups = 0, 0
    for character in text:
        code = ord(character) - _FIRST_CODE
        if not 0 <= code < _CODES:
            raise GlamaError(f"has the character {character!r} in its compressed runs, which is not one of theirs")
        value |= (code & (_MORE_BIT - 1)) << (_GROUP_BITS * groups)
        groups += 1
        if groups > _MAX_GROUPS:
            raise GlamaError("has compressed runs with a number that is too large")
        if code & _MORE_BIT:
            continue
        if code & _SIGN_BIT:
            value -= 1 << (_GROUP_BITS * groups)
        counts.append(value + (counts[-2] if len(counts) >= _FIRST_DIFFERENCE else 0))
        value, groups = 0, 0
    if groups:
        raise GlamaError("has compressed runs that are cut off")
    return counts


def mark_runs(missing: np.ndarray, counts: Sequence[int]) -> None:
    """Mark the pixels of run lengths.

    Args:
        missing: bool H×W, which is changed.
        counts: the length of each run.

    Raises:
        GlamaError: a run is negative, or the runs do not cover the picture. The message is the end of a sentence.
    """
    height, width = missing.shape
    if min(counts, default=0) < 0:
        raise GlamaError(f"has a run of {min(counts)} pixels")
    if sum(counts) != height * width:
        raise GlamaError(f"has runs of {sum(counts)} pixels; a picture of {height}x{width} has {height * width}")
    is_missing = np.arange(len(counts)) % 2 == 1
    missing |= np.repeat(is_missing, counts).reshape(width, height).T
