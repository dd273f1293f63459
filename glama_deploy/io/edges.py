"""Edges of sets of pixels, and counts of pixels in square cells."""

from __future__ import annotations

import numpy as np


def add_neighbours(where: np.ndarray) -> np.ndarray:
    """Return these pixels and their neighbours, four each.

    Args:
        where: bool H×W.

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
    """Return the pixels with one of four neighbours on the other side of an edge.

    Args:
        where: bool H×W, the pixels on one side.

    Returns:
        bool H×W, pixels of both sides.
    """
    beside = np.zeros_like(where)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        edge = where[here] != where[there]
        beside[here] |= edge
        beside[there] |= edge
    return beside


def count_in_cells(where: np.ndarray, side: int) -> np.ndarray:
    """Return how many of these pixels each cell has.

    Args:
        where: bool H×W.
        side: side of a cell in pixels, at most 255.

    Returns:
        int64 h×w, with h = ceil(H / side) and w = ceil(W / side).
    """
    height, width = where.shape
    padded = np.pad(where, ((0, -height % side), (0, -width % side)))
    by_row = padded.reshape(padded.shape[0] // side, side, -1).sum(axis=1, dtype=np.uint8)
    return np.asarray(by_row.reshape(len(by_row), -1, side).sum(axis=2, dtype=np.int64))


def sum_around(counts: np.ndarray) -> np.ndarray:
    """Return the sums over each cell and its eight neighbours, of the shape of the counts."""
    padded = np.pad(counts, 1)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:])
