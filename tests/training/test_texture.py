"""The texture term of wide holes, against SciPy's Wasserstein distance and SciPy's distance to known pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.ndimage import distance_transform_cdt, gaussian_filter, maximum_filter
from scipy.stats import wasserstein_distance

from glama_deploy.export.samples import SAMPLE
from glama_deploy.masks import by_name
from glama_deploy.training import checkpoints, config
from glama_deploy.training.data import Squares
from glama_deploy.training.run import train
from glama_deploy.training.texture import (
    PATCH_SIDE,
    compare_textures,
    draw_directions,
    find_wide_pixels,
    keep_wide_holes,
)
from glama_deploy.training.trainer import Trainer


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """float64 64×64×3 of the sample photograph, 0…1."""
    with Image.open(SAMPLE) as picture:
        return np.asarray(picture.convert("RGB").crop((300, 200, 364, 264))) / 255


def hole(*box: int) -> torch.Tensor:
    top, left, bottom, right = box
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    mask[..., top:bottom, left:right] = 1
    return mask


def compute_by_scipy(found: np.ndarray, truth: np.ndarray, wide: np.ndarray, directions: np.ndarray) -> float:
    """Average SciPy's distance over directions, of the patches around the pixels of `wide`."""
    windows = (sliding_window_view(image, (PATCH_SIDE, PATCH_SIDE), axis=(0, 1)) for image in (found, truth))
    edge = PATCH_SIDE // 2
    inner = wide[edge:-edge, edge:-edge]
    mine, theirs = (window[inner].reshape(inner.sum(), -1) for window in windows)
    flat = directions.reshape(len(directions), -1).astype(np.float64)
    return float(np.mean([wasserstein_distance(mine @ each, theirs @ each) for each in flat]))


@pytest.mark.parametrize("mask", ["ThickStrokes", "MediumStrokes", "Expand", "RandomCompletion", "NearestNeighbor"])
@pytest.mark.parametrize("distance", [0, 2, 8])
def test_wide_pixels_are_those_far_from_known_ones(mask, distance):
    missing = by_name(mask)(128, 96, np.random.default_rng(3))
    expected = distance_transform_cdt(missing, "chessboard") > distance
    found = find_wide_pixels(torch.from_numpy(missing)[None, None].float(), distance)
    assert (found[0].numpy() == expected).all()


@pytest.mark.parametrize("mask", ["ThickStrokes", "RandomCompletion", "NearestNeighbor"])
@pytest.mark.parametrize("distance", [0, 3])
def test_the_prediction_is_kept_in_squares_of_missing_pixels_alone(mask, distance):
    missing = by_name(mask)(128, 96, np.random.default_rng(3))
    wide = distance_transform_cdt(missing, "chessboard") > distance
    expected = maximum_filter(wide, 2 * distance + 1, mode="constant")
    predicted, image = torch.zeros(1, 3, 128, 96), torch.ones(1, 3, 128, 96)
    kept = keep_wide_holes(predicted, image, torch.from_numpy(missing)[None, None].float(), distance)
    assert (kept[0].numpy() == 1 - expected).all()
    assert expected.any() == (mask != "NearestNeighbor" or distance == 0)  # the grid has no hole of seven pixels


def test_the_perceptual_loss_of_wide_holes_has_no_gradient_elsewhere(photo):
    image, mask = to_tensor(photo), hole(4, 4, 24, 24) + hole(40, 0, 42, 64)
    predicted = torch.full_like(image, 0.5).requires_grad_()
    keep_wide_holes(predicted, image, mask, 5).square().sum().backward()
    changed = predicted.grad.abs().sum(1)[0] > 0
    assert torch.equal(changed, hole(4, 4, 24, 24)[0, 0] == 1)


@pytest.mark.parametrize("box", [(16, 8, 56, 40), (0, 0, 32, 64)])
def test_the_term_is_the_wasserstein_distance_of_projected_patches(photo, box):
    mask, blurred = hole(*box), gaussian_filter(photo, (2, 2, 0))
    directions = draw_directions(0, 7)
    found = compare_textures(to_tensor(blurred), to_tensor(photo), mask, directions, 5).item()
    wide = distance_transform_cdt(mask[0, 0].numpy(), "chessboard") > 5
    expected = compute_by_scipy(blurred, photo, wide, directions.numpy())
    assert expected > 0.001
    assert found == pytest.approx(expected, rel=1e-9)  # float64; only the order of the sums differs


def test_images_count_equally_and_one_without_a_wide_hole_counts_nothing(photo):
    blurred = gaussian_filter(photo, (2, 2, 0))
    masks = [hole(16, 8, 56, 40), hole(0, 0, 30, 30), hole(0, 0, 8, 64)]
    alone = [compare_textures(to_tensor(blurred), to_tensor(photo), mask, draw_directions(0, 0), 8) for mask in masks]
    predicted, image = (to_tensor(each).expand(3, 3, 64, 64) for each in (blurred, photo))
    together = compare_textures(predicted, image, torch.cat(masks), draw_directions(0, 0), 8)
    assert alone[0] > 0
    assert alone[1] > 0
    assert together.item() == pytest.approx((alone[0] + alone[1]).item() / 3)
    assert torch.isfinite(together)


@pytest.mark.parametrize("name", ["EveryNLines", "NearestNeighbor"])
def test_lines_and_grids_have_no_gradient(photo, name):
    mask = torch.from_numpy(by_name(name)(64, 64, np.random.default_rng(0)))[None, None].double()
    predicted = to_tensor(gaussian_filter(photo, (2, 2, 0))).requires_grad_()
    compare_textures(predicted, to_tensor(photo), mask, draw_directions(0, 0), 8).backward()
    assert not predicted.grad.any()


def test_the_gradient_reaches_the_patches_of_wide_holes_only(photo):
    predicted = to_tensor(gaussian_filter(photo, (2, 2, 0))).requires_grad_()
    compare_textures(predicted, to_tensor(photo), hole(10, 10, 50, 50), draw_directions(0, 0), 8).backward()
    reached = predicted.grad[0].abs().sum(0) > 0
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[18 - 3 : 42 + 3, 18 - 3 : 42 + 3] = True  # more than 8 pixels inside, and 3 pixels for the patches
    assert (reached == expected).all()


def test_texture_at_another_place_is_near_and_blurred_texture_is_far(photo):
    """The absolute difference says the contrary."""
    blurred, moved = gaussian_filter(photo, (2, 2, 0)), np.roll(photo, (2, 2), (0, 1))
    mask, directions = hole(8, 8, 56, 56), draw_directions(0, 0)
    of_blurred, of_moved = (
        compare_textures(to_tensor(each), to_tensor(photo), mask, directions, 4).item() for each in (blurred, moved)
    )
    assert np.abs(blurred - photo).mean() < np.abs(moved - photo).mean()
    assert of_moved < 0.5 * of_blurred
    assert compare_textures(to_tensor(photo), to_tensor(photo), mask, directions, 4) == 0


def test_a_gray_hole_that_follows_the_gradient_gets_the_contrast_of_the_truth(photo):
    """Adam on the pixels of the hole, with other directions in each step."""
    mask, truth = hole(8, 8, 56, 56).float(), to_tensor(photo).float()
    start = torch.full_like(truth, 0.5) + 0.005 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    pixels = start.clone().requires_grad_()
    adam = torch.optim.Adam([pixels], 0.02)
    for step in range(100):
        adam.zero_grad()
        compare_textures(pixels * mask + truth * (1 - mask), truth, mask, draw_directions(0, step)[:16], 4).backward()
        adam.step()
    inner = (..., slice(16, 48), slice(16, 48))
    before, after, wanted = (each[inner].std().item() for each in (start, pixels.detach(), truth))
    assert before < 0.2 * wanted
    assert 0.7 * wanted < after < 1.3 * wanted


def test_autocast_does_not_change_the_term(photo):
    predicted, image = (to_tensor(each).float() for each in (gaussian_filter(photo, (2, 2, 0)), photo))
    arguments = (hole(8, 8, 56, 56).float(), draw_directions(0, 0), 8)
    expected = compare_textures(predicted, image, *arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compare_textures(predicted, image, *arguments), expected)


def test_directions_are_of_unit_length_and_of_their_step_alone():
    drawn = draw_directions(5, 11)
    torch.testing.assert_close(drawn.square().sum((1, 2, 3)), torch.ones(len(drawn)))
    assert torch.equal(drawn, draw_directions(5, 11))
    for other in (draw_directions(5, 12), draw_directions(6, 11)):
        assert not torch.equal(drawn, other)


def asked(photos: Path, steps: int, *more: str) -> config.Config:
    given = [
        "network.ngf=8",
        "network.n_blocks=1",
        "discriminator.channels=8",
        "discriminator.layers=2",
        "weights.perceptual=0",
        "weights.texture=10",
        "weights.texture_distance=3",
        f"data.train=[{photos}]",
        "data.masks=Expand",
        "data.side=32",
        "data.workers=0",
        "optimization.batch=2",
        f"optimization.steps={steps}",
    ]
    return config.load("glama-tiny", [*given, *more])


def test_a_resumed_run_with_the_term_continues_exactly(photos, tmp_path):
    straight = train(asked(photos, 4), tmp_path / "straight", device="cpu")
    train(asked(photos, 2), tmp_path / "halves", device="cpu")
    resumed = train(asked(photos, 4), tmp_path / "halves", resume=True, device="cpu")
    mine, theirs = (checkpoints.read(path)["training"]["generator"] for path in (resumed, straight))
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_the_term_adds_its_weight_to_the_loss(photos):
    run = Trainer(
        asked(photos, 1, "weights.adversarial=0", "weights.feature_matching=0"), Fabric(accelerator="cpu", devices=1)
    )
    scalars, _ = run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
    assert scalars["texture"] > 0
    others = 10 * scalars["l1"] + scalars["total_variation"] + scalars["focal_frequency"]
    assert scalars["total"] == pytest.approx(others + 10 * scalars["texture"], rel=1e-5)
