"""The seven mask types and their mixtures: the exact ones by the pixel, the drawn ones by their promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glama_deploy.errors import GlamaError
from glama_deploy.masks import (
    MIXTURES,
    TYPES,
    Boxes,
    Completion,
    EveryNLines,
    Expand,
    Mask,
    MediumStrokes,
    NearestNeighbor,
    OneOf,
    Strokes,
    ThickStrokes,
    ThinStrokes,
    Union,
    by_name,
)

sides = st.integers(16, 200)
seeds = st.integers(0, 2**32 - 1)
every_mask = st.sampled_from([*TYPES, *MIXTURES])
stroke_types = st.sampled_from([Strokes(), ThinStrokes(), MediumStrokes(), ThickStrokes(), Boxes()])


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


@pytest.mark.parametrize("name", ["ThinStrokes", "MediumStrokes", "ThickStrokes", *MIXTURES])
def test_seeds_give_different_masks(name):
    assert len({draw(by_name(name), 64, 64, seed).tobytes() for seed in range(20)}) > 1


# ---------------------------------------------------------------- the four exact ones


def test_every_2_lines_misses_columns_0_2_4():
    mask = draw(EveryNLines(), 5, 7)
    assert mask[:, [0, 2, 4, 6]].all()
    assert not mask[:, [1, 3, 5]].any()


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


# ---------------------------------------------------------------- strokes and boxes


@given(stroke_types, sides, sides, seeds)
def test_strokes_and_boxes_cover_at_most_half(strokes, height, width, seed):
    assert draw(strokes, height, width, seed).mean() <= 0.5


def test_a_brush_too_wide_for_half_of_the_image_paints_nothing():
    assert not draw(Strokes(strokes=(1, 1), width=(500, 500)), 64, 64).any()


@pytest.mark.parametrize("side", [128, 512])
def test_strokes_grow_with_the_smaller_side(side):
    """One box of exactly 64 pixels at 256 is a quarter of any square image's side."""
    mask = draw(Boxes(count=(1, 1), size=(64, 64)), side, side)
    assert mask.any(axis=0).sum() == mask.any(axis=1).sum() == side // 4
    assert mask.sum() == (side // 4) ** 2


def test_a_straight_stroke_is_as_wide_as_asked():
    """Angle 0 runs along the columns: away from its ends every row is `width` wide."""
    stroke = Strokes(strokes=(1, 1), segments=(1, 1), width=(9, 9), length=(60, 60), max_angle=1e-9)
    rows = [draw(stroke, 256, 256, seed).sum(axis=1).max() for seed in range(20)]
    assert max(rows) == 9


def test_box_probability_1_gives_boxes_only():
    boxes = Boxes(count=(1, 1), size=(20, 60))
    for seed in range(20):
        mask = draw(Strokes(box_probability=1, boxes=boxes), 256, 256, seed)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask[np.ix_(rows, columns)].all()
        assert 20 <= len(rows) <= 60
        assert 20 <= len(columns) <= 60


def test_boxes_come_at_about_the_stated_probability():
    """A box of 40×40 is told by its area: strokes one pixel wide cover less."""
    strokes = Strokes(
        width=(1, 1),
        strokes=(1, 2),
        length=(10, 60),
        box_probability=0.3,
        boxes=Boxes(count=(1, 1), size=(40, 40)),
    )
    share = np.mean([draw(strokes, 256, 256, seed).sum() == 40 * 40 for seed in range(1000)])
    assert share == pytest.approx(0.3, abs=0.06)  # four standard deviations of 1000 draws


# ---------------------------------------------------------------- mixtures and names


@pytest.mark.parametrize(("name", "kinds"), [("lama", 3), ("lama-plus", 5), ("general", 7)])
def test_mixtures_hold_as_many_types_as_the_paper_says(name, kinds):
    mixture = MIXTURES[name]
    assert isinstance(mixture, OneOf)
    assert len(mixture.parts) == kinds


def test_general_draws_every_exact_type():
    drawn = {draw(by_name("general"), 64, 64, seed).tobytes() for seed in range(300)}
    exact = [Expand(), Completion(), Completion(direction="horizontal"), EveryNLines(), NearestNeighbor(2)]
    assert all(draw(mask, 64, 64).tobytes() in drawn for mask in exact)


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
        (Boxes, {"size": (50, 10)}, "size is 50…10"),
        (ThinStrokes, {"strokes": (0, 3)}, "ThinStrokes: strokes is 0…3"),
        (ThinStrokes, {"box_probability": 2}, "box_probability"),
    ],
)
def test_impossible_parameters_are_refused_by_name(kind, parameters, fact):
    with pytest.raises(GlamaError, match=fact):
        kind(**parameters)
