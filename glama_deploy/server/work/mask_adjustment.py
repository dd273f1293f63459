"""Grow, shrink or invert a mask, as IOPaint does: with an ellipse whose rows are rounded as OpenCV rounds them."""

from __future__ import annotations

from typing import Literal

import numpy as np

#: What is done to a mask.
Operation = Literal["expand", "shrink", "reverse"]


def adjust_mask(mask: np.ndarray, operation: Operation, radius: int) -> np.ndarray:
    """Grow, shrink or invert a mask.

    Args:
        mask: bool H×W, True = missing.
        operation: `expand`, `shrink` or `reverse`.
        radius: the radius in pixels. `reverse` does not use it.

    Returns:
        bool H×W. Pixels outside of the mask neither grow into it nor eat it.
    """
    if operation == "reverse":
        return ~mask
    return dilate(mask, radius) if operation == "expand" else ~dilate(~mask, radius)


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Grow the missing pixels of a mask by an ellipse.

    Args:
        mask: bool H×W.
        radius: the radius in pixels; 0 changes nothing.

    Returns:
        bool H×W.
    """
    result = mask.copy()
    height = mask.shape[0]
    for down in range(min(radius, height - 1) + 1):
        across = round(radius * (1 - (down / radius) ** 2) ** 0.5) if radius else 0
        wide = _dilate_rows(mask, across)
        result[down:] |= wide[: height - down]
        result[: height - down] |= wide[down:]
    return result


def _dilate_rows(mask: np.ndarray, across: int) -> np.ndarray:
    """Return the pixels (bool H×W) that have a missing pixel at most `across` columns away."""
    width = mask.shape[1]
    counts = np.zeros((mask.shape[0], width + 1), np.int32)
    np.cumsum(mask, axis=1, out=counts[:, 1:])
    columns = np.arange(width)
    first, last = np.maximum(columns - across, 0), np.minimum(columns + across + 1, width)
    found: np.ndarray = counts[:, last] > counts[:, first]
    return found
