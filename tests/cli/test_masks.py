from __future__ import annotations

import numpy as np
from PIL import Image

from glama_deploy.cli.masks import main
from glama_deploy.masks import NAMED, by_name


def run(*arguments: object) -> int:
    return main.run([str(argument) for argument in arguments])


def test_the_sheet_shows_the_masks_that_the_seed_draws(tmp_path):
    out = tmp_path / "sheet.png"
    assert run("--out", out, "--masks", "ThinStrokes", "--masks", "general", "--count", 3, "--size", "64x96") == 0
    sheet = np.asarray(Image.open(out))
    for row, name in enumerate(("ThinStrokes", "general")):
        for column in range(3):
            top, left = 8 + row * 72, 190 + column * 104
            mask = by_name(name)(64, 96, np.random.default_rng((0, column)))
            np.testing.assert_array_equal(sheet[top : top + 64, left : left + 96, 0] == 255, mask)


def test_all_kinds_are_drawn_by_default_and_a_picture_is_kept(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert run("--out", out, "--count", 1, "--size", "32x32") == 0
    assert Image.open(out).height == 8 + len(NAMED) * 40
    before = out.read_bytes()
    assert run("--out", out) == 2
    assert "exists already; choose another name or pass --overwrite" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_bad_input_is_one_line(tmp_path, capsys):
    for arguments, says in (
        (("--out", tmp_path / "a.png", "--masks", "ThinStroke"), "did you mean 'ThinStrokes'?"),
        (("--out", tmp_path / "a.jpg"), "a .png is written"),
        (("--out", tmp_path / "a.png", "--size", "100"), "HEIGHTxWIDTH is expected"),
        (("--out", tmp_path / "no" / "a.png"), "cannot write"),
    ):
        assert run(*arguments) == 2
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
