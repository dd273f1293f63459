"""Pictures with transparency: no black block, no fringe, no haze; opaque ones as if they had none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

import glama_deploy
from glama_deploy.inpainting.folder import Job, fill_job, read_job
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.transparency import fill_alpha, fill_picture, spread_colours
from glama_deploy.io.images import Picture, read_image

SIDE, ENLARGED = 192, 4


@pytest.fixture(scope="module")
def embedded() -> Inpainter:
    return glama_deploy.load("default", "openvino")


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """OpenCV's inpainting, which blurs edges as networks do."""
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), 5, cv2.INPAINT_TELEA))


def logo(*, hard: bool = False) -> np.ndarray:
    """uint8 RGBA: a red ring and a blue bar on nothing; black under alpha 0. A hard one has no antialiasing."""
    image = Image.new("RGBA", (SIDE * ENLARGED,) * 2)
    draw = ImageDraw.Draw(image)
    draw.ellipse([ENLARGED * place for place in (30, 30, 160, 160)], fill=(220, 40, 40, 255))
    draw.ellipse([ENLARGED * place for place in (70, 70, 120, 120)], fill=(0, 0, 0, 0))
    draw.rectangle([ENLARGED * place for place in (10, 20, 24, 180)], fill=(30, 90, 200, 255))
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX)).copy()
    if hard:
        small[..., 3] = np.where(small[..., 3] > 127, 255, 0)
    small[small[..., 3] == 0] = 0
    return small


def bar() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return abs(rows - 92 - 0.15 * (columns - SIDE / 2)) < 7


def barred(pixels: np.ndarray, mask: np.ndarray) -> Picture:
    """The picture with an opaque black bar over it."""
    covered = np.where(mask[..., None], np.array([0, 0, 0, 255], np.uint8), pixels)
    return Picture(np.ascontiguousarray(covered[..., :3]), covered[..., 3].copy())


def on_ground(picture: Picture, ground: int) -> np.ndarray:
    alpha = picture.alpha[..., None] / 255
    return picture.rgb * alpha + ground * (1 - alpha)


@pytest.mark.parametrize("hard", [False, True])
def test_a_bar_over_a_logo_is_gone_on_black_and_on_white(embedded, hard):
    """The mean error in the bar is below 6 of 255 (3.2 on AVX2 in fp32). A black block has 130 on white, the network's
    alpha as it is, a haze, has 8.6."""
    pixels, mask = logo(hard=hard), bar()
    truth = Picture(pixels[..., :3], pixels[..., 3])
    result = fill_picture(embedded, barred(pixels, mask), mask)
    np.testing.assert_array_equal(np.dstack([result.rgb, result.alpha])[~mask], pixels[~mask])
    for ground in (0, 255):
        error = abs(on_ground(result, ground) - on_ground(truth, ground))[mask]
        assert error.mean() < 6
    partial = (result.alpha > 0) & (result.alpha < 255) & mask
    known = (pixels[..., 3] > 0) & (pixels[..., 3] < 255) & mask
    assert partial.sum() <= (0 if hard else 3 * known.sum())  # an edge of one pixel, not a haze


def test_colours_that_nobody_sees_change_nothing(embedded):
    pixels, mask = logo(), bar()
    noisy = pixels.copy()
    hidden = pixels[..., 3] == 0
    noisy[hidden, :3] = np.random.default_rng(0).integers(0, 256, (hidden.sum(), 3))
    one, other = (fill_picture(embedded, barred(given, mask), mask) for given in (pixels, noisy))
    np.testing.assert_array_equal(one.rgb[mask], other.rgb[mask])
    np.testing.assert_array_equal(one.alpha, other.alpha)
    np.testing.assert_array_equal(other.rgb[~mask], noisy[~mask][:, :3])


def test_an_opaque_picture_takes_the_way_of_one_without_alpha(photo, hole):
    calls = []

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        calls.append(image)
        return telea(image, mask)

    alpha = np.where(hole, np.uint8(40), np.uint8(255))  # what is under the hole says nothing
    result = fill_picture(fill, Picture(photo, alpha), hole)
    np.testing.assert_array_equal(result.rgb, telea(photo, hole))
    assert (result.alpha == 255).all()
    assert len(calls) == 1
    assert calls[0] is photo


def test_alpha_is_exact_where_the_alpha_around_a_hole_is_all_the_same():
    """One hole in the opaque part, one in the empty part, and one over their border, which alone is inpainted."""
    alpha = np.zeros((60, 80), np.uint8)
    alpha[:, 40:] = 255
    mask = np.zeros((60, 80), bool)
    mask[5:15, 60:70] = mask[5:15, 10:20] = mask[30:40, 30:50] = True
    seen = np.where(mask, np.uint8(77), alpha)
    filled = fill_alpha(telea, seen, mask)
    assert (filled[5:15, 60:70] == 255).all()
    assert (filled[5:15, 10:20] == 0).all()
    assert set(np.unique(filled[30:40, 30:50])) == {0, 255}
    np.testing.assert_array_equal(filled[~mask], alpha[~mask])
    np.testing.assert_allclose(np.argmax(filled[35] == 255), 40, atol=2)  # OpenCV puts the border within two pixels


def test_the_ripple_of_a_resampling_filter_is_no_soft_edge():
    """A Lanczos filter leaves alphas such as 3 and 251 beside hard edges."""
    large = Image.fromarray(logo(hard=True)).resize((4 * SIDE, 4 * SIDE), Image.Resampling.NEAREST)
    alpha = np.asarray(large.resize((SIDE + 5, SIDE + 5), Image.Resampling.LANCZOS).getchannel("A"))
    mask = np.zeros(alpha.shape, bool)
    mask[86:100] = True
    assert np.unique(alpha[~mask]).size > 20
    filled = fill_alpha(telea, alpha, mask)[mask]
    partial = (filled > 8) & (filled < 247)
    # Six edges cross the 14 rows of the hole; a ramp of one pixel has at most two partial pixels in a row.
    assert partial.sum() <= 6 * 14 * 2


def test_alpha_is_opaque_where_no_pixel_is_known():
    filled = fill_alpha(
        lambda *_: pytest.fail("the network was run"), np.zeros((20, 30), np.uint8), np.ones((20, 30), bool)
    )
    assert (filled == 255).all()


def test_a_soft_shadow_stays_soft():
    shadow = np.asarray(
        Image.fromarray((np.hypot(*np.mgrid[-60:60, -60:60]) < 30) * np.uint8(160)).filter(ImageFilter.GaussianBlur(8))
    )
    mask = np.zeros_like(shadow, bool)
    mask[55:65] = True
    filled = fill_alpha(telea, np.where(mask, np.uint8(255), shadow), mask)
    assert np.unique(filled[mask]).size > 50
    assert abs(filled.astype(int) - shadow)[mask].mean() < 8  # it is 2; cut at one half it would be 58


def test_visible_colours_are_spread_and_kept():
    rgb = np.zeros((41, 53, 3), np.uint8)
    alpha = np.zeros((41, 53), np.uint8)
    rgb[:, :10], alpha[:, :10] = (200, 30, 40), 255
    rgb[:, 40:], alpha[:, 40:] = (20, 60, 220), 130
    shown = spread_colours(rgb, alpha)
    visible = alpha > 0
    np.testing.assert_array_equal(shown[visible], rgb[visible])
    low, high = rgb[visible].min(axis=0), rgb[visible].max(axis=0)
    assert (shown >= low).all()  # between the colours that are there: no black
    assert (shown <= high).all()
    np.testing.assert_allclose(shown[:, 10:14].mean(axis=(0, 1)), (200, 30, 40), atol=40)  # the nearest counts most


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (257, 1), (300, 257)])
def test_colours_of_one_pixel_fill_a_picture_of_any_shape(shape):
    rgb, alpha = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    rgb[0, 0], alpha[0, 0] = (9, 99, 199), 255
    np.testing.assert_allclose(spread_colours(rgb, alpha), np.broadcast_to(rgb[0, 0], rgb.shape), atol=1)
    np.testing.assert_array_equal(spread_colours(rgb, np.zeros(shape, np.uint8)), rgb)  # no colour is visible


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_gray_and_palette_files_with_transparency_come_back_with_theirs(tmp_path: Path, mode):
    image = Image.fromarray(logo(hard=True)).convert("LA" if mode == "LA" else "RGBA")
    if mode == "P":
        image = image.quantize(16)
    image.save(tmp_path / "in.png")
    Image.fromarray(bar()).save(tmp_path / "mask.png")
    before = read_image(tmp_path / "in.png")
    job = Job(tmp_path / "in.png", tmp_path / "mask.png", tmp_path / "out.png")
    fill_job(telea, job, *read_job(job))
    after = read_image(tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").mode == ("LA" if mode == "LA" else "RGBA")
    np.testing.assert_array_equal(after.rgb[~bar()], before.rgb[~bar()])
    np.testing.assert_array_equal(after.alpha[~bar()], before.alpha[~bar()])
    assert set(np.unique(after.alpha)) == {0, 255}


def test_a_logo_of_16_bits_is_filled_as_one_of_8_and_keeps_its_known_bits():
    mask, pixels = bar(), logo()
    low_bits = np.random.default_rng(0).integers(0, 100, pixels.shape, np.uint16)
    deep = pixels.astype(np.uint16) * 257 - np.where(pixels > 0, low_bits, 0).astype(np.uint16)
    result = fill_picture(telea, Picture(deep[..., :3].copy(), deep[..., 3].copy()), mask)
    expected = fill_picture(telea, Picture(pixels[..., :3].copy(), pixels[..., 3].copy()), mask)
    filled = np.dstack([result.rgb, result.alpha])
    np.testing.assert_array_equal(filled[~mask], deep[~mask])
    np.testing.assert_array_equal(filled[mask], np.dstack([expected.rgb, expected.alpha])[mask] * np.uint16(257))
