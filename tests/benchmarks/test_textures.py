"""Procedural pictures for training resemble photographs in their spectrum, and a seed makes them again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glama_deploy.benchmarks.quality import textures
from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos

SIDE = 128


def measure_slope(image: Image.Image) -> float:
    """The slope of amplitude over frequency, both as logarithms, over rings of 4 cycles a picture to half of Nyquist.

    Photographs fall as 1/f or somewhat faster (Field, "Relations between the statistics of natural images", 1987).
    """
    side = min(image.size)
    square = image.convert("L").crop((0, 0, side, side)).resize((SIDE, SIDE), Image.Resampling.BOX)
    gray = np.asarray(square, np.float64)
    window = np.hanning(SIDE)
    amplitude = np.abs(np.fft.rfft2((gray - gray.mean()) * np.outer(window, window)))
    ring = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)) * SIDE
    ring = ring.round().astype(int).ravel()
    mean = np.bincount(ring, amplitude.ravel()) / np.bincount(ring)
    rings = np.arange(4, SIDE // 4)
    return float(np.polyfit(np.log(rings), np.log(mean[rings]), 1)[0])


def draw(out: Path, *options: str) -> list[Path]:
    command = [sys.executable, textures.__file__, "--out", out, "--side", str(SIDE), *options]
    subprocess.run(command, check=True, timeout=60)
    return sorted(out.iterdir())


@pytest.mark.parametrize("surfaces", ["noise", "photographs"])
def test_the_spectrum_falls_as_in_photographs(tmp_path, surfaces):
    """The tolerance is how far the photographs themselves spread: one standard deviation. White noise is outside."""
    photographs = []
    (tmp_path / "photos").mkdir()
    for path in sorted(PHOTOS.glob("*.jpg")):
        with Image.open(path) as image:
            photographs.append(measure_slope(image))
            image.reduce(3).save(tmp_path / "photos" / f"{path.stem}.png")
    mean, spread = np.mean(photographs), np.std(photographs)
    options = [] if surfaces == "noise" else ["--photos", str(tmp_path / "photos")]
    found = []
    for path in draw(tmp_path / "leaves", "--count", "6", *options):
        with Image.open(path) as image:
            found.append(measure_slope(image))
    assert abs(np.mean(found) - mean) < spread, (found, photographs)
    white = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
    assert abs(measure_slope(white) - mean) > 2 * spread


def test_a_seed_and_a_number_make_a_picture_again(tmp_path):
    few = draw(tmp_path / "few", "--count", "1", "--seed", "3")
    more = draw(tmp_path / "more", "--count", "2", "--seed", "3")
    other = draw(tmp_path / "other", "--count", "1", "--seed", "4")
    assert [path.name for path in more] == ["leaves-3-00000.png", "leaves-3-00001.png"]
    assert few[0].read_bytes() == more[0].read_bytes()
    assert len({path.read_bytes() for path in [*more, *other]}) == 3


def test_radii_follow_the_power_law_of_minus_three():
    """Held against a numerical integral of the density. 20000 draws miss a share by 0.0035 (one standard error)."""
    rng = np.random.default_rng(0)
    drawn = np.array([textures.draw_radius(2, 64, rng) for _ in range(20000)])
    grid = np.linspace(2, 64, 200001)
    density = grid**-3.0
    for radius in (2.5, 4, 8, 20):
        expected = density[grid <= radius].sum() / density.sum()
        assert np.mean(drawn <= radius) == pytest.approx(expected, abs=0.0105)
    assert drawn.min() >= 2
    assert drawn.max() <= 64


def test_photographs_of_all_formats_are_used(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "blue.JPG")
    Image.new("L", (40, 30), 128).save(tmp_path / "gray.webp")
    surfaces = textures.read_surfaces(list_photos(tmp_path), np.random.default_rng(0))
    colours = sorted(tuple(surface[0, 0].tolist()) for surface in surfaces)
    assert colours == [(0, 0, 254), (128, 128, 128), (255, 0, 0)]  # JPEG rounds blue


@pytest.mark.parametrize(("folder", "says"), [("empty", "has no photographs"), ("gone", "is not a folder")])
def test_a_folder_without_photographs_is_refused_before_anything_is_written(tmp_path, folder, says):
    (tmp_path / "empty").mkdir()
    command = [sys.executable, textures.__file__, "--out", tmp_path / "out", "--photos", tmp_path / folder]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert says in result.stderr
    assert not (tmp_path / "out").exists()
