"""Find the missing pixels of a picture by rectangles, colors and annotations together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.io.images import Picture
from glama_deploy.marking.annotated import AnnotatedObject
from glama_deploy.marking.annotations import Annotations
from glama_deploy.marking.colors import Color, find_color
from glama_deploy.marking.rectangles import Rectangle

log = logging.getLogger("glama_deploy")


@dataclass(frozen=True)
class Marks:
    """Marks of missing pixels. A pixel is missing if one of them marks it.

    Attributes:
        rectangles: rectangles, in pixels of the upright picture.
        colors: colors, red, green and blue from 0 to 255.
        color_tolerance: the largest difference of each channel to a color, 0 to 255.
        annotations: annotations that have the picture.
        categories: the categories of the annotations that are missing; empty for all.

    Raises:
        GlamaError: a value is out of its range, belongs to another that is not given, or a category does not exist.
    """

    rectangles: Sequence[Rectangle] = ()
    colors: Sequence[Color] = ()
    color_tolerance: int = 0
    annotations: Annotations | None = None
    categories: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.color_tolerance <= 255:
            raise GlamaError(f"`color_tolerance` is {self.color_tolerance}; 0 to 255 is expected")
        if self.color_tolerance and not self.colors:
            raise GlamaError("`color_tolerance` is set without `color`; give the color")
        if self.categories and self.annotations is None:
            raise GlamaError("`category` is set without `annotations`; give the annotations")
        if self.annotations is not None:
            self.annotations.check_categories(self.categories)

    def __bool__(self) -> bool:
        return bool(self.rectangles or self.colors or self.annotations is not None)

    def find_missing(self, picture: Picture, image: Path) -> np.ndarray:
        """Find the missing pixels of a picture.

        Args:
            picture: the picture.
            image: the picture's file, for the annotations and for messages.

        Returns:
            bool H×W, True where a pixel is missing. No pixel is missing where the annotations have no object.

        Raises:
            ImageError: a rectangle lies outside of the picture, a color is not in the picture, or the annotations do
                not have the picture.
            GlamaError: an object of the annotations is damaged or not supported.
        """
        missing = np.zeros(picture.rgb.shape[:2], bool)
        for rectangle in self.rectangles:
            rectangle.mark(missing, image)
        for color in self.colors:
            missing |= find_color(picture, color, self.color_tolerance, image)
        if self.annotations is not None:
            for each in self.annotations.find_objects(image, missing.shape, self.categories):
                missing |= _draw(each, missing.shape, image)
        return missing


#: No marks.
NO_MARKS = Marks()


def _draw(drawn: AnnotatedObject, shape: tuple[int, ...], image: Path) -> np.ndarray:
    """Return the pixels of an object (bool, of `shape`). An object without pixels is logged."""
    missing = np.zeros(shape, bool)
    drawn.draw(missing)
    if not missing.any():
        log.warning("%s: an object of the category %s marks no pixel", image, drawn.category)
    return missing
