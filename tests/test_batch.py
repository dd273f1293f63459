from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy
from glama_deploy import batch
from glama_deploy.errors import GlamaError


@pytest.fixture
def folders(tmp_path: Path, photo, hole) -> tuple[Path, Path, Path]:
    """Images a (JPEG), b, broken, c (without a mask), small; their masks; a folder for the outputs."""
    images, masks, out = (tmp_path / name for name in ("images", "masks", "out"))
    images.mkdir()
    masks.mkdir()
    Image.fromarray(photo).save(images / "a.jpg", quality=95)
    Image.fromarray(photo[::-1]).save(images / "b.png")
    (images / "broken.png").write_bytes(b"no image")
    Image.fromarray(photo).save(images / "c.png")
    Image.fromarray(photo[:8, :8]).save(images / "small.png")
    (images / "notes.txt").write_text("not an image")
    for stem in ("a", "b", "broken"):
        Image.fromarray(hole).save(masks / f"{stem}.png")
    Image.fromarray(hole[:8, :8]).save(masks / "small.png")
    return images, masks, out


@pytest.fixture(scope="module")
def inpainter(tiny_bundle):
    return glama_deploy.load(tiny_bundle.path, "openvino")


def test_a_folder_goes_on_after_bad_files_and_says_what_failed(folders, inpainter, photo, hole):
    images, masks, out = folders
    results = list(batch.run(inpainter, batch.plan(images, masks, out)))
    assert [(r.job.image.name, r.state) for r in results] == [
        ("a.jpg", "written"),
        ("b.png", "written"),
        ("broken.png", "failed"),
        ("c.png", "failed"),
        ("small.png", "failed"),
    ]
    reasons = {r.job.image.stem: r.reason for r in results}
    assert "damaged or no image" in reasons["broken"]
    assert "has no mask: the folder of masks has no c.png" in reasons["c"]
    assert "8x8" in reasons["small"]
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png"]
    done = np.asarray(Image.open(out / "b.png"))
    np.testing.assert_array_equal(done[~hole], photo[::-1][~hole])
    np.testing.assert_array_equal(done, inpainter(np.ascontiguousarray(photo[::-1]), hole))


def test_a_second_run_does_only_what_is_missing(folders, inpainter):
    images, masks, out = folders
    list(batch.run(inpainter, batch.plan(images, masks, out)))
    (out / "a.png").unlink()
    before = (out / "b.png").stat().st_mtime_ns
    states = {r.job.image.stem: r.state for r in batch.run(inpainter, batch.plan(images, masks, out))}
    assert (states["a"], states["b"]) == ("written", "skipped")
    assert (out / "b.png").stat().st_mtime_ns == before
    states = {r.job.image.stem: r.state for r in batch.run(inpainter, batch.plan(images, masks, out), overwrite=True)}
    assert (states["a"], states["b"]) == ("written", "written")
    assert (out / "b.png").stat().st_mtime_ns > before


def test_paths_that_do_not_go_together_are_refused(folders):
    images, masks, out = folders
    for arguments, says in (
        ((images / "nothing.png", masks, out), "no image at"),
        ((images, masks / "nothing", out), "no mask at"),
        ((images / "b.png", masks, out), "two files or two folders"),
        ((images, masks, images / "b.png"), "is a file; a folder is needed"),
        ((images, masks, masks), "a folder of the inputs"),
        ((images / "b.png", masks / "b.png", masks / "b.png"), "is an input itself"),
        ((images, masks, images), "a folder of the inputs"),
        ((images / "b.png", masks / "b.png", images / "b.png"), "is an input itself"),
        ((images / "b.png", masks / "b.png", images / "c.png"), "exists already"),
        ((images.parent / "empty", masks, out), "has no images"),
    ):
        (images.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(GlamaError, match=says):
            batch.plan(*arguments)


def test_two_images_of_one_stem_are_refused(folders, photo):
    images, masks, out = folders
    Image.fromarray(photo).save(images / "b.bmp")
    with pytest.raises(GlamaError, match="one stem"):
        batch.plan(images, masks, out)


def test_a_single_image_may_go_into_a_folder(folders):
    images, masks, out = folders
    out.mkdir()
    (job,) = batch.plan(images / "a.jpg", masks / "a.png", out)
    assert job.out == out / "a.png"
