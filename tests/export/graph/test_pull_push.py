"""The interpolated picture in the graph: against the reference, for any size, at every precision, on every engine."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy.checkpoints import formats
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.network import build
from glama_deploy.export.graph.pull_push import PullPush
from glama_deploy.export.numerics import half
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NetworkConfig
from glama_deploy.reference import pull_push
from glama_deploy.reference.generator import masked_input

FILLED = NetworkConfig(ngf=8, n_blocks=1, fill="pull-push")


@pytest.fixture(scope="module")
def source(make_checkpoint):
    return make_checkpoint(FILLED)


def picture_graph(size: tuple[int, int] | None) -> onnxruntime.InferenceSession:
    """What the network sees."""
    graph = GraphBuilder()
    graph.add("Identity", [PullPush(graph, size, "x").write_network_input()], "y")
    shape = ("b", 4, *(size or ("h", "w")))
    model = graph.model([Value("x", "float32", shape)], [Value("y", "float32", shape)], {})
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def any_size():
    return picture_graph(None)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=40)
def test_the_picture_is_the_references_for_any_multiples_of_8(any_size, rows, columns, seed):
    rng = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, 8 * rows, 8 * columns, generator=rng)
    mask = (
        torch.rand(2, 1, 8 * rows, 8 * columns, generator=rng) < torch.tensor([0.5, 0.999])[:, None, None, None]
    ) + 0.0
    x = masked_input(image, mask)
    expected = torch.cat([pull_push.fill(x), mask], dim=1).numpy()
    for session in (any_size, picture_graph((8 * rows, 8 * columns))):
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)  # some forty means, each rounded


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engines_give_the_references_picture(source, make_bundle, photo, hole, backend):
    """Of odd sizes; through the whole network."""
    image, missing = photo[:89, :115], hole[:89, :115]
    expected = glama_deploy.load(source, backend="torch").predict(image, missing)
    found = glama_deploy.load(make_bundle(source).path, backend=backend).predict(image, missing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)  # fp32's tolerance


@pytest.mark.parametrize("config", [FILLED, NetworkConfig(ngf=8, n_blocks=1, coarse=FILLED, coarse_side=64)])
def test_the_picture_stays_float32_at_every_precision(make_checkpoint, config):
    read = formats.read(make_checkpoint(config))
    model = build(read.config, read.weights)
    own = {node.name for node in model.graph.node if "fill" in node.name.split("/")[:2]}
    typed = half.convert_to_half(model, "fp16").graph
    halves = {
        name for node in typed.node if node.op_type == "Cast" and node.name.endswith("/fp16") for name in node.output
    }
    assert len(own) > 100
    for node in typed.node:
        if node.name in own:
            assert not halves & set(node.input), node.name


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "io"), [("fp32", "float"), ("fp16", "uint8")])
def test_one_bundle_for_every_engine_with_parity(source, tmp_path, precision, io):
    outcome = export(Request(source, tmp_path / "bundle", ("onnx", "openvino", "trt-rtx"), precision=precision, io=io))
    assert not outcome.failures
    manifest = outcome.bundle.manifest
    assert manifest.network == FILLED
    assert all(manifest.engines[name].parity.passed for name in ("onnx", "openvino"))
    if precision == "fp16":
        assert manifest.graphs[precision].parity.passed
