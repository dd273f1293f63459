"""The page for everybody: touch, pen, keys, screen readers, narrow and dark screens."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

#: The rules of accessibility that are checked: a package of npm that only these tests use.
AXE = "axe-core@4.14.1"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """The script that checks a page."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here, which fetches axe-core (Debian: apt-get install npm)")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run([npm, "pack", "--silent", AXE], cwd=folder, check=True, timeout=120)
    (package,) = folder.glob("*.tgz")
    data = package.read_bytes()
    assert hashlib.sha256(data).hexdigest() == AXE_SHA256
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def find_faults(page: Page, axe: str) -> list[str]:
    """Return what axe-core calls serious or critical."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"]
    return [
        f"{fault['id']}: {node['html']}"
        for fault in found["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing_serious(screen, picture, server, axe, theme, width):
    page = screen.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)
    assert find_faults(page, axe) == []
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    screen.run("split")
    assert find_faults(page, axe) == []
    page.locator(".menu summary").click()
    assert find_faults(page, axe) == []
    screen.press("Escape")
    screen.press("?")
    expect(page.locator("#help")).to_be_visible()
    assert find_faults(page, axe) == []
    screen.press("Escape")
    screen.press("c")
    page.locator("#compare-run").click()
    expect(page.locator(".results figure")).to_have_count(len(server.precisions))
    assert find_faults(page, axe) == []


def test_a_hole_is_painted_filled_and_undone_with_keys_alone(screen, picture):
    screen.open(picture)
    screen.page.locator("#canvas").focus()
    screen.press("b")
    for key in ("ArrowLeft", "ArrowUp", "Enter", "ArrowRight", "ArrowRight", "ArrowDown"):
        screen.press(key)
    screen.press("Shift+Enter")  # collects, as Shift does for the mouse
    rows, columns = np.nonzero(screen.mask())
    # the brush went from 12 screen pixels left and above of the middle to 12 right of it, at twice the picture's size
    assert (rows.min(), columns.min()) == (120 - 6 - 10, 160 - 6 - 10)
    assert (rows.max() + 1, columns.max() + 1) == (120 + 10, 160 + 6 + 10)
    screen.press("f")
    screen.status("Filled in")
    screen.press("Control+Z")
    assert screen.mask().any()


def test_a_short_tab_moves_the_focus_from_the_picture(screen, picture):
    screen.replace("commands.js", "HOLD_MILLISECONDS = 250", "HOLD_MILLISECONDS = 1e9")  # every press is short
    screen.open(picture)
    canvas = screen.page.locator("#canvas")
    canvas.focus()
    screen.press("Tab")
    expect(canvas).not_to_be_focused()
    canvas.focus()
    screen.press("Shift+Tab")
    expect(canvas).not_to_be_focused()


def test_keys_change_tools_and_the_size_of_the_brush(screen, picture):
    screen.open(picture)
    size = screen.page.locator("#size-text")
    expect(size).to_have_text("40 px")
    screen.press("]")
    expect(size).to_have_text("46 px")
    screen.press("[")
    expect(size).to_have_text("40 px")
    screen.page.mouse.move(*screen.at(100, 100))
    screen.page.keyboard.down("Alt")
    screen.page.mouse.wheel(0, -100)
    screen.page.keyboard.up("Alt")
    expect(size).to_have_text("46 px")
    for key, name in {"e": "eraser", "l": "lasso", "r": "rectangle", "m": "hand", "b": "brush"}.items():
        screen.press(key)
        expect(screen.page.locator(f"[data-command={name}]")).to_have_attribute("aria-pressed", "true")


def test_the_wheel_zooms_at_the_pointer_and_space_drags(screen, picture):
    screen.open(picture)
    expect(screen.page.locator("#scale")).to_have_text("200 %")
    place = screen.at(80, 60)
    screen.page.mouse.move(*place)
    screen.page.mouse.wheel(0, -300)
    expect(screen.page.locator("#scale")).not_to_have_text("200 %")
    screen.page.keyboard.down("Shift")
    screen.page.mouse.down()
    screen.page.mouse.up()
    screen.page.keyboard.up("Shift")
    rows, columns = np.nonzero(screen.mask())
    middle = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
    np.testing.assert_allclose(middle, (60, 80), atol=1)  # the pixel under the pointer stayed there
    screen.page.locator("#canvas").focus()
    screen.page.keyboard.down("Space")
    screen.page.mouse.move(*place)
    screen.page.mouse.down()
    screen.page.mouse.move(place[0] + 50, place[1])
    screen.page.mouse.up()
    screen.page.keyboard.up("Space")
    np.testing.assert_array_equal(np.nonzero(screen.mask())[0], rows)  # nothing was painted
    screen.press("0")
    expect(screen.page.locator("#scale")).to_have_text("200 %")


#: Controls that a finger or a mouse does not reach: another element lies there, or the place is outside of the window.
COVERED = """() => {
    const all = [...document.querySelectorAll("button, summary, select, input, a")];
    const isCovered = (element) => {
        if (element.closest("#strip li")) return false;  // the strip is scrolled
        const {left, top, width, height} = element.getBoundingClientRect();
        const found = document.elementFromPoint(left + width / 2, top + height / 2);
        return !found || !(element.contains(found) || element.closest("label")?.contains(found));
    };
    return all.filter((each) => each.checkVisibility({opacityProperty: true}) && isCovered(each))
        .map((each) => each.dataset.command ?? each.outerHTML);
}"""


@pytest.mark.parametrize(("width", "height"), [(1200, 800), (844, 390), (640, 360), (390, 780)])
def test_every_control_can_be_reached_on_low_and_narrow_screens(screen, picture, noise, tmp_path, width, height):
    page, second = screen.page, tmp_path / "second.png"
    Image.fromarray(noise).save(second)
    page.set_viewport_size({"width": width, "height": height})
    assert page.evaluate(COVERED) == []
    screen.open(picture, second)
    assert page.evaluate(COVERED) == []
    page.locator(".menu summary").click()
    sheet = page.locator(".sheet").bounding_box()
    assert sheet["x"] >= 0
    assert sheet["y"] >= 0
    assert sheet["x"] + sheet["width"] <= width
    assert sheet["y"] + sheet["height"] <= height
    for button in page.locator(".sheet button").all():
        button.scroll_into_view_if_needed()
        assert button.evaluate("""element => {
            const {left, top, width, height} = element.getBoundingClientRect();
            return element.contains(document.elementFromPoint(left + width / 2, top + height / 2));
        }""")
    screen.press("Escape")
    canvas = page.locator("#canvas").bounding_box()
    assert (
        canvas["height"] >= height / 3
    )  # most of a low screen is left to the picture and the tools beside the picture


def test_progress_is_shown_without_being_read_out_each_time(screen, picture, server, wait_until):
    screen.open(picture)
    server.hold.clear()
    screen.page.evaluate("""() => {
        window.told = [], window.shown = new Set();
        const observe = (id, note) => {
            const element = document.getElementById(id);
            new MutationObserver(() => note(element.textContent)).observe(element, {childList: true});
        };
        observe("status", (text) => told.push(text));
        observe("elapsed", (text) => shown.add(text));
    }""")
    screen.drag((140, 100), (180, 120))
    wait_until(lambda: screen.page.evaluate("shown.size") >= 3)
    server.hold.set()
    screen.status("Filled in")
    started, ended = screen.page.evaluate("told")
    assert started == "Filling …"
    assert ended.startswith("Filled in")
    expect(screen.page.locator("#elapsed")).to_have_text("")


def test_space_presses_a_button_that_the_keyboard_chose(screen, picture):
    screen.open(picture)
    screen.press("b")  # from here the page is used by keys
    screen.page.locator(".menu summary").focus()
    screen.page.mouse.move(*screen.at(160, 120))  # the mouse rests over the picture
    screen.press("Space")
    expect(screen.page.locator(".menu")).to_have_attribute("open", "")


def test_a_stroke_of_the_mouse_ends_one_of_the_keys_and_both_are_undone_alone(screen, picture):
    screen.open(picture)
    screen.page.locator("#auto").uncheck()
    screen.page.locator("#canvas").focus()
    for key in ("Enter", "ArrowRight", "ArrowRight"):
        screen.press(key)
    screen.drag((40, 40), (60, 40))
    both = screen.mask()
    screen.press("Control+Z")
    by_keys = screen.mask()
    assert by_keys[120, 160]
    assert not by_keys[40, 50]
    np.testing.assert_array_equal(both & ~by_keys, both & (np.arange(240) < 100)[:, None])
    screen.press("Control+Z")
    expect(screen.page.locator("[data-command=undo]")).to_be_disabled()
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()


class Fingers:
    """Fingers on the screen of a phone."""

    def __init__(self, page: Page) -> None:
        self._client = page.context.new_cdp_session(page)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """Send an event (Start, Move or End) with the places of all fingers."""
        places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self._client.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})


def test_a_finger_paints_and_two_fingers_zoom(phone, server, picture):
    phone.goto(server.url)
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    phone.locator("body:not([inert])").wait_for(state="attached")  # the script listens
    phone.locator("#files").set_input_files(picture)
    phone.locator("#status", has_text="photo.png ·").wait_for()
    box = phone.locator("#canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    before = phone.locator("#scale").text_content()
    fingers = Fingers(phone)
    fingers.touch("Start", (x - 30, y))
    fingers.touch("Start", (x - 30, y), (x + 30, y))
    fingers.touch("Move", (x - 90, y), (x + 90, y))
    fingers.touch("End")
    zoomed = phone.locator("#scale").text_content()
    assert abs(int(zoomed.split()[0]) / int(before.split()[0]) - 3) < 0.2
    expect(phone.locator("header [data-command=undo]")).to_be_disabled()  # what the first finger painted is gone
    fingers.touch("Start", (x, y))
    fingers.touch("Move", (x + 20, y + 10))
    fingers.touch("End")
    phone.locator("#status", has_text="Filled in").wait_for()
    expect(phone.locator("header [data-command=undo]")).to_be_enabled()


def test_a_pens_pressure_changes_the_width(screen, picture):
    screen.open(picture)
    screen.page.locator("#auto").uncheck()
    client = screen.page.context.new_cdp_session(screen.page)

    def widen(force: float, row: int) -> int:
        x, y = screen.at(100, row)
        pen = {"pointerType": "pen", "button": "left", "clickCount": 1, "force": force}
        client.send("Input.dispatchMouseEvent", {"type": "mousePressed", "x": x, "y": y, "buttons": 1, **pen})
        client.send("Input.dispatchMouseEvent", {"type": "mouseReleased", "x": x, "y": y, **pen})
        return int(screen.mask()[row].sum())

    light, firm = widen(0.2, 60), widen(1.0, 160)
    assert 4 <= light < firm == 20


def test_the_theme_follows_the_system_and_can_be_switched(screen):
    root, page = screen.page.locator("html"), screen.page
    page.emulate_media(color_scheme="dark")
    expect(root).to_have_attribute("data-theme", "dark")
    page.emulate_media(color_scheme="light")
    expect(root).to_have_attribute("data-theme", "light")
    screen.run("theme")
    expect(root).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(root).to_have_attribute("data-theme", "dark")


def test_every_text_of_the_page_comes_from_the_file_of_texts(screen):
    html = (Path(__file__).parents[3] / "glama_deploy" / "server" / "page" / "index.html").read_text(encoding="utf-8")
    body = html.partition("<body inert>")[2]
    words = [text.strip() for text in re.findall(r">([^<>]+)<", body) if text.strip()]
    assert words == ["glama", "px"]  # a name and a unit
    for button in screen.page.locator("button, input:visible, select:visible, summary").all():
        name = button.evaluate("e => e.ariaLabel || e.innerText.trim() || e.title || e.labels?.[0]?.textContent.trim()")
        assert name, button.evaluate("e => e.outerHTML")
        assert "undefined" not in name
