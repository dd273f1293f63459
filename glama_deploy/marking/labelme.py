"""Read LabelMe's files: polygons, rectangles, circles, and masks.

A file describes one picture: `imagePath`, `imageHeight`, `imageWidth`, and `shapes` with `label`, `shape_type` and
`points`.
"""

from __future__ import annotations

import base64
import io
import posixpath
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.io.decoding import decode
from glama_deploy.marking.annotated import AnnotatedObject, AnnotatedPicture
from glama_deploy.marking.fields import read_points, take, take_name, take_size
from glama_deploy.marking.outlines import mark_circle, mark_polygon


def read_labelme(document: dict[str, Any], name: object, place: PurePosixPath) -> AnnotatedPicture:
    """Read the picture of a LabelMe file.

    Args:
        document: the file's content.
        name: name of the file in messages.
        place: the file, from the folder of annotations.

    Returns:
        The picture.

    Raises:
        GlamaError: a field is missing or wrong. Shapes are checked when they are drawn.
    """
    shapes = take(document, "shapes", list, "a list", str(name))
    objects = []
    for number, shape in enumerate(shapes):
        label = take(shape, "label", str, "a label", f"{name}: shapes[{number}]")
        objects.append(AnnotatedObject(label, partial(_draw, shape, f"{name}: shapes[{number}] ({label})")))
    path = take_name(document, "imagePath", str(name))
    return AnnotatedPicture(
        PurePosixPath(posixpath.normpath(place.parent / path)),
        take_size(document, "imageHeight", "imageWidth", str(name)),
        tuple(objects),
        str(name),
        place.stem,
    )


def _draw(shape: dict[str, Any], place: str, missing: np.ndarray) -> None:
    """Mark the pixels of a shape. A shape without a type is a polygon, as in files of older versions."""
    kind = shape.get("shape_type") or "polygon"
    draw = _SHAPES.get(kind) if isinstance(kind, str) else None
    if draw is None:
        raise GlamaError(
            f"{place} is of the type {kind!r}, which has no area; {', '.join(_SHAPES)} are supported: draw an outline"
        )
    draw(missing, read_points(shape.get("points"), place), shape, place)


def _draw_polygon(missing: np.ndarray, points: np.ndarray, shape: dict[str, Any], place: str) -> None:
    if len(points) < 3:
        raise GlamaError(f"{place} is a polygon of {len(points)} points; three or more are expected")
    mark_polygon(missing, points)


def _draw_rectangle(missing: np.ndarray, points: np.ndarray, shape: dict[str, Any], place: str) -> None:
    (left, top), (right, bottom) = _take_two(points, "a rectangle", place)
    mark_polygon(missing, np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))


def _draw_circle(missing: np.ndarray, points: np.ndarray, shape: dict[str, Any], place: str) -> None:
    centre, edge = _take_two(points, "a circle", place)
    mark_circle(missing, centre, float(np.hypot(*(edge - centre))))


def _draw_mask(missing: np.ndarray, points: np.ndarray, shape: dict[str, Any], place: str) -> None:
    """Mark the pixels of a mask: a PNG in base64, whose top left pixel lies at the first point."""
    corners = _take_two(points, "a mask", place)
    try:
        data = base64.b64decode(take(shape, "mask", str, "a PNG in base64", place), validate=True)
    except ValueError as error:
        raise GlamaError(f"{place} has a mask that is not base64 ({error})") from error
    drawn = np.asarray(decode(io.BytesIO(data), place).convert("L")) > 0
    left, top = corners.min(axis=0).astype(int)
    here = missing[max(0, top) : max(0, top + drawn.shape[0]), max(0, left) : max(0, left + drawn.shape[1])]
    here |= drawn[max(0, -top) :, max(0, -left) :][: here.shape[0], : here.shape[1]]


def _take_two(points: np.ndarray, kind: str, place: str) -> np.ndarray:
    if len(points) != 2:
        raise GlamaError(f"{place} is {kind} of {len(points)} points; two are expected")
    return points


#: How the pixels of a shape are marked, by LabelMe's type.
_SHAPES: dict[str, Callable[[np.ndarray, np.ndarray, dict[str, Any], str], None]] = {
    "polygon": _draw_polygon,
    "rectangle": _draw_rectangle,
    "circle": _draw_circle,
    "mask": _draw_mask,
}
