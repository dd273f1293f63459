"""Images of a folder find their masks by name, and outputs keep the folder's form."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.folder import Masks, read_job, run_jobs
from glama_deploy.inpainting.pairing import FolderRule, describe_left_out, pair_jobs
from glama_deploy.marking import Marks, Rectangle


@pytest.fixture
def make(tmp_path):
    """A function that makes small image files, and returns their folder."""

    def make(folder: str, *names: str) -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (40, 30))
            image.paste(255, (10, 10, 20, 20))
            kinds = {".jpg": "JPEG", ".jfif": "JPEG", ".gif": "GIF", ".webp": "WEBP"}
            image.save(path, kinds.get(path.suffix.lower(), "PNG"))
        return tmp_path / folder

    return make


def names(jobs, base: Path) -> list[tuple[str, str | None, str]]:
    return [
        (*(path and str(path.relative_to(base)) for path in (job.image, job.mask)), str(job.out.relative_to(base)))
        for job in jobs
    ]


def test_one_mask_serves_all_images_of_a_folder(make, tmp_path):
    images, mask = make("images", "a.png", "b.JFIF"), make(".", "mask.png") / "mask.png"
    jobs = pair_jobs(images, mask, tmp_path / "out")
    assert names(jobs, tmp_path) == [
        ("images/a.png", "mask.png", "out/a.png"),
        ("images/b.JFIF", "mask.png", "out/b.JFIF"),
    ]
    assert describe_left_out(images, mask, tmp_path / "out") == []


def test_the_one_mask_may_lie_among_the_images(make, tmp_path):
    images = make("images", "a.png", "mask.png")
    assert names(pair_jobs(images, images / "mask.png", tmp_path / "out"), tmp_path) == [
        ("images/a.png", "images/mask.png", "out/a.png")
    ]


@pytest.mark.parametrize(
    ("pattern", "mask"),
    [("{stem}_mask.png", "a_mask.png"), ("{stem}_mask{n}.png", "a_mask001.png"), ("mask-{stem}", "mask-a.jpg")],
)
def test_masks_beside_their_images_are_found_by_their_names(make, tmp_path, pattern, mask):
    folder = make("all", "a.png", "b.png", mask)
    jobs = pair_jobs(folder, folder, tmp_path / "out", rule=FolderRule(mask_name=pattern))
    assert names(jobs, tmp_path) == [
        ("all/a.png", f"all/{mask}", "out/a_mask001.png" if "{n}" in pattern else "out/a.png"),
        ("all/b.png", None, "out/b.png"),
    ]
    expected = pattern.replace("{stem}", "b") + ("" if pattern.endswith(".png") else r"\.png \(or \.jpg")
    with pytest.raises(GlamaError, match=f"b.png has no mask: the folder of masks has no {expected}"):
        read_job(jobs[1])


def test_an_image_with_numbered_masks_has_an_output_for_each(make, tmp_path):
    folder = make("all", "a.jpg", "a_mask001.png", "a_mask002.png", "b.png", "b_mask1.png")
    rule = FolderRule(mask_name="{stem}_mask{n}")
    assert names(pair_jobs(folder, folder, tmp_path / "out", rule=rule), tmp_path) == [
        ("all/a.jpg", "all/a_mask001.png", "out/a_mask001.jpg"),
        ("all/a.jpg", "all/a_mask002.png", "out/a_mask002.jpg"),
        ("all/b.png", "all/b_mask1.png", "out/b_mask1.png"),
    ]


def test_pairs_of_lamas_predict_are_found_and_outputs_have_its_names(make, tmp_path):
    """bin/predict.py takes *mask*.png in all folders, cuts the name at _mask, and names outputs as masks."""
    folder = make("in", "a.png", "a_mask.png", "b.png", "b_mask001.png", "sub/c.png", "sub/c_mask000.png")
    rule = FolderRule(mask_name="{stem}_mask{n}.png", recursive=True)
    assert names(pair_jobs(folder, folder, tmp_path / "out", rule=rule), tmp_path) == [
        ("in/a.png", "in/a_mask.png", "out/a_mask.png"),
        ("in/b.png", "in/b_mask001.png", "out/b_mask001.png"),
        ("in/sub/c.png", "in/sub/c_mask000.png", "out/sub/c_mask000.png"),
    ]


def test_two_masks_of_one_image_are_refused(make, tmp_path):
    images, masks = make("images", "a.png"), make("masks", "a.png", "a.jpg")
    with pytest.raises(GlamaError, match=r"a.jpg and a.png are masks of one image, a; remove or rename one"):
        pair_jobs(images, masks, tmp_path / "out")


def test_images_of_one_stem_are_kept_apart_by_their_full_names(make, tmp_path):
    images, masks = make("images", "a.png", "a.jpg", "b.png"), make("masks", "a.jpg.png", "a.png", "b.png")
    assert names(pair_jobs(images, masks, tmp_path / "out"), tmp_path) == [
        ("images/a.jpg", "masks/a.jpg.png", "out/a.jpg"),
        ("images/a.png", "masks/a.png", "out/a.png"),
        ("images/b.png", "masks/b.png", "out/b.png"),
    ]
    assert names(pair_jobs(images, masks, tmp_path / "out", rule=FolderRule(format="png")), tmp_path) == [
        ("images/a.jpg", "masks/a.jpg.png", "out/a.jpg.png"),
        ("images/a.png", "masks/a.png", "out/a.png.png"),
        ("images/b.png", "masks/b.png", "out/b.png"),
    ]
    assert describe_left_out(images, masks, tmp_path / "out") == []


def test_an_image_that_becomes_a_png_is_kept_apart_from_a_png_of_its_stem(make, tmp_path):
    images = make("images", "a.gif", "a.png", "b.GIF", "c.gif", "c.jpg")
    assert [job.out.name for job in pair_jobs(images, None, tmp_path / "out")] == [
        "a.gif.png", "a.png", "b.png", "c.png", "c.jpg"
    ]  # fmt: skip


def test_two_images_with_one_output_are_refused(make, tmp_path):
    images = make("images", "a.jpg", "a.jpg.webp", "a.png")
    assert len(pair_jobs(images, None, tmp_path / "out")) == 3
    with pytest.raises(GlamaError, match=r"a\.jpg and a\.jpg\.webp would both be written as .*out/a\.jpg\.png; rename"):
        pair_jobs(images, None, tmp_path / "out", rule=FolderRule(format="png"))
    folder, rule = make("all", "b.jpg", "b.png", "b_m1.png"), FolderRule("{stem}_m{n}", format="png")
    with pytest.raises(GlamaError, match=r"b\.jpg and b\.png would both be written as .*b_m1\.png; .* masks"):
        pair_jobs(folder, folder, tmp_path / "out", rule=rule)


def test_an_output_that_is_an_input_is_refused(make, tmp_path):
    make("photos", "a.jpg")
    make("photos/photos", "a.jpg")
    with pytest.raises(GlamaError, match=r"photos/a\.jpg is an input itself; choose another output"):
        pair_jobs(tmp_path / "photos", None, tmp_path, rule=FolderRule(recursive=True))
    mask = make("out", "a.png") / "a.png"
    with pytest.raises(GlamaError, match=r"out/a\.png is an input itself"):
        pair_jobs(make("images", "a.png"), mask, tmp_path / "out")


def test_outputs_of_a_run_with_another_format_stay_as_they_are(make, tmp_path):
    images, out = make("images", "a.jpg"), make("out", "a.png")
    before = (out / "a.png").read_bytes()
    (job,) = pair_jobs(images, None, out)
    assert not job.is_done()
    marks = Masks(marks=Marks(rectangles=(Rectangle(4, 4, 8, 8),)))
    for state in ("written", "skipped"):
        assert [result.state for result in run_jobs(lambda image, mask: image, [job], masks=marks)] == [state]
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "a.png"]
    assert (out / "a.png").read_bytes() == before


def test_subfolders_are_kept(make, tmp_path):
    images = make("images", "a.png", "x/a.png", "x/y/b.png", ".hidden/c.png")
    masks = make("masks", "a.png", "x/a.png", "x/z.png")
    rule = FolderRule(recursive=True)
    assert names(pair_jobs(images, masks, images / "out", rule=rule), tmp_path) == [
        ("images/a.png", "masks/a.png", "images/out/a.png"),
        ("images/x/a.png", "masks/x/a.png", "images/out/x/a.png"),
        ("images/x/y/b.png", None, "images/out/x/y/b.png"),
    ]
    assert describe_left_out(images, masks, images / "out", rule) == [
        "1 mask without an image (z.png)",
        "1 hidden file",
    ]
    assert [job.image.name for job in pair_jobs(images, masks, images / "out")] == ["a.png"]


def test_outputs_and_masks_below_the_images_are_no_images(make, tmp_path):
    images = make("images", "a.png", "masks/a.png", "out/old.png")
    jobs = pair_jobs(images, images / "masks", images / "out", rule=FolderRule(recursive=True))
    assert names(jobs, images) == [("a.png", "masks/a.png", "out/a.png")]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_with_accents_pair_in_both_forms_of_unicode(make, tmp_path, forms):
    image, mask = (unicodedata.normalize(form, "Café.png") for form in forms)
    images, masks = make("images", image), make("masks", mask)
    (job,) = pair_jobs(images, masks, tmp_path / "out")
    assert (job.mask, job.out.name) == (masks / mask, image)


@pytest.mark.parametrize(
    ("chosen", "outputs"),
    [
        ("png", ["a.png", "b.png"]),
        ("webp", ["a.webp", "b.webp"]),
        ("jpg", ["a.jpg", "b.jpg"]),
        ("keep", ["a.jpg", "b.png"]),
    ],
)
def test_outputs_have_the_format_that_is_chosen(make, tmp_path, chosen, outputs):
    images, masks = make("images", "a.jpg", "b.png"), make("masks", "a.png", "b.png")
    jobs = pair_jobs(images, masks, tmp_path / "out", rule=FolderRule(format=chosen))
    assert {result.state for result in run_jobs(lambda image, mask: image, jobs)} == {"written"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == outputs
    kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.format == kinds[path.suffix]
            assert np.asarray(image).shape[:2] == (30, 40)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"mask_name": "mask.png"}, "`mask_name` is 'mask.png'; a name with {stem} once is expected"),
        ({"mask_name": "{stem}/{stem}"}, "a name with {stem} once is expected"),
        ({"format": "gif"}, "`format` is 'gif'; expected keep, png, jpg, webp"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(wrong, says):
    with pytest.raises(GlamaError, match=says):
        FolderRule(**wrong)


def test_rules_for_folders_are_refused_for_files(make, tmp_path):
    folder = make("all", "a.png", "m.png")
    with pytest.raises(GlamaError, match="is a file; `mask_name`, `recursive` and `format` are for folders"):
        pair_jobs(folder / "a.png", folder / "m.png", tmp_path / "out.png", rule=FolderRule(format="png"))
    with pytest.raises(GlamaError, match="are the same folder; pass the masks' own, or set `mask_name`"):
        pair_jobs(folder, folder, tmp_path / "out")


def test_a_circle_of_links_ends_and_linked_folders_are_named(make, tmp_path):
    images = make("images", "a.png", "x/b.png")
    (images / "x" / "up").symlink_to(images)
    (images / "self").symlink_to(images / "self")
    (images / "c.png").symlink_to(images / "c.png")
    (images / "d.png").symlink_to(images / "a.png")
    (images / "e.png").symlink_to(tmp_path / "gone.png")
    mask = make(".", "mask.png") / "mask.png"
    rule = FolderRule(recursive=True)
    results = list(run_jobs(lambda image, mask: image, pair_jobs(images, mask, tmp_path / "out", rule=rule)))
    assert [(str(result.job.image.relative_to(images)), result.state) for result in results] == [
        ("a.png", "written"),
        ("c.png", "failed"),
        ("d.png", "written"),
        ("e.png", "failed"),
        ("x/b.png", "written"),
    ]
    assert all("no image at" in result.reason for result in results if result.state == "failed")
    assert describe_left_out(images, mask, tmp_path / "out", rule) == [
        "1 file that is not a supported image (self)",
        "1 linked folder (up)",
    ]


def test_videos_of_a_folder_are_named_with_how_they_are_filled(make, tmp_path):
    images, mask = make("images", "a.png"), make(".", "mask.png") / "mask.png"
    (images / "clip.mp4").touch()
    (images / "notes.txt").touch()
    assert describe_left_out(images, mask, tmp_path / "out") == [
        "1 video, which is given by itself (clip.mp4)",
        "1 file that is not a supported image (notes.txt)",
    ]


def test_a_subfolder_that_cannot_be_read_is_named(make, tmp_path, monkeypatch):
    images, mask = make("images", "a.png", "x/b.png"), make(".", "mask.png") / "mask.png"
    plain = os.scandir

    def scan(path):
        if Path(path).name == "x":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", scan)
    rule = FolderRule(recursive=True)
    (job,) = pair_jobs(images, mask, tmp_path / "out", rule=rule)
    assert job.image.name == "a.png"
    assert describe_left_out(images, mask, tmp_path / "out", rule) == ["1 subfolder that cannot be read (x)"]


def test_masks_that_belong_to_no_image_are_refused_at_once(make, tmp_path):
    images, masks = make("images", "a.png", "b.png"), make("masks", "a.png")
    with pytest.raises(
        GlamaError, match=r"has no mask for any of the 2 images of .*: a_mask\.png is expected for a\.png; rename"
    ):
        pair_jobs(images, masks, tmp_path / "out", rule=FolderRule(mask_name="{stem}_mask.png"))
    assert not (tmp_path / "out").exists()


def test_images_without_mask_files_are_listed_too(make, tmp_path):
    images = make("images", "a.png", "b.png")
    assert names(pair_jobs(images, None, tmp_path / "out"), tmp_path) == [
        ("images/a.png", None, "out/a.png"),
        ("images/b.png", None, "out/b.png"),
    ]
    with pytest.raises(GlamaError, match="`mask_name` is set without `mask`"):
        pair_jobs(images, None, tmp_path / "out", rule=FolderRule(mask_name="{stem}_m"))


def test_a_folder_of_outputs_with_the_name_of_a_picture_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "images" / "a.png")
    for name in ("out.png", "out.JPG"):
        with pytest.raises(GlamaError, match="has the name of a picture; give a folder"):
            pair_jobs(tmp_path / "images", None, tmp_path / name)
    (tmp_path / "out.png").mkdir()
    assert len(pair_jobs(tmp_path / "images", None, tmp_path / "out.png")) == 1
