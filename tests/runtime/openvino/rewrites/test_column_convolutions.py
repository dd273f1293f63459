"""Products with a constant on the left, as convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from openvino import Model, opset13

from glama_deploy.export.graph.network import build
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.openvino.rewrites import column_convolutions


def compiled(model):
    return openvino.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def of_size(bundle, height: int, width: int):
    model = openvino.core().read_model(str(bundle.files("openvino")[0]))
    model.reshape({"image": [2, 3, height, width], "mask": [2, 1, height, width]})
    return model


def kinds(model) -> list[str]:
    return [node.get_type_name() for node in model.get_ops()]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 40), (136, 264)])
def test_the_network_computes_the_same_and_all_column_transforms_are_convolutions(tiny_bundle, height, width):
    """The bases are nodes there, which compute them from the size."""
    before, after = of_size(tiny_bundle, height, width), of_size(tiny_bundle, height, width)
    column_convolutions.rewrite(after)
    transforms = 2 * 2 * tiny_bundle.manifest.network.n_blocks  # there and back in each of a block's two layers
    assert kinds(before).count("MatMul") - kinds(after).count("MatMul") == transforms
    assert not column_convolutions._find_left_constants(after)
    rng = np.random.default_rng(0)
    image = rng.random((2, 3, height, width), np.float32)
    mask = (rng.random((2, 1, height, width)) < 0.3).astype(np.float32)
    found, expected = (compiled(model)({"image": image, "mask": mask})["inpainted"] for model in (after, before))
    # the same sums in fp32: what parity asks of any engine
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_only_transforms_are_rewritten():
    """A network of two stages resamples with such products, too."""
    config = NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=1), coarse_side=64)
    model = openvino.core().read_model(build(config, untrained(config)).SerializeToString())
    model.reshape({"image": [1, 3, 128, 96], "mask": [1, 1, 128, 96]})
    column_convolutions.rewrite(model)
    kept = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "MatMul"}
    assert {"shrink/by_rows", "enlarge/by_rows"} <= kept
    assert not any("fft/column" in name for name in kept)


@pytest.mark.parametrize("shape", [(5, 3), (2, 5, 3), (2, 4, 5, 3), (1, 2, 2, 5, 3)])
def test_a_column_convolution_gives_the_same_product_for_any_rank(shape):
    matrix = np.random.default_rng(0).random((7, 5), np.float32)
    given = opset13.parameter(list(shape), np.float32)
    product = opset13.matmul(opset13.constant(matrix), given, False, False)
    product.set_friendly_name("unit/rfft/product")
    model = Model([product], [given])
    column_convolutions.rewrite(model)
    assert ("Convolution" in kinds(model)) == (len(shape) > 2)
    values = np.random.default_rng(1).random(shape, np.float32)
    # five products of fp32
    np.testing.assert_allclose(compiled(model)([values])[0], matrix @ values, rtol=1e-6)


@pytest.mark.parametrize("transposed", [(True, False), (False, True)])
def test_what_is_transposed_or_has_its_constant_on_the_right_is_left_alone(transposed):
    given = opset13.parameter([2, 5, 5], np.float32)
    matrix = opset13.constant(np.eye(5, dtype=np.float32))
    products = [opset13.matmul(matrix, given, *transposed), opset13.matmul(given, matrix, False, False)]
    for number, product in enumerate(products):
        product.set_friendly_name(f"unit/rfft/product{number}")
    model = Model(products, [given])
    column_convolutions.rewrite(model)
    assert "Convolution" not in kinds(model)
