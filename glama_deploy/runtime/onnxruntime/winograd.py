"""A rewrite of ONNX models: 3×3 convolutions with a quarter of the multiplications (Winograd's method).

A kernel of 3×3 weights gives 4×4 neighbouring outputs with 36 products instead of 144 (F(4×4, 3×3); Lavin and Gray,
Fast Algorithms for Convolutional Neural Networks, CVPR 2016):

    Y = Aᵀ [(G g Gᵀ) · (Bᵀ X B)] A,    X 6×6 neighbouring inputs, g the kernel, Y 4×4 outputs.

All steps are matrix products, which ONNX Runtime computes near the CPU's limit. They take the channels last. With T
tiles, C input channels and K output channels:

    read    gather the tiles' pixels    [B·H·W, C] → [36, T·C]
    enter   (Bᵀ ⊗ Bᵀ) ·                 [36, 36] · [36, T·C]
    multiply by the kernel              36 products [T, C] · [C, K]
    leave   (Aᵀ ⊗ Aᵀ) ·                 [16, 36] · [36, T·K]
    back    gather the pixels           [16·T, K] → [B·H·W, K]

The border that reflects the map is in the first step's indices. Sums and ReLUs of such maps, and the 1×1 convolutions
that read or write them, are computed with the channels last too. The rounding error is about six times that of the
direct convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glama_deploy.node_names import is_in_decoder
from glama_deploy.runtime.onnxruntime.model_file import GraphEditor, get_attribute
from glama_deploy.runtime.onnxruntime.tile_indices import READ_SIDE, TileIndices, write_tile_indices
from glama_deploy.runtime.winograd_matrices import make_matrices

#: Input and output channels from which on the method is faster.
MIN_CHANNELS = 64

#: The ends of the names of tensors that are computed from a kernel: G g Gᵀ of a 3×3 kernel (:func:`transform_kernel`),
#: and the matrix [C, K] of a 1×1 kernel. The name starts with the kernel's.
VALUES_SUFFIX, MATRIX_SUFFIX = "/values", "/matrix"

_VALUES = READ_SIDE**2

#: The attributes of a convolution with a stride and a dilation of one, one group, and no padding of its own.
_PLAIN = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "auto_pad": b"NOTSET"}


def rewrite(model: Any, min_channels: int = MIN_CHANNELS) -> tuple[list[str], dict[str, np.ndarray]]:
    """Rewrite the 3×3 convolutions that the method suits.

    These have a stride of one, a reflected border of one pixel, float32 weights that are stored, and at least
    `min_channels` input and output channels. The decoder, whose window changes from run to run, has none.

    Args:
        model: The message `Model`, which is changed.
        min_channels: Input and output channels from which on a convolution is rewritten.

    Returns:
        The names of the convolutions that were rewritten, and the weights that each run is given as inputs, by name.
    """
    rewriter = _Rewriter(model, min_channels)
    return rewriter.run(), rewriter.editor.weights


@dataclass(frozen=True)
class _Pixels:
    """A feature map with the channels last: `value` is [B·H·W, channels]."""

    value: str
    channels: int
    indices: TileIndices


@dataclass(frozen=True)
class _Products:
    """A convolution before it leaves: `value` is [36, T, channels], `bias` a stored tensor or empty."""

    value: str
    channels: int
    indices: TileIndices
    bias: str


class _Rewriter:
    """Rewrites the nodes in order.

    Each rewritten value has one of three forms. Where a node that is not rewritten reads such a value, nodes are added
    that give the value its form [B, C, H, W] and its name.
    """

    def __init__(self, model: Any, min_channels: int) -> None:
        """Read a model.

        Args:
            model: The message `Model`.
            min_channels: Input and output channels from which on a convolution is rewritten.
        """
        self._min_channels = min_channels
        self.editor = GraphEditor(model)
        self._graph = model.graph
        self._producers = {output: node for node in self._graph.node for output in node.output}
        self._pixels: dict[str, _Pixels] = {}
        self._products: dict[str, _Products] = {}
        self._pointwise: dict[str, Any] = {}  # 1×1 convolutions of pixels that were not written yet
        self._usual: set[str] = {tensor.name for tensor in self._graph.initializer}
        self._entered: dict[str, str] = {}

    def run(self) -> list[str]:
        nodes = list(self._graph.node)
        found = [node.name for node in nodes if self._is_suited(node)]
        if not found:
            return []
        for node in nodes:
            if not self._rewrite(node):
                for value in node.input:
                    self._write_usual(value)
                self._usual.update(node.output)
                self.editor.keep(node)
        for output in self._graph.output:
            self._write_usual(output.name)
        self.editor.finish()
        return found

    def _rewrite(self, node: Any) -> bool:
        """Write what replaces a node; return False where the node stays as it is."""
        if node.op_type == "Conv":
            return self._rewrite_convolution(node)
        if node.op_type == "Add":
            return self._rewrite_sum(node)
        if node.op_type == "Relu" and self._is_rewritten(node.input[0]):
            x = self._get_pixels(node.input[0])
            self._pixels[node.output[0]] = replace(
                x, value=self.editor.add("Relu", [x.value], f"{node.output[0]}/pixels")
            )
            return True
        return False

    def _rewrite_convolution(self, node: Any) -> bool:
        if self._is_suited(node):
            self._products[node.output[0]] = self._multiply(node)
            return True
        if self._is_pointwise(node) and self._is_rewritten(node.input[0]):
            self._pointwise[node.output[0]] = node
            return True
        return False

    def _rewrite_sum(self, node: Any) -> bool:
        values, output = list(node.input), node.output[0]
        if any(map(self.editor.is_stored, values)) or not any(map(self._is_rewritten, values)):
            return False
        products = [self._products[value] for value in values if value in self._products]
        if len(products) == 2 and not all(each.bias for each in products):
            # one way back for both
            added = self.editor.add("Add", [each.value for each in products], f"{output}/products")
            bias = products[0].bias or products[1].bias
            self._products[output] = replace(products[0], value=added, bias=bias)
            return True
        known = next(self._get_pixels(value) for value in values if self._is_rewritten(value))
        terms = [self._get_pixels(value, known).value for value in values]
        self._pixels[output] = replace(known, value=self.editor.add("Add", terms, f"{output}/pixels"))
        return True

    def _multiply(self, node: Any) -> _Products:
        """Write the products of a 3×3 convolution."""
        kernel = self.editor.read_stored(node.input[1])
        assert kernel is not None
        outputs, channels = kernel.shape[:2]
        source = self._producers[node.input[0]].input[0]
        x = self._get_pixels(source) if self._is_rewritten(source) else self._enter_pixels(source, channels)
        if source not in self._entered:
            add, ints = self.editor.add, self.editor.ints
            read = add("Gather", [x.value, x.indices.read], f"{source}/read", axis=0)
            read = add("Reshape", [read, ints(_VALUES, -1)], f"{source}/read/places")
            enter = self.editor.store("edited/enter", _square(make_matrices()[2]))
            entered = add("MatMul", [enter, read], f"{source}/enter")
            self._entered[source] = add("Reshape", [entered, ints(_VALUES, -1, channels)], f"{source}/values")
        weights = self.editor.add_weights(f"{node.input[1]}{VALUES_SUFFIX}", transform_kernel(kernel))
        value = self.editor.add("MatMul", [self._entered[source], weights], f"{node.output[0]}/products")
        return _Products(value, outputs, x.indices, _get_bias(node))

    def _leave(self, products: _Products, name: str) -> str:
        """Return the pixels of products."""
        add, ints = self.editor.add, self.editor.ints
        y = add("Reshape", [products.value, ints(_VALUES, -1)], f"{name}/values")
        leave = self.editor.store("edited/leave", _square(make_matrices()[0]))
        y = add("MatMul", [leave, y], f"{name}/leave")
        y = add("Reshape", [y, ints(-1, products.channels)], f"{name}/places")
        y = add("Gather", [y, products.indices.back], f"{name}/back", axis=0)
        return add("Add", [y, products.bias], f"{name}/biased") if products.bias else y

    def _multiply_pixels(self, node: Any) -> _Pixels:
        """Write a 1×1 convolution as a matrix product."""
        kernel = self.editor.read_stored(node.input[1])
        assert kernel is not None
        outputs, channels = kernel.shape[:2]
        x = self._get_pixels(node.input[0])
        weights = self.editor.store(
            f"{node.input[1]}{MATRIX_SUFFIX}", np.ascontiguousarray(kernel.reshape(outputs, channels).T)
        )
        inputs = [x.value, weights, *filter(None, [_get_bias(node)])]
        return _Pixels(self.editor.add("Gemm", inputs, f"{node.output[0]}/pixels"), outputs, x.indices)

    def _is_rewritten(self, value: str) -> bool:
        return value in self._pixels or value in self._products or value in self._pointwise

    def _get_pixels(self, value: str, like: _Pixels | None = None) -> _Pixels:
        """Return a value with the channels last; `like` has the shape of a value that was not rewritten."""
        if value not in self._pixels:
            if value in self._products:
                products = self._products[value]
                self._pixels[value] = _Pixels(self._leave(products, value), products.channels, products.indices)
            elif value in self._pointwise:
                self._pixels[value] = self._multiply_pixels(self._pointwise[value])
            else:
                assert like is not None
                return self._enter_pixels(value, like.channels, like.indices)
        return self._pixels[value]

    def _enter_pixels(self, value: str, channels: int, indices: TileIndices | None = None) -> _Pixels:
        """Write a value [B, C, H, W] with the channels last; return the pixels."""
        last = self.editor.add("Transpose", [value], f"{value}/last", perm=[0, 2, 3, 1])
        pixels = self.editor.add("Reshape", [last, self.editor.ints(-1, channels)], f"{value}/pixels")
        indices = indices or write_tile_indices(self.editor, value, f"{value}/tiles")
        self._pixels[value] = _Pixels(pixels, channels, indices)
        self._usual.add(value)
        return self._pixels[value]

    def _write_usual(self, value: str) -> None:
        """Write a rewritten value in its form [B, C, H, W], unless the value has that form."""
        if value in self._usual or not self._is_rewritten(value):
            return
        x = self._get_pixels(value)
        last = self.editor.add("Reshape", [x.value, x.indices.shape], f"{value}/last")
        self.editor.add("Transpose", [last], value, perm=[0, 3, 1, 2])
        self._usual.add(value)

    def _is_suited(self, node: Any) -> bool:
        """Return whether a node is a convolution that the method suits."""
        if node.op_type != "Conv" or is_in_decoder(node.name) or not _is_plain(node):
            return False
        kernel, pad = self.editor.read_stored(node.input[1]), self._producers.get(node.input[0])
        if kernel is None or kernel.dtype != np.float32 or kernel.shape[2:] != (3, 3):
            return False
        if min(kernel.shape[:2]) < self._min_channels or pad is None or pad.op_type != "Pad":
            return False
        borders = self.editor.read_stored(pad.input[1])
        is_border = borders is not None and borders.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
        return is_border and len(pad.input) == 2 and get_attribute(pad, "mode") == b"reflect"

    def _is_pointwise(self, node: Any) -> bool:
        kernel = self.editor.read_stored(node.input[1])
        return kernel is not None and kernel.dtype == np.float32 and kernel.shape[2:] == (1, 1) and _is_plain(node)


def transform_kernel(kernel: np.ndarray) -> np.ndarray:
    """Compute G g Gᵀ.

    Args:
        kernel: The kernel, float32 [K, C, 3, 3].

    Returns:
        float32 [36, C, K].
    """
    outputs, channels = kernel.shape[:2]
    factor = make_matrices()[1].astype(np.float32)
    taps = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)).reshape(3, 3, -1)
    # einsum computes in one thread; the threads of a matrix product this small would wait for each other
    values = np.einsum("jb,ibn->ijn", factor, np.einsum("ia,abn->ibn", factor, taps))
    return values.reshape(_VALUES, channels, outputs)


def _square(matrix: np.ndarray) -> np.ndarray:
    """Return M ⊗ M, which applies M to the rows and columns of a square at once, as float32."""
    return np.kron(matrix, matrix).astype(np.float32)


def _is_plain(node: Any) -> bool:
    return all(get_attribute(node, name) in (None, value) for name, value in _PLAIN.items())


def _get_bias(node: Any) -> str:
    return node.input[2] if len(node.input) > 2 else ""
