"""Outputs replace their pictures, and the originals are kept, whatever ends the run."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import in_place
from glama_deploy.inpainting.folder import Masks, run_jobs
from glama_deploy.inpainting.in_place import InPlace, is_backup, keep_original
from glama_deploy.inpainting.pairing import FolderRule, describe_left_out, pair_jobs
from glama_deploy.marking import Marks, Rectangle

MARKED = Masks(marks=Marks(rectangles=(Rectangle(4, 4, 8, 8),)))


@pytest.fixture
def folder(tmp_path, photo) -> Path:
    """A folder of a.png and b.jpg."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    Image.fromarray(photo).save(tmp_path / "photos" / "b.jpg")
    return tmp_path / "photos"


def invert(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill holes with the colors' opposites."""
    return np.where(mask[..., None], 255 - image, image)


def run(folder: Path, place: InPlace = InPlace(), overwrite: bool = False, fill=invert):  # noqa: B008
    jobs = pair_jobs(folder, None, place)
    return {r.job.image.name: r for r in run_jobs(fill, jobs, overwrite=overwrite, masks=MARKED)}


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_are_replaced_and_originals_are_kept(folder, photo):
    before = read_all(folder)
    os.chmod(folder / "a.png", 0o640)
    assert {name: result.state for name, result in run(folder).items()} == {"a.png": "written", "b.jpg": "written"}
    after = read_all(folder)
    assert sorted(after) == ["a.orig.png", "a.png", "b.jpg", "b.orig.jpg"]
    assert (after["a.orig.png"], after["b.orig.jpg"]) == (before["a.png"], before["b.jpg"])
    filled = np.asarray(Image.open(folder / "a.png"))
    np.testing.assert_array_equal(filled[4:12, 4:12], 255 - photo[4:12, 4:12])
    assert (folder / "a.png").stat().st_mode & 0o777 == 0o640
    assert Image.open(folder / "b.jpg").format == "JPEG"


def test_a_second_run_takes_no_backup_as_a_picture_and_overwrites_none(folder):
    run(folder)
    before = read_all(folder)
    assert {name: result.state for name, result in run(folder).items()} == {"a.png": "skipped", "b.jpg": "skipped"}
    assert read_all(folder) == before
    assert describe_left_out(folder, None, InPlace()) == []


def test_overwriting_fills_the_original_again(folder):
    run(folder)
    before = read_all(folder)
    assert {result.state for result in run(folder, overwrite=True).values()} == {"written"}
    after = read_all(folder)
    assert {name for name in after if after[name] != before[name]} == set()  # the same fill of the same originals


def test_backups_may_lie_in_a_folder_of_their_own(folder, tmp_path):
    (folder / "x").mkdir()
    (folder / "a.png").rename(folder / "x" / "a.png")
    before = read_all(folder)
    rule = FolderRule(recursive=True)
    place = InPlace(folder / "originals")
    for states in ({"written"}, {"skipped"}):
        jobs = pair_jobs(folder, None, place, rule=rule)
        assert {result.state for result in run_jobs(invert, jobs, masks=MARKED)} == states
        backups = read_all(folder / "originals")
        assert {name: data for name, data in backups.items() if not name.endswith(".glama-originals-of")} == before
    assert describe_left_out(folder, None, place, rule) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_backup_folder_of_other_pictures_is_refused(folder, tmp_path, overwrite):
    """Pictures of one name would count as filled, or be replaced by the filled originals of the other folder."""
    other, place = tmp_path / "other", InPlace(tmp_path / "originals")
    shutil.copytree(folder, other)
    for path in other.iterdir():
        Image.new("RGB", (40, 30), "teal").save(path)
    before = read_all(other)
    assert {result.state for result in run(folder, place).values()} == {"written"}
    results = run(other, place, overwrite=overwrite)
    assert {result.state for result in results.values()} == {"failed"}
    assert f"{place.backups} keeps the originals of {folder}; choose another" in results["a.png"].reason
    assert read_all(other) == before
    assert {result.state for result in run(folder, place).values()} == {"skipped"}


def test_a_run_beside_backups_leaves_them_out_by_name(folder, tmp_path):
    run(folder)
    Image.new("RGB", (20, 20)).save(folder / "c.orig.png")  # of no picture here: a picture like others
    jobs = pair_jobs(folder, None, tmp_path / "out")
    assert [job.image.name for job in jobs] == ["a.png", "b.jpg", "c.orig.png"]
    assert describe_left_out(folder, None, tmp_path / "out") == ["2 backups (a.orig.png, b.orig.jpg)"]
    assert not is_backup(folder / "c.orig.png", in_place=False)
    assert is_backup(folder / "c.orig.png", in_place=True)
    assert describe_left_out(folder, None, InPlace()) == ["1 backup (c.orig.png)"]


#: Fills the folder in place, and ends without a trace of cleaning up, as kill -9 does, in the function of that name.
PROGRAM = """
import os, sys
from pathlib import Path
from glama_deploy.inpainting import folder, in_place
from glama_deploy.inpainting.folder import Masks, run_jobs
from glama_deploy.inpainting.pairing import pair_jobs
from glama_deploy.io import files
from glama_deploy.marking import Marks, Rectangle

end = lambda *arguments: os._exit(9)
place, name = sys.argv[2].split(":")
setattr({"files": files, "in_place": in_place, "images": folder.images}[place], name, end)
jobs = pair_jobs(Path(sys.argv[1]), None, in_place.InPlace())
masks = Masks(marks=Marks(rectangles=(Rectangle(4, 4, 8, 8),)))
list(run_jobs(lambda image, mask: 255 - image, jobs, masks=masks))
"""


@pytest.mark.parametrize(
    ("moment", "has_backup"),
    [
        ("in_place:flush", False),  # the copy of the original is written, and has no name yet
        ("in_place:_name", False),
        ("in_place:flush_folder", True),  # the backup has its name
        ("images:write_image", True),  # the picture is to be written
        ("files:_copy_permissions", True),  # the picture is written, and has no name yet
    ],
)
def test_a_kill_leaves_the_old_picture_and_the_next_run_fills_it(folder, moment, has_backup):
    (folder / "b.jpg").unlink()
    before = read_all(folder)["a.png"]
    child = subprocess.run([sys.executable, "-c", PROGRAM, folder, moment], check=False)
    assert child.returncode == 9
    assert (folder / "a.png").read_bytes() == before
    assert (folder / "a.orig.png").exists() == has_backup
    assert run(folder)["a.png"].state == "written"
    after = read_all(folder)
    assert after["a.orig.png"] == before
    assert after["a.png"] != before
    # the run is in this process, which may have cleaned the folder before: hidden leftovers may remain until the next
    assert {name for name in after if not name.startswith(".glama-")} == {"a.orig.png", "a.png"}


def test_a_backup_that_another_process_made_meanwhile_is_kept(folder, monkeypatch):
    plain = os.link

    def late(source, target):
        Path(target).write_bytes(b"of another process")
        plain(source, target)

    monkeypatch.setattr(os, "link", late)
    keep_original(folder / "a.png", folder / "a.orig.png")
    assert (folder / "a.orig.png").read_bytes() == b"of another process"


def test_a_file_system_without_hard_links_keeps_originals_too(folder, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    before = read_all(folder)["a.png"]
    run(folder)
    assert read_all(folder)["a.orig.png"] == before


def test_a_picture_that_changes_while_it_is_filled_is_not_replaced(folder, photo):
    (folder / "b.jpg").unlink()

    def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        Image.fromarray(photo[::-1]).save(folder / "a.png")
        return invert(image, mask)

    result = run(folder, fill=fill)["a.png"]
    assert result.state == "failed"
    assert "a.png changed while it was read or filled" in result.reason
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "a.png")), photo[::-1])
    assert sorted(read_all(folder)) == ["a.png"]


def test_a_link_is_not_replaced(folder, tmp_path):
    (folder / "a.png").rename(tmp_path / "elsewhere.png")
    (folder / "a.png").symlink_to(tmp_path / "elsewhere.png")
    before = (tmp_path / "elsewhere.png").read_bytes()
    result = run(folder)["a.png"]
    assert result.state == "failed"
    assert (
        f"a.png is a symbolic link, which `in_place` does not replace; fill {tmp_path}/elsewhere.png" in result.reason
    )
    assert (tmp_path / "elsewhere.png").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.jpg", "b.orig.jpg"]


def test_a_format_that_is_only_read_is_not_replaced(folder, photo):
    Image.fromarray(photo).save(folder / "c.gif")
    before = (folder / "c.gif").read_bytes()
    results = run(folder)
    assert {name: result.state for name, result in results.items()} == {
        "a.png": "written", "b.jpg": "written", "c.gif": "failed"
    }  # fmt: skip
    assert "c.gif is of a format that is only read, so `in_place` cannot replace it; give" in results["c.gif"].reason
    assert (folder / "c.gif").read_bytes() == before
    assert not (folder / "c.orig.gif").exists()


def test_a_single_picture_that_was_filled_is_refused(folder):
    (job,) = pair_jobs(folder / "a.png", None, InPlace())
    list(run_jobs(invert, [job], masks=MARKED))
    with pytest.raises(GlamaError, match=r"a\.png was filled already: its original is .*a\.orig\.png"):
        pair_jobs(folder / "a.png", None, InPlace())
    (again,) = pair_jobs(folder / "a.png", None, InPlace(), overwrite=True)
    assert again.source == folder / "a.orig.png"
    with pytest.raises(GlamaError, match="has the name of a backup"):
        pair_jobs(folder / "a.orig.png", None, InPlace())
    (other,) = pair_jobs(folder / "a.png", None, InPlace(folder / "second"))
    assert other.source == folder / "a.png"  # the filled picture is the original of another folder


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (FolderRule(format="png"), "`format` is png, and `in_place` keeps the format"),
        (FolderRule(mask_name="{stem}_{n}"), "`mask_name` has {n}, and `in_place` supports one mask"),
    ],
)
def test_rules_that_replacing_does_not_support_are_refused(folder, rule, says):
    mask = folder if rule.has_several else None
    with pytest.raises(GlamaError, match=says):
        pair_jobs(folder, mask, InPlace(), rule=rule)


def test_an_original_that_may_not_be_written_is_kept_with_its_permissions(folder, monkeypatch):
    """To flush a file, an account other than root must be allowed to write the file."""
    plain, modes = in_place.flush, []
    monkeypatch.setattr(in_place, "flush", lambda path: (modes.append(path.stat().st_mode & 0o200), plain(path)))
    os.chmod(folder / "a.png", 0o444)
    before = (folder / "a.png").stat()
    keep_original(folder / "a.png", folder / "a.orig.png")
    assert modes == [0o200]
    after = (folder / "a.orig.png").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
