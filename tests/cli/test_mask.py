"""glama-mask writes the mask that glama-inpaint fills."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.cli.mask import main
from glama_deploy.inpainting.mask_edits import grow_holes


def run(*arguments: object, command=main) -> int:
    return command.run([str(argument) for argument in arguments])


@pytest.fixture
def image(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def labels(tmp_path):
    """A LabelMe file of a.png: a dog from (10, 60) to (20, 70)."""
    dog = {"label": "dog", "shape_type": "rectangle", "points": [[10, 60], [20, 70]]}
    document = {"shapes": [dog], "imagePath": "a.png", "imageHeight": 96, "imageWidth": 120}
    (tmp_path / "labels.json").write_text(json.dumps(document))
    return tmp_path / "labels.json"


def test_the_mask_has_all_that_the_options_mark(tmp_path, image, labels, photo, hole, capsys):
    Image.fromarray(hole).save(tmp_path / "mask.png")
    color = "#" + "".join(f"{value:02x}" for value in photo[3, 3])
    marks = ["--box", "90,60,10,5", "--box", "0,0,4,4", "--color", color, "--annotations", labels, "--category", "dog"]
    out = tmp_path / "out.png"
    assert run("--image", image, "--mask", tmp_path / "mask.png", *marks, "--grow", 2, "--out", out) == 0
    assert capsys.readouterr().err == f"{out}\n"
    expected = hole | (photo == photo[3, 3]).all(axis=2)
    expected[60:65, 90:100] = expected[:4, :4] = expected[60:70, 10:20] = True
    written = Image.open(out)
    assert (written.mode, written.format) == ("L", "PNG")
    np.testing.assert_array_equal(np.asarray(written), np.where(grow_holes(expected, 2), 255, 0))


def test_paths_stand_alone_as_those_of_glama_inpaint_do(tmp_path, image, hole, capsys):
    Image.fromarray(hole).save(tmp_path / "mask.png")
    assert run(image, tmp_path / "mask.png", tmp_path / "one.png") == 0
    assert run(image, tmp_path / "two.png", "--box", "0,0,4,4") == 0
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        np.testing.assert_array_equal(np.asarray(one) > 0, hole)
        assert (np.asarray(two) > 0).sum() == 16
    capsys.readouterr()
    assert run(image, "--box", "0,0,4,4") == 2
    assert "no output is given; give --out" in capsys.readouterr().err


def test_glama_inpaint_fills_the_same_with_the_options_as_with_the_mask_that_they_make(
    tmp_path, image, labels, tiny_bundle
):
    marks = ["--box", "90,60,10,5", "--annotations", labels, "--grow", 3]
    assert run("--image", image, *marks, "--out", tmp_path / "mask.png") == 0
    files = ["--image", image, "--model", tiny_bundle.path]
    assert run(*files, *marks, "--out", tmp_path / "one.png", command=glama_inpaint) == 0
    assert run(*files, "--mask", tmp_path / "mask.png", "--out", tmp_path / "two.png", command=glama_inpaint) == 0
    one, two = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("one", "two"))
    np.testing.assert_array_equal(one, two)
    assert (one != np.asarray(Image.open(image))).any()


def test_a_folder_goes_on_after_a_bad_file(tmp_path, photo, capsys):
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.jpg")
    Image.fromarray(photo[:30, :30]).save(tmp_path / "photos" / "small.png")
    (tmp_path / "photos" / "empty.png").write_bytes(b"")
    arguments = ["--image", tmp_path / "photos", "--box", "40,20,100,9", "--out", tmp_path / "masks"]
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert "1 written, 0 skipped, 2 failed" in err
    assert "small.png is 30x30, and --box 40,20,100,9 lies outside; x is from 0 to 29, y from 0 to 29" in err
    assert "a.jpg is 96x120, and --box 40,20,100,9 is clipped to 40,20,80,9" in err
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["a.png"]
    assert run(*arguments) == 2
    assert "0 written, 1 skipped, 2 failed" in capsys.readouterr().err


def test_the_two_commands_name_each_other(capsys):
    from glama_deploy.cli.masks import main as glama_masks

    assert run("--help") == 0
    assert "glama-masks" in capsys.readouterr().out
    assert glama_masks.run(["--help"]) == 0
    assert "glama-mask (without an s)" in " ".join(capsys.readouterr().out.split())


def test_bad_input_is_one_line_and_writes_nothing(tmp_path, image, labels, capsys):
    files = sorted(tmp_path.iterdir())
    (tmp_path / "other.json").write_text('{"a": 1}')
    for arguments, says in (
        ([], "no pixel is marked as missing; give --mask, --box, --color or --annotations"),
        (["--box", "1,2,3"], "--box is '1,2,3'; x,y,w,h in whole pixels is expected"),
        (["--box", "1,2,-3,4"], "--box 1,2,-3,4 is -3 wide and 4 high; both must be at least 1"),
        (["--box", "500,2,3,4"], "--box 500,2,3,4 lies outside"),
        (["--color", "pinkish"], "--color is 'pinkish'; #rrggbb or a name is expected"),
        (["--color", "#00ff00"], "within 0 of --color #00ff00; the nearest differs by "),
        (["--color-tolerance", "3", "--box", "1,1,2,2"], "--color-tolerance is set without --color"),
        (["--category", "dog", "--box", "1,1,2,2"], "--category is set without --annotations"),
        (["--annotations", labels, "--category", "dgo"], "has no --category 'dgo'; did you mean 'dog'?"),
        (["--annotations", tmp_path / "other.json"], "neither of COCO"),
        (["--annotations", image], "is not JSON"),
        (["--box", "1,1,2,2", "--invert"], "--mask-from, --threshold and --invert are for mask files"),
        (["--mask", image, "--box", "1,1,2,2"], "are the same file"),
    ):
        assert run("--image", image, *arguments, "--out", tmp_path / "out.png") == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    assert run("--image", image, "--box", "1,1,2,2", "--out", tmp_path / "out.jpg") == 2
    assert "--out is" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "other.json"])


def test_the_frame_is_chosen_as_in_glama_inpaint(tmp_path, photo, capsys):
    Image.fromarray(photo[:40]).save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(photo)])
    given = "--image", tmp_path / "a.tif", "--box", "9,60,30,20", "--out", tmp_path / "mask.png"
    assert run(*given) == 2
    assert "has 2 frames; set --frame to one of 0 to 1" in capsys.readouterr().err
    assert run(*given, "--frame", 1) == 0
    assert np.asarray(Image.open(tmp_path / "mask.png")).shape == photo.shape[:2]


def test_a_mask_without_a_place_fails_and_the_rest_goes_on(tmp_path, photo, capsys):
    for name in ("x", "y"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.fromarray(photo).save(tmp_path / "photos" / name / "a.jpg")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "x").write_text("in the way")
    given = "--image", tmp_path / "photos", "--box", "9,60,30,20", "--out", tmp_path / "masks", "--recursive"
    assert run(*given) == 2
    said = capsys.readouterr().err
    assert "a file of that name is in the way; choose another place" in said
    assert "1 written, 0 skipped, 1 failed" in said
    assert (tmp_path / "masks" / "y" / "a.png").exists()
