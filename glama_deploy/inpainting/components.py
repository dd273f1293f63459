"""Find connected regions of missing pixels, and their bounding boxes.

Pixels are grouped in square cells. Cells with missing pixels that touch, also at a corner, are one component.

Components are found by run-length labelling (Rosenfeld and Pfaltz 1966). The runs of each row of cells are nodes. Runs
of neighbouring rows that touch are edges. Labels spread along the edges until no label changes. Every step works on
whole arrays. The time grows with the number of pixels, and not with the number or the shape of the components.
"""

from __future__ import annotations

import numpy as np


def find_components(missing: np.ndarray, cell: int) -> np.ndarray:
    """Find the bounding box of each component.

    Args:
        missing: bool H×W, True where a pixel is missing.
        cell: side of a cell in pixels, a multiple of 8.

    Returns:
        int64 N×4: top, left, bottom and right of the missing pixels of each component, in pixels. Bottom and right are
        exclusive. The components come in the order of their first cell, row by row. Boxes may overlap.
    """
    tops, lefts, bottoms, rights = _cell_bounds(missing, cell)
    rows, columns = np.nonzero(bottoms)
    if not len(rows):
        return np.zeros((0, 4), np.int64)
    labels = _label_cells(rows, columns, bottoms.shape[1])
    order = np.argsort(labels, kind="stable")
    starts = np.nonzero(np.diff(labels[order], prepend=-1))[0]
    corners = rows[order], columns[order]
    return np.stack(
        [
            np.minimum.reduceat(tops[corners], starts),
            np.minimum.reduceat(lefts[corners], starts),
            np.maximum.reduceat(bottoms[corners], starts),
            np.maximum.reduceat(rights[corners], starts),
        ],
        axis=1,
    )


def _cell_bounds(missing: np.ndarray, cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the bounds of the missing pixels in each cell.

    Args:
        missing: bool H×W, True where a pixel is missing.
        cell: side of a cell in pixels, a multiple of 8.

    Returns:
        Top, left, bottom and right, each int64 by cell; 0 in a cell without missing pixels.
    """
    height, width = missing.shape
    padded = np.ascontiguousarray(np.pad(missing, ((0, -height % cell), (0, -width % cell))))
    high, wide = padded.shape[0] // cell, padded.shape[1] // cell
    # eight pixels at a time, as bytes of one word: the words of a cell's row are or-ed, then compared with 0
    words = padded.view(np.uint64).reshape(-1, wide, cell // 8)
    by_row = (np.bitwise_or.reduce(words, axis=2) != 0).reshape(high, cell, wide).swapaxes(1, 2)
    by_column = np.bitwise_or.reduce(padded.reshape(high, cell, -1), axis=1).reshape(high, wide, cell)
    tops, bottoms = _ends(by_row, np.arange(high)[:, None] * cell)
    lefts, rights = _ends(by_column, np.arange(wide) * cell)
    return tops, lefts, bottoms, rights


def _ends(there: np.ndarray, firsts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find where True begins and ends along the last axis.

    Args:
        there: bool array.
        firsts: the number from which places are counted.

    Returns:
        The first place that is True and the place after the last; 0 where no place is True.
    """
    any_there = there.any(axis=-1)
    start = firsts + there.argmax(axis=-1)
    stop = firsts + there.shape[-1] - there[..., ::-1].argmax(axis=-1)
    return np.where(any_there, start, 0), np.where(any_there, stop, 0)


def _label_cells(rows: np.ndarray, columns: np.ndarray, wide: int) -> np.ndarray:
    """Label cells by their components.

    Args:
        rows: row of each cell with missing pixels. Cells are sorted by row and column.
        columns: column of each cell with missing pixels.
        wide: number of cells in a row of the image.

    Returns:
        The label of each cell: the number of the first run of the cell's component.
    """
    line = wide + 2  # a row, and a gap that keeps its end from touching the next row's start
    places = rows * line + columns
    begins = np.diff(places, prepend=-2) != 1
    run_of_cell = np.cumsum(begins) - 1
    starts = places[begins]
    stops = starts + np.bincount(run_of_cell)
    # the runs of the next row that touch a run, also at a corner, are neighbours in the order of runs
    first = np.searchsorted(stops, starts + line)
    last = np.searchsorted(starts, stops + line, side="right")
    counts = last - first
    above = np.repeat(np.arange(len(starts)), counts)
    below = np.arange(len(above)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    return _spread(len(starts), above, below)[run_of_cell]


def _spread(count: int, ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spread labels along the edges of a graph.

    Args:
        count: number of nodes.
        ones: the first node of each edge.
        others: the second node of each edge.

    Returns:
        For each node the smallest number of a node in its component.
    """
    labels = np.arange(count)
    while True:
        first, second = labels[ones], labels[others]
        apart = first != second
        if not apart.any():
            return labels
        ones, others, first, second = ones[apart], others[apart], first[apart], second[apart]
        np.minimum.at(labels, np.maximum(first, second), np.minimum(first, second))
        while (labels[labels] != labels).any():
            labels = labels[labels]
