"""Images with masks beside them: LaMa's names, the same bytes on every run, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from glama_deploy.cli.masks import main
from glama_deploy.evaluation import protocol
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.evaluation.mask_dataset import choose_square


def run(photos: Path, out: Path, *arguments: object) -> int:
    given = ("--dataset", photos, "--out", out, "--masks", "ThickStrokes", "--processes", 1, *arguments)
    return main.run([str(argument) for argument in given])


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_files_have_lama_s_names_and_the_masks_are_those_of_an_evaluation(photos, tmp_path):
    out = tmp_path / "out"
    assert run(photos, out, "--variants", 2, "--seed", 5) == 0
    stems = [f"{image}_crop00{n}" for image in ("a", "b", "more/c") for n in (0, 1)]
    pictures = sorted(name for name in read_files(out) if name.endswith(".png"))
    assert pictures == sorted(f"{stem}{part}.png" for stem in stems for part in ("", f"_mask{stem[-3:]}"))
    for image in ("a", "b", "more/c"):
        truth = read_picture(photos / f"{image}.png")
        masks = []
        for number in (0, 1):
            np.testing.assert_array_equal(read_picture(out / f"{image}_crop00{number}.png"), truth)
            mask = read_picture(out / f"{image}_crop00{number}_mask00{number}.png")
            assert set(np.unique(mask)) == {0, 255}
            drawn = protocol.draw_missing("ThickStrokes", f"{image}.png", *truth.shape[:2], 5, number)
            np.testing.assert_array_equal(mask == 255, drawn)
            masks.append(mask)
        assert (masks[0] != masks[1]).any()


def test_a_photograph_without_a_square_for_the_mask_is_named_and_the_others_are_written(photos, tmp_path, capsys):
    """Expand leaves the middle: of a wide photograph, LaMa's only square is at the right edge and misses too much."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    with Image.open(folder / "a.png") as image:
        image.resize((192, 64)).save(folder / "a.png")
    arguments = ["--dataset", folder, "--out", tmp_path / "out", "--masks", "Expand", "--size", "32x32"]
    assert main.run([*map(str, arguments), "--crop", "lama", "--processes", "1"]) == 2
    error = capsys.readouterr().err
    assert f"{folder}/a.png: none of 100 draws of Expand on 32x96 pixels has a square with enough known" in error
    assert "leave out --crop" in error
    names = {name for name in read_files(tmp_path / "out") if name.endswith(".png")}
    assert names == {f"{stem}_crop000{part}.png" for stem in ("b", "more/c") for part in ("", "_mask000")}


def test_a_file_whose_name_is_no_text_is_named_and_the_others_are_written(photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")
    assert run(folder, tmp_path / "out") == 2
    line = f"glama-masks: {folder}/caf\\xe9.png has a name that is not UTF-8; rename it"
    assert line in capsys.readouterr().err.splitlines()
    assert len([name for name in read_files(tmp_path / "out") if name.endswith(".png")]) == 6


def test_a_size_is_cut_as_an_evaluation_cuts_it(photos, tmp_path):
    assert run(photos, tmp_path / "out", "--size", "32x48") == 0
    found = read_picture(tmp_path / "out" / "more" / "c_crop000.png")
    np.testing.assert_array_equal(found, protocol.read_truth(photos / "more" / "c.png", (32, 48)))
    assert read_picture(tmp_path / "out" / "more" / "c_crop000_mask000.png").shape == (32, 48)


def test_the_folder_is_data_and_masks_of_an_evaluation(photos, tmp_path, ask):
    out = tmp_path / "out"
    assert run(photos, out, "--size", "32x32", "--crop", "lama", "--variants", 2) == 0
    summary = evaluate(ask(out, tmp_path / "figures", "telea", masks=(str(out),)))
    assert summary.failures == ()
    assert {cell.value.n for cell in summary.cells} == {6}


@settings(deadline=None, max_examples=60)
@given(st.integers(16, 60), st.integers(16, 60), st.data())
@example(height=20, width=20, data=None)
def test_a_square_of_lama_s_lies_where_its_code_draws_it(height, width, data):
    """The borders by the formulas of LaMa's `propose_random_square_crop`, with `min_overlap=1`."""
    mask = np.zeros((height, width), bool)
    row, column = (3, 4) if data is None else (data.draw(st.integers(0, s - 1)) for s in (height, width))
    rows, columns = (5, 6) if data is None else (data.draw(st.integers(1, s)) for s in (height, width))
    mask[row : row + rows, column : column + columns] = True
    ys, xs = np.where(mask)
    low, high, longer = (xs.min(), xs.max(), width) if height < width else (ys.min(), ys.max(), height)
    side = min(height, width)
    first = max(0, min(longer - side - 1, low + (high - low) * 1 - side))
    stop = max(first + 1, min(longer - side, low + (high - low) * 1))
    starts = set()
    for seed in range(30):
        square = choose_square(mask, np.random.default_rng(seed))
        along, across = (square[1], square[0]) if height < width else square
        assert mask[square].shape == (side, side)
        assert (across.start, along.stop - along.start) == (0, side)
        starts.add(along.start)
    assert first <= min(starts) <= max(starts) < stop
    assert len(starts) > 1 or stop - first < 4  # 30 draws of 4 or more places


def test_a_square_s_image_and_mask_are_of_one_place(tmp_path):
    """The image says at each pixel where the pixel was; the mask is that of the whole image there."""
    photos = tmp_path / "photos"
    photos.mkdir()
    y, x = np.mgrid[:32, :96]
    Image.fromarray(np.stack([y, x, y * 0], axis=2).astype(np.uint8)).save(photos / "a.png")
    assert run(photos, tmp_path / "out", "--size", "32x32", "--crop", "lama", "--variants", 8) == 0
    starts = set()
    for number in range(8):
        cut = read_picture(tmp_path / "out" / f"a_crop00{number}.png")
        mask = read_picture(tmp_path / "out" / f"a_crop00{number}_mask00{number}.png") == 255
        start = int(cut[0, 0, 1])
        np.testing.assert_array_equal(cut[..., 1], x[:, start : start + 32])
        np.testing.assert_array_equal(cut[..., 0], y[:, :32])
        assert mask.any()
        assert mask.mean() <= 0.5
        rng = protocol.make_generator("ThickStrokes", "a.png", 0, number)
        whole = protocol.by_name("ThickStrokes")(32, 96, rng)
        starts.add((start, bool((whole[:, start : start + 32] == mask).all())))
    assert len({start for start, _ in starts}) > 1
    assert any(same for _, same in starts)  # the first mask that was drawn, unless its square was refused


def test_two_processes_write_the_bytes_of_one_and_a_second_run_writes_what_is_gone(photos, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(photos, one, "--variants", 2) == 0
    assert run(photos, two, "--variants", 2, "--processes", 2) == 0
    files = read_files(one)
    assert read_files(two) == files
    times = {path: path.stat().st_mtime_ns for path in one.rglob("*.png")}
    (one / "b_crop001_mask001.png").unlink()
    assert run(photos, one, "--variants", 2) == 0
    assert read_files(one) == files
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"b_crop001.png", "b_crop001_mask001.png"}


def test_a_killed_run_leaves_whole_pairs_and_continues(photos, tmp_path, wait_until):
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(16):
        shutil.copy(photos / "a.png", folder / f"{n:02}.png")
    arguments = ["--dataset", str(folder), "--masks", "ThinStrokes", "--size", "256x256", "--processes", "1"]
    code = "from glama_deploy.cli.masks import main; main()"
    cut = tmp_path / "cut"
    child = subprocess.Popen([sys.executable, "-c", code, *arguments, "--out", str(cut)], stdout=subprocess.DEVNULL)
    wait_until(lambda: len(list(cut.glob("*_mask000.png"))) > 0)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    masks = list(cut.glob("*_mask000.png"))
    assert masks
    for path in cut.glob("*.png"):
        assert read_picture(path).shape[:2] == (256, 256)
    assert all(path.with_name(path.name.replace("_mask000", "")).is_file() for path in masks)
    assert main.run([*arguments, "--out", str(cut)]) == 0
    assert main.run([*arguments, "--out", str(tmp_path / "straight")]) == 0
    assert read_files(cut) == read_files(tmp_path / "straight")


def test_an_image_that_cannot_be_used_is_named_and_the_others_are_written(photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(folder / "small.png")
    assert run(folder, tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(" ")[0] for line in lines] == [
        f"{folder}/broken.png",
        f"{folder}/small.png:",
    ]
    assert len(list((tmp_path / "out").rglob("*_mask000.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "gone", "--masks", "lama"], "gone is no folder; give one with images"),
        (["--dataset", "empty", "--masks", "lama"], "empty has no images (.bmp"),
        (["--dataset", "photos", "--masks", "ThinStroke"], "did you mean 'ThinStrokes'"),
        (["--dataset", "photos"], "--masks names 0 masks; one is expected with --dataset"),
        (["--dataset", "photos", "--masks", "lama", "--masks", "general"], "--masks names 2 masks"),
        (["--dataset", "photos", "--masks", "lama", "--crop", "half"], "--crop is 'half'; expected middle, lama"),
        (["--dataset", "photos", "--masks", "lama", "--crop", "lama"], "--crop lama cuts squares; give --size"),
        (["--dataset", "photos", "--masks", "lama", "--size", "30x30"], "multiples of 8"),
        (["--dataset", "photos", "--masks", "lama", "--count", "2"], "--count is for a sheet"),
        (["--dataset", "photos", "--masks", "lama", "--overwrite"], "--overwrite is for a sheet"),
        (["--dataset", "photos", "--masks", "lama", "--out", "photos/m"], "--out photos/m lies in --dataset"),
        (
            ["--dataset", "photos", "--masks", "lama", "--out", "thesis"],
            "thesis has files that were not made from a --dataset",
        ),
        (["--dataset", "twins", "--masks", "lama"], "twins/a.bmp and {cwd}/twins/a.png would have outputs of one name"),
        (["--variants", "2"], "--variants is for the images of --dataset"),
        (["--crop", "lama"], "--crop is for the images of --dataset"),
    ],
)
def test_bad_input_is_one_line(photos, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    shutil.copytree(photos, "twins")
    Image.open("twins/a.png").save("twins/a.bmp")
    for name in ("empty", "thesis"):
        Path(name).mkdir()
    Path("thesis/thesis.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main.run(["--out", "out", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says.format(cwd=tmp_path) in line
    assert sorted(tmp_path.rglob("*")) == before


def test_pairs_of_other_settings_are_kept(photos, tmp_path, capsys):
    assert run(photos, tmp_path / "out") == 0
    before = read_files(tmp_path / "out")
    assert run(photos, tmp_path / "out", "--seed", 1) == 2
    assert "out was made with seed 0, not 1; choose another folder" in capsys.readouterr().err
    assert read_files(tmp_path / "out") == before
