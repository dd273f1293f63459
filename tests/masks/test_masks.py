"""The seven mask types and their mixtures: the exact ones by the pixel, the others by published statistics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glama_deploy.errors import GlamaError
from glama_deploy.masks import MIXTURES, NAMED, RANDOM_TYPES, Mask, by_name
from glama_deploy.masks.fixed import Completion, EveryNLines, Expand, NearestNeighbor
from glama_deploy.masks.mixtures import BySide, OneOf, Union
from glama_deploy.masks.random_settings import (
    RandomCompletion,
    RandomEveryNLines,
    RandomExpand,
    RandomNearestNeighbor,
)
from glama_deploy.masks.strokes import Boxes, Painted, Strokes

sides = st.integers(16, 200)
seeds = st.integers(0, 2**32 - 1)
every_mask = st.sampled_from([*NAMED])

#: Coverage of 2,000 masks of each kind, by the organisers' and by LaMa's code.
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "published_coverage.json").read_text(encoding="utf-8"))

#: Masks of ours, drawn in a second. The means of version 0.1's strokes were 5 to 11 standard errors away.
SAMPLES = 200


def draw(mask: Mask, height: int, width: int, seed: int = 0) -> np.ndarray:
    return mask(height, width, np.random.default_rng(seed))


@given(every_mask, sides, sides, seeds)
def test_every_mask_is_bool_of_the_size_asked_for_and_leaves_known_and_missing_pixels(name, height, width, seed):
    mask = draw(by_name(name), height, width, seed)
    assert mask.dtype == bool
    assert mask.shape == (height, width)
    assert 0 < mask.sum() < mask.size


@given(every_mask, sides, sides, seeds)
def test_a_seed_gives_one_mask(name, height, width, seed):
    assert np.array_equal(draw(by_name(name), height, width, seed), draw(by_name(name), height, width, seed))


@pytest.mark.parametrize("name", ["ThinStrokes", "MediumStrokes", "ThickStrokes", *RANDOM_TYPES, *MIXTURES])
def test_seeds_give_different_masks(name):
    assert len({draw(by_name(name), 64, 64, seed).tobytes() for seed in range(20)}) > 1


# ---------------------------------------------------------------- the four exact ones


def test_every_2_lines_misses_columns_0_2_4():
    mask = draw(EveryNLines(), 5, 7)
    assert mask[:, [0, 2, 4, 6]].all()
    assert not mask[:, [1, 3, 5]].any()


def test_lines_and_grids_begin_at_their_offset():
    assert np.flatnonzero(draw(EveryNLines(3, offset=2), 4, 9).all(axis=0)).tolist() == [2, 5, 8]
    known = np.argwhere(~draw(NearestNeighbor(2, offset=(1, 0)), 4, 4))
    assert known.tolist() == [[1, 0], [1, 2], [3, 0], [3, 2]]


def test_every_3_lines_horizontally_misses_rows_0_and_3():
    assert np.flatnonzero(draw(EveryNLines(3, "horizontal"), 6, 4).all(axis=1)).tolist() == [0, 3]


@given(st.floats(0.01, 0.99), sides, sides)
def test_completion_misses_the_first_rows_or_columns(ratio, height, width):
    rows, columns = int(ratio * height), int(ratio * width)
    vertical = draw(Completion(ratio), height, width)
    assert vertical[:rows].all()
    assert not vertical[rows:].any()
    horizontal = draw(Completion(ratio, "horizontal"), height, width)
    assert horizontal[:, :columns].all()
    assert not horizontal[:, columns:].any()
    assert np.array_equal(draw(Completion(ratio, "horizontal", reverse=True), height, width), ~horizontal)


@given(sides, sides)
def test_expand_keeps_a_centred_square_of_half_the_smaller_side(height, width):
    half = (min(height, width) // 2) // 2
    known = np.argwhere(~draw(Expand(), height, width))
    assert known.min(axis=0).tolist() == [height // 2 - half, width // 2 - half]
    assert known.max(axis=0).tolist() == [height // 2 + half - 1, width // 2 + half - 1]
    assert len(known) == (2 * half) ** 2


@given(st.integers(2, 8), sides, sides)
def test_nearest_neighbor_keeps_the_multiples_of_its_scale(scale, height, width):
    known = ~draw(NearestNeighbor(scale), height, width)
    rows, columns = np.mgrid[:height, :width]
    assert np.array_equal(known, (rows % scale == 0) & (columns % scale == 0))


# ---------------------------------------------------------------- random settings


def drawn_by(mask: Mask, height: int = 48, width: int = 60, count: int = 400) -> set[bytes]:
    return {draw(mask, height, width, seed).tobytes() for seed in range(count)}


def all_of(masks: list[Mask], height: int = 48, width: int = 60) -> set[bytes]:
    return {draw(mask, height, width).tobytes() for mask in masks}


def test_random_lines_have_every_n_direction_and_phase():
    lines = [
        EveryNLines(n, direction, offset)
        for n in (2, 3, 4, 5)
        for direction in ("vertical", "horizontal")
        for offset in range(n)
    ]
    assert drawn_by(RandomEveryNLines()) == all_of(lines)


def test_random_grids_have_every_scale_and_phase():
    grids = [
        NearestNeighbor(scale, (row, column)) for scale in (2, 3, 4) for row in range(scale) for column in range(scale)
    ]
    assert drawn_by(RandomNearestNeighbor()) == all_of(grids)


def test_random_expand_has_the_organisers_three_sizes():
    """`min_size // 4`, `// 3` or `// 2`, then half of it on each side; 47 is divisible by none of them."""
    sides = {math.isqrt(int((~draw(RandomExpand(), 47, 60, seed)).sum())) for seed in range(50)}
    assert sides == {2 * (47 // part // 2) for part in (4, 3, 2)}


def test_a_third_is_rounded_as_a_division_of_integers():
    assert all(int((1 / 3) * side) == side // 3 for side in range(1, 20_000))


def test_random_completion_takes_each_side_and_ratios_from_a_fifth_to_four_fifths():
    ratios, edges = [], set()
    for seed in range(400):
        mask = draw(RandomCompletion(), 100, 100, seed)
        along = mask.all(axis=1) if mask.all(axis=1).any() else mask.all(axis=0)
        assert np.abs(np.diff(along.astype(int))).sum() == 1  # one piece, at one edge
        edges.add((bool(mask.all(axis=1).any()), bool(along[0])))
        ratios.append(mask.mean())
    assert len(edges) == 4
    assert 0.19 <= min(ratios) < 0.23
    assert 0.77 < max(ratios) <= 0.81
    assert np.mean(ratios) == pytest.approx(0.5, abs=0.035)  # four standard errors of 400 uniform draws


@pytest.mark.parametrize("name", ["general", "random-attribute", "lama-plus", "unseen"])
def test_training_shows_the_network_every_phase(name):
    """The mixtures of version 0.1 had the fixed lines and grids, which begin at the first pixel."""
    parts = by_name(name).parts
    assert {RandomEveryNLines(), RandomNearestNeighbor()} <= set(parts)
    assert not {EveryNLines(), NearestNeighbor(), Completion(), Expand()} & set(parts)


# ---------------------------------------------------------------- strokes and boxes


@pytest.mark.parametrize("theirs", PUBLISHED["masks"], ids=lambda one: f"{one['name']}-{one['side']}")
def test_strokes_have_the_published_distribution(theirs):
    """Mean and histogram of coverage against the original code's, within the noise of both samples."""
    side, their_count = theirs["side"], sum(theirs["histogram"])
    mask = by_name(theirs["name"])
    ours = np.array([draw(mask, side, side, seed).mean() for seed in range(SAMPLES)])
    error = math.hypot(ours.std(ddof=1) / math.sqrt(SAMPLES), theirs["standard_error"])
    assert ours.mean() == pytest.approx(theirs["mean"], abs=3 * error)
    bins = len(theirs["histogram"])
    shares = np.array([(ours <= (n + 1) / bins).mean() for n in range(bins)])
    distance = np.abs(shares - np.cumsum(theirs["histogram"]) / their_count).max()
    # Kolmogorov and Smirnov: of two samples of one distribution one pair in a thousand is farther apart
    assert distance < 1.95 * math.sqrt(1 / SAMPLES + 1 / their_count)


@pytest.mark.parametrize("name", ["ThinStrokes", "MediumStrokes", "ThickStrokes"])
@given(sides, sides, seeds)
def test_published_strokes_cover_at_most_half(name, height, width, seed):
    assert draw(by_name(name), height, width, seed).mean() <= 0.5


def test_sides_take_the_settings_that_are_made_for_the_nearest():
    small, large = (Painted(((Boxes((1, 1), (side // 4, side // 4)), 1.0),), side=side) for side in (256, 512))
    mask = BySide((small, large))
    for side, painted in ((128, small), (256, small), (360, small), (365, large), (512, large), (2048, large)):
        assert np.array_equal(draw(mask, side, 2 * side), draw(painted, side, 2 * side))


@pytest.mark.parametrize("side", [128, 512])
def test_lengths_grow_with_the_smaller_side(side):
    """One box of exactly 64 pixels at 256 is a quarter of any square image's side."""
    mask = draw(Painted(((Boxes((1, 1), (64, 64)), 1.0),)), side, side)
    assert mask.any(axis=0).sum() == mask.any(axis=1).sum() == side // 4
    assert mask.sum() == (side // 4) ** 2


@pytest.mark.parametrize(("width", "drawn"), [(5, 7), (6, 7), (9, 11), (10, 11)])
def test_a_stroke_is_as_wide_as_opencv_draws_it(width, drawn):
    """`cv2.line` of OpenCV 4.7 covers 7 rows for the widths 5 and 6, and 11 for 9 and 10."""
    strokes = Strokes((1, 1), (width, width), (60, 60))
    masks = [draw(Painted(((strokes, 1.0),)), 256, 256, seed) for seed in range(100)]
    rows = np.bincount(np.concatenate([mask.sum(axis=1) for mask in masks]))
    assert rows[1:].argmax() + 1 == drawn  # half of the segments are all but vertical


def test_boxes_keep_their_margin_sizes_and_number():
    boxes = Painted(((Boxes((1, 1), (20, 60), margin=10), 1.0),))
    extents = set()
    for seed in range(200):
        mask = draw(boxes, 256, 256, seed)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[np.ix_(rows, columns)].all()
        assert min(rows[0], columns[0]) >= 10
        assert max(rows[-1], columns[-1]) < 246
        extents |= {len(rows), len(columns)}
    assert min(extents) >= 20
    assert max(extents) <= 60


def test_kinds_come_as_often_as_their_weights_say():
    """A box of 40×40 is told by its area."""
    painted = Painted(((Strokes((1, 1), (5, 5), (10, 20)), 1.0), (Boxes((1, 1), (40, 40)), 0.3)))
    share = np.mean([draw(painted, 256, 256, seed).sum() == 40 * 40 for seed in range(1000)])
    assert share == pytest.approx(0.3 / 1.3, abs=0.054)  # four standard errors of 1000 draws


@pytest.mark.parametrize("name", ["ThinStrokes", "unseen"])
def test_an_image_too_small_for_a_mask_is_refused(name):
    """Instead of a search without end."""
    with pytest.raises(GlamaError, match="the image is 1x1, too small for such a mask; give"):
        draw(by_name(name), 1, 1)


# ---------------------------------------------------------------- mixtures and names


@pytest.mark.parametrize(("name", "kinds"), [("lama-plus", 5), ("general", 7), ("random-attribute", 7)])
def test_mixtures_hold_as_many_types_as_the_paper_says(name, kinds):
    mixture = MIXTURES[name]
    assert isinstance(mixture, OneOf)
    assert len(mixture.parts) == kinds


def test_lama_is_half_strokes_and_half_boxes():
    strokes, boxes = MIXTURES["lama"].kinds
    assert isinstance(strokes[0], Strokes)
    assert isinstance(boxes[0], Boxes)
    assert strokes[1] == boxes[1]


def test_joined_names_are_a_mixture_of_equals():
    mixture = by_name("general+EveryNLines+general")
    assert mixture == OneOf((MIXTURES["general"], EveryNLines(), MIXTURES["general"]))
    with pytest.raises(GlamaError, match="unknown mask 'EveryLines'; did you mean 'EveryNLines'"):
        by_name("general+EveryLines")


def test_a_union_misses_what_any_part_misses():
    mask = draw(Union((EveryNLines(2), EveryNLines(2)), count=(2, 2)), 16, 16)
    assert np.array_equal(mask, draw(EveryNLines(2), 16, 16))


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [("ThinStroke", "ThinStrokes"), ("thickstrokes", "ThickStrokes"), ("lamaplus", "lama-plus")],
)
def test_an_unknown_name_suggests_the_near_one(given_name, meant):
    with pytest.raises(GlamaError, match=f"unknown mask '{given_name}'; did you mean '{meant}'"):
        by_name(given_name)


def test_a_name_like_no_other_lists_the_known_ones():
    with pytest.raises(GlamaError, match=r"known are Completion, .*unseen"):
        by_name("zzz")


@pytest.mark.parametrize(
    ("kind", "parameters", "fact"),
    [
        (Completion, {"ratio": 1.5}, "ratio is 1.5"),
        (Completion, {"direction": "up"}, "direction is 'up'"),
        (Expand, {"share": 0}, "share is 0"),
        (EveryNLines, {"n": 1}, "n is 1"),
        (NearestNeighbor, {"scale": 1}, "scale is 1"),
        (EveryNLines, {"n": 3, "offset": 3}, "offset is 3; give 0 to 2"),
        (NearestNeighbor, {"scale": 2, "offset": (0, 2)}, r"offset is \(0, 2\); give two numbers from 0 to 1"),
        (Boxes, {"count": (1, 1), "size": (50, 10)}, "size is 50…10"),
        (Boxes, {"count": (1, 1), "size": (1, 1), "margin": -1}, "margin is -1"),
        (Strokes, {"count": (0, 3), "width": (1, 1), "length": (1, 1)}, "Strokes: count is 0…3"),
    ],
)
def test_impossible_parameters_are_refused_by_name(kind, parameters, fact):
    with pytest.raises(GlamaError, match=fact):
        kind(**parameters)
