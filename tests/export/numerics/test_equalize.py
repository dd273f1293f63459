"""Channels of like range: the same network, and less of int8's steps unused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from glama_deploy.export import samples
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics import equalize, quantize
from glama_deploy.io import images
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.random_weights import untrained

SMALL = NetworkConfig(ngf=8, n_blocks=2)

NETWORKS = {
    "two blocks": SMALL,
    "one downsampling": NetworkConfig(ngf=16, n_blocks=1, n_downsampling=1),
    "interpolated": NetworkConfig(ngf=8, n_blocks=1, fill="pull-push"),
    "fine blocks": NetworkConfig(ngf=8, n_blocks=1, fine_blocks=2),
    "two stages": NetworkConfig(ngf=8, n_blocks=1, coarse=SMALL, coarse_side=64),
}


def cases(count: int, kind: str) -> list[quantize.Sample]:
    photo = images.read_image(samples.SAMPLE).rgb
    made = [samples._make_case(photo, 1, (64, 64), kind, seed) for seed in range(count)]
    return [quantize.Sample(dict(zip(("image", "mask"), c.tensors(), strict=True)), c.missing) for c in made]


def equalized(config: NetworkConfig, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = build(config, weights)
    return equalize.equalize_channels(
        config, weights, lambda names: quantize.measure_channel_ranges(model, names, cases(3, "strokes"))
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_same_network(name):
    config = NETWORKS[name]
    weights = untrained(config)
    changed = equalized(config, weights)
    assert changed.keys() == weights.keys()
    assert all(changed[part].shape == values.shape for part, values in weights.items())
    before, after = (quantize._make_runner(build(config, values)) for values in (weights, changed))
    for sample in cases(3, "general"):
        # other weights, other roundings: what two engines differ by in fp32
        np.testing.assert_allclose(after(sample), before(sample), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_that_is_quantized_has_factors_but_the_image(name):
    """Were a place forgotten, the network would still be the same, and its int8 worse."""
    config = NETWORKS[name]
    model = build(config, untrained(config))
    read = {node.input[0] for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")}
    made = {output: node for node in model.graph.node for output in node.output}
    through = {made[tensor].input[0] if made[tensor].op_type in ("Pad", "Slice") else tensor for tensor in read}
    places = list(equalize._find_shared_factors(config))
    if config.coarse is not None:
        places += [place.of_coarse() for place in equalize._find_shared_factors(config.coarse)]
    names = {tensor for place in places for tensor in place.tensors}
    rest = {tensor.removeprefix("coarse/") for tensor in through - names}
    spectra = {tensor for tensor in rest if "rfft" in tensor}  # those stay fp32
    # the network's input, of 4 channels; the last sums as one tensor, each part of which has factors
    assert len(rest - spectra - {"bottleneck"}) <= (1 if config.coarse is None else 2)
    assert not any(tensor.startswith(("block", "down", "up")) for tensor in rest - spectra)


def test_int8_gains_where_channels_are_of_unlike_range():
    """Factors of 1 to 300 on the channels of one tensor, taken back where it is read: the same network."""
    weights = dict(untrained(SMALL))
    up = SMALL.ups[0]
    factors = np.geomspace(1, 300, SMALL.channels(2), dtype=np.float32)
    for part in ("weight", "bias"):
        weights[f"model.{up + 1}.{part}"] = weights[f"model.{up + 1}.{part}"] * factors
    reader = f"model.{up + 3}.weight"
    weights[reader] = weights[reader] / factors[:, None, None, None]
    calibration, checks = cases(4, "strokes"), cases(3, "general")

    def psnr(values: dict[str, np.ndarray]) -> float:
        return quantize.quantize(build(SMALL, values), calibration, checks, least=-np.inf).psnr

    assert psnr(equalized(SMALL, weights)) > psnr(weights) + 3


def test_a_channel_that_is_never_used_does_no_harm():
    weights = dict(untrained(SMALL))
    for part in ("weight", "bias"):
        weights[f"model.1.bn_l.{part}"] = weights[f"model.1.bn_l.{part}"].copy()
        weights[f"model.1.bn_l.{part}"][3] = 0
    changed = equalized(SMALL, weights)
    assert all(np.isfinite(values).all() for values in changed.values())
    onnx.checker.check_model(build(SMALL, changed))
