"""Mark the pixels inside of an outline. A pixel is inside if its centre is inside.

Coordinates are in pixels from the top left corner of the picture. The first pixel reaches from 0 to 1, and its centre
is at 0.5.
"""

from __future__ import annotations

import numpy as np


def mark_polygon(missing: np.ndarray, points: np.ndarray) -> None:
    """Mark the pixels inside of a polygon, by the even-odd rule.

    A row of pixels is cut where the edges cross the line through the centres of the row. Pixels with an odd number of
    cuts to the left of their centres are inside.

    Args:
        missing: bool H×W, which is changed. Parts outside of the picture are left out.
        points: float64 N×2, x and y of each corner. The last corner is joined to the first.
    """
    height, width = missing.shape
    x, y = points[:, 0], points[:, 1]
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    first = np.clip(np.ceil(np.minimum(y, next_y) - 0.5), 0, height).astype(np.int64)
    behind = np.clip(np.ceil(np.maximum(y, next_y) - 0.5), 0, height).astype(np.int64)
    counts = behind - first
    edges = np.repeat(np.arange(len(points)), counts)
    if not len(edges):
        return
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    slopes = (next_x[edges] - x[edges]) / (next_y[edges] - y[edges])
    cuts = x[edges] + (rows + 0.5 - y[edges]) * slopes
    columns = np.clip(np.ceil(cuts - 0.5), 0, width).astype(np.int64)
    top, bottom, left = rows.min(), rows.max() + 1, columns.min()
    crossed = np.zeros((bottom - top, columns.max() - left + 1), bool)
    np.logical_xor.at(crossed, (rows - top, columns - left), True)
    inside = np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
    missing[top:bottom, left : left + inside.shape[1]] |= inside


def mark_circle(missing: np.ndarray, centre: np.ndarray, radius: float) -> None:
    """Mark the pixels inside of a circle.

    Args:
        missing: bool H×W, which is changed. Parts outside of the picture are left out.
        centre: float64 x and y.
        radius: in pixels.
    """
    rows, columns = np.ogrid[: missing.shape[0], : missing.shape[1]]
    x, y = centre
    missing |= (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
