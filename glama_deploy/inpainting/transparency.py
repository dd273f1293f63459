"""Fill pictures with transparency: the network is shown visible colours only, and alpha is filled separately.

Colours. A pixel of alpha 0 has a colour that nobody sees, often black. The network is shown the colours of visible
pixels in its place, spread by push-pull (Gortler et al., The Lumigraph, 1996). Known pixels of the result keep the
colours of the file, hidden colours too.

Alpha. Where every known pixel around a hole has alpha 255, the hole gets 255; likewise for 0. The network fills other
holes, and is shown alpha as a gray picture. The network's edges are blurred, which would be a haze around a logo. So
the filled alpha is cut at one half where the known edges near by are hard. The cut has a ramp of one pixel, or none
where all known values are 0 and 255. Where the known edges are soft, as in a shadow, the network's alpha is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image

from glama_deploy.io.deep import STEPS_PER_BYTE, reduce_depth
from glama_deploy.io.edges import add_neighbours, count_in_cells, find_edges, sum_around
from glama_deploy.io.images import Picture

#: An inpainter: image (uint8 or uint16 H×W×3) and mask (bool H×W, True = missing) → filled image of the same type.
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: The least alpha (of 255) of a visible colour. Below this alpha, editors round colours beyond recognition.
VISIBLE_ALPHA = 8

#: Alpha (of 255) that the network's rounding leaves beside 0 and 255.
ALPHA_NOISE = 8

#: The alpha at which a hard edge is cut.
HALF_ALPHA = 127.5

#: Cells in which edges are judged hard or soft have sides of two to this power, 16 pixels.
CELL_DOUBLINGS = 4

#: The greatest number of partially transparent pixels for each pixel beside an edge, if the edge is hard. Antialiased
#: edges have at most one, blurred edges have more.
MAX_HARD_EDGE_SHARE = 1.0

#: Side in pixels of the cells over which colours are spread. Within a cell, colours are interpolated.
SPREAD_CELL_PIXELS = 4

#: Pixels around the holes in which known edges are judged.
_CONTEXT_PIXELS = 64


def fill_picture(fill: Fill, picture: Picture, mask: np.ndarray) -> Picture:
    """Return the picture with its missing pixels filled, colours and alpha.

    Args:
        fill: the inpainter. It runs once for colours, and once for alpha where holes have neighbours of several alphas.
        picture: the picture. Its arrays are not changed.
        mask: bool H×W, True = missing.

    Returns:
        A picture of the same kind. Known pixels are bit-exact, and so are the hidden colours under alpha 0. Of 16-bit
        pictures with transparency, missing pixels have 8 bits.
    """
    alpha = picture.alpha
    if alpha is None or not mask.any():
        return replace(picture, rgb=fill(picture.rgb, mask))
    opaque = alpha.dtype.type(np.iinfo(alpha.dtype).max)
    known_alpha = np.where(mask, opaque, alpha)
    if known_alpha.min() == opaque:
        return replace(picture, rgb=fill(picture.rgb, mask), alpha=known_alpha)
    if alpha.dtype != np.uint8:
        return _fill_at_8_bits(fill, picture, alpha, mask)
    filled = fill(spread_colours(picture.rgb, np.where(mask, np.uint8(0), alpha)), mask)
    rgb = picture.rgb.copy()
    rgb[mask] = filled[mask]
    return replace(picture, rgb=rgb, alpha=fill_alpha(fill, alpha, mask))


def _fill_at_8_bits(fill: Fill, picture: Picture, alpha: np.ndarray, mask: np.ndarray) -> Picture:
    """Return a picture of 16 bits whose missing pixels are filled with 8 bits, colours and alpha."""
    shown = replace(picture, rgb=reduce_depth(picture.rgb), alpha=reduce_depth(alpha))
    filled = fill_picture(fill, shown, mask)
    assert filled.alpha is not None  # a picture of the same kind
    rgb, new_alpha = picture.rgb.copy(), alpha.copy()
    rgb[mask] = filled.rgb[mask] * np.uint16(STEPS_PER_BYTE)
    new_alpha[mask] = filled.alpha[mask] * np.uint16(STEPS_PER_BYTE)
    return replace(picture, rgb=rgb, alpha=new_alpha)


def spread_colours(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the image with the colours of visible pixels spread over invisible ones.

    Args:
        rgb: uint8 H×W×3.
        alpha: uint8 H×W; a pixel below VISIBLE_ALPHA is invisible.

    Returns:
        uint8 H×W×3. Visible pixels are as they were. If all pixels are visible, or none, the same array.
    """
    hidden = alpha < VISIBLE_ALPHA
    if not hidden.any() or hidden.all():
        return rgb
    weights = _average_cells(np.where(hidden, np.uint8(0), np.uint8(1)))
    heavy = np.dstack([_average_cells(np.where(hidden, np.uint8(0), rgb[..., channel])) for channel in range(3)])
    colours = _push_pull(heavy / np.maximum(weights, np.float32(1e-6))[..., None], weights)
    smooth = Image.fromarray(colours.round().clip(0, 255).astype(np.uint8))
    smooth = smooth.resize((rgb.shape[1], rgb.shape[0]), Image.Resampling.BILINEAR)
    smooth.paste(Image.fromarray(rgb), mask=Image.fromarray(~hidden))
    return np.array(smooth)


def _average_cells(values: np.ndarray) -> np.ndarray:
    """Return the mean over each cell of SPREAD_CELL_PIXELS pixels a side (uint8 H×W), float32 h×w."""
    return np.asarray(Image.fromarray(values).convert("F").reduce(SPREAD_CELL_PIXELS))


def _halve(colours: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
    """Return colours (float32 h×w×3) in which a colour of weight below 1 passes into its surroundings."""
    if min(weights.shape) < 2 or weights.min() == 1:
        mean = (colours * weights[..., None]).sum(axis=(0, 1)) / max(weights.sum(), np.float32(1e-6))
        return colours * weights[..., None] + mean * (1 - weights[..., None])
    coarse = _push_pull(*_halve(colours, weights))
    smooth = _double(_double(coarse, 0, weights.shape[0]), 1, weights.shape[1])
    return smooth + (colours - smooth) * weights[..., None]


def _double(values: np.ndarray, axis: int, length: int) -> np.ndarray:
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
        uint8 H×W. Known pixels are as they were. If no pixel is known, all are 255.
    """
    if mask.all():
        return np.full_like(alpha, 255)
    beside = ~mask & add_neighbours(mask)
    beside_partial = _find_reached(beside & (alpha < 255), mask)
    beside_visible = _find_reached(beside & (alpha > 0), mask)
    filled = np.where(mask, np.uint8(255), alpha)
    filled[mask & ~beside_visible] = 0
    unclear = beside_partial & beside_visible
    if not unclear.any():
        return filled
    gray = fill(np.repeat(np.where(mask, np.uint8(0), filled)[..., None], 3, axis=2), mask)
    here = _find_context(unclear)
    values = gray[here].mean(axis=2, dtype=np.float32)
    filled[here][unclear[here]] = _sharpen_edges(values, alpha[here], mask[here])[unclear[here]]
    return filled


def _find_context(where: np.ndarray) -> tuple[slice, slice]:
    """Return the bounding box of pixels (bool H×W) with _CONTEXT_PIXELS on each side, as far as the image goes."""
    places = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    rows, columns = (slice(max(0, at[0] - _CONTEXT_PIXELS), at[-1] + 1 + _CONTEXT_PIXELS) for at in places)
    return rows, columns


def _sharpen_edges(values: np.ndarray, alpha: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the network's alpha (float32 H×W, 0…255) as uint8, with edges as hard as the known ones near by."""
    partial = ~mask & (alpha > ALPHA_NOISE) & (alpha < 255 - ALPHA_NOISE)
    if not partial.any():
        return np.where(values < HALF_ALPHA, np.uint8(0), np.uint8(255))
    down, across = np.gradient(values)
    steps = np.maximum(np.hypot(down, across), np.float32(1e-3))  # change of alpha over one pixel
    hard = 255 * np.clip((values - HALF_ALPHA) / steps + np.float32(0.5), 0, 1)
    soft = np.where(values < ALPHA_NOISE, 0, np.where(values > 255 - ALPHA_NOISE, 255, values))
    share = _judge_hardness(partial, ~mask & find_edges(alpha >= HALF_ALPHA))
    return (soft + (hard - soft) * share).round().astype(np.uint8)


def _judge_hardness(partial: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Judge how hard the known edges near each pixel are.

    Args:
        partial: bool H×W, the known pixels that are partially transparent.
        edges: bool H×W, the known pixels beside an edge.

    Returns:
        float32 H×W from 0 (soft) to 1 (hard), from the nearest cells with edges.
    """
    soft, both = (sum_around(count_in_cells(where, 2**CELL_DOUBLINGS)) for where in (partial, edges))
    is_hard = (soft <= MAX_HARD_EDGE_SHARE * both).astype(np.float32)
    share = _push_pull(np.repeat(is_hard[..., None], 3, axis=2), (soft + both > 0).astype(np.float32))[..., 0]
    height, width = partial.shape
    for _ in range(CELL_DOUBLINGS):
        share = _double(_double(share, 0, 2 * share.shape[0]), 1, 2 * share.shape[1])
    return share[:height, :width]


def _find_reached(seeds: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Find the pixels of a hole that a path within the hole joins to a seed.

    Args:
        seeds: bool H×W, pixels beside the hole.
        hole: bool H×W, the pixels of the hole. A path steps to the four neighbours of a pixel.

    Returns:
        bool H×W.
    """
    width = hole.shape[1] + 2
    free, front = np.pad(hole, 1).ravel(), np.flatnonzero(np.pad(seeds, 1))
    found = np.zeros_like(free)
    while front.size:
        beside = (front[:, None] + np.array([-width, -1, 1, width])).ravel()
        front = np.unique(beside[free[beside]])
        free[front] = False
        found[front] = True
    return found.reshape(-1, width)[1:-1, 1:-1]
