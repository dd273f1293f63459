"""Outlines are filled as other programs fill them, up to the pixels that the outline crosses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from glama_deploy.inpainting.mask_edits import measure_squared_distances
from glama_deploy.marking.outlines import mark_circle, mark_polygon

HEIGHT, WIDTH = 40, 60


def list_corners(beyond: float) -> st.SearchStrategy:
    """Lists of corners that lie at most so far outside of the picture."""
    x, y = st.floats(-beyond, WIDTH + beyond), st.floats(-beyond, HEIGHT + beyond)
    return st.lists(st.tuples(x, y), min_size=3, max_size=8)


def draw(points) -> np.ndarray:
    missing = np.zeros((HEIGHT, WIDTH), bool)
    mark_polygon(missing, np.array(points, np.float64))
    return missing


def measure_to_outline(points) -> np.ndarray:
    """The distance of each pixel's centre from the outline."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    nearest = np.full((HEIGHT, WIDTH), np.inf)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1) if length > 0 else 0
        nearest = np.minimum(nearest, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    return nearest


@given(list_corners(0))
def test_a_polygon_is_that_of_pycocotools_but_for_pixels_at_the_outline(points):
    """pycocotools rounds the outline to fifths of a pixel and fills by columns, so pixels at the outline may differ."""
    theirs = coco.decode(coco.merge(coco.frPyObjects([[each for point in points for each in point]], HEIGHT, WIDTH)))
    differs = draw(points) != theirs.astype(bool)
    assert measure_to_outline(points)[differs].max(initial=0) <= 1


def test_a_rectangle_on_whole_pixels_is_exact():
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[5:12, 10:31] = True
    np.testing.assert_array_equal(draw([(10, 5), (31, 5), (31, 12), (10, 12)]), expected)


@given(list_corners(10))
def test_what_lies_outside_of_the_picture_is_cut_off_and_nothing_else(points):
    large = np.zeros((HEIGHT + 40, WIDTH + 40), bool)
    mark_polygon(large, np.array(points, np.float64) + 20)
    differs = draw(points) != large[20:-20, 20:-20]
    # an outline through the very centre of a pixel: the sum of 20 and a coordinate is rounded
    assert measure_to_outline(points)[differs].max(initial=0) <= 1e-9


def test_a_polygon_outside_marks_nothing_and_a_line_has_no_area():
    assert not draw([(-9, -9), (-1, -9), (-1, -1)]).any()
    assert not draw([(3, 3), (30, 30), (3, 3)]).any()


@pytest.mark.parametrize(("x", "y", "radius"), [(30.5, 20.5, 9.0), (2.0, 38.3, 12.5), (50.0, 3.0, 0.8)])
def test_a_circle_is_that_of_pillow_but_for_pixels_at_the_outline(x, y, radius):
    ours = np.zeros((HEIGHT, WIDTH), bool)
    mark_circle(ours, np.array([x, y]), radius)
    image = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(image).ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    theirs = np.asarray(image)
    assert ours.any()
    # Pillow draws on the grid of whole pixels, which moves the outline by up to a pixel and a half
    for one, other in ((ours, theirs), (theirs, ours)):
        assert measure_squared_distances(other, 4)[one].max() <= 4
