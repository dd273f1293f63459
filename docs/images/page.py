"""Draw page.png and page.webp: the page of a glama-serve with its sample picture.

glama-serve --no-open &
python docs/images/page.py http://127.0.0.1:8080/
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
SIZE = {"width": 1200, "height": 760}

#: Width and height of the sample, and the strokes over things in it, in its pixels.
SAMPLE = 768, 512
STROKES = [
    [(371, 322), (378, 310), (384, 320), (378, 326)],
    [(594, 456), (608, 450), (617, 462), (598, 466), (592, 476), (612, 478), (606, 470)],
    [(186, 279), (198, 276), (208, 280)],
]

#: The still picture's width in pixels, and its colours, so that its file is small.
STILL_WIDTH, COLOURS = 900, 256

#: The animation's width in pixels, the milliseconds of a frame, and of the last one.
WIDTH, FRAME, LAST_FRAME = 800, 80, 2000


def main(url: str) -> None:
    """Draw both pictures.

    Args:
        url: the address of the server.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(url)
        page.locator("#empty [data-command=sample]").click()
        page.locator("#status", has_text="sample.jpg ·").wait_for()
        for _ in range(5):
            page.keyboard.press("[")
        frames = paint(page)
        still = frames[-1].resize(
            (STILL_WIDTH, STILL_WIDTH * SIZE["height"] // SIZE["width"]), Image.Resampling.LANCZOS
        )
        still.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(FOLDER / "page.png", optimize=True)
        frames += fill(page) + compare(page)
        browser.close()
    small = [
        frame.resize((WIDTH, WIDTH * SIZE["height"] // SIZE["width"]), Image.Resampling.LANCZOS) for frame in frames
    ]
    times = [FRAME] * (len(small) - 1) + [LAST_FRAME]
    options = {"quality": 60, "method": 6, "minimize_size": True}
    small[0].save(FOLDER / "page.webp", save_all=True, append_images=small[1:], duration=times, loop=0, **options)


def shoot(page: Page) -> Image.Image:
    """Return what the page shows."""
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return where a pixel of the sample is on the screen."""
    canvas = page.locator("#canvas").bounding_box()
    assert canvas is not None
    scale = min((canvas["width"] - 48) / SAMPLE[0], (canvas["height"] - 48) / SAMPLE[1])
    left, top = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    return left + (x - SAMPLE[0] / 2) * scale, top + (y - SAMPLE[1] / 2) * scale


def paint(page: Page) -> list[Image.Image]:
    """Paint the strokes, and return a frame for each move."""
    frames = [shoot(page)] * 4
    page.locator("#auto").uncheck()
    for stroke in STROKES:
        page.mouse.move(*place(page, *stroke[0]))
        frames.append(shoot(page))
        page.mouse.down()
        for point in stroke[1:]:
            page.mouse.move(*place(page, *point), steps=4)
            frames.append(shoot(page))
        page.mouse.up()
    return [*frames, *[shoot(page)] * 4]


def fill(page: Page) -> list[Image.Image]:
    """Fill the holes, and return frames of the result."""
    page.locator("section.fill [data-command=fill]").click()
    # no frames while the hole is filled: drawing them would take more time than the fill, whose time the page shows
    page.locator("#status", has_text="Filled in").wait_for()
    return [shoot(page)] * 10


def compare(page: Page) -> list[Image.Image]:
    """Move the line between before and after, and return a frame for each move."""
    page.locator("header [data-command=split]").click()
    x, y = place(page, SAMPLE[0] / 2, SAMPLE[1] / 2)
    page.mouse.move(x, y)
    page.mouse.down()
    frames = []
    for step in [*range(0, 300, 30), *range(300, -300, -40), *range(-300, 0, 40)]:
        page.mouse.move(x + step, y)
        frames.append(shoot(page))
    page.mouse.up()
    return frames


if __name__ == "__main__":
    main(sys.argv[1])
