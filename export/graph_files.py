"""Write, calibrate and describe the ONNX files of a bundle."""

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
from glama_deploy.export.graph.inputs_outputs import ByteInterface, FloatInterface
from glama_deploy.export.graph.interfaces import INTERFACES
from glama_deploy.export.graph.network import build
from glama_deploy.export.numerics import ranges
from glama_deploy.export.numerics.half import Half, find_unsupported_nodes
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import CARVE_OUTPUT, IMAGE, INPAINTED, MASK, MIGAN_OUTPUT, PREDICTED

#: What the tensors hold, for the manifest.
_MEANINGS = {
    IMAGE: "RGB",
    MASK: "1 = missing, 0 = known",
    INPAINTED: "the prediction where pixels are missing, the image where they are known",
    PREDICTED: "the network's own output, before compositing",
    **dict.fromkeys((CARVE_OUTPUT, MIGAN_OUTPUT), "the prediction where pixels are missing, the image elsewhere"),
}


def write(folder: Path, model: onnx.ModelProto, kind: Precision, kept: dict[str, str]) -> Graph:
    """Write a model as the bundle's graph of a precision.

    Args:
        folder: The folder of the bundle.
        model: The model.
        kind: The precision of the graph.
        kept: The names of the nodes that do not have this precision, each with the reason.

    Returns:
        The graph's entry in the manifest.
    """
    path = folder / graph_name(kind)
    onnx.save_model(model, str(path))
    return Graph(file=artifact(folder, path), opset=model.opset_import[0].version, kept=kept)


def check_memory(network: NetworkConfig, size: Size) -> None:
    """Check that the memory suffices to run a photo for calibration.

    Args:
        network: The network.
        size: The size of the photo (height, width).

    Raises:
        ImageError: The memory does not suffice.
    """
    what = f"a calibration photo is {size[0]}x{size[1]}"
    memory.check(memory.estimate(*size, network), what, "give a smaller `size` or `max_size`")


def calibrate(
    checkpoint: Checkpoint,
    model: onnx.ModelProto,
    half: Half,
    fft: Lowering,
    size: tuple[int, int],
    photos: Path | None,
    most: int = samples.MAX_CALIBRATION_PHOTOS,
) -> dict[str, str]:
    """Find the nodes that stay fp32 in a half type, by running the graph on photos.

    Args:
        checkpoint: The checkpoint.
        model: The graph in fp32.
        half: The half type.
        fft: The lowering of the FFT in the graph.
        size: The size of the photos (height, width). Photos are cut or mirrored to this size.
        photos: The folder of photos; None: the sample photo of the package.
        most: The largest number of photos.

    Returns:
        The nodes' names, each with the reason.

    Raises:
        GlamaError: The folder has no photos.
    """
    cases = samples.calibration_cases(photos, size, most)
    # The probed graph has float tensors, and DFT nodes instead of a plugin's. Its other nodes have the same names.
    probed = build(checkpoint.config, checkpoint.weights, size, (PREDICTED,), "dft" if fft == "plugin" else fft)
    largest = ranges.measure_ranges(probed, (case.tensors() for case in cases))
    return (
        find_unsupported_nodes(model, half)
        | two_stage.find_products(model)
        | ranges.find_out_of_range(model, largest, half)
    )


def load_with_predicted(bundle: Bundle, kind: Precision) -> onnx.ModelProto:
    """Load a graph of a bundle, and add the output `predicted` if the graph does not have it.

    The output `inpainted` does not suffice to measure parity: in bytes it hides values that are not finite.

    Args:
        bundle: The bundle.
        kind: The precision of the graph.

    Returns:
        The model.
    """
    model = onnx.load(str(bundle.graph(kind)))
    if not any(output.name == PREDICTED for output in model.graph.output):
        interface = INTERFACES[bundle.manifest.io]
        assert issubclass(interface, FloatInterface | ByteInterface)  # the other ones are fp32 alone
        interface.add_predicted(model)
    return model


def describe_tensors(
    io: Io, size: tuple[int, int] | None, outputs: Sequence[str]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Describe a graph's inputs and outputs for the manifest.

    Args:
        io: The type of the inputs and outputs.
        size: The graph's only size (height, width); None: any size.
        outputs: The names of the outputs.

    Returns:
        The inputs, and the outputs.
    """
    interface = INTERFACES[io](GraphBuilder(), size)

    def describe(name: str, dtype: str, shape: tuple[int | str, ...]) -> Tensor:
        layout = "NCHW" if io != "uint8" else "NHWC" if len(shape) == 4 else "NHW"
        meaning = _MEANINGS[name]
        if name == MASK and dtype == "uint8":
            meaning = "255 = known, below = missing" if io == "migan" else "above 0 = missing, 0 = known"
        return Tensor.model_validate(
            {
                "name": name,
                "dtype": dtype,
                "layout": layout,
                "shape": shape,
                "range": (0.0, 255.0 if dtype == "uint8" or name == CARVE_OUTPUT else 1.0),
                "meaning": meaning,
            }
        )

    inputs, results = (
        tuple(describe(v.name, v.dtype, v.shape) for v in values)
        for values in (interface.inputs(), interface.outputs(outputs))
    )
    return inputs, results
