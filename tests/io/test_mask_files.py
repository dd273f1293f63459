"""A mask means the same in every format: its values decide, never its container."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io.mask_files import MAX_BLACK, SOFT_ABOVE_BLACK, MaskRule, decode_mask, find_missing, read_mask

#: Formats that keep every value, and formats that change values.
EXACT = {"png": ("PNG", {}), "lossless webp": ("WEBP", {"lossless": True}), "bmp": ("BMP", {}), "tiff": ("TIFF", {})}
LOSSY = {
    **{f"jpeg {quality}": ("JPEG", {"quality": quality}) for quality in (75, 90, 95)},
    "lossy webp": ("WEBP", {"quality": 80}),
}


def saved(values: np.ndarray, path: Path, how: tuple[str, dict]) -> Path:
    Image.fromarray(values).save(path, how[0], **how[1])
    return path


def strokes(edge: int = 1, side: int = 192) -> Image.Image:
    """Ellipses and strokes, drawn `edge` times as large and brought down: an edge of 1 is hard, 4 antialiased."""
    image = Image.new("L", (side * edge, side * edge))
    draw = ImageDraw.Draw(image)
    draw.ellipse([20 * edge, 30 * edge, 90 * edge, 75 * edge], fill=255)
    draw.line([(110 * edge, 20 * edge), (170 * edge, 90 * edge), (60 * edge, 170 * edge)], fill=255, width=9 * edge)
    return image.resize((side, side), Image.Resampling.BOX)


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * pixels + 1))) > 0


@pytest.mark.parametrize(("black", "white"), [(0, 255), (3, 255), (16, 235), (0, 254), (0, 128), (20, 200)])
@pytest.mark.parametrize("how", [*EXACT.values(), *LOSSY.values()], ids=[*EXACT, *LOSSY])
def test_a_two_valued_mask_is_the_same_in_every_format(tmp_path, black, white, how):
    missing = np.asarray(strokes()) > 0
    values = np.where(missing, np.uint8(white), np.uint8(black))
    np.testing.assert_array_equal(read_mask(saved(values, tmp_path / "m", how)), missing)


@settings(max_examples=60)
@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 95)] * 2, *[st.integers(1, 40)] * 2), min_size=1, max_size=6),
    levels=st.tuples(st.integers(0, 20), st.integers(160, 255)),
    how=st.sampled_from([*EXACT.values(), *LOSSY.values()]),
)
def test_boxes_of_any_two_levels_come_back_from_every_format(boxes, levels, how):
    missing = np.zeros((96, 96), bool)
    for top, left, height, width in boxes:
        missing[top : top + height, left : left + width] = True
    if missing.all():
        return
    file = io.BytesIO()
    Image.fromarray(np.where(missing, levels[1], levels[0]).astype(np.uint8)).save(file, how[0], **how[1])
    np.testing.assert_array_equal(find_missing(np.asarray(Image.open(file).convert("L")), "m"), missing)


@pytest.mark.parametrize("levels", [(0, 1), (0, 255), (3, 255), (16, 235), (0, 254), (0, 40)])
def test_the_lower_of_two_values_is_known(levels):
    """A mask of 0 and 1 is one, too."""
    values = np.array([[levels[0]] * 3, [levels[1]] * 3, [levels[0]] * 3], np.uint8)
    np.testing.assert_array_equal(find_missing(values, "m"), values == levels[1])


def test_values_near_black_and_near_white_are_black_and_white():
    values = np.zeros((40, 40), np.uint8)
    values[:20, :20], values[30, 30] = 254, 3
    values[5:9, 5:9] = 255
    np.testing.assert_array_equal(find_missing(values, "m"), values > 127)


def test_masks_of_one_bit_a_palette_and_a_colour_are_read(tmp_path):
    missing = np.asarray(strokes()) > 0
    Image.fromarray(missing).save(tmp_path / "bit.png")
    Image.fromarray(missing).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([missing * np.uint8(255), 0 * missing, 0 * missing]).astype(np.uint8)).save(
        tmp_path / "red.png"
    )
    Image.fromarray(missing * np.uint8(255)).convert("RGBA").save(tmp_path / "rgba.png")
    for name in ("bit", "palette", "red", "rgba"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), missing)


SOFT = {
    "brush": strokes().filter(ImageFilter.GaussianBlur(6)),
    "blur": strokes().filter(ImageFilter.GaussianBlur(1.5)),
    "video range": strokes().filter(ImageFilter.GaussianBlur(3)).point(lambda value: 16 + value * 219 // 255),
}


@pytest.mark.parametrize("kind", SOFT)
@pytest.mark.parametrize("how", [*EXACT.values(), *LOSSY.values()], ids=[*EXACT, *LOSSY])
def test_a_soft_mask_is_the_same_in_every_format_but_for_its_rim(tmp_path, kind, how):
    """Lossy formats move the faint end of a ramp of up to 20 pixels by one value in sixteen, which is one pixel; WebP
    filters its blocks' edges besides, which is another."""
    values = np.asarray(SOFT[kind])
    expected = values > int(values.min()) + 16
    found = read_mask(saved(values, tmp_path / "m", how))
    if how in EXACT.values():
        np.testing.assert_array_equal(found, expected)
    rim = 2 if how[0] == "WEBP" else 1
    assert not (found & ~grown(expected, rim)).any()
    assert not (expected & ~grown(found, rim)).any()
    assert found.sum() > 1.15 * (values > 127).sum()  # the faint edge is in it: no ghost of what was there is left


def test_antialiased_edges_are_missing_and_ringing_stays_small(tmp_path):
    """The pixels of an edge that are covered by a fifth or more are in; ringing adds less than 3 % of the mask, near
    it (8 pixels are a block of JPEG)."""
    values = np.asarray(strokes(4))
    for name, how in {**EXACT, **LOSSY}.items():
        found = read_mask(saved(values, tmp_path / "m", how))
        assert found[values > 51].all(), name
        assert (found & (values == 0)).sum() < 0.03 * found.sum(), name
        assert not (found & ~grown(values > 0, 8)).any(), name


def test_the_ringing_of_a_poor_jpeg_is_not_taken_for_holes(tmp_path):
    values = np.zeros((64, 64), np.uint8)
    values[20:41, 20:41] = 255
    path = saved(values, tmp_path / "m", ("JPEG", {"quality": 30}))
    assert (np.asarray(Image.open(path)) > 16).sum() > (values > 0).sum()  # it does ring
    np.testing.assert_array_equal(read_mask(path), values > 0)


@pytest.mark.parametrize("levels", [(0, 77, 255), (0, 90, 255), (0, 85, 170, 255), (0, 50, 100, 150), (16, 90, 235)])
@pytest.mark.parametrize("how", [*EXACT.values(), *LOSSY.values()], ids=[*EXACT, *LOSSY])
def test_every_class_above_black_is_missing(tmp_path, levels, how):
    """Regions of each class, apart and side by side. Ringing is near them and adds less than 3 % (as below)."""
    values = np.full((160, 200), levels[0], np.uint8)
    for number, level in enumerate(levels[1:]):
        values[10 + 35 * number : 40 + 35 * number, 15:60] = level
        values[30:120, 80 + 30 * number : 110 + 30 * number] = level
    found = read_mask(saved(values, tmp_path / "m", how))
    expected = values > levels[0]
    if how in EXACT.values():
        np.testing.assert_array_equal(found, expected)
    assert found[expected].all()
    assert (found & ~expected).sum() < 0.03 * found.sum()
    assert not (found & ~grown(expected, 8)).any()


@pytest.mark.parametrize("width", [1, 2, 3, 5, 12])
def test_a_gray_strip_beside_a_white_box_is_missing(width):
    """The strip is within the reach of the box's ringing, but the file has three values."""
    values = np.zeros((96, 96), np.uint8)
    values[20:60, 20:60], values[20:60, 60 : 60 + width] = 255, 85
    np.testing.assert_array_equal(find_missing(values, "m"), values > 0)


def test_small_antialiased_text_beside_a_large_hard_box_is_missing():
    """One letter and one disk have a hundredth of the edges of the mask."""
    drawn = Image.new("L", (1600, 1600))
    drawing = ImageDraw.Draw(drawn)
    drawing.text((200, 1100), "x", font=ImageFont.load_default(size=80), fill=255)
    drawing.ellipse([900, 1000, 1100, 1200], fill=255)
    values = np.asarray(drawn.resize((400, 400), Image.Resampling.BOX)).copy()
    values[20:200, 20:380] = 255
    np.testing.assert_array_equal(find_missing(values, "m"), values > SOFT_ABOVE_BLACK)


def test_a_faint_stroke_beside_a_white_box_is_missing(tmp_path):
    """A blurred stroke that peaks at 90, 8 pixels from a box with hard edges."""
    image = Image.new("L", (192, 192))
    ImageDraw.Draw(image).line([(30, 120), (160, 150)], fill=255, width=9)
    faint = np.asarray(image.filter(ImageFilter.GaussianBlur(4))).astype(float)
    values = (faint * 90 / faint.max()).astype(np.uint8)
    values[20:100, 40:120] = 255
    stroke = (values > SOFT_ABOVE_BLACK) & (values < 255)
    assert stroke.sum() > 1000
    found = find_missing(values, "m")
    np.testing.assert_array_equal(found, values > SOFT_ABOVE_BLACK)
    for name, how in LOSSY.items():
        found = read_mask(saved(values, tmp_path / "m", how))
        assert not (stroke & ~grown(found, 2)).any(), name
        assert found[20:100, 40:120].all(), name


@pytest.fixture(scope="module")
def text_and_brush() -> np.ndarray:
    """Hard text and rules, and one soft stroke of a brush, uint8 400×400."""
    text, brush = Image.new("1", (400, 400)), Image.new("L", (400, 400))
    drawn, font = ImageDraw.Draw(text), ImageFont.load_default(size=18)
    for row in range(9):
        drawn.text((10, 5 + 22 * row), f"Line {row}: remove this text, please", fill=1, font=font)
        drawn.line([(10, 25 + 22 * row), (390, 24 + 22 * row)], fill=1, width=1 + row % 3)
    ImageDraw.Draw(brush).line([(60, 260), (330, 350)], fill=255, width=40)
    soft = np.asarray(brush.filter(ImageFilter.GaussianBlur(10)))
    return np.where(np.asarray(text), np.uint8(255), soft)


def test_a_soft_brush_beside_much_hard_text_is_missing_as_a_whole(text_and_brush):
    np.testing.assert_array_equal(find_missing(text_and_brush, "m"), text_and_brush > SOFT_ABOVE_BLACK)


def test_hard_text_beside_a_soft_brush_does_not_ring(tmp_path, text_and_brush):
    hard = text_and_brush[:200] == 255
    for name, how in LOSSY.items():
        found = read_mask(saved(text_and_brush, tmp_path / "m", how))
        np.testing.assert_array_equal(found[:200], hard, err_msg=name)
        assert not ((text_and_brush > SOFT_ABOVE_BLACK) & ~grown(found, 2)).any(), name


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        ([255], r"marks every pixel as missing \(its darkest value is 255\)"),
        ([254, 255], r"marks every pixel as missing \(its darkest value is 254\)"),
        ([235], "marks every pixel as missing"),
        ([100], "has a single value, 100"),
        ([MAX_BLACK + 1], f"has a single value, {MAX_BLACK + 1}"),
        ([60, 255], r"has no black pixel \(its darkest value is 60\)"),
        ([0, 1, 2], r"has no white pixel \(3 values from 0 to 2\)"),
    ],
)
def test_a_mask_without_black_or_white_is_refused(tmp_path, levels, says):
    values = np.resize(np.array(levels, np.uint8), (20, 30))
    for name, how in EXACT.items():
        with pytest.raises(ImageError, match=says):
            read_mask(saved(values, tmp_path / name, how))


@pytest.mark.parametrize("value", [0, 3, 16, MAX_BLACK])
def test_a_black_mask_marks_nothing(tmp_path, value):
    """16 is the black of a video."""
    for name, how in {**EXACT, **LOSSY}.items():
        assert not read_mask(saved(np.full((20, 30), value, np.uint8), tmp_path / name, how)).any()


def test_a_photo_is_not_taken_for_a_mask(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8) // 2 + 20
    for name, how in {**EXACT, **LOSSY}.items():
        with pytest.raises(ImageError, match="looks like a photo, not a mask"):
            read_mask(saved(photo, tmp_path / name, how))


def test_a_mask_with_transparency_is_refused(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="transparent"):
        read_mask(tmp_path / "m.png")


def paint(where: np.ndarray, colour: tuple[int, int, int], alpha: int = 255) -> Image.Image:
    """Return a transparent layer with paint."""
    layer = np.zeros((*where.shape, 4), np.uint8)
    layer[where] = (*colour, alpha)
    return Image.fromarray(layer)


@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 0, 0), (255, 203, 0), (0, 90, 0)])
@pytest.mark.parametrize("alpha", [255, 186])
def test_a_layer_painted_in_one_colour_is_read_by_its_opacity(tmp_path, colour, alpha):
    where = np.asarray(strokes()) > 0
    paint(where, colour, alpha).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), where)


def test_a_layer_with_a_soft_brush_is_missing_with_its_rim(tmp_path):
    soft = strokes().filter(ImageFilter.GaussianBlur(3))
    layer = Image.new("RGBA", soft.size, (255, 255, 255, 0))
    layer.putalpha(soft)
    layer.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.asarray(soft) > SOFT_ABOVE_BLACK)


@pytest.mark.parametrize("colour", [(0, 0, 0), (40, 20, 20)])
def test_a_layer_painted_black_may_mean_either_and_is_refused(tmp_path, colour):
    paint(np.asarray(strokes()) > 0, colour).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match=r"transparent pixels, which may mean missing or known; .* or set `mask_from`"):
        read_mask(tmp_path / "m.png")


def test_a_layer_of_several_colours_is_refused(tmp_path):
    layer = paint(np.asarray(strokes()) > 0, (255, 255, 255))
    layer.paste((255, 0, 0, 255), (100, 100, 120, 120))
    layer.save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="set `mask_from`"):
        read_mask(tmp_path / "m.png")


def test_the_channel_that_is_named_is_read(tmp_path):
    where = np.asarray(strokes()) > 0
    photo = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
    erased = Image.fromarray(np.dstack([photo, np.where(where, 0, 255).astype(np.uint8)]))
    erased.save(tmp_path / "erased.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "erased.png", MaskRule("inverse-alpha")), where)
    np.testing.assert_array_equal(read_mask(tmp_path / "erased.png", MaskRule("alpha")), ~where)
    coloured = np.zeros((192, 192, 3), np.uint8)
    coloured[..., 2] = 255  # a blue mask is bright everywhere, and its red channel is not
    coloured[where] = 255
    Image.fromarray(coloured).save(tmp_path / "blue.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "blue.png", MaskRule("red")), where)
    np.testing.assert_array_equal(read_mask(tmp_path / "blue.png", MaskRule("luma", threshold=128)), where)
    with pytest.raises(ImageError, match="has no transparency, and `mask_from` is alpha; leave `mask_from` out"):
        read_mask(tmp_path / "blue.png", MaskRule("alpha"))


def test_a_threshold_cuts_at_its_value(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "m.png")
    for threshold in (0, 127, 254):
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png", MaskRule(threshold=threshold)), values > threshold)
    Image.fromarray(np.maximum(values, 9)).save(tmp_path / "m.png")
    with pytest.raises(ImageError, match="marks every pixel as missing: all values are above the `threshold` of 8"):
        read_mask(tmp_path / "m.png", MaskRule(threshold=8))


def test_an_inverted_mask_is_black_where_pixels_are_missing(tmp_path):
    where = np.asarray(strokes()) > 0
    for name, how in {**EXACT, **LOSSY}.items():
        path = saved(np.where(where, np.uint8(0), np.uint8(255)), tmp_path / name, how)
        np.testing.assert_array_equal(read_mask(path, MaskRule(invert=True)), where)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"source": "green"}, "`mask_from` is 'green'; expected auto, alpha, inverse-alpha, luma, red"),
        ({"threshold": 255}, "`threshold` is 255; 0 to 254 is expected"),
        ({"threshold": -1}, "`threshold` is -1; 0 to 254 is expected"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(wrong, says):
    with pytest.raises(GlamaError, match=says):
        MaskRule(**wrong)


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_mask_that_a_program_sent_is_cut_at_127():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(values)), "mask"), values > 127)
    red = Image.merge("RGB", [Image.fromarray(values), *(Image.new("L", (16, 16)) for _ in range(2))])
    np.testing.assert_array_equal(decode_mask(encoded(red), "mask"), values > 127)


def test_a_mask_that_a_program_sent_has_no_transparent_pixels():
    values = Image.fromarray(np.full((16, 16), 255, np.uint8))
    assert decode_mask(encoded(Image.merge("LA", [values, values])), "mask").all()
    with pytest.raises(ImageError, match="mask: the mask has transparent pixels"):
        decode_mask(encoded(Image.merge("LA", [values, values.point(lambda value: 254)])), "mask")
