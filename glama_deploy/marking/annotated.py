"""What a file of annotations says of a picture, whatever the format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in a picture.

    Attributes:
        category: the category, or label.
        draw: marks the object's pixels in a mask (bool H×W), or raises a GlamaError that names the object.
    """

    category: str
    draw: Callable[[np.ndarray], None]


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture with objects.

    Attributes:
        path: the picture's file, as the annotations name it.
        size: height and width in pixels.
        objects: the objects.
        source: the file of annotations, for messages.
        stem: another name by which the picture is found: that of a LabelMe file. Empty for none.
    """

    path: PurePosixPath
    size: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    source: str
    stem: str = ""
