"""The generator as an ONNX graph, written node by node, with folded batch norms and lowered FFTs.

The graph is written from the config and the parameters, without tracing and without torch. The same code writes graphs
of one size and of any size. A node's name begins with its part of the network, such as stem, block3/conv1 or up0
(:mod:`glama_deploy.node_names`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from glama_deploy import cost
from glama_deploy.bundle import DROP_IN_ENDS, Io, Lowering
from glama_deploy.errors import GlamaError
from glama_deploy.export.graph import two_stage
from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.export.graph.ffc import FourierWriter
from glama_deploy.export.graph.interfaces import INTERFACES
from glama_deploy.export.graph.layers import LayerWriter
from glama_deploy.export.graph.pull_push import PullPush
from glama_deploy.export.graph.regular import RegularWriter
from glama_deploy.export.graph.window import Window
from glama_deploy.network import MIN_SIDE, SIZE_MULTIPLE, NetworkConfig, next_side
from glama_deploy.node_names import (
    BOTTLENECK,
    COARSE_PICTURE,
    COARSE_PREFIX,
    ENLARGE,
    INPAINTED,
    KEEP,
    MASKED,
    PREDICTED,
    SHRINK,
    SKIP,
    WINDOW,
)

OUTPUTS = (INPAINTED, PREDICTED)


def build(
    config: NetworkConfig,
    weights: Mapping[str, np.ndarray],
    size: tuple[int, int] | None = None,
    outputs: Sequence[str] = (INPAINTED,),
    fft: Lowering = "matmul",
    io: Io = "float",
) -> onnx.ModelProto:
    """Build the network as a checked float32 ONNX model.

    The inputs are `image` and `mask`. :mod:`glama_deploy.export.graph.inputs_outputs` says their types and shapes. The
    batch is always free.

    Args:
        config: The network.
        weights: The parameters by their names in the checkpoint.
        size: The images' (height, width), multiples of 8 from 16 up. None: any size.
        outputs: `inpainted` (the prediction where pixels are missing, the image where they are known), `predicted` (the
            network's own image), or both. With io `carve` and `migan` the model's only output.
        fft: How the transforms are written. `split` needs a size.
        io: The types of inputs and outputs.

    Returns:
        The model.

    Raises:
        GlamaError: a side is not a multiple of 8 or is below 16, or `split` has no size.
    """
    check_size(size, config.min_side)
    if fft == "split" and size is None:
        raise GlamaError("the split FFT is of one size: give `size=HxW` with `fft=split`, or use `fft=matmul`")
    graph = GraphBuilder()
    interface = INTERFACES[io](graph, size, config.activation)
    window = Window(graph, is_used=size is None and io not in DROP_IN_ENDS)
    entered = interface.write_inputs()
    if config.coarse is not None:
        entered = _write_stage_one(config, weights, graph, size, fft, entered)
    logits = _write_generator(config, weights, graph, size, fft, window, entered)
    interface.write_outputs(logits, outputs, window)
    metadata = {"network": config.model_dump_json(), "fft": fft}
    model = graph.model(interface.inputs(), interface.outputs(outputs), metadata)
    onnx.checker.check_model(model, full_check=True)
    return model


def _write_stage_one(
    config: NetworkConfig,
    weights: Mapping[str, np.ndarray],
    graph: GraphBuilder,
    size: tuple[int, int] | None,
    fft: Lowering,
    entered: str,
) -> str:
    """Write stage one; return its enlarged picture before the input of stage two, [B, 7, H, W]."""
    assert config.coarse is not None
    add, side = graph.add, config.coarse_side
    resampling = two_stage.Resampling(graph, size, side, entered)
    means = resampling.shrink(add("Concat", [MASKED, KEEP], f"{SHRINK}/known", axis=1))
    least = graph.constant("const/least_known", np.array(two_stage.MIN_KNOWN_SHARE, np.float32))
    one = graph.constant("const/one", np.array(1, np.float32))
    sums, share = (
        add("Slice", [means, graph.ints(first), graph.ints(last), graph.ints(1)], f"{SHRINK}/{name}")
        for name, first, last in (("sums", 0, 3), ("share", 3, 4))
    )
    missing = add("Cast", [add("Less", [share, least], f"{SHRINK}/unknown")], f"{SHRINK}/missing", to=1)
    image = add("Div", [sums, add("Max", [share, least], f"{SHRINK}/divisor")], f"{SHRINK}/mean")
    image = add("Mul", [image, add("Sub", [one, missing], f"{SHRINK}/keep")], f"{SHRINK}/masked")
    own = {name.removeprefix("coarse."): value for name, value in weights.items() if name.startswith("coarse.")}
    lowering, size = cost.choose_coarse_lowering(fft, config), (side, side)
    stacked, scoped = add("Concat", [image, missing], f"{SHRINK}/stacked", axis=1), graph.scoped(COARSE_PREFIX)
    logits = _write_generator(config.coarse, own, scoped, size, lowering, Window(graph, is_used=False), stacked)
    predicted = add("Sigmoid", [logits], f"{COARSE_PICTURE}/predicted")
    picture = add(
        "Add", [image, add("Mul", [missing, predicted], f"{COARSE_PICTURE}/filled")], f"{COARSE_PICTURE}/whole"
    )
    return add("Concat", [resampling.enlarge(picture), entered], f"{ENLARGE}/stacked", axis=1)


def _write_generator(
    config: NetworkConfig,
    weights: Mapping[str, np.ndarray],
    graph: GraphBuilder,
    size: tuple[int, int] | None,
    fft: Lowering,
    window: Window,
    x: str,
) -> str:
    """Write all layers but the activation; return the head's output [B, 3, H, W], in the window.

    Args:
        config: The network.
        weights: The parameters by their names in the checkpoint.
        graph: The graph.
        size: The images' (height, width). None: any size.
        fft: How the transforms are written.
        window: The part of the picture that is computed behind the last block.
        x: The network's input [B, 4 or 7, H, W].

    Returns:
        The head's output.
    """
    picture = PullPush(graph, size, x) if config.fill is not None else None
    if picture is not None:
        x = picture.write_network_input()
    if config.kind == "ffc":
        bottleneck = (size[0] // config.reduction, size[1] // config.reduction) if size else None
        writer = FourierWriter(config, weights, graph)
        x = writer.write_blocks(x, fft, bottleneck)
        encoded = writer.encoded if config.fine_blocks else []
    else:
        x, encoded = RegularWriter(config, weights, graph).write_blocks(x), []
    x = window.cut(x, f"{BOTTLENECK}/{WINDOW}", config.reduction)
    maps = [window.cut(each, f"{SKIP}{level}/{WINDOW}", 2**level) for level, each in enumerate(encoded)]
    logits = LayerWriter(config, weights, graph).write_decoder(x, maps)
    return logits if picture is None else picture.add_log_odds(logits, window)


def check_size(size: tuple[int, int] | None, min_side: int = MIN_SIDE) -> None:
    """Check a graph's size.

    Args:
        size: The (height, width); None is valid.
        min_side: The least height and width.

    Raises:
        GlamaError: a side is not a multiple of 8 or is below the least one.
    """
    if size is None:
        return
    if any(side % SIZE_MULTIPLE or side < min_side for side in size):
        near = "x".join(str(max(min_side, next_side(side))) for side in size)
        raise GlamaError(
            f"size {size[0]}x{size[1]}: both sides must be multiples of {SIZE_MULTIPLE}, at least {min_side}; "
            f"the next that works is {near} (images of any size are padded to it at run time)"
        )
