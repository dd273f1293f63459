"""Rectangles of missing pixels: `x,y,w,h`, in pixels of the upright picture."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np

from glama_deploy.errors import GlamaError, ImageError

log = logging.getLogger("glama_deploy")

#: The largest number of digits of a side or a place.
_MAX_DIGITS = 6

#: Four whole numbers with commas between them.
_FORM = re.compile(rf"\s*(-?\d{{1,{_MAX_DIGITS}}})\s*" + rf",\s*(-?\d{{1,{_MAX_DIGITS}}})\s*" * 3)


@dataclass(frozen=True)
class Rectangle:
    """A rectangle of missing pixels.

    Attributes:
        left: the first column; negative if the rectangle begins outside of the picture.
        top: the first row; negative if the rectangle begins outside of the picture.
        width: columns, at least 1.
        height: rows, at least 1.

    Raises:
        GlamaError: a side is below 1.
    """

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise GlamaError(
                f"`box={self}` is {self.width} wide and {self.height} high; both must be at least 1: x,y,w,h is the "
                "top left corner, width and height"
            )

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.width},{self.height}"

    @classmethod
    def parse(cls, text: str) -> Rectangle:
        """Read a rectangle.

        Args:
            text: `x,y,w,h`: the top left corner, width and height, in pixels.

        Returns:
            The rectangle.

        Raises:
            GlamaError: the text has another form, or a side is below 1.
        """
        found = _FORM.fullmatch(text)
        if not found:
            raise GlamaError(f"`box` is {text!r}; x,y,w,h in whole pixels is expected, such as 40,30,200,50")
        return cls(*map(int, found.groups()))

    def mark(self, missing: np.ndarray, name: object) -> None:
        """Mark the pixels of the rectangle. A rectangle that leaves the picture is clipped, and logged.

        Args:
            missing: bool H×W, which is changed.
            name: name of the picture in messages.

        Raises:
            ImageError: no pixel of the rectangle lies in the picture.
        """
        height, width = missing.shape
        left, top = max(0, self.left), max(0, self.top)
        right, bottom = min(width, self.left + self.width), min(height, self.top + self.height)
        if right <= left or bottom <= top:
            raise ImageError(
                f"{name} is {height}x{width}, and `box={self}` lies outside; x is from 0 to {width - 1}, y from 0 to "
                f"{height - 1}"
            )
        clipped = Rectangle(left, top, right - left, bottom - top)
        if clipped != self:
            log.warning("%s is %dx%d, and `box=%s` is clipped to %s", name, height, width, self, clipped)
        missing[top:bottom, left:right] = True
