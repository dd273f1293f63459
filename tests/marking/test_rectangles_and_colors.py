from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glama_deploy.errors import GlamaError
from glama_deploy.io.images import Picture
from glama_deploy.marking import Marks, Rectangle
from glama_deploy.marking.colors import parse_color

NAME = Path("a.png")


def make_picture(rgb: np.ndarray, alpha: np.ndarray | None = None) -> Picture:
    return Picture(rgb, alpha, False, None)


def test_rectangles_join_and_are_counted_from_the_top_left_corner():
    marks = Marks(rectangles=(Rectangle.parse("2,1,3,4"), Rectangle.parse(" 4, 3, 5, 1 ")))
    expected = np.zeros((8, 10), bool)
    expected[1:5, 2:5] = expected[3, 4:9] = True
    np.testing.assert_array_equal(marks.find_missing(make_picture(np.zeros((8, 10, 3), np.uint8)), NAME), expected)


def test_a_rectangle_that_leaves_the_picture_is_clipped_with_a_note(caplog):
    missing = np.zeros((8, 10), bool)
    Rectangle(-3, 6, 5, 9).mark(missing, NAME)
    assert missing.sum() == 4
    assert missing[6:, :2].all()
    assert "a.png is 8x10, and `box=-3,6,5,9` is clipped to 0,6,2,2" in caplog.text


@pytest.mark.parametrize("place", ["10,0,3,3", "0,8,3,3", "-3,0,3,3", "0,-9,3,9"])
def test_a_rectangle_outside_of_the_picture_is_an_error(place):
    missing = np.zeros((8, 10), bool)
    with pytest.raises(GlamaError, match=f"`box={place}` lies outside; x is from 0 to 9, y from 0 to 7"):
        Rectangle.parse(place).mark(missing, NAME)
    assert not missing.any()


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "1,2,3,x", "1.5,2,3,4", "1;2;3;4", "1,2,3,9999999"])
def test_a_text_that_is_no_rectangle_is_refused(text):
    with pytest.raises(GlamaError, match="x,y,w,h in whole pixels is expected"):
        Rectangle.parse(text)


@pytest.mark.parametrize("text", ["1,2,0,4", "1,2,3,-4"])
def test_a_rectangle_without_pixels_is_refused(text):
    with pytest.raises(GlamaError, match="both must be at least 1"):
        Rectangle.parse(text)


@pytest.mark.parametrize(("text", "color"), [("#ff0080", (255, 0, 128)), ("#F08", (255, 0, 136)), ("red", (255, 0, 0))])
def test_colors_are_read(text, color):
    assert parse_color(text) == color


@pytest.mark.parametrize("text", ["ff0080", "#ff00", "#ff0080ff", "pinkish", ""])
def test_a_text_that_is_no_color_is_refused(text):
    with pytest.raises(GlamaError, match="#rrggbb or a name is expected"):
        parse_color(text)


def test_a_color_is_found_within_the_tolerance_of_each_channel(photo):
    color, tolerance = (120, 80, 200), 30
    marks = Marks(colors=[color], color_tolerance=tolerance)
    expected = (np.abs(photo.astype(int) - color) <= tolerance).all(axis=2)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(marks.find_missing(make_picture(photo), NAME), expected)


def test_a_color_that_is_not_there_says_how_near_the_nearest_is():
    rgb = np.full((4, 4, 3), 10, np.uint8)
    rgb[1, 1] = (250, 5, 120)
    with pytest.raises(GlamaError, match=r"within 3 of `color=#ff0080`; the nearest differs by 8: .* to 8 or more"):
        Marks(colors=[(255, 0, 128)], color_tolerance=3).find_missing(make_picture(rgb), NAME)


def test_a_color_under_full_transparency_is_not_found():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[0] = (255, 0, 0)
    alpha = np.full((4, 4), 255, np.uint8)
    alpha[0, 1:] = 0
    marks = Marks(colors=[(255, 0, 0)])
    assert marks.find_missing(make_picture(rgb, alpha), NAME).sum() == 1
    alpha[0] = 0
    with pytest.raises(GlamaError, match="the nearest differs by 255"):
        marks.find_missing(make_picture(rgb, alpha), NAME)
    with pytest.raises(GlamaError, match="is transparent everywhere"):
        marks.find_missing(make_picture(rgb, np.zeros_like(alpha)), NAME)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"colors": [(1, 2, 3)], "color_tolerance": 256}, "`color_tolerance` is 256; 0 to 255"),
        ({"color_tolerance": 3}, "`color_tolerance` is set without `color`"),
        ({"categories": ["dog"]}, "`category` is set without `annotations`"),
    ],
)
def test_marks_that_contradict_each_other_are_refused(wrong, says):
    with pytest.raises(GlamaError, match=says):
        Marks(**wrong)


def test_a_color_of_16_bits_is_the_color_of_8_bits(photo):
    """Noise below the 8 bits is rounded away. Values that only agree in their low bytes are other colors."""
    noise = np.arange(photo.size).reshape(photo.shape) % 101
    deep = (photo.astype(int) * 257 - 50 + noise).clip(0, 65535).astype(np.uint16)
    marks = Marks(colors=[tuple(photo[3, 3].tolist())], color_tolerance=5)
    expected = marks.find_missing(make_picture(photo), Path("a.png"))
    np.testing.assert_array_equal(marks.find_missing(make_picture(deep), Path("a.png")), expected)
    assert 0 < expected.sum() < expected.size
