"""GLaMa-2stage as one graph: its resamplings against torch, the whole against the reference, on every engine."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glama_deploy
from glama_deploy import cost
from glama_deploy.checkpoints import formats
from glama_deploy.export.graph import two_stage
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics import half
from glama_deploy.export.pipeline import Request, export
from glama_deploy.network import NetworkConfig
from glama_deploy.reference import two_stage as reference
from glama_deploy.reference.generator import predict

TWO = NetworkConfig(ngf=8, n_blocks=1, coarse=NetworkConfig(ngf=8, n_blocks=2), coarse_side=64)


@pytest.fixture(scope="module")
def source(make_checkpoint):
    return make_checkpoint(TWO)


def run(model, outputs, **feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


@given(st.integers(8, 300), st.sampled_from([16, 24, 64, 256]))
@settings(deadline=None)
def test_the_matrices_are_what_the_reference_computes(extent, cells):
    expected = reference.compute_cell_weights(extent, cells).numpy()
    assert np.array_equal(two_stage.compute_area_weights(extent, cells), expected)
    picture = torch.rand(1, 1, cells, cells, dtype=torch.float64)
    matrix = torch.from_numpy(two_stage.compute_bilinear_weights(cells, extent))
    # torch's own weights are ratios that were rounded, some 1e-13 of a cell
    torch.testing.assert_close(
        matrix @ picture @ matrix.T, reference.enlarge(picture, extent, extent), rtol=0, atol=1e-11
    )


@given(st.integers(2, 300), st.integers(2, 300), st.sampled_from([16, 64, 256]))
@settings(deadline=None, max_examples=30)
def test_matrices_made_in_the_graph_are_the_constants(height, width, side):
    """To the rounding of one division."""
    graph = GraphBuilder()
    resampling = two_stage.Resampling(graph, None, side, "x")
    resampling.shrink("x")
    resampling.enlarge("small")
    names = ["shrink/rows", "shrink/columns", "enlarge/rows", "enlarge/columns"]
    shapes = Value("x", "float32", ("b", 1, "h", "w")), Value("small", "float32", ("b", 1, side, side))
    model = graph.model(shapes, [Value(name, "float32", (f"{name}0", f"{name}1")) for name in names], {})
    found = run(
        model, names, x=np.zeros((1, 1, height, width), np.float32), small=np.zeros((1, 1, side, side), np.float32)
    )
    expected = [
        two_stage.compute_area_weights(height, side),
        two_stage.compute_area_weights(width, side).T,
        two_stage.compute_bilinear_weights(side, height),
        two_stage.compute_bilinear_weights(side, width).T,
    ]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1.2e-7)


@pytest.mark.parametrize("fft", ["matmul", "dft"])
@pytest.mark.parametrize("size", [None, (96, 136)])
@pytest.mark.parametrize("fill", [None, "pull-push"])
def test_the_graph_is_the_reference(make_checkpoint, size, fft, fill):
    stage = TWO.coarse.model_copy(update={"fill": fill})
    read = formats.read(make_checkpoint(TWO.model_copy(update={"coarse": stage})))
    model = build(read.config, read.weights, size, ("predicted",), fft)
    network = formats.build_module(read)
    for height, width in [size] if size else [(64, 64), (96, 136), (32, 40), (256, 128)]:
        image = torch.rand(2, 3, height, width)
        mask = (torch.rand(2, 1, height, width) > 0.3).float()
        mask[..., :20, :30] = 1
        (found,) = run(model, ["predicted"], image=image.numpy(), mask=mask.numpy())
        with torch.inference_mode():
            expected = predict(network, image, mask).numpy()
        assert expected.std() > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)  # two small networks' rounding


def test_what_stands_between_the_stages_stays_float32(source):
    read = formats.read(source)
    graph = half.convert_to_half(build(read.config, read.weights), "fp16").graph
    casts = {node.name for node in graph.node if node.op_type == "Cast" and node.name.endswith(("/fp16", "/fp32"))}
    assert casts == {"shrink/stacked/fp16", "coarse/head/pixels/fp32", "enlarge/stacked/fp16", "head/pixels/fp32"} | {
        f"fft/{name}/fp16" for name in ("row", "column", "row_inverse", "column_inverse")
    }


def test_its_work_is_counted(source):
    config = formats.read(source).config
    counts = cost.count_multiply_adds(config, (128, 128), "matmul")
    alone = cost.count_multiply_adds(config.coarse, (64, 64), "matmul")
    resampling = 64 * 128 * 128 * 4 + 64 * 128 * 64 * 4 + 128 * 64 * 64 * 3 + 128 * 64 * 128 * 3
    assert counts["coarse"] == sum(alone.values()) + resampling
    assert "coarse" not in alone


def test_the_inpainter_runs_it_like_any_other(source, make_bundle, photo, hole):
    """Of odd sizes, on every engine, as PyTorch does."""
    image, missing = photo[:89, :115], hole[:89, :115]
    expected = glama_deploy.load(source, backend="torch").predict(image, missing)
    bundle = make_bundle(source)
    for backend in ("onnxruntime", "openvino"):
        inpainter = glama_deploy.load(bundle.path, backend=backend)
        np.testing.assert_allclose(inpainter.predict(image, missing), expected, rtol=0, atol=2e-5)  # fp32's tolerance
        filled = inpainter(image, missing)
        assert (filled[~missing] == image[~missing]).all()
        assert not (filled[missing] == image[missing]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "io"), [("fp32", "float"), ("fp16", "uint8")])
def test_one_bundle_for_every_engine_with_parity(source, tmp_path, precision, io):
    outcome = export(Request(source, tmp_path / "bundle", ("onnx", "openvino", "trt-rtx"), precision=precision, io=io))
    assert not outcome.failures
    manifest = outcome.bundle.manifest
    assert manifest.network == TWO
    for name in ("onnx", "openvino"):
        parity = manifest.engines[name].parity
        assert parity.measured
        assert parity.passed
    graph = manifest.graphs[precision]
    if precision == "fp16":
        assert graph.parity.passed
