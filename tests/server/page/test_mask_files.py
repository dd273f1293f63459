"""Mask files that a person opens in the page are read and refused as the command line reads and refuses them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import expect

from glama_deploy.inpainting.folder import read_job
from glama_deploy.inpainting.pairing import Job
from glama_deploy.io.mask_files import read_mask

RED = (230, 40, 60)


def make_layer(colour: tuple[int, int, int], blur: float = 0, opacity: float = 1) -> Image.Image:
    """Make a transparent layer of 320×240 pixels with a stroke."""
    stroke = Image.new("L", (320, 240))
    ImageDraw.Draw(stroke).line([(90, 80), (150, 130), (230, 90)], fill=255, width=25)
    alpha = stroke.filter(ImageFilter.GaussianBlur(blur)).point(lambda value: round(opacity * value))
    layer = Image.new("RGB", alpha.size, colour)
    layer.putalpha(alpha)
    return layer


def open_mask(screen, image: Image.Image, path: Path) -> None:
    image.save(path)
    screen.page.locator("#mask").set_input_files(path)


@pytest.mark.parametrize(("blur", "opacity"), [(0, 1), (3, 1), (0, 0.6)], ids=["hard", "soft", "half opaque"])
@pytest.mark.parametrize("colour", [RED, (255, 255, 255), (64, 64, 64)])
def test_a_painted_layer_is_read_by_its_opacity_as_python_reads_it(screen, picture, tmp_path, colour, blur, opacity):
    screen.open(picture)
    open_mask(screen, make_layer(colour, blur, opacity), tmp_path / "layer.png")
    screen.status("layer.png is the mask now.")
    expected = read_mask(tmp_path / "layer.png")
    assert 3000 < expected.sum() < 9000
    np.testing.assert_array_equal(screen.mask(), expected)


def make_other_layers() -> dict[str, Image.Image]:
    two = make_layer(RED)
    two.paste((40, 60, 230, 255), (10, 10, 60, 60))
    faint = make_layer(RED)
    faint.putalpha(faint.getchannel("A").point(lambda value: max(value, 20)))  # no pixel is quite transparent
    return {"black": make_layer((0, 0, 0)), "two colours": two, "nowhere transparent": faint}


@pytest.mark.parametrize("kind", ["black", "two colours", "nowhere transparent"])
def test_other_transparent_masks_are_refused_and_the_mask_stays(screen, picture, tmp_path, kind):
    screen.open(picture)
    screen.collect((40, 40), (60, 40))
    before = screen.mask()
    open_mask(screen, make_other_layers()[kind], tmp_path / "layer.png")
    alert = screen.page.locator("#alert p")
    expect(alert).to_have_text(re.compile("layer.png has transparent pixels.*Save the mask as black"))
    np.testing.assert_array_equal(screen.mask(), before)


def make_mask(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 4, height // 4, width // 2, height // 2))
    return mask


@pytest.mark.parametrize("size", [(160, 120), (107, 80), (640, 480), (400, 301), (320, 240)])
def test_a_mask_of_the_pictures_proportions_is_scaled_as_python_scales_it(screen, picture, tmp_path, size):
    screen.open(picture)
    path = tmp_path / "mask.png"
    open_mask(screen, make_mask(*size), path)
    scaled = "" if size == (320, 240) else f" It was scaled from {size[0]} × {size[1]} pixels."
    expect(screen.page.locator("#status")).to_have_text(f"mask.png is the mask now.{scaled}")
    _, expected = read_job(Job(picture, path, tmp_path / "out.png"))
    np.testing.assert_array_equal(screen.mask(), expected)


@pytest.mark.parametrize("size", [(240, 320), (320, 320), (320, 243), (100, 77)])
def test_a_mask_of_other_proportions_is_refused_and_the_mask_stays(screen, picture, tmp_path, size):
    screen.open(picture)
    open_mask(screen, make_mask(*size), tmp_path / "mask.png")
    expect(screen.page.locator("#alert p")).to_have_text(
        f"mask.png has {size[0]} × {size[1]} pixels, the picture 320 × 240. They must have the same proportions."
    )
    expect(screen.page.locator("[data-command=undo]")).to_be_disabled()


def test_a_mask_that_is_turned_by_its_exif_is_read_upright(screen, picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "mask.png"
    make_mask(240, 320).save(path, exif=exif)
    screen.open(picture)
    screen.page.locator("#mask").set_input_files(path)
    screen.status("mask.png is the mask now.")
    np.testing.assert_array_equal(screen.mask(), read_mask(path))


def test_opening_a_mask_removes_the_messages_about_the_mask_before(screen, picture, tmp_path):
    alert, status = screen.page.locator("#alert"), screen.page.locator("#status")
    screen.open(picture)
    open_mask(screen, Image.new("L", (320, 240)), tmp_path / "black.png")
    expect(alert).to_contain_text("black.png has no bright pixel")
    open_mask(screen, make_mask(160, 120), tmp_path / "small.png")
    expect(status).to_have_text("small.png is the mask now. It was scaled from 160 × 120 pixels.")
    expect(alert).to_be_hidden()
    open_mask(screen, make_mask(320, 240), tmp_path / "mask.png")
    expect(status).to_have_text("mask.png is the mask now.")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    screen.page.locator("#mask").set_input_files(tmp_path / "broken.png")
    expect(alert).to_contain_text("broken.png is not a picture")
    expect(status).to_have_text("")
    screen.collect((40, 40), (60, 40))
    expect(alert).to_be_hidden()
