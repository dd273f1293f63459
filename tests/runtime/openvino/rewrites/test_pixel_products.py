"""Residual blocks of a model of any size as products of matrices compute the same image."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import Model, opset13

from glama_deploy.export.graph.network import build
from glama_deploy.inpainting.boxes import Span
from glama_deploy.inpainting.windows import find_window
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import INPAINTED, WINDOW
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import fed_bases, pixel_products, window

#: Wide enough for Winograd's method, barely: 64 channels are local, 192 global.
WIDE = NetworkConfig(ngf=32, n_blocks=2)

#: The image's pixels for each pixel of the blocks' feature maps, along each side.
REDUCTION = 8


def compiled(model):
    return openvino.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def network(config=WIDE):
    """A model of any size, with the bases and the window as inputs."""
    model = openvino.core().read_model(build(config, untrained(config)).SerializeToString())
    whole = window.open_window(model)
    assert fed_bases.rewrite(model) == fed_bases.COUNT
    return model, np.array(whole, np.int64)


@pytest.fixture(scope="module")
def forms():
    """The model as it is and rewritten, compiled, and the window that is the whole picture."""
    (plain, whole), (fast, _) = network(), network()
    pixel_products.rewrite(fast)
    return compiled(plain), compiled(fast), whole


def run(model, height, width, batch, shown):
    """Run a compiled model on noise with missing pixels."""
    rng = np.random.default_rng(0)
    image = rng.random((batch, 3, height, width), np.float32)
    mask = (rng.random((batch, 1, height, width)) < 0.3).astype(np.float32)
    size = height // REDUCTION, width // REDUCTION
    given = {"image": image, "mask": mask, WINDOW: shown}
    given |= pixel_products.compute_inputs(batch, *size) | fed_bases.compute(*size)
    names = {port.get_any_name() for port in model.inputs}
    return model({name: value for name, value in given.items() if name in names})[INPAINTED]


def test_no_convolution_is_left_in_the_blocks():
    model, _ = network()
    found = pixel_products.rewrite(model)
    assert len(found.convolutions) == 3 * 2 * WIDE.n_blocks  # l2l, l2g and g2l of a block's two layers
    assert len(found.units) == 2 * WIDE.n_blocks
    names = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() == "Convolution"]
    assert not [name for name in names if name.startswith("block")]
    transpositions = [node for node in model.get_ordered_ops() if node.get_type_name() == "Transpose"]
    assert len(transpositions) <= 4  # local and global channels, into the blocks and out of them
    assert not {port.get_any_name() for port in model.inputs} & set(fed_bases.compute(8, 8))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(2, 19), st.integers(2, 23), st.integers(1, 3))
def test_the_image_is_the_same_at_any_size(forms, height, width, batch):
    plain, fast, whole = forms
    size = height * REDUCTION, width * REDUCTION, batch
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(run(fast, *size, whole), run(plain, *size, whole), rtol=0, atol=2e-5)


def test_a_window_is_the_same_part_of_the_picture(forms):
    _, fast, whole = forms
    hole = Span(24, 32, 61, 50)
    part = find_window(hole, (112, 88), WIDE)
    picture = run(fast, 112, 88, 2, whole)
    shown = run(fast, 112, 88, 2, np.array(astuple(part), np.int64))
    (rows, columns), (part_rows, part_columns) = hole.slices, hole.within(part).slices
    found, expected = shown[..., part_rows, part_columns], picture[..., rows, columns]
    # the layers behind the blocks may sum in an order that depends on the size
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_images_of_a_batch_do_not_see_each_other(forms):
    _, fast, whole = forms
    rng = np.random.default_rng(1)
    images, masks = rng.random((3, 3, 72, 56), np.float32), np.zeros((3, 1, 72, 56), np.float32)
    masks[:, :, 20:40, 10:30] = 1
    together = fast({"image": images, "mask": masks, WINDOW: whole, **pixel_products.compute_inputs(3, 9, 7)})
    for number in range(3):
        one = slice(number, number + 1)
        given = {"image": images[one], "mask": masks[one], WINDOW: whole, **pixel_products.compute_inputs(1, 9, 7)}
        # products of other sizes may sum in another order
        np.testing.assert_allclose(fast(given)[INPAINTED], together[INPAINTED][one], rtol=0, atol=2e-6)


@pytest.mark.parametrize("biases", ["none", "first", "second", "both"])
def test_two_convolutions_of_which_some_have_a_bias_are_summed(biases):
    """Where products of two convolutions are added, each bias is added once."""
    rng = np.random.default_rng(0)

    def make():
        given = opset13.parameter([-1, 64, -1, -1], np.float32, name="x")
        terms = []
        for name in ("first", "second"):
            kernel = np.random.default_rng(len(name)).standard_normal((64, 64, 3, 3)).astype(np.float32)
            pads = opset13.constant(np.array([0, 0, 1, 1], np.int64))
            padded = opset13.pad(given, pads, pads, "reflect")
            term = opset13.convolution(padded, opset13.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
            term.set_friendly_name(name)
            if biases in (name, "both"):
                term = opset13.add(term, opset13.constant(np.full((1, 64, 1, 1), 3.0 * len(name), np.float32)))
            terms.append(term)
        return Model([opset13.relu(opset13.add(*terms))], [given])

    plain, fast = make(), make()
    assert pixel_products.rewrite(fast).convolutions == ("first", "second")
    x = rng.standard_normal((2, 64, 9, 14)).astype(np.float32)
    names = {node.get_friendly_name() for node in fast.get_parameters()}
    inputs = {name: value for name, value in pixel_products.compute_inputs(2, 9, 14).items() if name in names}
    parameters = {node.get_friendly_name(): number for number, node in enumerate(fast.get_parameters())}
    ordered = [value for _, value in sorted(({"x": x} | inputs).items(), key=lambda item: parameters[item[0]])]
    expected, found = compiled(plain)([x])[0], compiled(fast)(ordered)[0]
    # 64·9 products of order 1 in fp32, each sum's rounding some times as much in the 36 values
    assert np.abs(found - expected).max() < 4e-6 * np.abs(expected).max()


def test_a_model_without_wide_convolutions_keeps_its_own():
    model, _ = network(NetworkConfig(ngf=8, n_blocks=1))
    assert pixel_products.rewrite(model).convolutions == ()
    assert "Convolution" in {node.get_type_name() for node in model.get_ops()}
