"""LaMa's augmentations, step by step against the programs that LaMa draws them with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glama_deploy.training import distortions

#: Pixels after each step with the parameters below, by albumentations 0.5.2 and imgaug 0.4.0.
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "published_distortions.json").read_text(encoding="utf-8"))

SHIFTS = np.array([[0.05, 0.02], [0.01, 0.08], [0.06, 0.03], [0.02, 0.04]])

STEPS = {
    "perspective": lambda image: distortions.change_perspective(image, SHIFTS),
    "rotate": lambda image: distortions.rotate(image, np.array([1.25, 0.8]), 25, np.array([3.0, -2.0])),
    "pad": lambda image: distortions.pad(image, 60),
    "lens": lambda image: distortions.distort_lens(image, 0.05),
    "clahe": lambda image: distortions.equalize(image, 3.0),
    "contrast": lambda image: distortions.change_contrast(image, 1.15, -0.1),
    "hue": lambda image: distortions.shift_hue(image, 4.3, -20.7, 3.2),
}


@pytest.fixture
def picture() -> np.ndarray:
    rows, columns = np.mgrid[:32, :48]
    waves = [128 + 100 * np.sin((rows * (c + 1) + 2 * columns) / 15) for c in range(3)]
    return np.stack(waves, axis=2).astype(np.uint8)


@pytest.mark.parametrize("name", list(STEPS))
def test_each_distortion_gives_the_result_of_lamas_libraries(name, picture):
    theirs = np.array(PUBLISHED["steps"][name])
    ours = STEPS[name](picture)[::8, ::8].astype(int)
    assert ours.shape == theirs.shape
    # interpolation and colour spaces are rounded otherwise by another OpenCV; a wrong step is 8 levels off and more
    assert np.abs(ours - theirs).max() <= 3
    assert np.abs(ours - theirs).mean() <= 0.5


def test_steps_come_in_half_of_the_cases(picture):
    """Three steps bend and three recolour: one in eight is left as it was, four standard errors of 400 are 0.066."""
    for change in (lambda rng: distortions.bend(picture, 16, rng), lambda rng: distortions.recolour(picture, rng)):
        left = [np.array_equal(change(np.random.default_rng(seed)), picture) for seed in range(400)]
        assert np.mean(left) == pytest.approx(1 / 8, abs=0.066)


def test_a_small_picture_is_padded_to_the_side(picture):
    for seed in range(8):
        assert distortions.bend(picture, 40, np.random.default_rng(seed)).shape == (40, 48, 3)


def test_a_seed_gives_one_distortion(picture):
    one, two = (distortions.bend(picture, 16, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
