"""Take fields out of a JSON document, and check them. An error names the file, the part and the field."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.text.excerpts import quoted

#: The largest coordinate, in pixels, whatever the sign. A picture has at most 16384 pixels a side.
_MAX_COORDINATE = 1e6


def take(record: Any, field: str, kind: type | tuple[type, ...], expected: str, place: str) -> Any:
    """Take a field of an object.

    Args:
        record: the object, as `json` reads it.
        field: name of the field.
        kind: the type that is expected.
        expected: what is expected, for the message.
        place: the file and the part, for the message.

    Returns:
        The value.

    Raises:
        GlamaError: the record is no object, the field is missing, or the value has another type.
    """
    if not isinstance(record, dict):
        raise GlamaError(f"{place} is {quoted(record)}; an object with the field {field} is expected")
    if field not in record:
        raise GlamaError(f"{place} has no field {field}; {expected} is expected")
    value = record[field]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise GlamaError(f"{place} has the {field} {quoted(value)}; {expected} is expected")
    return value


def take_size(record: Any, height: str, width: str, place: str) -> tuple[int, int]:
    """Take the height and width of a picture.

    Args:
        record: the object.
        height: name of the field of the height.
        width: name of the field of the width.
        place: the file and the part, for the message.

    Returns:
        Height and width in pixels.

    Raises:
        GlamaError: a field is missing or not a whole number.
    """
    expected = "a number of pixels"
    return take(record, height, int, expected, place), take(record, width, int, expected, place)


def take_name(record: Any, field: str, place: str) -> PurePosixPath:
    """Take the name of a picture's file. Backslashes of Windows separate folders, too.

    Args:
        record: the object.
        field: name of the field.
        place: the file and the part, for the message.

    Returns:
        The path, which has a name.

    Raises:
        GlamaError: the field is missing, or has no file name.
    """
    path = PurePosixPath(take(record, field, str, "the name of a picture's file", place).replace("\\", "/"))
    if not path.name:
        raise GlamaError(f"{place} has the {field} ''; the name of a picture's file is expected")
    return path


def read_points(values: Any, place: str) -> np.ndarray:
    """Read points.

    Args:
        values: pairs of x and y.
        place: the file and the part, for the message.

    Returns:
        float64 N×2.

    Raises:
        GlamaError: the values are no pairs of numbers, or lie far outside of every picture.
    """
    pairs = values if isinstance(values, list) else None
    if pairs is None or not all(
        isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs
    ):
        raise GlamaError(f"{place} has the points {quoted(values)}; pairs of numbers, x and y, are expected")
    points = np.array(pairs, np.float64).reshape(-1, 2)
    if (np.abs(points) > _MAX_COORDINATE).any():
        raise GlamaError(f"{place} has a point at {np.abs(points).max():g}, far outside of every picture")
    return points


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
