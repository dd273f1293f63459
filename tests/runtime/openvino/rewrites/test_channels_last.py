"""Residual blocks with the channels last compute the same image."""

from __future__ import annotations

import numpy as np
import pytest
from openvino import Model, opset13

from glama_deploy.export.graph.network import build
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import channels_last, column_convolutions

#: Wide enough for Winograd's method, barely: 64 channels are local, 192 global.
WIDE = NetworkConfig(ngf=32, n_blocks=2)
NARROW = NetworkConfig(ngf=8, n_blocks=2)


def compiled(model, precision="f32"):
    return openvino.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def network(size, config, batch=2):
    model = openvino.core().read_model(build(config, untrained(config)).SerializeToString())
    height, width = size
    model.reshape({"image": [batch, 3, height, width], "mask": [batch, 1, height, width]})
    return model


def pictures(height, width, batch=2):
    rng = np.random.default_rng(0)
    image = rng.random((batch, 3, height, width), np.float32)
    return {"image": image, "mask": (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 40), (136, 264), (16, 24)])
def test_a_wide_network_computes_the_same_with_fewer_multiplications(height, width, half):
    plain, fast = (network((height, width), WIDE) for _ in range(2))
    found = channels_last.rewrite(fast, half=half)
    assert len(found.convolutions) == 3 * 2 * WIDE.n_blocks  # l2l, l2g and g2l of a block's two layers
    assert len(found.units) == 2 * WIDE.n_blocks
    kinds = [node.get_type_name() for node in fast.get_ordered_ops()]
    assert kinds.count("GroupConvolution") == len(found.convolutions)
    left = [node.get_friendly_name() for node in fast.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert not any(name in left for name in found.convolutions)
    inputs = pictures(height, width)
    expected, there = (compiled(model)(inputs)["inpainted"] for model in (plain, fast))
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(there, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 40), (16, 264), (24, 16)])
def test_a_narrow_network_computes_the_same_without_reorders(height, width, half):
    plain, fast = (network((height, width), NARROW) for _ in range(2))
    found = channels_last.rewrite(fast, half=half)
    assert found.convolutions == ()
    assert set(found.units) == {f"block{block}/conv{layer}/g2g" for block in (0, 1) for layer in (1, 2)}
    inputs = pictures(height, width)
    expected, there = (compiled(model)(inputs)["inpainted"] for model in (plain, fast))
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(there, expected, rtol=0, atol=2e-5)


def test_both_stages_of_a_network_keep_their_own_size():
    config = NetworkConfig(ngf=32, n_blocks=1, coarse=NetworkConfig(ngf=32, n_blocks=1), coarse_side=64)
    plain, fast = (network((128, 96), config, batch=1) for _ in range(2))
    found = channels_last.rewrite(fast)
    assert len(found.convolutions) == 2 * 6
    inputs = pictures(128, 96, batch=1)
    expected, there = (compiled(model)(inputs)["inpainted"] for model in (plain, fast))
    np.testing.assert_allclose(there, expected, rtol=0, atol=2e-5)  # as parity asks


@pytest.mark.parametrize("is_constant", [False, True])
@pytest.mark.parametrize(
    "shape", [(), (1,), (16,), (64, 1, 1), (1, 64, 1, 1), (1, 1, 8, 16), (1, 1, 1, 1), (1, 64, 8, 16)]
)
def test_a_summand_of_any_shape_that_numpy_broadcasts_is_added(shape, is_constant):
    def build(*, fast: bool):
        given = opset13.parameter([1, 64, 8, 16], np.float32)
        given.output(0).get_tensor().set_names({"mask"})
        pads = opset13.constant(np.array([0, 0, 1, 1], np.int64))
        padded, kernel = opset13.pad(given, pads, pads, "reflect"), opset13.constant(weights)
        y = opset13.convolution(padded, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        other = opset13.constant(summand) if is_constant else opset13.parameter(list(shape), np.float32)
        model = Model([opset13.relu(opset13.add(y, other))], [given] if is_constant else [given, other])
        assert not fast or len(channels_last.rewrite(model).convolutions) == 1
        return compiled(model)([x] if is_constant else [x, summand])[0]

    rng = np.random.default_rng(0)
    weights, x = (rng.standard_normal(each, np.float32) for each in ((64, 64, 3, 3), (1, 64, 8, 16)))
    summand = np.asarray(rng.standard_normal(shape), np.float32)
    expected = build(fast=False)
    # the same sums of 576 products in fp32
    np.testing.assert_allclose(build(fast=True), expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_nothing_is_left_for_the_transform_of_columns():
    model = network((64, 72), NARROW)
    units = channels_last.rewrite(model, half=True).units
    assert len(units) == 4
    assert column_convolutions.rewrite(model) == 0


def test_parts_of_a_rewrite_are_left_out_on_request():
    model = network((64, 64), WIDE)
    assert channels_last.rewrite(model, convolutions=False, units=False) == channels_last.Found((), ())
    assert "GroupConvolution" not in [node.get_type_name() for node in model.get_ops()]


@pytest.mark.usefixtures("bf16_cpu")
def test_in_bf16_units_without_reorders_are_as_near_to_fp32_as_column_convolutions():
    def error(*, fast: bool) -> float:
        model = network((128, 128), NARROW)
        if fast:
            channels_last.rewrite(model, half=True)
        column_convolutions.rewrite(model)
        return float(np.square(compiled(model, "bf16")(inputs)["inpainted"] - exact).mean())

    inputs = pictures(128, 128)
    exact = compiled(network((128, 128), NARROW))(inputs)["inpainted"]
    # the same products in the same type; the rounding differs at random: 1 dB at most
    assert error(fast=True) < 1.26 * error(fast=False)
