"""A watch fills what appears in a folder, once it is whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.inpainting.folder import Result, run_jobs
from glama_deploy.inpainting.in_place import InPlace
from glama_deploy.inpainting.pairing import FolderRule, pair_jobs
from glama_deploy.inpainting.watch import STABLE_LISTINGS, Watch, watch


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path, Path]:
    """Empty folders of images and masks, and a folder for outputs."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "masks", tmp_path / "out"


def save(folder: Path, name: str, value: int = 9) -> None:
    Image.fromarray(np.full((20, 30), value, np.uint8)).save(folder / name)


def save_mask(folder: Path, name: str) -> None:
    mask = np.zeros((20, 30), bool)
    mask[5:9, 5:9] = True
    Image.fromarray(mask).save(folder / name)


def follow(folders, events: dict[int, Callable[[], object]], listings: int, **settings: object) -> list[tuple]:
    """Watch for some listings, do the events before them, and return (listing, image, state)."""
    images, masks, out = folders
    rule = settings.pop("rule", FolderRule())
    out = settings.pop("place", out)
    count = 0

    def list_jobs():
        nonlocal count
        count += 1
        events.get(count, lambda: None)()
        return pair_jobs(images, masks, out, rule=rule, may_be_empty=True)

    run = partial(run_jobs, lambda image, mask: 255 - image, **settings)
    results = watch(Watch(list_jobs), run, lambda: count >= listings, pause=0)

    def note(result: Result) -> tuple:
        return count, result.job.image.name, result.state

    return [note(result) for result in results]


def test_a_picture_is_filled_once_it_is_stable_and_once_only(folders):
    images, masks, out = folders

    def add() -> None:
        save(images, "a.png")
        save_mask(masks, "a.png")

    assert follow(folders, {2: add}, 9) == [(1 + STABLE_LISTINGS, "a.png", "written")]
    assert [path.name for path in out.iterdir()] == ["a.png"]


def test_a_picture_that_grows_is_not_read_before_it_is_whole(folders):
    images, masks, _ = folders
    save(images, "whole.png")
    data = (images / "whole.png").read_bytes()
    (images / "whole.png").unlink()
    save_mask(masks, "a.png")
    parts = {at: partial((images / "a.png").write_bytes, data[: at * len(data) // 5]) for at in range(1, 6)}
    assert follow(folders, parts, 12) == [(4 + STABLE_LISTINGS, "a.png", "written")]


def test_a_picture_waits_for_its_mask(folders):
    images, masks, _ = folders
    save(images, "a.png")
    folder = Watch(lambda: pair_jobs(*folders, may_be_empty=True))
    assert [folder.take_stable() for _ in range(2 * STABLE_LISTINGS)] == [[]] * 2 * STABLE_LISTINGS
    assert folder.waiting == [images / "a.png"]
    assert follow(folders, {5: lambda: save_mask(masks, "a.png")}, 12) == [(4 + STABLE_LISTINGS, "a.png", "written")]


def test_a_picture_that_failed_is_tried_again_when_it_changes(folders):
    images, masks, _ = folders
    (images / "a.png").write_bytes(b"")
    save_mask(masks, "a.png")
    events = {8: lambda: save(images, "a.png")}
    assert follow(folders, events, 14) == [
        (STABLE_LISTINGS, "a.png", "failed"),
        (7 + STABLE_LISTINGS, "a.png", "written"),
    ]


def test_pictures_that_vanish_are_forgotten(folders):
    images, masks, out = folders
    save(images, "a.png")
    save_mask(masks, "a.png")
    assert follow(folders, {2: (images / "a.png").unlink}, 9) == []
    assert not out.exists()


def test_a_changed_picture_is_filled_again_only_if_outputs_are_overwritten(folders):
    images, masks, _ = folders
    save(images, "a.png")
    save_mask(masks, "a.png")
    change = {6: lambda: save(images, "a.png", 77)}
    assert follow(folders, change, 12, overwrite=True) == [(3, "a.png", "written"), (8, "a.png", "written")]
    assert [state for *_, state in follow(folders, {}, 6)] == ["skipped"]


def test_pictures_that_are_replaced_are_not_taken_for_new_ones(folders):
    images, masks, _ = folders
    save(images, "a.png")
    save_mask(masks, "a.png")
    rule = FolderRule(format="keep")
    assert follow(folders, {}, 12, rule=rule, place=InPlace()) == [(3, "a.png", "written")]
    assert sorted(path.name for path in images.iterdir()) == ["a.orig.png", "a.png"]


def test_what_goes_wrong_with_the_folder_is_noted_once_and_the_watch_goes_on(folders, caplog):
    images, masks, _ = folders
    save(images, "a.png")
    save_mask(masks, "a.png")
    save_mask(masks, "a.webp")
    assert follow(folders, {5: (masks / "a.webp").unlink}, 12) == [(4 + STABLE_LISTINGS, "a.png", "written")]
    assert caplog.text.count("are masks of one image, a; remove or rename one") == 1
