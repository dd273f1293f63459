"""Gains of networks over classical inpainting, by the kind of hole."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.quality.gains import KINDS, WIDE_DISTANCE, Figures, average, find_deep, main, measure


def test_lines_and_grids_have_every_phase():
    covered = {
        kind: sum(np.asarray(mask(16, 16, np.random.default_rng(0)), int) for mask in KINDS[kind])
        for kind in ("even lines", "odd lines", "grid, any pixel")
    }
    # each pixel is missing once or twice in lines of both phases and both directions: 2 of 4 masks
    assert (covered["even lines"] + covered["odd lines"] == 2).all()
    assert (covered["grid, any pixel"] == 15).all()  # each pixel is known in one of 16 grids


def test_the_inside_of_a_hole_is_farther_than_the_distance_from_known_pixels():
    missing = np.zeros((48, 48), bool)
    missing[8:40, 8:40] = True
    inside = np.zeros_like(missing)
    inside[8 + WIDE_DISTANCE : 40 - WIDE_DISTANCE, 8 + WIDE_DISTANCE : 40 - WIDE_DISTANCE] = True
    assert np.array_equal(find_deep(missing), inside)


def test_only_the_inside_of_holes_counts_as_texture():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (64, 64, 3), np.uint8)
    missing = np.zeros((64, 64), bool)
    missing[16:48, 16:48] = True
    edge = missing & ~find_deep(missing)
    found = np.where(edge[..., None], 255 - truth, truth)
    figures = measure(found, truth, missing, wide=True)
    assert (figures.proxy, figures.spectrum) == (0, 0)
    error = 2 * truth[missing].astype(float) - 255
    error[find_deep(missing)[missing]] = 0
    assert figures.psnr == pytest.approx(10 * np.log10(255**2 / np.square(error).mean()), abs=1e-9)


def test_photographs_without_a_wide_hole_do_not_count_in_the_means_of_texture():
    mean = average([Figures(20.0), Figures(30.0, 0.5, 2.0)])
    assert (mean.psnr, mean.proxy, mean.spectrum) == (25, 0.5, 2.0)


def test_the_table_has_the_gain_over_the_better_classical_method(tmp_path, monkeypatch, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    arguments = ["--photos", str(tmp_path), "--side", "32", "--kind", "odd lines", "--out", str(tmp_path / "sheets")]
    monkeypatch.setattr(sys, "argv", ["gains.py", *arguments])
    main()
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    psnr = {row[1].strip().split()[0]: float(row[2]) for row in rows}
    network = next(row for row in rows if row[3].strip())
    best = max(psnr["telea"], psnr["navier-stokes"])
    assert float(network[3]) == pytest.approx(float(network[2]) - best, abs=0.011)  # all three have two decimals
    with Image.open(tmp_path / "sheets" / "odd-lines.png") as sheet:
        assert sheet.size == (5 * 32, 32)  # the hole, three methods, the truth
