"""Stage one of GLaMa-2stage: what it sees, and what stage two gets of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NAMED, NetworkConfig, parameter_count
from glama_deploy.reference import two_stage
from glama_deploy.reference.generator import Generator, masked_input
from glama_deploy.reference.random_weights import untrained

TWO = NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=2), coarse_side=32)


@given(st.integers(1, 200), st.integers(1, 64))
@settings(deadline=None)
def test_every_cell_is_covered_by_a_whole_and_every_pixel_counts_the_same(extent, cells):
    shares = two_stage.compute_cell_weights(extent, cells)
    torch.testing.assert_close(shares.sum(1), torch.ones(cells, dtype=torch.float64))
    torch.testing.assert_close(shares.sum(0), torch.full((extent,), cells / extent, dtype=torch.float64))


def test_a_whole_shrinking_is_an_average_pooling():
    image, mask = torch.rand(2, 3, 64, 96), torch.zeros(2, 1, 64, 96)
    shrunk = two_stage.shrink(masked_input(image, mask), 32)
    torch.testing.assert_close(shrunk[:, :3], F.avg_pool2d(image, (2, 3)), rtol=0, atol=1e-6)
    assert (shrunk[:, 3] == 0).all()


def test_a_cell_is_the_mean_of_its_known_pixels_and_missing_where_there_is_none():
    image = torch.rand(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., ::2, :] = 1  # every other line: half of each cell
    mask[..., :16, :16] = 1  # 8×8 cells of nothing
    shrunk = two_stage.shrink(masked_input(image, mask), 32)
    missing = shrunk[0, 3] == 1
    assert missing[:8, :8].all()
    assert missing.sum() == 64
    expected = F.avg_pool2d(image[..., 1::2, :], (1, 2))
    torch.testing.assert_close(shrunk[:, :3, :, 8:], expected[..., 8:], rtol=0, atol=1e-6)
    assert (shrunk[0, :3, :8, :8] == 0).all()


def test_stage_two_gets_the_known_cells_as_they_are():
    network = Generator(TWO).eval()
    x = masked_input(torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64))
    small, predicted = network.guess(x)
    torch.testing.assert_close(network.refine(x, small, predicted), network.refine(x, small, torch.rand(1, 3, 32, 32)))
    x = masked_input(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64))
    small, predicted = network.guess(x)
    assert not torch.equal(network.refine(x, small, predicted), network.refine(x, small, predicted * 0.5))


def test_glama_2stage_is_two_lamas_of_which_the_second_sees_three_channels_more():
    config = NAMED["glama-2stage"]
    more = 3 * config.ngf * 7 * 7
    assert parameter_count(config) == 2 * parameter_count(NAMED["lama"]) + more


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_one_checkpoint_holds_both(tmp_path, suffix):
    weights = untrained(TWO)
    formats.save(tmp_path / f"n.{suffix}", TWO, weights)
    found = formats.read(tmp_path / f"n.{suffix}")
    assert found.config == TWO  # its side too, which no shape tells
    assert found.weights.keys() == weights.keys()
    x = torch.rand(1, 4, 64, 64)
    network = Generator(TWO).eval()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    with torch.inference_mode():
        assert torch.equal(formats.build_module(found)(x), network(x))


def test_bare_parameters_are_known_for_two_stages(tmp_path):
    torch.save({f"generator.{n}": torch.from_numpy(v) for n, v in untrained(TWO).items()}, tmp_path / "bare.pt")
    assert formats.read(tmp_path / "bare.pt").config == TWO.model_copy(update={"coarse_side": 256})


@pytest.mark.parametrize(
    ("said", "held", "message"),
    [
        (NetworkConfig(ngf=8, n_blocks=1), TWO, "has one stage, the parameters have two"),
        (TWO, NetworkConfig(ngf=8, n_blocks=1), "has two stages, the parameters have one"),
        (TWO.model_copy(update={"coarse": NetworkConfig(ngf=8, n_blocks=3)}), TWO, "coarse.n_blocks 3, .* have 2"),
    ],
)
def test_a_config_of_other_stages_is_an_error(tmp_path, said, held, message):
    state = {name: torch.from_numpy(value) for name, value in untrained(held).items()}
    torch.save({"config": said.model_dump(), "state_dict": state}, tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match=message):
        formats.read(tmp_path / "n.pt")


def test_three_stages_are_refused():
    with pytest.raises(ValueError, match="at most two stages are supported"):
        NetworkConfig(coarse=TWO)
