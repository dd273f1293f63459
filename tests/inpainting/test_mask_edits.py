"""Holes grow and shrink by Euclidean distances, and blends stay within their rim."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import distance_transform_edt

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.mask_edits import MaskEdits, blend_rim, grow_holes, shrink_holes

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
MASKS = arrays.arrays(bool, SIZES, elements=st.booleans(), fill=st.just(False))


@given(mask=MASKS, pixels=st.integers(1, 50))
def test_holes_grow_as_in_scipy(mask, pixels):
    expected = distance_transform_edt(~mask) <= pixels if mask.any() else mask
    np.testing.assert_array_equal(grow_holes(mask, pixels), expected)


@given(mask=MASKS, pixels=st.integers(1, 50))
def test_holes_shrink_as_in_scipy(mask, pixels):
    expected = distance_transform_edt(mask) > pixels if not mask.all() else mask
    np.testing.assert_array_equal(shrink_holes(mask, pixels), expected)


def test_a_hole_shrinks_before_it_grows():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    mask[3, 3] = True
    edited = MaskEdits(grow=2, shrink=2).edit(mask)
    assert not edited[3, 3]
    assert edited[10:30, 12:28].all()
    assert not edited[:10].any()
    assert not edited[10, 10]  # a disc does not reach into the corner


def test_nothing_is_edited_by_default(hole):
    assert MaskEdits().edit(hole) is hole
    fill = lambda image, mask: image  # noqa: E731
    assert MaskEdits().blend(fill) is fill


def test_a_blend_rises_from_the_known_pixels_to_the_inside():
    image, filled = np.zeros((30, 30, 3), np.uint8), np.full((30, 30, 3), 200, np.uint8)
    mask = np.zeros((30, 30), bool)
    mask[5:25, :] = True
    blended = MaskEdits(grow=3, feather=3).blend(lambda *_: filled)(image, mask)
    assert blended[5:10, 7, 0].tolist() == [50, 100, 150, 200, 200]
    assert blended[20:25, 7, 0].tolist() == [200, 200, 150, 100, 50]


def test_a_blend_of_floats_is_not_rounded():
    image, filled = np.zeros((30, 30, 3), np.float32), np.full((30, 30, 3), 0.5, np.float32)
    mask = np.zeros((30, 30), bool)
    mask[5:25, :] = True
    blended = MaskEdits(grow=3, feather=3).blend(lambda *_: filled)(image, mask)
    assert blended.dtype == np.float32
    assert blended[5:10, 7, 0].tolist() == [0.125, 0.25, 0.375, 0.5, 0.5]  # exact in float32


@given(mask=MASKS, pixels=st.integers(1, 9))
def test_a_blend_changes_the_rim_alone(mask, pixels):
    image, filled = np.full((*mask.shape, 3), 10, np.uint8), np.full((*mask.shape, 3), 250, np.uint8)
    filled[~mask] = 10
    blended = blend_rim(image, filled, mask, pixels)
    np.testing.assert_array_equal(blended[~mask], image[~mask])
    inside = shrink_holes(mask, pixels)
    np.testing.assert_array_equal(blended[inside], filled[inside])
    assert (blended[mask & ~inside] < 250).all()


def test_a_blend_of_a_grown_hole_hides_what_was_missing_before(hole):
    """The hole before it grew lies inside the rim."""
    edits = MaskEdits(grow=6, feather=6)
    image, filled = np.zeros((*hole.shape, 3), np.uint8), np.full((*hole.shape, 3), 200, np.uint8)
    blended = edits.blend(lambda *_: filled)(image, edits.edit(hole))
    assert (blended[hole] == 200).all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"grow": -1}, "`grow` is -1; 0 to 256 pixels are expected"),
        ({"shrink": 257}, "`shrink` is 257; 0 to 256 pixels are expected"),
        ({"grow": 2, "feather": 3}, "`feather` is 3 and `grow` is 2: .*; set `grow` to 3 or more"),
    ],
)
def test_edits_out_of_range_are_refused(wrong, says):
    with pytest.raises(GlamaError, match=says):
        MaskEdits(**wrong)
