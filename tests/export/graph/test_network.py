from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glama_deploy.checkpoints import formats
from glama_deploy.errors import GlamaError
from glama_deploy.export.graph.network import build
from glama_deploy.network import NetworkConfig
from glama_deploy.reference.generator import Generator, inpaint, predict

#: What the matmul lowering promises not to need.
BANNED = {"BatchNormalization", "Transpose", "If", "Loop", "Scan", "DFT", "ScatterND", "STFT", "Einsum"}


@pytest.fixture(scope="module")
def source(tiny: Path) -> formats.Checkpoint:
    return formats.read(tiny)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("size", [None, (64, 64), (72, 104)])
def test_the_graph_is_made_of_what_every_engine_has(source, size):
    model = build(source.config, source.weights, size, ("inpainted", "predicted"))
    operations = Counter(node.op_type for node in model.graph.node)
    assert not BANNED & operations.keys()
    complex_types = {onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128}
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    types = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert not types & complex_types
    assert model.opset_import[0].version >= 18
    units = 2 * source.config.n_blocks
    assert operations["MatMul"] == 4 * units
    assert operations["Reshape"] == 4 * units
    if size:  # nothing is computed about shapes when the shape is known
        assert not {"Shape", "Range", "Cos", "Sin", "Gather", "Cast", "Mod"} & operations.keys()


def test_inputs_and_outputs_are_named_and_shaped_as_promised(source):
    def shapes(values) -> dict[str, list[int | str]]:
        return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}

    model = build(source.config, source.weights, None, ("inpainted", "predicted"))
    assert shapes(model.graph.input) == {
        "image": ["batch", 3, "height", "width"],
        "mask": ["batch", 1, "height", "width"],
        "window": [4],
    }
    assert shapes(model.graph.output) == {
        "inpainted": ["batch", 3, "height", "width"],
        "predicted": ["batch", 3, "height", "width"],
    }
    static = build(source.config, source.weights, (64, 72))
    assert shapes(static.graph.input).keys() == {"image", "mask"}
    assert shapes(static.graph.output) == {"inpainted": ["batch", 3, 64, 72]}


def test_every_node_bears_the_name_of_its_part(source):
    names = {node.name.split("/")[0] for node in build(source.config, source.weights).graph.node}
    parts = {"compose", "stem", "down0", "down1", "down2", "fft", "block0", "bottleneck", "up0", "up1", "up2", "head"}
    assert names == parts | {"inpainted", "window"}


@settings(deadline=None, max_examples=12)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(1, 3), st.floats(0, 1))
def test_the_dynamic_graph_is_the_reference_at_any_size(source, height, width, batch, density):
    height, width = 8 * height, 8 * width
    rng = torch.Generator().manual_seed(height + width)
    image = torch.rand(batch, 3, height, width, generator=rng)
    mask = (torch.rand(batch, 1, height, width, generator=rng) < density).float()
    generator = formats.build_module(source)
    outputs = ("inpainted", "predicted")
    found = session(build(source.config, source.weights, None, outputs)).run(
        list(outputs), {"image": image.numpy(), "mask": mask.numpy()}
    )
    with torch.inference_mode():
        for values, run in zip(found, (inpaint, predict), strict=True):
            # float32 in another order of summation, through one block
            assert np.abs(values - run(generator, image, mask).numpy()).max() < 5e-6


@pytest.mark.parametrize(("height", "width"), [(2048, 16), (16, 2048), (64, 1544)])
def test_the_dynamic_graph_is_the_reference_at_the_ends_of_its_range(source, height, width):
    image, mask = torch.rand(1, 3, height, width), (torch.rand(1, 1, height, width) < 0.3).float()
    (out,) = session(build(source.config, source.weights)).run(
        ["inpainted"], {"image": image.numpy(), "mask": mask.numpy()}
    )
    with torch.inference_mode():
        expected = inpaint(formats.build_module(source), image, mask).numpy()
    assert np.abs(out - expected).max() < 5e-6  # as above; a longer DFT sums more, of smaller terms


def test_known_pixels_leave_the_graph_bit_exact(source):
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, 64, 64), np.float32)
    mask = (rng.random((1, 1, 64, 64)) < 0.5).astype(np.float32)
    (out,) = session(build(source.config, source.weights)).run(["inpainted"], {"image": image, "mask": mask})
    known = np.broadcast_to(mask == 0, image.shape)
    np.testing.assert_array_equal(out[known], image[known])


@pytest.mark.parametrize(
    "config",
    [
        NetworkConfig(ngf=8, n_blocks=1, n_downsampling=2),
        NetworkConfig(ngf=8, n_blocks=3, ratio=0.5),
        NetworkConfig(ngf=8, n_blocks=1, max_features=32),
        NetworkConfig(ngf=8, n_blocks=1, fine_blocks=2, fill="pull-push"),
        NetworkConfig(ngf=8, n_blocks=1, n_downsampling=1, ratio=0.5, fine_blocks=1),
    ],
)
def test_other_members_of_the_family_export_too(config, make_checkpoint):
    source = formats.read(make_checkpoint(config))
    image, mask = torch.rand(1, 3, 40, 56), torch.ones(1, 1, 40, 56)
    (out,) = session(build(source.config, source.weights)).run(
        ["inpainted"], {"image": image.numpy(), "mask": mask.numpy()}
    )
    with torch.inference_mode():
        assert np.abs(out - inpaint(formats.build_module(source), image, mask).numpy()).max() < 5e-6


def test_norms_are_folded_without_losing_digits(source):
    """In float64 the folded convolution is the convolution and its norm, to float32's rounding of the weights."""
    config = source.config
    generator: Generator = formats.build_module(source)
    model = build(config, source.weights)
    folded = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    layer = generator.model[1]
    x = torch.randn(1, 4, 20, 20, dtype=torch.float64)
    with torch.inference_mode():
        layer.double()
        expected = layer.bn_l(layer.ffc.convl2l(x))
        weight, bias = (torch.from_numpy(folded[f"stem/l2l/{part}"].copy()).double() for part in ("weight", "bias"))
        ours = torch.nn.functional.conv2d(x, weight, bias)
    # 196 products of order 1, each weight rounded to 6e-8
    torch.testing.assert_close(ours, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [(100, 128), (8, 64), (64, 8), (0, 0), (-64, 64)])
def test_a_size_that_cannot_be_is_an_error_that_names_the_next(source, size):
    with pytest.raises(GlamaError, match=r"multiples of 8, at least 16; the next that works is \d+x\d+"):
        build(source.config, source.weights, size)
