"""Every network of the config space comes back as it was saved; names and shapes alone give an equal network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from glama_deploy.checkpoints import formats
from glama_deploy.checkpoints.parameters import find_config
from glama_deploy.errors import CheckpointError
from glama_deploy.network import NAMED, NetworkConfig, parameter_shapes

# an example is a whole network: its strategies draw until one is valid
SOME = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@st.composite
def networks(draw: st.DrawFn, most_ngf: int = 1024, most_blocks: int = 64, coarse: bool = True) -> NetworkConfig:
    """A config of one stage or two. Most ratios give an odd number of global channels, which is not a network: the
    ratio is drawn beside the quotient of an even number."""
    ngf, levels = draw(st.integers(1, most_ngf)), draw(st.integers(1, 3))
    max_features = draw(st.one_of(st.integers(ngf, 8 * ngf), st.integers(ngf, 1 << 20), st.just(max(ngf, 1024))))
    bottleneck = min(max_features, ngf << levels)
    assume(bottleneck > 2)
    globl = 2 * draw(st.integers(1, (bottleneck - 1) // 2))
    ratio = draw(st.sampled_from((globl / bottleneck, (globl + 0.5) / bottleneck, round(globl / bottleneck, 3), 0.75)))
    stage = draw(networks(most_ngf, most_blocks, coarse=False)) if coarse and draw(st.booleans()) else None
    try:
        return NetworkConfig(
            ngf=ngf,
            n_blocks=draw(st.integers(1, most_blocks)),
            n_downsampling=levels,
            ratio=ratio,
            max_features=max_features,
            coarse=stage,
            coarse_side=256 if stage is None else 8 * draw(st.integers(2, 128)),
            fill=None if stage is not None else draw(st.sampled_from((None, "pull-push"))),
            fine_blocks=draw(st.integers(0, 3)),
        )
    except ValidationError:
        assume(False)
        raise


def known(*configs: NetworkConfig) -> list[NetworkConfig]:
    return [*NAMED.values(), *configs]


#: What could not be read before: a quotient that is rounded down, and more than 1024 channels.
ONCE_LOST = [
    NetworkConfig(ngf=76, n_downsampling=2, ratio=0.7),
    NetworkConfig(ngf=76, n_downsampling=1, ratio=0.7),
    NetworkConfig(ngf=256, max_features=2048),
    NetworkConfig(ngf=200, max_features=100_000),
    NetworkConfig(ngf=8, max_features=8),
]


@SOME
@given(networks())
def test_a_declared_config_that_fits_the_shapes_is_returned_as_it_is(config):
    assert find_config(parameter_shapes(config), config.model_dump()) == config


@SOME
@given(networks())
def test_names_and_shapes_alone_give_a_network_of_the_same_parameters(config):
    assert parameter_shapes(find_config(parameter_shapes(config), None)) == parameter_shapes(config)


@pytest.mark.parametrize("config", known(*ONCE_LOST), ids=str)
def test_networks_that_once_were_lost_come_back(config):
    assert find_config(parameter_shapes(config), config.model_dump()) == config
    assert parameter_shapes(find_config(parameter_shapes(config), None)) == parameter_shapes(config)


@settings(parent=SOME, max_examples=25)
@given(networks(most_ngf=9, most_blocks=2), st.sampled_from([".safetensors", ".pt"]))
def test_what_is_saved_is_read_back(tmp_path_factory, config, suffix):
    path = tmp_path_factory.mktemp("saved") / f"x{suffix}"
    rng = np.random.default_rng(0)
    weights = {name: rng.random(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    formats.save(path, config, weights)
    read = formats.read(path)
    path.unlink()
    assert read.config == config
    assert list(read.weights) == list(weights)
    assert all(np.array_equal(read.weights[name], values) for name, values in weights.items())


@settings(parent=SOME, max_examples=60)
@given(networks(most_ngf=64, most_blocks=4), networks(most_ngf=64, most_blocks=4))
def test_a_config_of_other_shapes_is_refused(declared, held):
    shapes = parameter_shapes(held)
    assume(parameter_shapes(declared) != shapes)
    with pytest.raises(CheckpointError, match=r"the config has|are missing|does not have|has shape"):
        find_config(shapes, declared.model_dump())
