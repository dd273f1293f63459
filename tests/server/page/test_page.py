"""The page in a real browser: open, paint, fill, undo, download, and what may go wrong."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from server.page.conftest import PAGE

from fakes.recording_server import RecordingServer
from glama_deploy.bundle import ANY_SIZE
from glama_deploy.inpainting.boxes import Rule, Span


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def find_span(missing: np.ndarray) -> Span:
    """Return what the page shows the network of an image with one hole."""
    (box,), _ = Rule(ANY_SIZE).find_boxes(missing)
    return box.span


def fill(inpainter, image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the image with its only hole filled as the page has it filled: the box around the hole is shown."""
    span = find_span(missing)
    result = image.copy()
    filled = inpainter(np.ascontiguousarray(image[span.slices]), missing[span.slices])
    result[span.slices][missing[span.slices]] = filled[missing[span.slices]]
    return result


def test_a_painted_hole_is_filled_as_python_fills_it_and_can_be_undone(screen, picture, noise, inpainter):
    screen.open(picture)
    screen.collect((140, 100), (180, 120), (170, 150))
    missing = screen.mask()
    assert 1500 < missing.sum() < 4000
    screen.run("fill")
    screen.status("Filled in")
    name, data = screen.download()
    assert name == "photo-filled.png"
    expected = fill(inpainter, noise, missing)
    np.testing.assert_array_equal(read(data), expected)
    assert (expected != noise).any()
    screen.press("Control+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), noise)
    np.testing.assert_array_equal(screen.mask(), missing)  # the strokes are there again
    screen.press("Control+Z")
    expect(screen.page.locator("[data-command=undo]")).to_be_disabled()
    screen.press("Control+Shift+Z")
    screen.press("Control+Shift+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), expected)


def test_letting_go_fills_at_once_unless_the_box_is_unchecked(screen, picture, server):
    screen.open(picture)
    screen.drag((60, 60), (80, 60))
    screen.status("Filled in")
    screen.page.locator("#auto").uncheck()
    screen.drag((200, 60), (220, 60))
    assert screen.mask().any()
    assert len(server.asked) == 1


def test_several_holes_are_filled_in_one_run_and_undone_together(screen, picture, noise, server):
    screen.open(picture)
    screen.collect((30, 30), (40, 30))
    screen.collect((290, 210), (300, 210))
    assert server.asked == []
    missing = screen.mask()
    screen.press("f")
    screen.status("Filled in")
    result = read(screen.download()[1])
    assert len(server.asked) == 2  # two boxes that do not overlap
    np.testing.assert_array_equal(result[~missing], noise[~missing])
    for corner in (np.s_[:120, :160], np.s_[120:, 160:]):
        assert (result[corner] != noise[corner]).any()
    screen.press("Control+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), noise)


def test_of_a_picture_of_24_megapixels_only_the_box_is_sent(screen, server, tmp_path, inpainter):
    rows = np.linspace(0, 200, 4000, dtype=np.uint8)
    image = np.repeat(np.repeat(rows[:, None, None], 6000, axis=1), 3, axis=2)
    path = tmp_path / "large.png"
    Image.fromarray(image).save(path, compress_level=1)
    screen.open(path)
    screen.collect((3000, 2000), (3100, 2050))
    missing = screen.mask()
    screen.run("fill")
    screen.status("Filled in")
    (asked,) = server.asked
    assert read(asked["image"]).shape[:2] == find_span(missing).size
    assert read(asked["image"]).size < image.size / 20
    np.testing.assert_array_equal(read(screen.download()[1]), fill(inpainter, image, missing))


def test_tools_draw_their_shapes_into_the_mask(screen, picture):
    screen.open(picture)
    screen.press("r")
    screen.collect((40.2, 50.2), (99.8, 79.8))
    expected = np.zeros((240, 320), bool)
    expected[50:80, 40:100] = True
    np.testing.assert_array_equal(screen.mask(), expected)
    screen.press("e")
    screen.drag((40, 65), (100, 65))  # 40 screen pixels at twice the size: 10 pixels on each side of the line
    mask = screen.mask()
    assert not mask[56:74, 40:100].any()
    assert mask[50:54, 45:95].all()
    screen.press("l")
    screen.collect((200, 100), (260, 100), (230, 160), (200, 100))
    mask = screen.mask()
    assert mask[110, 230]
    assert not mask[150, 205]
    assert abs(mask[95:165, 195:265].sum() - 60 * 60 / 2) < 60  # the triangle's area, and half of its outline


def test_masks_are_inverted_grown_shrunk_cleared_saved_and_opened(screen, picture, tmp_path):
    drawn = np.zeros((240, 320), np.uint8)
    drawn[100:140, 120:200] = 255
    drawn[0, 0] = 127  # known: missing is above 127
    path = tmp_path / "mask.png"
    Image.fromarray(drawn).save(path)
    screen.open(picture)
    screen.page.locator("#mask").set_input_files(path)
    expected = drawn > 127
    np.testing.assert_array_equal(screen.mask(), expected)
    screen.press("+")
    grown = np.zeros_like(expected)
    grown[96:144, 116:204] = True
    np.testing.assert_array_equal(screen.mask(), grown)
    screen.press("-")
    np.testing.assert_array_equal(screen.mask(), expected)
    screen.press("i")
    np.testing.assert_array_equal(screen.mask(), ~expected)
    for _ in range(3):
        screen.press("Control+Z")
    np.testing.assert_array_equal(screen.mask(), expected)
    screen.press("Delete")
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()


@pytest.mark.parametrize("name", ["mask.png", "PHOTO-mask.png", "photo_mask001.png"])
def test_a_mask_that_is_opened_with_its_picture_becomes_the_mask(screen, picture, tmp_path, name):
    drawn = np.zeros((240, 320), np.uint8)
    drawn[100:140, 120:200] = 255
    Image.fromarray(drawn).save(tmp_path / name)
    screen.page.locator("#files").set_input_files([picture, tmp_path / name])
    screen.status(f"{name} is the mask now.")
    np.testing.assert_array_equal(screen.mask(), drawn > 127)
    assert screen.page.locator("#strip li").count() == 1


def test_a_file_named_mask_is_a_picture_where_no_picture_is_its_own(screen, picture, tmp_path):
    names = ["mask.png", "other.png", "sky_mask.png"]
    for name in names:
        shutil.copy(picture, tmp_path / name)
    screen.open(*(tmp_path / name for name in names))
    screen.page.locator("#strip li").nth(2).wait_for()


def test_a_click_that_closes_a_menu_paints_nothing(screen, picture):
    screen.open(picture)
    menu = screen.page.locator("details.menu").first
    menu.locator("summary").click()
    expect(menu).to_have_attribute("open", "")
    screen.page.mouse.click(*screen.at(200, 120))
    expect(menu).not_to_have_attribute("open", "")
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()  # no pixel is missing
    screen.page.locator("#auto").uncheck()
    screen.page.mouse.click(*screen.at(200, 120))
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_enabled()


def test_a_click_before_the_script_has_run_is_not_lost(screen):
    slow = "await new Promise((resume) => setTimeout(resume, 500));\n" + (PAGE / "main.js").read_text(encoding="utf-8")
    screen.page.route("**/page/main.js", lambda route: route.fulfill(body=slow, content_type="text/javascript"))
    screen.page.reload(wait_until="commit")
    screen.page.locator("#empty [data-command=sample]").click()
    screen.status("sample.jpg · 768 × 512")


def test_a_cancelled_fill_leaves_the_mask_and_tells_the_server(screen, picture, server, wait_until):
    screen.open(picture)
    server.hold.clear()
    screen.drag((140, 100), (180, 120))
    wait_until(lambda: server.asked)
    screen.press("Escape")
    screen.status("Cancelled")
    wait_until(lambda: server.cancelled)
    assert server.cancelled == [server.asked[0]["id"].decode()]
    server.hold.set()
    assert screen.mask().any()
    screen.press("f")
    screen.status("Filled in")


def test_a_fill_is_cancelled_while_it_is_encoded_and_a_later_stroke_is_filled(screen, picture, noise, server):
    screen.open(picture)
    screen.hold_encoder()
    screen.drag((40, 40), (60, 40))
    screen.press("Escape")
    screen.status("Cancelling")
    screen.drag((260, 200), (280, 200))
    screen.let_encoder_go()
    screen.status("Filled in")
    screen.page.locator("#progress").wait_for(state="hidden")
    assert len(server.asked) == 2  # the boxes of the second fill, which has both strokes; the first sent nothing
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()
    screen.press("Control+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), noise)


def test_strokes_that_are_painted_during_a_fill_are_filled_next(screen, picture, server, wait_until):
    screen.open(picture)
    server.hold.clear()
    screen.drag((40, 40), (60, 40))
    wait_until(lambda: server.asked)
    screen.drag((260, 200), (280, 200))
    server.hold.set()
    wait_until(lambda: len(server.asked) == 2)
    screen.status("Filled in")
    screen.page.locator("#progress").wait_for(state="hidden")
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()


def test_a_stroke_that_goes_on_while_a_fill_ends_is_undone_alone(screen, picture, noise, server, wait_until):
    screen.open(picture)
    server.hold.clear()
    screen.drag((40, 40), (60, 40))
    wait_until(lambda: server.asked)
    screen.page.mouse.move(*screen.at(50, 40))
    screen.page.mouse.down()
    screen.page.mouse.move(*screen.at(100, 40), steps=5)
    server.hold.set()
    screen.page.locator("#progress").wait_for(state="hidden")
    screen.page.keyboard.down("Shift")
    screen.page.mouse.up()
    screen.page.keyboard.up("Shift")
    painted = screen.mask()
    screen.press("Control+Z")
    assert painted.any()
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()
    screen.press("Control+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), noise)
    first = screen.mask()
    screen.press("Control+Z")
    expect(screen.page.locator("section.fill [data-command=fill]")).to_be_disabled()
    for _ in range(3):
        screen.press("Control+Shift+Z")
    np.testing.assert_array_equal(screen.mask(), painted)
    assert first.any()


def test_space_pans_although_a_button_has_the_focus(screen, picture):
    screen.open(picture)
    screen.run("eraser")
    screen.page.mouse.move(*screen.at(160, 120))
    screen.page.keyboard.down("Space")
    expect(screen.page.locator("#canvas")).to_have_attribute("data-cursor", "grab")
    screen.page.keyboard.up("Space")
    expect(screen.page.locator("#canvas")).to_have_attribute("data-cursor", "eraser")


def test_a_busy_server_is_asked_again(screen, picture, server):
    server.refuse.append((503, {"Retry-After": "1"}, {"error": "too many requests", "code": "busy"}))
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.status("The server is busy")
    screen.status("Filled in")
    assert len(server.asked) == 1
    assert "503" in screen.errors.pop()  # Chromium logs each answer that is an error


def test_an_error_of_the_server_is_shown_and_can_be_tried_again(screen, picture, server):
    server.refuse.append((422, {}, {"error": "precision is 'x'; expected fp32", "code": "precision"}))
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.page.locator("#alert", has_text="precision is 'x'; expected fp32").wait_for()
    screen.page.locator("#retry").click()
    screen.status("Filled in")
    expect(screen.page.locator("#alert")).to_be_hidden()
    assert "422" in screen.errors.pop()


def test_the_page_outlives_a_restart_of_the_server(screen, picture):
    server = RecordingServer()
    screen.page.goto(server.url)
    screen.hosts.remove(f"127.0.0.1:{server.port}")
    screen.open(picture)
    server.stop()
    screen.drag((140, 100), (180, 120))
    screen.page.locator("#alert", has_text="The server does not answer").wait_for()
    assert screen.mask().any()
    again = RecordingServer(server.port)
    try:
        screen.page.locator("#retry").click()
        screen.status("Filled in")
    finally:
        again.stop()
    screen.hosts.remove(f"127.0.0.1:{server.port}")
    assert "ERR_CONNECTION_REFUSED" in screen.errors.pop()


def is_same(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two views are the same but for the edges of tiles, where scaling does not mix two pixels."""
    return bool((np.abs(one - other).max(axis=2) > 2).mean() < 0.002)


def test_the_original_is_shown_left_of_the_line_and_while_tab_is_held(screen, picture):
    screen.replace("commands.js", "HOLD_MILLISECONDS = 250", "HOLD_MILLISECONDS = 0")  # a shorter press moves the focus
    screen.open(picture)
    screen.page.mouse.move(5, 5)
    before = screen.seen()
    screen.press("r")
    screen.drag((80, 60), (240, 180))
    screen.status("Filled in")
    screen.page.mouse.move(5, 5)
    after = screen.seen()
    half = before.shape[1] // 2
    changed = np.abs(after - before).max(axis=2) > 20
    assert changed[:, :half].any()
    assert changed[:, half:].any()
    screen.run("split")
    screen.page.mouse.move(5, 5)
    both = screen.seen()
    # the line, its handle and its labels are some 100 pixels wide, and lie outside of the picture or in its middle
    inner = np.s_[60:-60, half - 140 : half - 20], np.s_[60:-60, half + 20 : half + 140]
    assert is_same(both[inner[0]], before[inner[0]])
    assert is_same(both[inner[1]], after[inner[1]])
    screen.run("split")
    screen.page.locator("#canvas").focus()
    screen.page.mouse.move(5, 5)
    screen.page.keyboard.down("Tab")
    assert is_same(screen.seen()[60:-60, 60:-60], before[60:-60, 60:-60])
    screen.page.keyboard.up("Tab")
    assert is_same(screen.seen()[60:-60, 60:-60], after[60:-60, 60:-60])
    assert screen.page.evaluate("document.activeElement.id") == "canvas"


def test_models_are_compared_on_one_mask_and_one_result_is_used(screen, picture, server, noise, inpainter):
    screen.open(picture)
    screen.collect((140, 100), (180, 120))
    missing = screen.mask()
    screen.press("c")
    screen.page.locator("#compare-run").click()
    expect(screen.page.locator(".results figure")).to_have_count(len(server.precisions))
    assert [asked["precision"].decode() for asked in server.asked] == server.precisions
    screen.page.locator(".results button").first.click()
    np.testing.assert_array_equal(read(screen.download()[1]), fill(inpainter, noise, missing))


def test_a_closed_comparison_leaves_the_last_fill_and_the_history(screen, picture, noise, server, wait_until):
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    filled = read(screen.download()[1])
    assert not screen.warns_at_the_end()
    dialog = screen.page.locator("#compare")
    screen.press("c")
    expect(dialog.locator(".hint")).to_have_text(re.compile("The mask of the last fill.*or close to keep it"))
    expect(dialog).not_to_contain_text("Nothing changes")
    expect(dialog.locator(".status")).to_have_text("")
    screen.page.locator("#compare-run").click()
    expect(screen.page.locator(".results figure")).to_have_count(len(server.precisions))
    dialog.locator("form button").last.click()
    wait_until(lambda: server.precision == "fp32")
    expect(dialog).to_be_hidden()
    np.testing.assert_array_equal(read(screen.download()[1]), filled)
    assert not screen.warns_at_the_end()
    expect(screen.page.locator("[data-command=redo]")).to_be_disabled()
    screen.press("Control+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), noise)
    assert screen.mask().any()
    screen.press("Control+Z")
    expect(screen.page.locator("[data-command=undo]")).to_be_disabled()


def test_a_compared_result_replaces_the_last_fill(screen, picture, noise, server):
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    first = read(screen.download()[1])
    screen.press("c")
    screen.page.locator("#compare-run").click()
    expect(screen.page.locator(".results figure")).to_have_count(len(server.precisions))
    screen.page.locator(".results button").last.click()
    screen.status("Filled in")
    second = read(screen.download()[1])
    # a CPU without bf16 has one precision, so the last result is the fill once more
    assert (second != first).any() == (len(server.precisions) > 1)
    screen.press("Control+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), noise)
    assert screen.mask().any()
    screen.press("Control+Shift+Z")
    np.testing.assert_array_equal(read(screen.download()[1]), second)


def test_a_picture_that_is_dropped_on_a_comparison_leaves_the_fill_of_the_first(screen, picture):
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    filled = read(screen.download()[1])
    screen.press("c")
    expect(screen.page.locator("#compare")).to_be_visible()
    screen.page.evaluate(
        """async data => {
            const it = new DataTransfer();
            it.items.add(new File([new Uint8Array(data)], "second.png", {type: "image/png"}));
            dispatchEvent(new ClipboardEvent("paste", {clipboardData: it}));
        }""",
        list(picture.read_bytes()),
    )
    screen.status("second.png ·")
    expect(screen.page.locator("#compare")).to_be_hidden()
    screen.press("PageUp")
    screen.status("photo.png ·")
    np.testing.assert_array_equal(read(screen.download()[1]), filled)


def test_messages_do_not_outlive_what_they_tell(screen, picture):
    status = screen.page.locator("#status")
    screen.open(picture)
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    screen.press("Control+Z")
    expect(status).to_have_text("Undone.")
    screen.press("Control+Shift+Z")
    expect(status).to_have_text("Redone.")
    screen.press("Control+Z")
    screen.press("+")
    expect(status).to_have_text("")
    screen.press("f")
    screen.status("Filled in")
    screen.collect((40, 40), (60, 40))
    expect(status).to_have_text("")


def test_a_second_press_of_run_starts_no_second_comparison(screen, picture, server, wait_until):
    screen.open(picture)
    screen.collect((140, 100), (180, 120))
    screen.press("c")
    server.hold.clear()
    for _ in range(2):
        screen.page.locator("#compare-run").evaluate("button => button.click()")
    wait_until(lambda: server.asked)
    server.hold.set()
    expect(screen.page.locator("#compare-run")).to_be_enabled()
    expect(screen.page.locator(".results figure")).to_have_count(len(server.precisions))
    assert [asked["precision"].decode() for asked in server.asked] == server.precisions
    screen.page.locator("#compare form button").last.click()
    wait_until(lambda: server.precision == "fp32")


def test_a_comparison_does_not_start_during_a_fill(screen, picture, server, wait_until):
    screen.open(picture)
    server.hold.clear()
    screen.drag((140, 100), (180, 120))
    wait_until(lambda: server.asked)
    expect(screen.page.locator("[data-command=compare]")).to_be_disabled()
    screen.press("c")
    expect(screen.page.locator("#compare")).to_be_hidden()
    screen.press("Escape")
    screen.status("Cancelled")


def test_a_strip_of_pictures_keeps_the_changes_of_each(screen, noise, tmp_path):
    paths = []
    for number in (1, 2, 10):
        paths.append(tmp_path / f"photo-{number}.png")
        Image.fromarray(np.roll(noise, number, axis=1)).save(paths[-1])
    screen.open(*paths)
    names = screen.page.locator("#strip li button").evaluate_all("all => all.map(each => each.title)")
    assert names == ["photo-1.png", "photo-2.png", "photo-10.png"]
    screen.drag((140, 100), (180, 120))
    screen.status("Filled in")
    screen.press("PageDown")
    screen.status("photo-2.png")
    name, data = screen.download()
    assert name == "photo-2-filled.png"
    np.testing.assert_array_equal(read(data), np.roll(noise, 2, axis=1))
    screen.press("PageUp")
    screen.status("photo-1.png")
    assert (read(screen.download()[1]) != np.roll(noise, 1, axis=1)).any()
    expect(screen.page.locator("[data-command=undo]")).to_be_enabled()


def test_a_picture_is_pasted_and_dropped_and_the_sample_opened(screen, picture):
    data = list(picture.read_bytes())
    file = "new File([new Uint8Array(data)], 'in.png', {type: 'image/png'})"
    make = f"const it = new DataTransfer(); it.items.add({file});"
    paste = "dispatchEvent(new ClipboardEvent('paste', {clipboardData: it}))"
    screen.page.evaluate(f"data => {{ {make} {paste} }}", data)
    screen.status("in.png · 320 × 240")
    drop = "dispatchEvent(new DragEvent('drop', {dataTransfer: it, cancelable: true}))"
    screen.page.evaluate(f"data => {{ {make} {drop} }}", data)
    screen.page.locator("#strip li").nth(1).wait_for()
    screen.page.reload()
    screen.page.locator("#empty [data-command=sample]").click()
    screen.status("sample.jpg · 768 × 512")


def test_a_file_that_is_no_picture_is_refused_by_name(screen, tmp_path):
    path = tmp_path / "broken.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    screen.page.locator("#files").set_input_files(path)
    screen.page.locator("#alert", has_text="broken.png is not a picture").wait_for()
    expect(screen.page.locator("#empty")).to_be_visible()
