"""Rewritten graphs give what the graphs give that were rewritten, on the provider that runs both."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from glama_deploy.bundle import Bundle
from glama_deploy.node_names import BATCH, HEIGHT, IMAGE, INPAINTED, MASK, WIDTH
from glama_deploy.runtime.onnxruntime import model_file, provider_graphs


@pytest.fixture(scope="module")
def bytes_bundle(tiny, make_bundle) -> Bundle:
    return make_bundle(tiny, ("onnx",), io="uint8")


def list_operators(model) -> set[str]:
    return {node.op_type for node in model.graph.node}


def run(model, image: np.ndarray, mask: np.ndarray, shape: tuple[int, ...] = ()) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    for name, length in zip((BATCH, HEIGHT, WIDTH), shape, strict=False):
        options.add_free_dimension_override_by_name(name, length)
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([INPAINTED], {IMAGE: image, MASK: mask})[0]


def make_bytes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, height, width, 3)).astype(np.uint8)
    return image, (rng.random((2, height, width)) < 0.5).astype(np.uint8) * 255


def test_bytes_are_the_same_without_rounding_and_booleans(bytes_bundle):
    path = bytes_bundle.graph("fp32")
    usual, rewritten = model_file.read_model(path), model_file.read_model(path)
    assert provider_graphs.replace_byte_operators(rewritten) == 2
    assert "Round" in list_operators(usual)
    assert "Round" not in list_operators(rewritten)
    scene = make_bytes(70, 84)
    np.testing.assert_array_equal(run(rewritten, *scene), run(usual, *scene))


def test_halves_are_rounded_to_even_numbers_as_by_the_operator():
    """Beside every half of a byte's range, its neighbours in float32."""
    halves = np.arange(256, dtype=np.float32) + np.float32(0.5)
    x = np.concatenate([halves, *(np.nextafter(halves, np.float32(to)) for to in (-1, 999))])
    whole = provider_graphs._WHOLE_NUMBERS
    np.testing.assert_array_equal((x + whole) - whole, np.rint(x))


def test_a_graph_of_floats_has_nothing_to_replace(tiny_bundle):
    assert provider_graphs.replace_byte_operators(model_file.read_model(tiny_bundle.graph("fp32"))) == 0


def test_a_graph_for_one_shape_computes_no_shapes_and_the_same_picture(bytes_bundle, tmp_path):
    path = bytes_bundle.graph("fp32")
    fixed = model_file.read_model(path)
    provider_graphs.fix_window(fixed)
    assert [value.name for value in fixed.graph.input] == [IMAGE, MASK]
    scene = make_bytes(72, 80)
    usual = run(model_file.read_model(path), *scene)
    found = run(fixed, *scene, shape=(2, 72, 80))
    # bases that are computed once may be rounded otherwise than in each run, by one level where the sum is near a half
    assert np.abs(found.astype(int) - usual).max() <= 1

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fixed.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for name, length in ((BATCH, 2), (HEIGHT, 72), (WIDTH, 80)):
        options.add_free_dimension_override_by_name(name, length)
    onnxruntime.InferenceSession(fixed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = list_operators(model_file.read_model(tmp_path / "fixed.onnx"))
    assert left.isdisjoint({"Shape", "Range", "Mod", "Cos", "Sin", "Sqrt"})
