"""The interpolated picture that a network with `fill` begins with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NetworkConfig
from glama_deploy.reference import pull_push
from glama_deploy.reference.generator import Generator, masked_input, predict
from glama_deploy.reference.random_weights import untrained

FILLED = NetworkConfig(ngf=8, n_blocks=1, fill="pull-push")
sides = st.integers(1, 70)


@given(sides, sides, st.integers(0, 2**31 - 1), st.floats(0, 1))
@settings(deadline=None)
def test_known_pixels_stay_and_missing_ones_lie_between_them(height, width, seed, share):
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, height, width, generator=rng)
    mask = (torch.rand(2, 1, height, width, generator=rng) < share).float()
    picture = pull_push.fill(masked_input(image, mask))
    known = (1 - mask).expand_as(image).bool()
    assert torch.equal(picture[known], image[known])
    for each, own in zip(picture.unbind(), known.unbind(), strict=True):
        for channel in range(3):
            there = each[channel][own[channel]]
            if there.numel():  # means of means, each rounded
                assert each[channel].min() >= there.min() - 1e-5
                assert each[channel].max() <= there.max() + 1e-5
            else:
                assert not each[channel].any()


def test_one_known_pixel_colours_a_large_hole():
    image, mask = torch.zeros(1, 3, 256, 256), torch.ones(1, 1, 256, 256)
    colour = torch.tensor([0.25, 0.5, 0.75])
    image[0, :, 200, 31], mask[0, 0, 200, 31] = colour, 0
    picture = pull_push.fill(masked_input(image, mask))
    torch.testing.assert_close(picture, colour[None, :, None, None].expand_as(picture), rtol=0, atol=1e-6)


def test_one_known_pixel_fills_the_largest_images():
    image, mask = torch.full((1, 3, 2048, 2048), 0.5), torch.ones(1, 1, 2048, 2048)
    mask[0, 0, 7, 2001] = 0
    picture = pull_push.fill(masked_input(image, mask))
    torch.testing.assert_close(picture, image, rtol=0, atol=1e-5)


def test_a_ramp_goes_on_across_missing_columns():
    """To a fifth of a step, which box means cost at these columns' ends."""
    image = (torch.arange(64) / 64).expand(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., ::2] = 1
    inside = (pull_push.fill(masked_input(image, mask)) - image)[..., 8:-8]
    assert inside.abs().max() < 0.2 / 64


def test_log_odds_are_the_sigmoids_inverse_within_half_a_step_of_8_bits():
    picture = torch.linspace(0, 1, 256)
    assert (torch.sigmoid(pull_push.log_odds(picture)) - picture).abs().max() <= 1 / 512


def test_a_network_that_was_never_trained_adds_nothing():
    torch.manual_seed(0)
    image, mask = torch.rand(2, 3, 32, 48), (torch.rand(2, 1, 32, 48) > 0.5).float()
    found = predict(Generator(FILLED).eval(), image, mask)
    assert (found - pull_push.fill(masked_input(image, mask))).abs().max() <= 1 / 512 + 1e-6


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("config", [FILLED, NetworkConfig(ngf=8, n_blocks=1, coarse=FILLED, coarse_side=64)])
def test_a_checkpoint_says_that_its_network_begins_so(tmp_path, suffix, config):
    """The parameters' shapes cannot tell."""
    path = tmp_path / f"network.{suffix}"
    formats.save(path, config, untrained(config))
    assert formats.read(path).config == config


def test_two_stages_begin_with_the_first_ones_picture():
    with pytest.raises(ValidationError, match=r"set coarse\.fill instead"):
        NetworkConfig(ngf=8, n_blocks=1, fill="pull-push", coarse=FILLED)


def test_another_way_to_fill_is_an_error(tmp_path):
    path = tmp_path / "network.pt"
    torch.save({"config": {**FILLED.model_dump(), "fill": "telea"}, "state_dict": Generator(FILLED).state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"config is not valid: fill: Input should be 'pull-push'"):
        formats.read(path)
