"""Numbered sequences of pictures, such as frame_%05d.png."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from glama_deploy.errors import ImageError

#: The place of the number in a pattern.
_NUMBER = re.compile(r"%(?:0(\d{1,2}))?d")


@dataclass(frozen=True)
class Sequence:
    """A numbered sequence of pictures.

    Attributes:
        pattern: the path with `%d` or `%05d` in place of the number.
        numbers: the numbers of the files, one after the other.
    """

    pattern: Path
    numbers: range

    @property
    def first(self) -> int:
        """The number of the first picture."""
        return self.numbers.start


def is_pattern(path: Path) -> bool:
    """Return whether a path is the pattern of a numbered sequence.

    Args:
        path: the path.

    Returns:
        True if the name has one place for a number, and no file has the name itself.
    """
    return len(_NUMBER.findall(path.name)) == 1 and path.name.count("%") == 1 and not path.exists()


def name_picture(pattern: Path, number: int) -> Path:
    """Return the path of one picture of a sequence.

    Args:
        pattern: the pattern.
        number: the picture's number.

    Returns:
        The path.
    """
    return pattern.with_name(_NUMBER.sub(lambda match: str(number).zfill(int(match[1] or 0)), pattern.name))


def find_sequence(pattern: Path) -> Sequence:
    """Find the pictures of a pattern.

    Args:
        pattern: the pattern.

    Returns:
        The sequence.

    Raises:
        ImageError: no file has such a name, or a number is missing in between.
    """
    before, after = _NUMBER.split(pattern.name)[0], pattern.name[_NUMBER.search(pattern.name).end() :]  # type: ignore[union-attr]
    names = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    folder = pattern.parent
    found = [names.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    numbers = {int(match[1]) for match in found if match and name_picture(pattern, int(match[1])).name == match[0]}
    if not numbers:
        raise ImageError(f"no file is named as {pattern} says; check the folder and the number of digits")
    whole = range(min(numbers), max(numbers) + 1)
    missing = next((number for number in whole if number not in numbers), None)
    if missing is not None:
        raise ImageError(
            f"{name_picture(pattern, missing)} is missing between pictures that are there; number the pictures without "
            "a gap"
        )
    return Sequence(pattern, whole)
