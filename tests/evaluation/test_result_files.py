"""Pictures of results: those that other programs made, and those that an evaluation saves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.cli.eval import main
from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.evaluate import evaluate
from glama_deploy.io.mask_files import write_mask

#: Metrics of the missing pixels' surroundings, too, which depend on known pixels.
METRICS = ("l1", "psnr", "ssim", "spectrum")


@pytest.fixture
def beside(photos, tmp_path) -> Path:
    """Images with masks beside them, as LaMa names them; two for the first."""
    folder = tmp_path / "beside"
    shutil.copytree(photos, folder)
    for number, name in enumerate(("a_mask000", "a_mask001", "b_mask000", "more/c_mask000")):
        with Image.open(folder / f"{name.rpartition('_mask')[0]}.png") as image:
            missing = np.zeros((image.height, image.width), bool)
        missing[10 + 4 * number : 30, 8:40] = True
        write_mask(folder / f"{name}.png", missing)
    return folder


def read_csv(out: Path) -> bytes:
    return (out / "results.csv").read_bytes()


def put_picture(path: Path, source: Path) -> np.ndarray:
    """Copy a picture to another name and format; return its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as picture:
        picture.convert("RGB").save(path)
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_saved_results_of_given_masks_have_lama_s_names_and_the_same_figures(beside, tmp_path, ask):
    saved = tmp_path / "saved"
    settings = {"masks": (str(beside),), "metrics": METRICS, "shown": 0}
    evaluate(ask(beside, tmp_path / "one", "telea", "navier-stokes", save=saved, **settings))
    for method in ("telea", "navier-stokes"):
        names = sorted(path.relative_to(saved / method).as_posix() for path in (saved / method).rglob("*.png"))
        assert names == ["a_mask000.png", "a_mask001.png", "b_mask000.png", "more/c_mask000.png"]
    results = (str(saved / "telea"), f"navier-stokes={saved / 'navier-stokes'}")
    summary = evaluate(ask(beside, tmp_path / "two", results=results, **settings))
    assert read_csv(tmp_path / "two") == read_csv(tmp_path / "one")
    assert summary.notes == ()
    assert summary.protocol.methods[0].description == f"the pictures of {saved / 'telea'}"


def test_saved_results_of_drawn_masks_and_several_datasets_have_the_same_figures(photos, tiny, tmp_path, ask):
    saved = tmp_path / "saved"
    asked = ask(photos, tmp_path / "one", f"net={tiny}@torch", metrics=("psnr", "ssim"), limit=2, shown=0, save=saved)
    asked = replace(asked, data=[f"first={photos}", f"second={photos}"])
    evaluate(asked)
    names = {path.relative_to(saved).as_posix() for path in saved.rglob("*.png")}
    assert names == {
        f"net/{dataset}/{mask}/{image}_mask000.png"
        for dataset in ("first", "second")
        for mask in ("EveryNLines", "ThickStrokes")
        for image in "ab"
    }
    evaluate(replace(asked, models=(), results=[str(saved / "net")], save=None, out=tmp_path / "two"))
    assert read_csv(tmp_path / "two") == read_csv(tmp_path / "one")


def test_saved_results_of_scaled_images_have_the_same_figures(photos, tmp_path, ask):
    saved = tmp_path / "saved"
    asked = ask(photos, tmp_path / "one", "telea", size=(48, 40), shown=0, save=saved)
    evaluate(asked)
    results = replace(asked, models=(), results=[str(saved / "telea")], save=None, out=tmp_path / "two")
    evaluate(results)
    assert read_csv(tmp_path / "two") == read_csv(tmp_path / "one")
    with pytest.raises(GlamaError, match=r"a_mask000.png is 48x40, and .*a.png 48x48 by `size`; pictures of one size"):
        evaluate(replace(results, size=(48, 48), out=tmp_path / "three"))
    assert not (tmp_path / "three").exists()


def test_a_saved_result_that_is_gone_is_made_again_and_the_others_are_kept(beside, tmp_path, ask):
    saved = tmp_path / "saved" / "telea"
    asked = ask(beside, tmp_path / "out", "telea", masks=(str(beside),), save=saved.parent)
    first = evaluate(asked)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in saved.rglob("*.png")}
    (saved / "a_mask001.png").unlink()
    assert evaluate(asked) == first
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in saved.rglob("*.png")}
    changed = [path.name for path in before if before[path] != after[path]]
    assert changed == ["a_mask001.png"]
    assert after[saved / "a_mask001.png"][0] == before[saved / "a_mask001.png"][0]


def test_saved_results_of_a_photograph_that_has_changed_are_made_again(beside, tmp_path, ask):
    """The photograph was evaluated in between without saving its results."""
    saved = tmp_path / "saved"
    asked = ask(beside, tmp_path / "out", "telea", masks=(str(beside),), save=saved)
    evaluate(asked)
    shutil.copy(beside / "a.png", beside / "b.png")
    evaluate(replace(asked, save=None))
    evaluate(asked)
    evaluate(replace(asked, out=tmp_path / "new", save=tmp_path / "fresh"))
    name = Path("telea", "b_mask000.png")
    assert (saved / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_results_are_found_by_the_names_that_programs_give_them(beside, tmp_path, ask):
    """LaMa's predict.py, LaMa's evaluation (`_inpainted.jpg`), and the challenge (the image's own name)."""
    results = tmp_path / "results"
    put_picture(results / "a_mask000.png", beside / "b.png")
    put_picture(results / "a_mask001_inpainted.jpg", beside / "b.png")
    found = put_picture(results / "b.webp", beside / "a.png")
    put_picture(results / "more" / "c_mask000.bmp", beside / "more" / "c.png")
    asked = ask(beside, tmp_path / "out", masks=(str(beside),), metrics=("l1",), results=(f"other={results}",))
    summary = evaluate(asked)
    assert summary.failures == ()
    kept = Image.open(tmp_path / "out" / "pictures" / "photos" / "b_mask000.png" / "given-0.png")
    np.testing.assert_array_equal(np.asarray(kept), found)
    assert (tmp_path / "out" / "sheet-photos.png").is_file()


def test_changed_known_pixels_are_measured_as_they_are_and_reported(beside, tmp_path, ask, capsys):
    results = tmp_path / "results"
    changes = 0
    for mask in ("a_mask000", "a_mask001", "b_mask000", "more/c_mask000"):
        truth = np.array(Image.open(beside / f"{mask.rpartition('_mask')[0]}.png").convert("RGB"))
        if mask == "b_mask000":
            truth[0, :9] ^= 1
            changes = 9 / np.count_nonzero(np.asarray(Image.open(beside / f"{mask}.png")) == 0)
        (results / mask).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(truth).save(results / f"{mask}.png")
    asked = ask(beside, tmp_path / "out", masks=(str(beside),), metrics=("l1",), results=(str(results),))
    summary = evaluate(asked)
    note = (
        f"results changed known pixels in 1 of 4 results: {changes / 4:.3%} of them, by at most 1 of 255; the results "
        "are measured as they are"
    )
    assert summary.notes == (note,)
    assert f"- Note: {note}." in (tmp_path / "out" / "RESULTS.md").read_text()
    whole = summary.cell("photos", "results", "given", "l1", "whole").value.mean
    assert whole == pytest.approx(9 / 255 / (64 * 72) / 4, rel=1e-12)  # float64
    assert summary.cell("photos", "results", "given", "l1", "missing").value.mean == 0
    arguments = ["--data", f"photos={beside}", "--masks", str(beside), "--results", str(results), "--metric", "l1"]
    assert main.run([*arguments, "--processes", "1", "--out", str(tmp_path / "out")]) == 0
    assert f"glama-eval: note: {note}" in capsys.readouterr().err


def spoil_missing(results: Path) -> str:
    (results / "b_mask000.png").unlink()
    return (
        "{results} has no result of {data}/b.png with b_mask000.png: b_mask000.png or b_mask000_inpainted.png or b.png"
    )


def spoil_size(results: Path) -> str:
    Image.new("RGB", (30, 40)).save(results / "b_mask000.png")
    return "{results}/b_mask000.png is 40x30, and {data}/b.png 64x72; pictures of one size are expected"


def spoil_twins(results: Path) -> str:
    Image.new("RGB", (72, 64)).save(results / "b.png")
    return "{results} has two results of {data}/b.png with b_mask000.png, b_mask000.png and b.png; remove one"


def spoil_header(results: Path) -> str:
    (results / "b_mask000.png").write_bytes(b"no image")
    return "b_mask000.png is not a supported image"


@pytest.mark.parametrize("spoil", [spoil_missing, spoil_size, spoil_twins, spoil_header])
def test_results_that_do_not_fit_are_one_line(beside, tmp_path, capsys, spoil):
    results = tmp_path / "results"
    for name in ("a_mask000", "a_mask001", "b_mask000", "more/c_mask000"):
        put_picture(results / f"{name}.png", beside / f"{name.rpartition('_mask')[0]}.png")
    says = spoil(results).format(results=results, data=beside)
    arguments = ["--data", str(beside), "--masks", str(beside), "--results", str(results), "--metric", "l1"]
    assert main.run([*arguments, "--out", str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "opening the" not in line]
    assert len(lines) == 1
    assert says in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_is_named_and_the_others_are_measured(beside, tmp_path, ask):
    results = tmp_path / "results"
    for name in ("a_mask000", "a_mask001", "b_mask000", "more/c_mask000"):
        put_picture(results / f"{name}.png", beside / f"{name.rpartition('_mask')[0]}.png")
    whole = (results / "b_mask000.png").read_bytes()
    (results / "b_mask000.png").write_bytes(whole[: len(whole) // 2])
    summary = evaluate(ask(beside, tmp_path / "out", masks=(str(beside),), results=(str(results),)))
    (failure,) = summary.failures
    assert failure.startswith(f"photos/b_mask000.png, given: results: {results}/b_mask000.png ")
    assert {cell.value.n for cell in summary.cells} == {3}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["--results", "gone"], "--results gone is no folder; give the folder of the pictures"),
        (["--results", "beside"], "beside is the folder of --data; give that of the results"),
        ([], "neither --model nor --results is given"),
        (["--results", "telea", "--model", "telea"], "two methods are called 'telea'"),
        (["--model", "telea", "--save", "beside/x"], "--save beside/x lies in --data"),
        (["--results", "telea", "--save", "telea/x"], "--save telea/x lies in --results"),
        (["--model", "telea", "--save", "out"], "--save out is the folder of --out"),
        (["--model", "a/b=telea", "--save", "s"], "a method is called 'a/b', as no folder below --save may be"),
    ],
)
def test_folders_of_results_that_cannot_be_used_are_one_line(beside, tmp_path, monkeypatch, capsys, changes, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "telea").mkdir()
    assert main.run(["--data", "beside", "--masks", "beside", *changes, "--out", "out"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "opening the" not in line]
    assert says in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "telea"]


def test_saved_results_of_another_configuration_are_kept(photos, tmp_path, ask):
    saved = tmp_path / "saved"
    evaluate(ask(photos, tmp_path / "one", "telea", save=saved))
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}
    with pytest.raises(GlamaError, match=r"saved has results of another configuration \(seed 0, not 1\); .*`save`"):
        evaluate(ask(photos, tmp_path / "two", "telea", seed=1, save=saved))
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    with pytest.raises(GlamaError, match="has files that no evaluation has saved"):
        evaluate(ask(photos, tmp_path / "three", "telea", save=tmp_path / "thesis"))


def list_saved(folder: Path) -> dict[str, bytes | None]:
    """Return what is below a folder, with the bytes of files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def test_overwriting_leaves_no_saved_results_of_the_run_before(photos, tmp_path, ask):
    saved = tmp_path / "saved"
    before = ask(photos, tmp_path / "out", "telea", "navier-stokes", masks=("Expand", "EveryNLines"), save=saved)
    evaluate(replace(before, data=[f"first={photos}", f"second={photos}"]))
    (saved / "telea" / "first" / "Expand" / ".glama-0123abcd.tmp").touch()  # of a killed process
    asked = replace(before, models=["telea"], masks=["ThickStrokes"], limit=1, overwrite=True)
    evaluate(asked)
    evaluate(replace(asked, out=tmp_path / "straight", save=tmp_path / "fresh"))
    assert list_saved(saved) == list_saved(tmp_path / "fresh")


@pytest.mark.parametrize(
    "name",
    ["my.txt", "mine/a_mask000.png", "telea/my.txt", "telea/EveryNLines/mine.png", "telea/Expand/a_mask000.png"],
)
def test_overwriting_saved_results_never_removes_a_file_of_others(photos, tmp_path, ask, name):
    asked = ask(photos, tmp_path / "out", "telea", limit=1, save=tmp_path / "saved")
    evaluate(asked)
    foreign = tmp_path / "saved" / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("my own")
    before = list_saved(tmp_path)
    with pytest.raises(GlamaError, match=rf"{name} was not saved by the evaluation of protocol.json; choose another"):
        evaluate(replace(asked, seed=1, overwrite=True))
    assert list_saved(tmp_path) == before


def test_overwriting_saved_results_follows_no_link_and_no_name_out_of_the_folder(photos, tmp_path, ask):
    saved, other = tmp_path / "saved", tmp_path / "EveryNLines"
    asked = ask(photos, tmp_path / "out", "telea", limit=1, save=saved)
    evaluate(asked)
    other.mkdir()
    (other / "a_mask000.png").write_text("my own")
    text = (saved / "protocol.json").read_text()
    (saved / "protocol.json").write_text(text.replace('"telea"', '".."'))
    with pytest.raises(GlamaError, match=r"telea/EveryNLines/a_mask000.png was not saved by"):
        evaluate(replace(asked, overwrite=True))
    (saved / "protocol.json").write_text(text)
    shutil.rmtree(saved / "telea" / "EveryNLines")
    (saved / "telea" / "EveryNLines").symlink_to(other)
    with pytest.raises(GlamaError, match=r"telea/EveryNLines was not saved by"):
        evaluate(replace(asked, overwrite=True))
    assert (other / "a_mask000.png").read_text() == "my own"


def test_saved_results_of_a_damaged_protocol_are_kept(photos, tmp_path, ask):
    asked = ask(photos, tmp_path / "out", "telea", limit=1, save=tmp_path / "saved")
    evaluate(asked)
    (tmp_path / "saved" / "protocol.json").write_text("{}")
    before = list_saved(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(GlamaError, match=r"saved/protocol.json is damaged or of another version; choose another"):
            evaluate(replace(asked, overwrite=overwrite))
    assert list_saved(tmp_path) == before


@pytest.mark.parametrize("changes", [{}, {"overwrite": True}])
def test_a_folder_that_results_cannot_be_saved_in_leaves_the_figures_as_they_were(photos, tmp_path, ask, changes):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    with pytest.raises(GlamaError, match="has files that no evaluation has saved"):
        evaluate(ask(photos, tmp_path / "new", "telea", save=tmp_path / "thesis", **changes))
    assert not (tmp_path / "new").exists()
    out = tmp_path / "out"
    evaluate(ask(photos, out, "telea"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(GlamaError, match="has files that no evaluation has saved"):
        evaluate(ask(photos, out, "telea", save=tmp_path / "thesis", **changes))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_images_whose_results_would_have_one_name_are_refused(photos, tmp_path, ask):
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(photos / "a.png", tmp_path / "photos" / "a.bmp")
    with pytest.raises(GlamaError, match=r"a.bmp and .*a.png have results of one name, EveryNLines/a_mask000.png"):
        evaluate(ask(tmp_path / "photos", tmp_path / "out", "telea", save=tmp_path / "saved"))


def test_pictures_of_a_mixture_with_a_dash_in_its_name_are_kept(photos, tmp_path, ask):
    evaluate(ask(photos, tmp_path / "out", "telea", masks=("lama-plus",)))
    assert (tmp_path / "out" / "pictures" / "photos" / "a.png" / "lama-plus-0.png").is_file()
    assert (tmp_path / "out" / "sheet-photos.png").is_file()
