"""Several open pictures: changes are kept, told and downloaded, also where memory is short or a file is damaged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Download, expect


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture
def paths(noise, tmp_path) -> list[Path]:
    """Three files: a JPEG and two PNG."""
    names = ("photo-1.jpg", "photo-2.png", "photo-3.png")
    for number, name in enumerate(names):
        Image.fromarray(np.roll(noise, number, axis=1)).save(tmp_path / name, dpi=(300, 300))
    return [tmp_path / name for name in names]


@pytest.fixture
def short(screen):
    """A page that keeps the history of one picture beside the one that is shown."""
    screen.replace("screen/strip.js", "100_000_000", "100_000")
    return screen


def fill(screen, *points: tuple[float, float]) -> None:
    screen.drag(*points)
    screen.status("Filled in")


def step(screen, key: str, name: str) -> None:
    screen.press(key)
    screen.status(f"{name} ·")


def save_all(screen, count: int) -> dict[str, bytes]:
    """Return the files that "Download all changed" hands out, by name."""
    found: list[Download] = []
    screen.page.on("download", lambda download: found.append(download))
    with screen.page.expect_event("download", lambda _: len(found) == count):
        screen.run("saveAll")
    return {each.suggested_filename: Path(each.path()).read_bytes() for each in found}


def fill_two_and_drop_the_first(short, paths, wait_until) -> None:
    """Fill two pictures and show a third, until the first picture is its result alone."""
    short.open(*paths)
    fill(short, (140, 100), (180, 120))
    step(short, "PageDown", "photo-2.png")
    fill(short, (140, 100), (180, 120))
    short.hold_encoder()
    short.let_encoder_go()
    step(short, "PageDown", "photo-3.png")
    wait_until(lambda: short.count_encoded() == 1)


def test_a_picture_whose_history_is_dropped_stays_unsaved_and_is_downloaded(short, paths, wait_until):
    fill_two_and_drop_the_first(short, paths, wait_until)
    changed = short.page.locator("#strip .changed").evaluate_all("all => all.map(each => each.title)")
    assert changed == ["photo-1.jpg", "photo-2.png"]
    assert short.warns_at_the_end()
    files = save_all(short, 2)
    assert set(files) == {"photo-1-filled.jpg", "photo-2-filled.png"}
    assert not short.warns_at_the_end()
    expect(short.page.locator("#strip [data-command=saveAll]")).to_be_hidden()
    first = Image.open(io.BytesIO(files["photo-1-filled.jpg"]))
    assert (first.format, first.info["dpi"]) == ("JPEG", (300, 300))
    before = np.asarray(Image.open(paths[0])).astype(int)
    difference = np.abs(np.asarray(first).astype(int) - before)
    # the hole is smooth instead of noisy; elsewhere the JPEG was only encoded again
    assert difference[106:114, 150:170].mean() > 3 * difference[:60].mean()
    step(short, "PageUp", "photo-2.png")
    step(short, "PageUp", "photo-1.jpg")
    expect(short.page.locator("[data-command=undo]")).to_be_disabled()
    assert not short.warns_at_the_end()


def test_a_result_that_is_shown_again_is_still_unsaved(short, paths, wait_until):
    fill_two_and_drop_the_first(short, paths, wait_until)
    for name in ("photo-2.png", "photo-1.jpg"):
        step(short, "PageUp", name)
    assert short.warns_at_the_end()
    assert set(save_all(short, 2)) == {"photo-1-filled.jpg", "photo-2-filled.png"}


def test_a_picture_that_is_edited_while_its_history_is_dropped_keeps_the_edits(short, paths):
    short.open(*paths)
    fill(short, (140, 100), (180, 120))
    step(short, "PageDown", "photo-2.png")
    fill(short, (140, 100), (180, 120))
    short.hold_encoder()
    step(short, "PageDown", "photo-3.png")  # the first picture is being encoded from here
    step(short, "PageUp", "photo-2.png")
    step(short, "PageUp", "photo-1.jpg")
    short.drag((40, 40), (60, 40))
    short.let_encoder_go()
    short.status("Filled in")
    files = save_all(short, 2)
    assert set(files) == {"photo-1-filled.jpg", "photo-2-filled.png"}
    for _ in range(4):  # two strokes, two fills
        short.press("Control+Z")
    expect(short.page.locator("[data-command=undo]")).to_be_disabled()


def test_a_damaged_file_does_not_hide_the_files_behind_it(screen, paths, tmp_path):
    broken = tmp_path / "a-broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    screen.page.locator("#files").set_input_files([broken, paths[1], paths[2]])
    screen.status("photo-2.png ·")
    screen.page.locator("#alert", has_text="a-broken.png is not a picture").wait_for()
    expect(screen.page.locator("#empty")).to_be_hidden()
    expect(screen.page.locator("#strip li")).to_have_count(2)


def test_files_of_other_kinds_are_left_out_by_name(screen, paths, tmp_path):
    others = [tmp_path / "notes.txt", tmp_path / "movie.mp4"]
    for other in others:
        other.write_text("no picture")
    screen.page.locator("#files").set_input_files([*others, paths[1]])
    screen.status("photo-2.png ·")
    screen.page.locator("#alert", has_text="notes.txt and movie.mp4 are not pictures").wait_for()


def test_a_change_during_a_download_is_not_saved(screen, paths):
    screen.open(paths[1])
    fill(screen, (140, 100), (180, 120))
    screen.hold_encoder()
    with screen.page.expect_download() as waiting:
        screen.press("Control+S")
        screen.status("Writing photo-2-filled.png")
        screen.press("Control+Z")
        screen.let_encoder_go()
    screen.status("is downloaded")
    assert (read(waiting.value.path().read_bytes()) != read(paths[1].read_bytes())).any()
    assert screen.warns_at_the_end()
