"""The names in an ONNX graph that one module writes and another module reads.

`glama_deploy.export.graph` writes the graph. Every node has one output, and the node and its output share one name. The
name is a path of words, for example `block3/conv1/g2g/rfft/row`. OpenVINO and TensorRT keep these names, so the runtime
finds the layers that it rewrites by their names.

Bundles store the names. A bundle that was exported before a name changed still has the old name: never change a name
here. :mod:`glama_deploy.runtime.openvino.rewrites.transform_checks` warns when names are not found.

The comment above each constant says which module writes the name and which modules read the name. `graph` stands for
`glama_deploy.export.graph`, `numerics` for `glama_deploy.export.numerics`.
"""

from __future__ import annotations

# ---------------------------------------------------------------- inputs, outputs and their axes

#: The graph's inputs. Written by graph.inputs_outputs. Read by every runner, by numerics, and from the manifest.
IMAGE, MASK = "image", "mask"

#: The graph's outputs: the composited image, and the network's own image. Written by graph.inputs_outputs. Read by
#: every runner, by numerics, by parity, and from the manifest.
INPAINTED, PREDICTED = "inpainted", "predicted"

#: The only output of a graph that another program loads: Carve's name, and MI-GAN's. Written by graph.drop_in_ends.
#: Read by export.drop_in and from the manifest.
CARVE_OUTPUT, MIGAN_OUTPUT = "output", "result"

#: The symbols of axes whose length is free. Written by graph.inputs_outputs. Read by `bundle.Tensor.shape_for` and
#: engines.tensorrt.builder.
BATCH, HEIGHT, WIDTH = "batch", "height", "width"

#: The graph's optional input: the part of the picture that is computed. Also the first word of the nodes that compute
#: its corners. Written by graph.window. Read by the runners of ONNX Runtime and OpenVINO.
WINDOW = "window"

# ---------------------------------------------------------------- parts: the first word of a path

#: The prefix of all names of stage one in a network of two stages. Written by graph.network. Read by numerics.half,
#: numerics.equalize and benchmarks.bench.layer_times.
COARSE_PREFIX = "coarse/"

#: The part before the network (masking) and after it (compositing). Written by graph.inputs_outputs. Read by
#: numerics.half.
COMPOSE = "compose"

#: Values of that part: the image without the missing pixels, 1 - mask, and the network's image before and after
#: cropping. Written by graph.inputs_outputs. Read by graph.network and graph.inputs_outputs.
MASKED = f"{COMPOSE}/masked"
KEEP = f"{COMPOSE}/keep"
COMPOSE_PREDICTED = f"{COMPOSE}/predicted"
COMPOSE_CROPPED = f"{COMPOSE}/cropped"

#: The parts between two stages: the resampling to stage one's size, stage one's picture, and the resampling back.
#: Written by graph.network and graph.two_stage. Read by graph.two_stage, numerics.half and
#: benchmarks.bench.layer_times.
SHRINK, COARSE_PICTURE, ENLARGE = "shrink", "coarse_picture", "enlarge"

#: The interpolated picture of a network with `fill`. Written by graph.pull_push. Read by numerics.half.
FILL = "fill"

#: What all Fourier transforms of a graph share, such as their bases. Written by graph.fft_matmul, graph.fft_split and
#: graph.fft_library. Read by numerics.half, numerics.ranges and benchmarks.bench.layer_times.
FFT = "fft"

#: The network's layers in the order in which they run. A number follows DOWN, BLOCK and UP. Written by graph.network.
#: Read by numerics.equalize and benchmarks.bench.layer_times.
STEM, DOWN, BLOCK, BOTTLENECK, UP, HEAD = "stem", "down", "block", "bottleneck", "up", "head"

# ---------------------------------------------------------------- layers: the words after the part

#: The two FFC layers of a block. Written by graph.network. Read by numerics.equalize.
BLOCK_LAYERS = ("conv1", "conv2")

#: The local and the global half of a layer's output. Written by graph.network. Read by numerics.equalize and
#: benchmarks.bench.layer_times.
LOCAL, GLOBAL = "local", "global"

#: The four paths of an FFC layer, from its local or global input to its local or global output. The last
#: one is the Fourier unit. Written by graph.network. Read by numerics.equalize, benchmarks.bench.layer_times and
#: runtime.openvino.rewrites.transform_checks.
LOCAL_TO_LOCAL, LOCAL_TO_GLOBAL, GLOBAL_TO_LOCAL, GLOBAL_TO_GLOBAL = "l2l", "l2g", "g2l", "g2g"

#: The last word of a reflection padding, alone or after LOCAL_ or GLOBAL_. Written by graph.network. Read by
#: benchmarks.bench.layer_times.
PAD = "pad"

#: The encoder's map of a level in the window, as a part with the level's number; and its sum with the decoder's map, as
#: a layer of UP. The fine blocks of a level, numbered. Written by graph.network and graph.layers. Read by
#: numerics.equalize.
SKIP, FINE = "skip", "fine"

#: The activation of a transposed convolution and of a fine block. Written by graph.network. Read by numerics.equalize.
RELU = "relu"

# ---------------------------------------------------------------- a Fourier unit: the words after GLOBAL_TO_GLOBAL

#: The activation that the forward transform takes. Written by graph.network. Read by numerics.ranges.
TRANSFORM_INPUT = "in_relu"

#: The convolution on the spectrum. Written by graph.network. Read by numerics.int8 and
#: runtime.openvino.rewrites.channels_last.
SPECTRUM = "spectrum"

#: The shift of the spectrum in a graph of any size whose transforms are not orthonormal. Written by graph.ffc. Read by
#: numerics.half.
NORM_SHIFT = "norm_shift"

#: The sum of a Fourier unit's input and output. Written by graph.network. Read by numerics.equalize.
SUM = "sum"

#: The forward and the inverse transform; one of the words below follows. Written by graph.network. Read by
#: numerics.half, numerics.ranges, and runtime.openvino's column_convolutions, channels_last, fourier_units, split_fft.
RFFT, IRFFT = "rfft", "irfft"

# ---------------------------------------------------------------- a transform: the words after RFFT or IRFFT

#: The matrix products over rows and columns, or the DFT nodes in their place. Written by graph.fft_matmul and
#: graph.fft_library. Read by numerics.ranges and runtime.openvino's channels_last, fourier_units and split_fft.
ROW, COLUMN = "row", "column"

#: The matrix products of the split form: two over rows, two over columns. Written by fourier.split for graph.fft_split
#: and runtime.openvino.rewrites.split_fft. Read by numerics.half and numerics.ranges.
ROW_MAJOR, ROW_MINOR, COLUMN_MAJOR, COLUMN_MINOR = "row_major", "row_minor", "column_major", "column_minor"

#: The reshapes to and from a spectrum whose real and imaginary parts alternate as channels. Written by
#: graph.fft_matmul, graph.fft_library and fourier.split. Read by numerics.ranges,
#: runtime.openvino.rewrites.fourier_units and runtime.openvino.rewrites.split_fft.
INTERLEAVE, DEINTERLEAVE = "interleave", "deinterleave"

#: The transposition that puts real and imaginary parts before the spectrum's sides. Written by graph.fft_library and
#: fourier.split. Read by numerics.ranges.
PARTS_FIRST = "parts_first"

#: The scaling of a transform that a library computes, and the reshape between its two DFT nodes. Written by
#: graph.fft_library. Read by numerics.half and numerics.ranges.
SCALE, COMPLEX = "scale", "complex"

#: What follows the name of a basis for the inverse transform. Written by graph.fft_matmul and fourier.split. Read by
#: numerics.half, graph.fft_split and runtime.openvino.rewrites.split_fft, whose nodes have the name without it.
INVERSE_SUFFIX = "_inverse"

#: The bases of the two matrix products of a transform, and of its inverse. Written by graph.fft_matmul. Read by
#: numerics.half and runtime.openvino.rewrites.fed_bases.
ROW_BASIS, COLUMN_BASIS = f"{FFT}/{ROW}", f"{FFT}/{COLUMN}"
ROW_INVERSE_BASIS, COLUMN_INVERSE_BASIS = f"{ROW_BASIS}{INVERSE_SUFFIX}", f"{COLUMN_BASIS}{INVERSE_SUFFIX}"


def get_part(name: str) -> str:
    """Return the part of the graph that a node belongs to.

    Args:
        name: the node's name.

    Returns:
        The first word of the name.
    """
    return name.partition("/")[0]


def get_encoder_map(level: int) -> str:
    """Return the name of the encoder's map of a level, whose channels are all local.

    Args:
        level: number of downsamplings before the map, fewer than the network has.

    Returns:
        The name of the output of the stem or of a downsampling.
    """
    return f"{DOWN}{level - 1}/{LOCAL}" if level else f"{STEM}/{LOCAL}"


def is_in_decoder(name: str) -> bool:
    """Tell whether a node belongs to a level of the decoder, of either stage.

    Args:
        name: the node's name.

    Returns:
        True for a node behind the blocks and before the head.
    """
    return name.removeprefix(COARSE_PREFIX).startswith(UP)


def is_in_transform(name: str) -> bool:
    """Tell whether a node is a step of a forward or inverse Fourier transform.

    Args:
        name: the node's name.

    Returns:
        True for a step of a transform.
    """
    return f"/{RFFT}/" in name or f"/{IRFFT}/" in name
