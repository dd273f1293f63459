"""Fill pictures with transparency: the network is shown visible colours alone, and alpha is filled by itself.

Colours. A pixel of alpha 0 has a colour that nobody sees, often black. The network sees the colours of visible pixels
spread over such pixels instead (push-pull: Gortler et al., The Lumigraph, 1996). Known pixels of the result keep the
colours of the file, hidden colours too.

Alpha. Where every known pixel around a hole has alpha 255, the hole gets 255; likewise for 0. Other holes are filled
by the network, which is shown alpha as a gray picture. Its edges are blurred, which would be a haze around a logo. So
where the known edges near by are hard, the filled alpha is cut at one half. The cut has a ramp of one pixel, or none
where all known values are 0 and 255. Where the known edges are soft (a shadow), the network's alpha is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from glama_deploy.io.edges import add_neighbours, count_in_cells, find_edges, sum_around
from glama_deploy.io.images import Picture

#: An inpainter: image (uint8 H×W×3) and mask (bool H×W, True = missing) → filled image (uint8 H×W×3).
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: The least alpha (of 255) of a colour that counts as visible: below it, editors round colours beyond recognition.
VISIBLE_ALPHA = 8

#: Alpha (of 255) that the network's rounding leaves beside 0 and 255.
ALPHA_NOISE = 8

#: Half of full alpha: where a hard edge is cut.
HALF = 127.5

#: Cells in which edges are called hard or soft have sides of two to this power, 16 pixels.
CELL_DOUBLINGS = 4

#: Antialiased edges have at most one partially transparent pixel for each pixel beside an edge; blurred ones have more.
HARD_EDGE_SHARE = 1.0

#: Colours are spread over cells of so many pixels a side, and interpolated within.
SPREAD_CELL = 4

#: Pixels around the holes that say how hard edges are, at least.
_CONTEXT_PIXELS = 64


def fill_picture(fill: Fill, picture: Picture, mask: np.ndarray) -> Picture:
    """Return the picture with its missing pixels filled, colours and alpha.

    Args:
        fill: the inpainter. It runs once, and a second time for alpha where holes have neighbours of several alphas.
        picture: the picture; its arrays are not changed.
        mask: bool H×W, True = missing.

    Returns:
        A picture of the same kind. Known pixels are bit-exact, also the hidden colours under alpha 0.
    """
    alpha = picture.alpha
    if alpha is None or not mask.any():
        return replace(picture, rgb=fill(picture.rgb, mask))
    known_alpha = np.where(mask, np.uint8(255), alpha)
    if known_alpha.min() == 255:
        return replace(picture, rgb=fill(picture.rgb, mask), alpha=known_alpha)
    filled = fill(spread_colours(picture.rgb, np.where(mask, np.uint8(0), alpha)), mask)
    rgb = picture.rgb.copy()
    rgb[mask] = filled[mask]
    return replace(picture, rgb=rgb, alpha=fill_alpha(fill, alpha, mask))


def spread_colours(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the image with the colours of visible pixels spread over invisible ones.

    Args:
        rgb: uint8 H×W×3.
        alpha: uint8 H×W; a pixel below VISIBLE_ALPHA is invisible.

    Returns:
        uint8 H×W×3; visible pixels are as they were. Where all pixels are visible, or none is, the same array.
    """
    hidden = alpha < VISIBLE_ALPHA
    if not hidden.any() or hidden.all():
        return rgb
    weights = _cell_means(np.where(hidden, np.uint8(0), np.uint8(1)))
    heavy = np.dstack([_cell_means(np.where(hidden, np.uint8(0), rgb[..., channel])) for channel in range(3)])
    colours = _push_pull(heavy / np.maximum(weights, np.float32(1e-6))[..., None], weights)
    smooth = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    smooth = smooth.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.BILINEAR)
    smooth.paste(Image.fromarray(rgb), mask=Image.fromarray(~hidden))
    return np.array(smooth)


def _cell_means(values: np.ndarray) -> np.ndarray:
    """Return the mean over each cell of SPREAD_CELL pixels a side (uint8 H×W), float32 h×w."""
    return np.asarray(Image.fromarray(values).convert("F").reduce(SPREAD_CELL))


def _halved(colours: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of 2×2 pixels, weighted (float32 h×w×3), and the weight of each (float32 h×w, 0…1)."""
    height, width = weights.shape
    padding = ((0, height % 2), (0, width % 2))
    weight = np.pad(weights, padding)
    heavy = np.pad(colours, (*padding, (0, 0))) * weight[..., None]
    total, mean = (
        values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2] for values in (weight, heavy)
    )
    return mean / np.maximum(total, np.float32(1e-6))[..., None], np.minimum(total, np.float32(1))


def _push_pull(colours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return float32 h×w×3 in which colours of weight below 1 pass into those of their surroundings."""
    if min(weights.shape) < 2 or weights.min() == 1:
        mean = (colours * weights[..., None]).sum(axis=(0, 1)) / max(weights.sum(), np.float32(1e-6))
        return colours * weights[..., None] + mean * (1 - weights[..., None])
    coarse = _push_pull(*_halved(colours, weights))
    smooth = _doubled(_doubled(coarse, 0, weights.shape[0]), 1, weights.shape[1])
    return smooth + (colours - smooth) * weights[..., None]


def _doubled(values: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Return the values at twice the resolution along an axis, interpolated linearly, cut to the length."""
    before, after = (
        np.take(values, np.clip(np.arange(values.shape[axis]) + step, 0, values.shape[axis] - 1), axis)
        for step in (-1, 1)
    )
    pairs = np.stack([0.75 * values + 0.25 * before, 0.75 * values + 0.25 * after], axis=axis + 1)
    shape = [*values.shape]
    shape[axis] *= 2
    return np.take(pairs.reshape(shape), np.arange(length), axis).astype(np.float32)


def fill_alpha(fill: Fill, alpha: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return alpha with its missing pixels filled.

    Args:
        fill: the inpainter, which is shown alpha as a gray image.
        alpha: uint8 H×W.
        mask: bool H×W, True = missing.

    Returns:
        uint8 H×W; known pixels are as they were. Where no pixel is known, all are 255.
    """
    if mask.all():
        return np.full_like(alpha, 255)
    beside = ~mask & add_neighbours(mask)
    beside_partial = _reached(beside & (alpha < 255), mask)
    beside_visible = _reached(beside & (alpha > 0), mask)
    filled = np.where(mask, np.uint8(255), alpha)
    filled[mask & ~beside_visible] = 0
    unclear = beside_partial & beside_visible
    if not unclear.any():
        return filled
    gray = fill(np.repeat(np.where(mask, np.uint8(0), filled)[..., None], 3, axis=2), mask)
    here = _with_context(unclear)
    values = gray[here].mean(axis=2, dtype=np.float32)
    filled[here][unclear[here]] = _cleaned(values, alpha[here], mask[here])[unclear[here]]
    return filled


def _with_context(where: np.ndarray) -> tuple[slice, slice]:
    """Return the box of these pixels (bool H×W) with _CONTEXT_PIXELS on each side, as far as the image goes."""
    places = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, at[0] - _CONTEXT_PIXELS), at[-1] + 1 + _CONTEXT_PIXELS) for at in places)
    return rows, columns


def _cleaned(values: np.ndarray, alpha: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the network's alpha (float32 H×W, 0…255) as uint8, with edges as hard as the known ones near by."""
    partial = ~mask & (alpha > ALPHA_NOISE) & (alpha < 255 - ALPHA_NOISE)
    if not partial.any():
        return np.where(values < HALF, np.uint8(0), np.uint8(255))
    down, across = np.gradient(values)
    steps = np.maximum(np.hypot(down, across), np.float32(1e-3))  # change of alpha over one pixel
    hard = 255 * np.clip((values - HALF) / steps + np.float32(0.5), 0, 1)
    soft = np.where(values < ALPHA_NOISE, 0, np.where(values > 255 - ALPHA_NOISE, 255, values))
    share = _hardness(partial, ~mask & find_edges(alpha >= HALF))
    return (soft + (hard - soft) * share).round().astype(np.uint8)


def _hardness(partial: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return how hard edges are, float32 H×W from 0 (soft) to 1 (hard), from the nearest cells that have any.

    Args:
        partial: bool H×W, the known pixels that are partially transparent.
        edges: bool H×W, the known pixels beside an edge.
    """
    soft, both = (sum_around(count_in_cells(where, 2**CELL_DOUBLINGS)) for where in (partial, edges))
    is_hard = (soft <= HARD_EDGE_SHARE * both).astype(np.float32)
    share = _push_pull(np.repeat(is_hard[..., None], 3, axis=2), (soft + both > 0).astype(np.float32))[..., 0]
    height, width = partial.shape
    for _ in range(CELL_DOUBLINGS):
        share = _doubled(_doubled(share, 0, 2 * share.shape[0]), 1, 2 * share.shape[1])
    return share[:height, :width]


def _reached(seeds: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return bool H×W: the pixels of the hole that a path within the hole, of steps to four neighbours, joins to a
    seed beside it."""
    width = hole.shape[1] + 2
    free, front = np.pad(hole, 1).ravel(), np.flatnonzero(np.pad(seeds, 1))
    found = np.zeros_like(free)
    while front.size:
        beside = (front[:, None] + np.array([-width, -1, 1, width])).ravel()
        front = np.unique(beside[free[beside]])
        free[front] = False
        found[front] = True
    return found.reshape(-1, width)[1:-1, 1:-1]
