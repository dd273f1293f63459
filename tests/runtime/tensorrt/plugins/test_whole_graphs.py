"""Graphs with the plugins' nodes: node by node on a CPU, and in TensorRT on a GPU."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fakes.spectra import close, real_array
from glama_deploy.runtime.tensorrt.plugins import cpu_reference, registration


def own_node(op: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(
        op, inputs, [output], name=output, domain="glama", plugin_namespace="glama", plugin_version="1"
    )


def fourier_unit(channels: int, height: int, width: int, weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """rfft2, a 1×1 convolution with ReLU of the interleaved spectrum, irfft2, both orthonormal, batch free; and the sum
    with the input, as a spectral transform has it."""
    half, root = width // 2 + 1, np.float32(1 / np.sqrt(height * width))
    nodes = [
        own_node("RFFT2", ["x"], "spectrum"),
        helper.make_node("Mul", ["spectrum", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["parts_first"], perm=[0, 1, 4, 2, 3]),
        helper.make_node("Reshape", ["parts_first", "as_channels"], ["channels"]),
        helper.make_node("Conv", ["channels", "weight", "bias"], ["mixed"]),
        helper.make_node("Relu", ["mixed"], ["positive"]),
        helper.make_node("Reshape", ["positive", "as_parts"], ["parts"]),
        helper.make_node("Transpose", ["parts"], ["parts_last"], perm=[0, 1, 3, 4, 2]),
        own_node("IRFFT2", ["parts_last", "x"], "back"),
        helper.make_node("Mul", ["back", "scale"], ["scaled_back"]),
        helper.make_node("Add", ["x", "scaled_back"], ["y"]),
    ]
    constants = {
        "scale": root,
        "weight": weight,
        "bias": bias,
        "as_channels": np.array([0, 2 * channels, height, half], np.int64),
        "as_parts": np.array([0, channels, 2, height, half], np.int64),
    }
    shape = ["batch", channels, height, width]
    graph = helper.make_graph(
        nodes,
        "fourier_unit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("glama", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def torch_fourier_unit(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The same as LaMa writes it."""
    b, c, h, w = x.shape
    z = torch.view_as_real(torch.fft.rfftn(torch.from_numpy(x), dim=(-2, -1), norm="ortho"))
    z = z.permute(0, 1, 4, 2, 3).reshape(b, 2 * c, h, w // 2 + 1)
    z = torch.relu(torch.nn.functional.conv2d(z, torch.from_numpy(weight), torch.from_numpy(bias)))
    z = z.reshape(b, c, 2, h, w // 2 + 1).permute(0, 1, 3, 4, 2).contiguous()
    return x + torch.fft.irfftn(torch.view_as_complex(z), s=(h, w), dim=(-2, -1), norm="ortho").numpy()


def unit_weights(channels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(channels)
    weight = rng.normal(0, 0.5, (2 * channels, 2 * channels, 1, 1)).astype(np.float32)
    return weight, rng.normal(0, 0.1, 2 * channels).astype(np.float32)


@pytest.mark.parametrize(("batch", "channels", "height", "width"), [(1, 4, 16, 16), (2, 3, 9, 14), (1, 2, 13, 31)])
def test_a_fourier_unit_runs_on_a_cpu_as_in_torch(batch, channels, height, width):
    weights = unit_weights(channels)
    x = real_array((batch, channels, height, width))
    out = cpu_reference.run(fourier_unit(channels, height, width, *weights), {"x": x})
    assert out.keys() == {"y"}
    close(out["y"], torch_fourier_unit(x, *weights))


@pytest.mark.slow
def test_the_reference_runs_every_operator_of_the_whole_network(tiny):
    """The matmul graph of the exporter, node by node, against the same graph in one session."""
    import onnxruntime

    from glama_deploy.checkpoints import formats
    from glama_deploy.export.graph.network import build

    source = formats.read(tiny)
    model = build(source.config, source.weights, None, ("inpainted", "predicted"))
    rng = np.random.default_rng(0)
    mask = (rng.random((2, 1, 40, 64)) < 0.3).astype(np.float32)
    feeds = {"image": rng.random((2, 3, 40, 64), np.float32), "mask": mask}
    whole = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result = cpu_reference.run(model, feeds)
    for name, expected in zip(["inpainted", "predicted"], whole.run(None, feeds), strict=True):
        close(result[name], expected)


@pytest.mark.gpu
def test_tensorrt_runs_a_fourier_unit():
    trt = pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    from polygraphy.backend.trt import CreateConfig, Profile, TrtRunner, engine_from_network, network_from_onnx_bytes

    registration.register(trt)
    channels, height, width = 16, 40, 61
    weights = unit_weights(channels)
    model = fourier_unit(channels, height, width, *weights)
    network = network_from_onnx_bytes(model.SerializeToString(), strongly_typed=True)
    profile = Profile().add("x", *((batch, channels, height, width) for batch in (1, 2, 3)))
    with TrtRunner(engine_from_network(network, CreateConfig(profiles=[profile]))) as runner:
        for batch in (1, 3, 2):
            x = real_array((batch, channels, height, width))
            # float32 throughout (Polygraphy leaves TF32 off), the convolution's sums in an order of its own
            np.testing.assert_allclose(runner.infer({"x": x})["y"], torch_fourier_unit(x, *weights), atol=1e-4)
