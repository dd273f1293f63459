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
from glama_deploy.bundle import Io, Lowering
from glama_deploy.errors import GlamaError
from glama_deploy.export.graph import two_stage
from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.export.graph.fft_library import DftFFT, PluginFFT
from glama_deploy.export.graph.fft_matmul import MatmulFFT
from glama_deploy.export.graph.fft_split import SplitFFT
from glama_deploy.export.graph.inputs_outputs import INTERFACES
from glama_deploy.export.graph.pull_push import PullPush
from glama_deploy.export.graph.window import Window
from glama_deploy.network import MIN_SIDE, SIZE_MULTIPLE, NetworkConfig, next_side
from glama_deploy.node_names import (
    BLOCK,
    BLOCK_LAYERS,
    BOTTLENECK,
    COARSE_PICTURE,
    COARSE_PREFIX,
    DOWN,
    ENLARGE,
    GLOBAL,
    GLOBAL_TO_GLOBAL,
    GLOBAL_TO_LOCAL,
    HEAD,
    INPAINTED,
    IRFFT,
    KEEP,
    LOCAL,
    LOCAL_TO_GLOBAL,
    LOCAL_TO_LOCAL,
    MASKED,
    PAD,
    PREDICTED,
    RELU,
    RFFT,
    SHRINK,
    SPECTRUM,
    STEM,
    SUM,
    TRANSFORM_INPUT,
    UP,
    WINDOW,
)

#: The constant that batch norm adds to the variance: PyTorch's default, which LaMa uses.
BATCH_NORM_EPSILON = 1e-5

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
            network's own image), or both.
        fft: How the transforms are written. `split` needs a size.
        io: The types of inputs and outputs.

    Returns:
        The model.

    Raises:
        GlamaError: a side is not a multiple of 8 or is below 16, or `split` has no size.
    """
    check_size(size)
    if fft == "split" and size is None:
        raise GlamaError("the split FFT is of one size: give `size=HxW` with `fft=split`, or use `fft=matmul`")
    graph = GraphBuilder()
    interface, window = INTERFACES[io](graph, size), Window(graph, size)
    entered = interface.write_inputs()
    if config.coarse is not None:
        entered = _write_stage_one(config, weights, graph, size, fft, entered)
    logits = _NetworkWriter(config, weights, graph, size, fft, window).write_generator(entered)
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
    stage = _NetworkWriter(config.coarse, own, graph.scoped(COARSE_PREFIX), size, lowering, Window(graph, size))
    logits = stage.write_generator(add("Concat", [image, missing], f"{SHRINK}/stacked", axis=1))
    predicted = add("Sigmoid", [logits], f"{COARSE_PICTURE}/predicted")
    picture = add(
        "Add", [image, add("Mul", [missing, predicted], f"{COARSE_PICTURE}/filled")], f"{COARSE_PICTURE}/whole"
    )
    return add("Concat", [resampling.enlarge(picture), entered], f"{ENLARGE}/stacked", axis=1)


def check_size(size: tuple[int, int] | None) -> None:
    """Check a graph's size.

    Args:
        size: The (height, width); None is valid.

    Raises:
        GlamaError: a side is not a multiple of 8 or is below 16.
    """
    if size is None:
        return
    if any(side % SIZE_MULTIPLE or side < MIN_SIDE for side in size):
        near = "x".join(str(next_side(side)) for side in size)
        raise GlamaError(
            f"size {size[0]}x{size[1]}: both sides must be multiples of {SIZE_MULTIPLE}, at least {MIN_SIDE}; "
            f"the next that works is {near} (images of any size are padded to it at run time)"
        )


class _NetworkWriter:
    """Writes the generator's layers in the order in which they run."""

    def __init__(
        self,
        config: NetworkConfig,
        weights: Mapping[str, np.ndarray],
        graph: GraphBuilder,
        size: tuple[int, int] | None,
        fft: Lowering,
        window: Window,
    ) -> None:
        """Keep what the layers depend on.

        Args:
            config: The network.
            weights: The parameters by their names in the checkpoint.
            graph: The graph.
            size: The images' (height, width). None: any size.
            fft: How the transforms are written.
            window: The part of the picture that is computed behind the last block.
        """
        self._config = config
        self._weights = weights
        self._graph = graph
        self._size = size
        down = 2**config.n_downsampling
        self._bottleneck = (size[0] // down, size[1] // down) if size else None
        self._lowering = fft
        self._window = window
        self._fft: MatmulFFT | SplitFFT | DftFFT | PluginFFT | None = None

    def write_generator(self, x: str) -> str:
        """Write all layers but the sigmoid.

        Args:
            x: The network's input [B, 4 or 7, H, W].

        Returns:
            The head's output [B, 3, H, W], in the window.
        """
        if self._config.fill is None:
            return self._write_layers(x)
        picture = PullPush(self._graph, self._size, x)
        return picture.add_log_odds(self._write_layers(picture.write_network_input()), self._window)

    def _write_layers(self, x: str) -> str:
        config = self._config
        local, globl = self._write_ffc("model.1", STEM, x, None, padding=3, stride=1)
        for level in range(config.n_downsampling):
            local, globl = self._write_ffc(f"model.{2 + level}", f"{DOWN}{level}", local, globl, padding=1, stride=2)
        assert globl is not None
        self._fft = self._make_transforms(globl)
        for block in range(config.n_blocks):
            source, name = f"model.{config.first_block + block}", f"{BLOCK}{block}"
            inner: tuple[str, str | None] = (local, globl)
            for layer in BLOCK_LAYERS:
                inner = self._write_ffc(f"{source}.{layer}", f"{name}/{layer}", *inner, padding=1, stride=1)
            local = self._graph.add("Add", [local, inner[0]], f"{name}/{LOCAL}")
            globl = self._graph.add("Add", [globl, str(inner[1])], f"{name}/{GLOBAL}")
        x = self._graph.add("Concat", [local, globl], BOTTLENECK, axis=1)
        x = self._window.cut(x, f"{BOTTLENECK}/{WINDOW}", config.reduction)
        for step in range(config.n_downsampling):
            x = self._write_up(config.first_up + 3 * step, f"{UP}{step}", x)
        return self._write_head(x)

    def _make_transforms(self, like: str) -> MatmulFFT | SplitFFT | DftFFT | PluginFFT:
        if self._lowering == "split":
            assert self._bottleneck is not None
            return SplitFFT(self._graph, self._bottleneck)
        if self._lowering == "matmul":
            return MatmulFFT(self._graph, self._bottleneck, like)
        return (DftFFT if self._lowering == "dft" else PluginFFT)(self._graph, self._bottleneck, like)

    def _write_ffc(
        self, source: str, name: str, local: str, globl: str | None, *, padding: int, stride: int
    ) -> tuple[str, str | None]:
        """Write an FFC layer with folded norms and its ReLUs.

        Args:
            source: The layer's name in the checkpoint.
            name: The prefix of the nodes' names.
            local: The local input [B, C, H, W].
            globl: The global input; None before the blocks.
            padding: Pixels of reflection padding on each side.
            stride: The convolutions' stride.

        Returns:
            The local and the global output; None where the layer has no global output.
        """
        weight = {path: self._weights.get(f"{source}.ffc.{path}.weight") for path in ("convl2l", "convl2g", "convg2l")}
        scale, shift = self._fold_norm(f"{source}.bn_l")
        padded = self._write_pad(local, padding, f"{name}/{LOCAL}_{PAD}")
        assert weight["convl2l"] is not None
        out_l = self._write_conv(
            padded, _scale_kernel(weight["convl2l"], scale), shift, f"{name}/{LOCAL_TO_LOCAL}", stride
        )
        if globl is not None and weight["convg2l"] is not None:
            padded_g = self._write_pad(globl, padding, f"{name}/{GLOBAL}_{PAD}")
            from_g = self._write_conv(
                padded_g, _scale_kernel(weight["convg2l"], scale), None, f"{name}/{GLOBAL_TO_LOCAL}", stride
            )
            out_l = self._graph.add("Add", [out_l, from_g], f"{name}/{LOCAL}_{SUM}")
        out_l = self._graph.add("Relu", [out_l], f"{name}/{LOCAL}")
        if weight["convl2g"] is None:
            return out_l, None
        scale, shift = self._fold_norm(f"{source}.bn_g")
        out_g = self._write_conv(
            padded, _scale_kernel(weight["convl2g"], scale), shift, f"{name}/{LOCAL_TO_GLOBAL}", stride
        )
        if globl is not None:
            from_g = self._write_fourier_unit(f"{source}.ffc.convg2g", f"{name}/{GLOBAL_TO_GLOBAL}", globl, scale)
            out_g = self._graph.add("Add", [out_g, from_g], f"{name}/{GLOBAL}_{SUM}")
        return out_l, self._graph.add("Relu", [out_g], f"{name}/{GLOBAL}")

    def _write_fourier_unit(self, source: str, name: str, x: str, out_scale: np.ndarray) -> str:
        """Write the Fourier unit; `out_scale` [C] is the scale of the following norm, for the last convolution."""
        assert self._fft is not None
        add, channels = self._graph.add, self._config.spectral_channels
        scale, shift = self._fold_norm(f"{source}.conv1.1")
        x = self._write_conv(x, _scale_kernel(self._weights[f"{source}.conv1.0.weight"], scale), shift, f"{name}/in")
        x = add("Relu", [x], f"{name}/{TRANSFORM_INPUT}")
        z = self._fft.forward(x, channels, f"{name}/{RFFT}")
        scale, shift = self._fold_norm(f"{source}.fu.bn")
        z = self._write_conv(
            z, _scale_kernel(self._weights[f"{source}.fu.conv_layer.weight"], scale), shift, f"{name}/{SPECTRUM}"
        )
        z = add("Relu", [z], f"{name}/{SPECTRUM}_{RELU}")
        z = self._fft.inverse(z, channels, f"{name}/{IRFFT}", like=x)
        x = add("Add", [x, z], f"{name}/{SUM}")
        return self._write_conv(
            x, _scale_kernel(self._weights[f"{source}.conv2.weight"], out_scale), None, f"{name}/out"
        )

    def _write_up(self, index: int, name: str, x: str) -> str:
        """Write a transposed convolution, which doubles height and width, with folded norm and ReLU."""
        scale, shift = self._fold_norm(f"model.{index + 1}")
        kernel = self._weights[f"model.{index}.weight"].astype(np.float64) * scale[None, :, None, None]
        bias = self._weights[f"model.{index}.bias"].astype(np.float64) * scale + shift
        x = self._graph.add(
            "ConvTranspose",
            [
                x,
                self._graph.constant(f"{name}/conv/weight", kernel.astype(np.float32)),
                self._graph.constant(f"{name}/conv/bias", bias.astype(np.float32)),
            ],
            f"{name}/conv",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            output_padding=[1, 1],
        )
        return self._graph.add("Relu", [x], f"{name}/{RELU}")

    def _write_head(self, x: str) -> str:
        """Write the 7×7 convolution to three channels as an 8×8 one of stride 2 to twelve, and a depth-to-space.

        The sums are the same, for four neighbouring pixels at once. Three output channels leave vector units idle.
        """
        kernel, bias = (self._weights[f"model.{self._config.head}.{part}"] for part in ("weight", "bias"))
        wide = np.zeros((3, 2, 2, kernel.shape[1], 8, 8), np.float32)
        for row in range(2):
            for column in range(2):
                wide[:, row, column, :, row : row + 7, column : column + 7] = kernel
        x = self._write_pad(x, 3, f"{HEAD}/{PAD}")
        x = self._write_conv(x, wide.reshape(12, -1, 8, 8), np.repeat(bias, 4), f"{HEAD}/conv", stride=2)
        return self._graph.add("DepthToSpace", [x], f"{HEAD}/pixels", blocksize=2, mode="CRD")

    def _write_pad(self, x: str, padding: int, name: str) -> str:
        pads = self._graph.ints(0, 0, padding, padding, 0, 0, padding, padding)
        return self._graph.add("Pad", [x, pads], name, mode="reflect")

    def _write_conv(self, x: str, kernel: np.ndarray, bias: np.ndarray | None, name: str, stride: int = 1) -> str:
        inputs = [x, self._graph.constant(f"{name}/weight", kernel.astype(np.float32))]
        if bias is not None:
            inputs.append(self._graph.constant(f"{name}/bias", bias.astype(np.float32)))
        return self._graph.add("Conv", inputs, name, kernel_shape=list(kernel.shape[2:]), strides=[stride, stride])

    def _fold_norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch norm in eval mode as (scale, shift), float64 [C]: y = scale · x + shift."""
        part = {p: self._weights[f"{name}.{p}"].astype(np.float64) for p in ("weight", "bias")}
        mean, var = (self._weights[f"{name}.running_{p}"].astype(np.float64) for p in ("mean", "var"))
        scale = part["weight"] / np.sqrt(var + BATCH_NORM_EPSILON)
        return scale, part["bias"] - mean * scale


def _scale_kernel(kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return a convolution's kernel in float64 with each output channel multiplied by its scale."""
    return kernel.astype(np.float64) * scale[:, None, None, None]
