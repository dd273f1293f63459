"""The HTML page in a real browser: it needs nothing beside it, its slider slides, its tables sort."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.records import PAGE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

#: A browser that asks nobody anything.
_ALONE = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def folder(photos, tmp_path_factory) -> Path:
    """Two methods and two masks, with a name that HTML would take for a tag."""
    out = tmp_path_factory.mktemp("page") / "out"
    models = ("<b>telea=telea", "interpolation")
    masks, metrics = ("EveryNLines", "ThickStrokes"), ("psnr", "ssim", "spectrum")
    evaluate(Request([f"photos={photos}"], models, out, masks=masks, metrics=metrics, processes=1))
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ALONE)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, folder, tmp_path) -> Iterator[Page]:
    """The page, alone in a folder; what it asks for or complains about fails the test."""
    shutil.copy(folder / PAGE, tmp_path / PAGE)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((tmp_path / PAGE).as_uri())
    yield page
    page.close()
    assert errors == []
    assert set(asked) <= {"file", "data"}
    assert asked.count("file") == 1  # the page itself


def seen(page: Page, slide: int = 0) -> np.ndarray:
    """What is drawn of a slide, uint8 H×W×3."""
    frame = page.locator(".frame").nth(slide)
    frame.scroll_into_view_if_needed()
    return np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB")).astype(int)


def test_a_slide_shows_one_version_left_of_the_line_and_another_right_of_it(page):
    assert page.locator(".frame").count() == 3
    slide = page.locator("[data-slide]").first
    left, right = slide.locator("select").nth(0), slide.locator("select").nth(1)
    names = ["known", "mask", "<b>telea", "interpolation", "truth"]
    assert left.locator("option").all_text_contents() == right.locator("option").all_text_contents() == names
    assert (left.input_value(), right.input_value()) == ("known", "<b>telea")

    def at(percent: int) -> np.ndarray:
        slide.locator("input").evaluate(f"e => {{ e.value = {percent}; e.dispatchEvent(new Event('input')); }}")
        return seen(page)

    right.select_option("truth")
    known, truth, half = at(100), at(0), at(50)
    width = half.shape[1]
    # the bar in the middle and its shadow are some 10 pixels wide
    np.testing.assert_array_equal(half[:, : width // 2 - 8], known[:, : width // 2 - 8])
    np.testing.assert_array_equal(half[:, width // 2 + 8 :], truth[:, width // 2 + 8 :])
    assert np.abs(known - truth)[:, 8:-8].max() > 50
    left.select_option("truth")
    assert np.abs(at(50) - truth)[:, [*range(8, width // 2 - 8), *range(width // 2 + 8, width - 8)]].max() == 0


def test_the_slider_follows_the_pointer_and_the_keys(page):
    slide = page.locator("[data-slide]").first
    box = slide.locator(".frame").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30)
    page.mouse.up()
    value = float(slide.locator("input").input_value())
    assert 75 < value < 85  # a slider's thumb has a width of its own
    page.keyboard.press("ArrowLeft")
    assert float(slide.locator("input").input_value()) == value - 0.5
    assert slide.locator(".frame").get_attribute("style").startswith(f"--at: {value - 0.5}".rstrip("0").rstrip("."))


def test_a_click_on_a_heading_sorts_by_it_and_another_the_other_way(page):
    table = page.locator("table").first

    def column(number: int) -> list[str]:
        return table.locator(f"tbody tr td:nth-child({number + 1})").all_text_contents()

    heading = table.locator("th").nth(2).locator("button")
    heading.click()
    numbers = [float(text.split()[0]) for text in column(2)]
    assert numbers == sorted(numbers)
    assert table.locator("th").nth(2).get_attribute("aria-sort") == "ascending"
    heading.click()
    assert [float(text.split()[0]) for text in column(2)] == sorted(numbers, reverse=True)
    table.locator("th").nth(1).locator("button").click()
    assert column(1) == ["<b>telea", "interpolation"]
    assert table.locator("th[aria-sort]").count() == 1


def test_the_screenshot_has_pictures_in_it(page):
    for image in page.locator("img").all():
        assert image.evaluate("e => e.complete && e.naturalWidth > 0")
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")).astype(int)
    coloured = (np.ptp(shot, axis=2) > 30).mean()
    assert coloured > 0.02  # the photographs; text and tables are gray
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # wide tables scroll by themselves
