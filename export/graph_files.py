"""The ONNX files of a bundle: written, calibrated, described for the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from glama_deploy import memory
from glama_deploy.bundle import Bundle, Graph, Io, Lowering, Precision, Size, Tensor, artifact, graph_name
from glama_deploy.checkpoints.formats import Checkpoint
from glama_deploy.export import samples
from glama_deploy.export.graph import two_stage
from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.export.graph.inputs_outputs import INTERFACES
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics import ranges
from glama_deploy.export.numerics.half import Half, find_unsupported_nodes
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import IMAGE, INPAINTED, MASK, PREDICTED

_MEANING = {
    IMAGE: "RGB",
    MASK: "1 = missing, 0 = known",
    INPAINTED: "the prediction where pixels are missing, the image where they are known",
    PREDICTED: "the network's own output, before compositing",
}


def write(folder: Path, model: onnx.ModelProto, kind: Precision, kept: dict[str, str]) -> Graph:
    """Write the model as the bundle's graph of that precision; its entry in the manifest."""
    path = folder / graph_name(kind)
    onnx.save_model(model, str(path))
    return Graph(file=artifact(folder, path), opset=model.opset_import[0].version, kept=kept)


def check_memory(network: NetworkConfig, size: Size) -> None:
    """Raise ImageError where photos of this size cannot be run to calibrate on them."""
    what = f"a calibration photo is {size[0]}x{size[1]}"
    memory.check(memory.estimate(*size, network), what, "give a smaller `size` or `max_size`")


def calibrate(
    checkpoint: Checkpoint,
    model: onnx.ModelProto,
    half: Half,
    fft: Lowering,
    size: tuple[int, int],
    photos: Path | None,
    most: int = samples.MOST_PHOTOS,
) -> dict[str, str]:
    """The nodes of `model` that stay fp32 in a half type, each with the reason, from so many photos of this size."""
    cases = samples.calibration_cases(photos, size, most)
    # on float tensors, and on DFT nodes in a plugin's place: the network between has the same names
    probed = build(checkpoint.config, checkpoint.weights, size, (PREDICTED,), "dft" if fft == "plugin" else fft)
    largest = ranges.measure_ranges(probed, (case.tensors() for case in cases))
    return (
        find_unsupported_nodes(model, half)
        | two_stage.find_products(model)
        | ranges.find_out_of_range(model, largest, half)
    )


def with_predicted(bundle: Bundle, kind: Precision) -> onnx.ModelProto:
    """The bundle's graph of a precision, with an output `predicted` where it lacks that: bytes would not show a value
    that is not finite."""
    model = onnx.load(str(bundle.graph(kind)))
    if not any(output.name == PREDICTED for output in model.graph.output):
        INTERFACES[bundle.manifest.io].add_predicted(model)
    return model


def tensors(
    io: Io, size: tuple[int, int] | None, outputs: Sequence[str]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The graph's inputs and outputs as the manifest describes them."""
    interface = INTERFACES[io](GraphBuilder(), size)

    def described(name: str, dtype: str, shape: tuple[int | str, ...]) -> Tensor:
        layout = "NCHW" if io == "float" else "NHWC" if len(shape) == 4 else "NHW"
        meaning = "above 0 = missing, 0 = known" if name == MASK and dtype == "uint8" else _MEANING[name]
        return Tensor.model_validate(
            {
                "name": name,
                "dtype": dtype,
                "layout": layout,
                "shape": shape,
                "range": (0.0, 255.0 if dtype == "uint8" else 1.0),
                "meaning": meaning,
            }
        )

    inputs, results = (
        tuple(described(v.name, v.dtype, v.shape) for v in values)
        for values in (interface.inputs(), interface.outputs(outputs))
    )
    return inputs, results
