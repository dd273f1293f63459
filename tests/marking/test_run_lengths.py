"""Run lengths are those of COCO's own library."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from glama_deploy.errors import GlamaError
from glama_deploy.marking.run_lengths import decode_counts, mark_runs


@given(st.integers(1, 70), st.integers(1, 70), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_compressed_runs_are_the_mask_that_pycocotools_encoded(height, width, share, seed):
    drawn = np.random.default_rng(seed).random((height, width)) < share
    text = coco.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"].decode()
    read = np.zeros((height, width), bool)
    mark_runs(read, decode_counts(text))
    np.testing.assert_array_equal(read, drawn)


def test_long_runs_have_several_groups():
    drawn = np.zeros((3000, 2000), np.uint8, order="F")
    drawn[100:2500, 50:1900] = 1
    assert decode_counts(coco.encode(drawn)["counts"].decode())[:3] == [50 * 3000 + 100, 2400, 600]


def test_a_stored_text_is_decoded_as_it_was():
    """A rectangle of 3 rows and 4 columns at (2, 3) of 7×9 pixels, encoded by pycocotools 2.0.11."""
    assert decode_counts("g03400000<") == [23, 3, 4, 3, 4, 3, 4, 3, 16]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("g0~", "has the character '~' in its compressed runs"),
        ("g", "are cut off"),
        ("o" * 40, "a number that is too large"),
    ],
)
def test_damaged_text_is_refused(text, says):
    with pytest.raises(GlamaError, match=says):
        decode_counts(text)


@pytest.mark.parametrize(
    ("counts", "says"),
    [([3, -1, 10], "a run of -1"), ([3, 4], "runs of 7 pixels; a picture of 3x4 has 12"), ([], "runs of 0 pixels")],
)
def test_runs_that_do_not_cover_the_picture_are_refused(counts, says):
    with pytest.raises(GlamaError, match=says):
        mark_runs(np.zeros((3, 4), bool), counts)
