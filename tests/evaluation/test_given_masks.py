"""Masks of a folder: LaMa's naming, the images' own names, and folders whose names do not go together."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glama_deploy.cli.eval import main
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import image_files, protocol
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.io.mask_files import write_mask


def put_mask(path: Path, image: Path, part: int = 0) -> np.ndarray:
    """Write a mask of an image's size, another for each part; return its missing pixels."""
    with Image.open(image) as opened:
        missing = np.zeros((opened.height, opened.width), bool)
    missing[10 + 6 * part : 22 + 6 * part, 8 + part : 40] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, missing)
    return missing


def psnr_of_telea(image: Path, missing: np.ndarray) -> float:
    """By OpenCV and the formula, of the missing pixels."""
    truth = np.asarray(Image.open(image).convert("RGB"))
    given = np.where(missing[..., None], np.uint8(0), truth)
    found = cv2.inpaint(given, missing.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    error = (found[missing].astype(float) - truth[missing]) / 255
    return float(-10 * np.log10(np.mean(error**2)))


@pytest.fixture
def lama(photos, tmp_path) -> Path:
    """A folder of LaMa's layout: the images with their masks beside them, two for the first."""
    folder = tmp_path / "beside"
    shutil.copytree(photos, folder)
    for name, part in (("a_mask000", 0), ("a_mask001", 1), ("b_mask000", 2), ("more/c_mask000", 0)):
        put_mask(folder / f"{name}.png", folder / f"{name.rpartition('_mask')[0]}.png", part)
    return folder


def test_a_mask_belongs_to_the_image_that_lama_s_evaluation_pairs_it_with(tmp_path):
    """LaMa: `fname.rsplit('_mask', 1)[0] + img_suffix` for each `*mask*.png`."""
    masks = ["a_mask.png", "a_mask001.png", "a_mask_left.png", "b_mask_mask002.png", "x_mask/c_crop000_mask000.png"]
    images = sorted({name.rsplit("_mask", 1)[0] + ".jpg" for name in masks})
    assert images == ["a.jpg", "b_mask.jpg", "x_mask/c_crop000.jpg"]
    for name in (*masks, *images):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = image_files.list_files(tmp_path)
    assert image_files.split_masks(files) == (images, masks)
    found = image_files.pair_masks(tmp_path, images, tmp_path)
    assert found == {image: [m for m in masks if m.rsplit("_mask", 1)[0] + ".jpg" == image] for image in images}


def test_the_suffix_of_a_mask_may_be_in_upper_case(tmp_path):
    for name in ("a.JPG", "a_mask000.PNG"):
        (tmp_path / name).touch()
    files = image_files.list_files(tmp_path)
    assert image_files.split_masks(files) == (["a.JPG"], ["a_mask000.PNG"])
    assert image_files.pair_masks(tmp_path, ["a.JPG"], tmp_path) == {"a.JPG": ["a_mask000.PNG"]}


def test_a_folder_whose_name_ends_as_a_picture_s_is_no_picture(tmp_path):
    """An evaluation keeps pictures in such folders. A link to a file that is gone is named as an image later."""
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a.png" / "given-truth.png").touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    assert image_files.list_files(tmp_path) == ["a.png/given-truth.png", "gone.png"]


def test_every_mask_of_lama_s_layout_is_scored(lama, tmp_path, ask):
    summary = evaluate(ask(lama, tmp_path / "out", "telea", masks=(str(lama),)))
    (cell,) = [cell for cell in summary.cells if cell.region == "missing"]
    images = {"a": (0, 1), "b": (2,), "more/c": (0,)}
    expected = [
        psnr_of_telea(lama / f"{name}.png", put_mask(tmp_path / "again.png", lama / f"{name}.png", part))
        for name, parts in images.items()
        for part in parts
    ]
    assert (cell.mask, cell.value.n) == ("given", 4)
    assert cell.value.mean == pytest.approx(np.mean(expected), abs=1e-9)  # both in float64
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert f"4 masks of images of photos; the images' own sizes; masks of the folder {lama};" in text
    shown = {path.parent.name for path in (tmp_path / "out" / "pictures").rglob("given-mask.png")}
    assert shown == {"a_mask000.png", "a_mask001.png", "b_mask000.png", "c_mask000.png"}
    for name, part in (("a_mask001.png", 1), ("b_mask000.png", 2)):
        kept = np.asarray(Image.open(tmp_path / "out" / "pictures" / "photos" / name / "given-mask.png"))
        missing = put_mask(tmp_path / "again.png", lama / f"{name[0]}.png", part)
        np.testing.assert_array_equal(kept[..., 0] == 255, missing)


def test_masks_of_the_images_own_names_may_have_another_format(photos, tmp_path, ask):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    Image.open(folder / "a.png").save(folder / "a.bmp")
    (folder / "a.png").unlink()
    masks = {
        name: put_mask(tmp_path / "m" / f"{Path(name).with_suffix('.png')}", folder / name)
        for name in ("a.bmp", "b.png", "more/c.png")
    }
    summary = evaluate(ask(folder, tmp_path / "out", "telea", masks=(f"boxes={tmp_path / 'm'}",)))
    cell = summary.cell("photos", "telea", "boxes", "psnr", "missing")
    assert cell.value.n == 3
    assert cell.value.mean == pytest.approx(np.mean([psnr_of_telea(folder / n, m) for n, m in masks.items()]), abs=1e-9)


def test_the_challenge_s_folders_are_read(photos, tmp_path, ask):
    """affromero/NTIRE22_Inpainting: test_gt/KIND/N.png; test/KIND has N.png with its holes, N_mask.png, N_segm.png."""
    for kind in ("Completion", "Expand"):
        for place in ("test", "test_gt"):
            (tmp_path / place / kind).mkdir(parents=True)
            shutil.copy(photos / "a.png", tmp_path / place / kind / "000000.png")
        put_mask(tmp_path / "test" / kind / "000000_mask.png", photos / "a.png", kind == "Expand")
        shutil.copy(photos / "b.png", tmp_path / "test" / kind / "000000_segm.png")
    together = evaluate(ask(tmp_path / "test_gt", tmp_path / "out", "telea", masks=(str(tmp_path / "test"),)))
    assert {cell.value.n for cell in together.cells} == {2}
    data = [f"{kind}={tmp_path / 'test_gt' / kind}" for kind in ("Completion", "Expand")]
    asked = ask(photos, tmp_path / "rows", "telea", masks=(str(tmp_path / "test"),))
    rows = evaluate(type(asked)(**{**vars(asked), "data": data}))
    means = [rows.cell(kind, "telea", "given", "psnr", "missing").value.mean for kind in ("Completion", "Expand")]
    assert means[0] != means[1]
    assert together.cell("photos", "telea", "given", "psnr", "missing").value.mean == pytest.approx(np.mean(means))


def test_masks_beside_images_are_no_photographs(lama, tmp_path, ask):
    with pytest.raises(
        GlamaError, match=r"has masks beside its images \(a_mask000.png\); use them with `masks=.*beside`"
    ):
        evaluate(ask(lama, tmp_path / "out", "telea", masks=()))
    assert not (tmp_path / "out").exists()
    summary = evaluate(ask(lama, tmp_path / "out", "telea", masks=("Expand",)))
    assert summary.images == {"photos": 3}


def test_a_changed_mask_is_evaluated_again(lama, tmp_path, ask):
    asked = ask(lama, tmp_path / "out", "telea", masks=(str(lama),))
    before = evaluate(asked)
    put_mask(lama / "b_mask000.png", lama / "b.png", 3)
    after = evaluate(asked)
    assert after.cells[0].value.mean != before.cells[0].value.mean
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 5


def test_the_sizes_of_turned_photographs_are_those_of_their_masks(photos, tmp_path, ask):
    for format, suffix in (("JPEG", "jpg"), ("TIFF", "tif"), ("PNG", "png")):
        folder = tmp_path / suffix
        folder.mkdir()
        photo = Image.open(photos / "a.png")
        exif = photo.getexif()
        exif[0x0112] = 6  # turned by a quarter
        photo.save(folder / f"a.{suffix}", format, exif=exif)
        missing = np.zeros((photo.width, photo.height), bool)
        missing[20:30, 20:30] = True
        write_mask(folder / "a_mask000.png", missing)
        summary = evaluate(ask(folder, tmp_path / f"out-{suffix}", "telea", masks=(str(folder),)))
        assert (summary.failures, {cell.value.n for cell in summary.cells}) == ((), {1})


def spoil_missing(folder: Path) -> str:
    (folder / "b_mask000.png").unlink()
    return "b.png has no mask in {folder}: b_mask000.png is expected"


def spoil_orphan(folder: Path) -> str:
    shutil.copy(folder / "b_mask000.png", folder / "gone_mask000.png")
    return "gone_mask000.png is a mask without an image: {folder}/gone.png (or .jpg, …) is expected"


def spoil_size(folder: Path) -> str:
    shutil.copy(folder / "more" / "c_mask000.png", folder / "b_mask000.png")
    return "b_mask000.png is 56x80, and {folder}/b.png 64x72; pictures of one size are expected"


def spoil_twins(folder: Path) -> str:
    shutil.copy(folder / "b.png", folder / "b.bmp")
    return "b_mask000.png is the mask of two images, b.bmp and b.png; rename one"


def spoil_file(folder: Path) -> str:
    (folder / "b_mask000.png").write_bytes(b"no image")
    return "b_mask000.png is not a supported image"


@pytest.mark.parametrize("spoil", [spoil_missing, spoil_orphan, spoil_size, spoil_twins, spoil_file])
def test_masks_and_images_that_do_not_go_together_are_one_line(lama, tmp_path, capsys, spoil):
    says = spoil(lama).format(folder=lama)
    arguments = ["--data", str(lama), "--masks", str(lama), "--model", "telea", "--metric", "psnr"]
    assert main.run([*arguments, "--out", str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "opening the" not in line]
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_mask_without_missing_pixels_is_named_and_the_others_are_scored(lama, tmp_path, ask):
    write_mask(lama / "b_mask000.png", np.zeros((64, 72), bool))
    summary = evaluate(ask(lama, tmp_path / "out", "telea", masks=(str(lama),)))
    assert summary.failures == (
        f"{lama}/b_mask000.png marks no pixel as missing; nothing can be measured, remove the mask",
    )
    assert {cell.value.n for cell in summary.cells} == {3}


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        (["Expand", "beside"], "--masks has the folder beside and others; give one folder"),
        (["gone/masks"], "--masks gone/masks is no folder"),
        (["a=gone"], "--masks gone is no folder"),
        (["a/b=beside"], "is called 'a/b', as no file may be"),
        (["photos"], "photos has no masks beside its images: a_mask000.png is expected beside a.png"),
        (["other"], "a.png has no mask in {cwd}/other: a.png, or a_mask000.png as LaMa names masks, is expected"),
        (["twins"], "a.png has two masks in {cwd}/twins, a.bmp and a.png; remove one"),
        (["orphan"], "{cwd}/orphan/d.png is a mask without an image: {cwd}/photos/d.png (or .jpg, …) is expected"),
        (["beside", "--size=32x32"], "--size does not go with a folder of masks"),
    ],
)
def test_folders_of_masks_that_cannot_be_used_are_one_line(lama, photos, tmp_path, monkeypatch, capsys, masks, says):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    for folder, names in (
        ("other", ["b.png"]),
        ("twins", ["a.png", "a.bmp", "b.png", "more/c.png"]),
        ("orphan", ["d.png"]),
    ):
        for name in names:
            put_mask(Path(folder, name), photos / "a.png")
    arguments = [part for name in masks if not name.startswith("-") for part in ("--masks", name)]
    data = "beside" if masks[0] == "beside" else "photos"
    assert (
        main.run(
            ["--data", data, *arguments, *masks[1:] * masks[-1].startswith("--"), "--model", "telea", "--out", "out"]
        )
        == 2
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "opening the" not in line]
    assert len(lines) == 1
    assert says.format(cwd=tmp_path) in lines[0]
    assert not Path("out").exists()


def test_a_name_of_masks_is_no_folder_without_a_dot(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for name in ("general", "own"):
        (tmp_path / name).mkdir()
    assert protocol.find_masks(["general"])[1] is None
    assert "general is drawn as the mask of this name; the folder of this name is ./general" in caplog.text
    caplog.clear()
    assert protocol.find_masks(["./general"])[1].folder == tmp_path / "general"
    assert protocol.find_masks(["own"])[1].column == "given"
    assert not caplog.text
    with pytest.raises(GlamaError, match="unknown mask 'Expandd'; did you mean 'Expand'"):
        protocol.find_masks(["Expandd"])
