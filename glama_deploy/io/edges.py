"""Edges of sets of pixels, and counts of pixels in square cells."""

from __future__ import annotations

import numpy as np


def add_neighbours(where: np.ndarray) -> np.ndarray:
    """Add the four neighbours of each pixel to a set of pixels.

    Args:
        where: bool H×W, the set.

    Returns:
        bool H×W.
    """
    wide = where.copy()
    wide[1:] |= where[:-1]
    wide[:-1] |= where[1:]
    wide[:, 1:] |= where[:, :-1]
    wide[:, :-1] |= where[:, 1:]
    return wide


def find_edges(where: np.ndarray) -> np.ndarray:
    """Find the pixels on both sides of the edges of a set of pixels.

    Args:
        where: bool H×W, the set.

    Returns:
        bool H×W: pixels in the set with one of their four neighbours outside, and pixels outside with one inside.
    """
    beside = np.zeros_like(where)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        edge = where[here] != where[there]
        beside[here] |= edge
        beside[there] |= edge
    return beside


def count_in_cells(where: np.ndarray, side: int) -> np.ndarray:
    """Count the pixels of a set in each square cell.

    Args:
        where: bool H×W, the set.
        side: Side of a cell in pixels, at most 255.

    Returns:
        int64 h×w, with h = ceil(H / side) and w = ceil(W / side).
    """
    height, width = where.shape
    padded = np.pad(where, ((0, -height % side), (0, -width % side)))
    by_row = padded.reshape(padded.shape[0] // side, side, -1).sum(axis=1, dtype=np.uint8)
    return np.asarray(by_row.reshape(len(by_row), -1, side).sum(axis=2, dtype=np.int64))


def sum_around(counts: np.ndarray) -> np.ndarray:
    """Sum counts over each cell and its eight neighbours.

    Args:
        counts: h×w, the count of each cell.

    Returns:
        The sums, with the shape and dtype of the counts. Cells outside count 0.
    """
    padded = np.pad(counts, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])
