"""Each loss of the paper against a value computed by hand or in NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from glama_deploy.training import losses

#: Values of the official focal frequency loss and of LaMa's own losses.
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "published_losses.json").read_text(encoding="utf-8"))


def waves(shape: Sequence[int], phase: float) -> torch.Tensor:
    """Numbers within 0…1 that no version of a generator changes, float64."""
    n = np.arange(np.prod(shape)).reshape(shape)
    return torch.from_numpy(0.5 + 0.5 * np.sin(0.37 * n + phase + 0.001 * n * n % 5))


def image(*values: float) -> torch.Tensor:
    """One image of 3 equal channels from rows of a square of values."""
    side = math.isqrt(len(values))
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, side, side).expand(1, 3, side, side)


def test_l1_counts_known_pixels_only():
    """|x − x̂| is 1, 2, 3, 4 at the four pixels, the second and the fourth are missing: (1 + 3)/4."""
    mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
    assert losses.l1_known(image(1, 2, 3, 4), image(0, 0, 0, 0), mask).item() == pytest.approx(1.0)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_l1_on_the_missing_pixels_is_a_mean_over_those_of_each_image():
    image = torch.zeros(2, 3, 2, 2)
    predicted = torch.full((2, 3, 2, 2), 0.25)
    predicted[1] = 1.0
    mask = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]).reshape(2, 1, 2, 2)
    assert losses.l1_missing(predicted, image, mask) == pytest.approx((0.25 + 0) / 2)
    mask[1] = 1
    assert losses.l1_missing(predicted, image, mask) == pytest.approx((0.25 + 1) / 2)  # one pixel weighs like four


def test_decibels_of_the_missing_pixels_are_of_each_image():
    image, mask = torch.zeros(2, 3, 2, 2), torch.ones(2, 1, 2, 2)
    mask[0, 0, 1] = 0
    predicted = torch.full((2, 3, 2, 2), 0.1)
    predicted[0, :, 1], predicted[1] = 1.0, 0.01
    by_hand = (10 * math.log10(0.01 + 1e-4) + 10 * math.log10(0.0001 + 1e-4)) / 2
    assert losses.psnr_missing(predicted, image, mask).item() == pytest.approx(by_hand, abs=1e-4)
    assert losses.psnr_missing(image, image, torch.zeros(2, 1, 2, 2)).item() == pytest.approx(-40)


def test_the_discriminator_takes_missing_regions_alone_for_fake():
    """−log σ(2) for the real one; the generated image's known half is to be real, its missing half fake."""
    real, fake = torch.full((1, 1, 1, 2), 2.0), torch.tensor([[[[0.5, -1.5]]]])
    mask = torch.zeros(1, 1, 4, 8)
    mask[..., 4:] = 1  # the right logit's half
    by_hand = softplus(-2.0) + (softplus(-0.5) + softplus(-1.5)) / 2
    assert losses.discriminator_loss(real, fake, mask).item() == pytest.approx(by_hand, rel=1e-6)  # float32


def test_the_generator_wants_every_patch_to_be_real():
    fake = torch.tensor([[[[0.0, 2.0]]]])
    assert losses.generator_loss(fake).item() == pytest.approx((softplus(0) + softplus(-2)) / 2, rel=1e-6)


def test_r1_is_the_squared_gradient_at_real_images():
    """For D(x) = 3·Σx² the gradient is 6x, its square summed 36·Σx² for each image."""
    x = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64).reshape(2, 1, 1, 2).requires_grad_()
    penalty = losses.gradient_penalty(3 * x.square().sum((1, 2, 3)), x)
    assert penalty.item() == pytest.approx(36 * (5 + 9) / 2)
    penalty.backward()  # it is differentiable: of 36·Σx²/2 by x, 36·x
    torch.testing.assert_close(x.grad, 36 * x.detach())


def test_features_are_matched_in_l1_without_a_gradient_to_the_real_ones():
    real = [torch.ones(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 4, 1, 1, requires_grad=True)]
    fake = [torch.full((1, 2, 2, 2), 3.0, requires_grad=True), torch.full((1, 4, 1, 1), -1.0, requires_grad=True)]
    value = losses.feature_matching(real, fake)
    assert value.item() == pytest.approx((2 + 1) / 2)
    assert losses.feature_matching(real, fake, "squared").item() == pytest.approx((4 + 1) / 2)
    value.backward()
    assert real[0].grad is None
    assert fake[0].grad is not None


def test_the_perceptual_loss_sums_the_mean_squares_of_its_maps():
    real, fake = (
        [torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 1, 1)],
        [torch.full((1, 1, 2, 2), 2.0), torch.ones(1, 3, 1, 1)],
    )
    assert losses.perceptual(real, fake).item() == pytest.approx(4 + 1)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_the_focal_frequency_loss_is_the_papers_sum_in_numpy(alpha):
    rng = np.random.default_rng(3)
    x, y = rng.random((2, 3, 5, 6)), rng.random((2, 3, 5, 6))
    difference = np.abs(np.fft.fft2(x, norm="ortho") - np.fft.fft2(y, norm="ortho"))
    expected = []
    for one in difference:
        weight = one**alpha / (one**alpha).max(axis=(1, 2), keepdims=True)
        expected.append((weight * one**2).mean())
    found = losses.focal_frequency(torch.from_numpy(y), torch.from_numpy(x), alpha)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_focal_frequency_loss_is_the_official_codes(alpha):
    """One channel differs ten times less than the others: its weight has a largest value of its own."""
    x, y = waves((2, 3, 6, 8), 0.0), waves((2, 3, 6, 8), 1.3)
    for each in (x, y):
        each[:, 1] *= 0.1
    found = losses.focal_frequency(y, x, alpha).item()
    assert found == pytest.approx(PUBLISHED["focal_frequency"][str(alpha)], abs=1e-9)


def test_lamas_losses_are_its_own_codes():
    """With the weights of `--config lama`, on a discriminator of two convolutions."""
    first, second = waves((4, 3, 3, 3), 0.2) - 0.5, waves((1, 4, 3, 3), 0.7) - 0.5

    def judge(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = F.leaky_relu(F.conv2d(x, first, stride=2, padding=1), 0.2)
        return F.conv2d(features, second, padding=1), [features]

    x, y = waves((2, 3, 16, 16), 0.0).requires_grad_(), waves((2, 3, 16, 16), 1.3)
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    mask[0, :, 3:12, 5:] = mask[1, :, :, :4] = 1
    (real, real_features), (fake, fake_features) = judge(x), judge(y)
    weights, lama = losses.WEIGHTS["lama"], PUBLISHED["lama"]
    penalty = weights.gradient_penalty * losses.gradient_penalty(real, x)
    matched = losses.feature_matching(real_features, fake_features, weights.feature_distance)
    found = {
        "discriminator": weights.discriminator * (losses.discriminator_loss(real, fake, mask) + penalty),
        "penalty_weighted": penalty,
        "adversarial": weights.adversarial * losses.generator_loss(fake),
        "feature_matching": weights.feature_matching * matched,
        "l1": weights.l1 * losses.l1_known(y, x, mask),
    }
    assert {name: value.item() for name, value in found.items()} == pytest.approx(lama, abs=1e-9)


def test_the_focal_frequency_loss_of_one_frequency_by_hand():
    """A constant difference of 0.5 on 4×4 has the spectrum 0.5·4 at DC and 0 elsewhere: 1·2²/16."""
    x = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    assert losses.focal_frequency(x + 0.5, x).item() == pytest.approx(4 / 16)
    assert losses.focal_frequency(x, x).item() == 0.0


def test_the_focal_weight_takes_no_gradient():
    """With one frequency, w is 1 whatever the difference d, so the loss is d² and its gradient 2d/16 a pixel."""
    y = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64, requires_grad=True)
    losses.focal_frequency(y, torch.zeros(1, 1, 4, 4, dtype=torch.float64)).backward()
    torch.testing.assert_close(y.grad, torch.full_like(y, 2 * 0.5 / 16))


def test_total_variation_by_hand():
    """Rows 0 1 3 / 0 0 0 / 5 5 5: the four pixels with both neighbours have (1, 0), (4, 1), (0, 25), (0, 25)."""
    x = image(0, 1, 3, 0, 0, 0, 5, 5, 5)
    assert losses.total_variation(x).item() == pytest.approx((1 + 5 + 25 + 25) / 4)
    assert losses.total_variation(x, beta=1).item() == pytest.approx((1 + math.sqrt(5) + 5 + 5) / 4)


def test_the_sum_has_the_papers_weights_or_lamas_own():
    terms = {
        name: torch.tensor(value)
        for name, value in {
            "l1": 1.0,
            "adversarial": 0.1,
            "feature_matching": 0.01,
            "perceptual": 0.001,
            "total_variation": 2.0,
            "focal_frequency": 3.0,
        }.items()
    }
    paper = losses.joint(terms, losses.WEIGHTS["paper"])
    assert paper.item() == pytest.approx(10 * 1 + 10 * 0.1 + 30 * 0.01 + 100 * 0.001 + 2 + 3)
    assert losses.joint(terms, losses.WEIGHTS["lama"]).item() == pytest.approx(10 + 1 + 100 * 0.01 + 30 * 0.001)
    halved = losses.Weights(lama=0.5, total_variation=0, focal_frequency=0)
    assert losses.joint({"l1": torch.tensor(1.0)}, halved).item() == pytest.approx(5.0)
    with pytest.raises(KeyError, match="l2 is not a term"):
        losses.joint({"l2": torch.tensor(1.0)}, losses.WEIGHTS["paper"])


def test_total_variation_as_a_mean_is_of_the_order_of_the_weighted_l1():
    """What the file's head says of α1 = 1, on the sample photograph: as a sum it would be 2,000 times the rest."""
    from glama_deploy.export.samples import SAMPLE
    from glama_deploy.io import images

    photo = images.read_image(SAMPLE).rgb[:256, :256].astype(np.float32) / 255
    x = torch.from_numpy(photo).permute(2, 0, 1)[None]
    mean = losses.total_variation(x).item()
    assert 1e-3 < mean < 5e-2
    assert mean * 3 * 256 * 256 > 500 * 10 * 0.05  # a sum, against λ1 times an L1 of 0.05
