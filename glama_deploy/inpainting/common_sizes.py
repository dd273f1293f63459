"""Choose few sizes for many boxes. Each size that an engine has not run yet costs time.

Boxes start with a size of their own. The two sizes whose union of sides saves most cost become one size, until no pair
saves anything (agglomerative clustering). A pair saves the cost of a new size, and costs the pixels that are added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

#: Height and width in pixels.
Size = tuple[int, int]

#: Returns the cost in pixels of boxes of these heights and widths, int64 arrays of one shape.
CostOf = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: More sizes than these are first rounded up to multiples of 16, 32, 64, …, because the time grows with their cube.
MAX_SIZES = 128

#: The first multiple in pixels.
_FIRST_MULTIPLE = 16


def choose_common_sizes(
    sizes: Sequence[Size], most: Size, cost_of: CostOf, new_size_cost: float, fits: Callable[[int, int], bool]
) -> list[Size]:
    """Choose sizes that boxes share.

    Args:
        sizes: height and width of each box in pixels.
        most: the greatest height and width to which a box is rounded up.
        cost_of: the cost of running boxes.
        new_size_cost: cost of one more size, in pixels.
        fits: whether a box may have a height and width.

    Returns:
        For each box a size that is no smaller than the size of the box. Not more than MAX_SIZES sizes occur, as long as
        larger boxes fit. All sizes together cost no more than before, except where more than MAX_SIZES are rounded up.
    """
    rounded = _round_sizes(sizes, most, fits)
    chosen = _merge_sizes(Counter(rounded), cost_of, new_size_cost, fits)
    return [chosen[size] for size in rounded]


def _round_sizes(sizes: Sequence[Size], most: Size, fits: Callable[[int, int], bool]) -> list[Size]:
    """Round sizes up to multiples until not more than MAX_SIZES are left."""
    rounded, multiple = list(sizes), _FIRST_MULTIPLE
    while len(set(rounded)) > MAX_SIZES and multiple <= 2 * max(most):
        for place, size in enumerate(sizes):
            larger = tuple(
                max(side, min(-(-side // multiple) * multiple, limit)) for side, limit in zip(size, most, strict=True)
            )
            rounded[place] = (larger[0], larger[1]) if fits(larger[0], larger[1]) else size
        multiple *= 2
    return rounded


def _merge_sizes(
    counts: Counter[Size], cost_of: CostOf, new_size_cost: float, fits: Callable[[int, int], bool]
) -> dict[Size, Size]:
    """Merge sizes in pairs while a pair saves cost.

    Args:
        counts: number of boxes of each size.
        cost_of: the cost of running boxes.
        new_size_cost: cost of one more size, in pixels.
        fits: whether a box may have a height and width.

    Returns:
        The size that replaces each size.
    """
    chosen = {size: size for size in counts}
    left = np.array(sorted(counts), np.int64).reshape(-1, 2)
    boxes = np.array([counts[high, wide] for high, wide in left.tolist()], np.int64)
    refused: set[Size] = set()
    while len(left) > 1:
        sides = np.maximum(left[:, None], left[None])
        cost = boxes * cost_of(left[:, 0], left[:, 1])
        merged = (boxes[:, None] + boxes[None]) * cost_of(sides[..., 0], sides[..., 1])
        saved = cost[:, None] + cost[None] + new_size_cost - merged
        np.fill_diagonal(saved, -np.inf)
        for high, wide in refused:
            saved[(sides[..., 0] == high) & (sides[..., 1] == wide)] = -np.inf
        one, other = np.unravel_index(saved.argmax(), saved.shape)
        if saved[one, other] <= 0:
            break
        size = (int(sides[one, other, 0]), int(sides[one, other, 1]))
        if not fits(*size):
            refused.add(size)
            continue
        gone = {(int(high), int(wide)) for high, wide in (left[one], left[other])}
        chosen = {own: size if now in gone else now for own, now in chosen.items()}
        same = (left == size).all(axis=1)
        same[[one, other]] = True
        gained = int(boxes[same].sum())
        left, boxes = np.vstack([left[~same], [size]]), np.append(boxes[~same], gained)
    return chosen
