"""The layers of a network with Fourier convolutions (kind ffc), as ONNX nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from glama_deploy.bundle import Lowering
from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.export.graph.fft_library import DftFFT, PluginFFT
from glama_deploy.export.graph.fft_matmul import MatmulFFT
from glama_deploy.export.graph.fft_split import SplitFFT
from glama_deploy.export.graph.layers import LayerWriter, scale_kernel
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import (
    BLOCK,
    BLOCK_LAYERS,
    BOTTLENECK,
    DOWN,
    FFT,
    GLOBAL,
    GLOBAL_TO_GLOBAL,
    GLOBAL_TO_LOCAL,
    IRFFT,
    LOCAL,
    LOCAL_TO_GLOBAL,
    LOCAL_TO_LOCAL,
    NORM_SHIFT,
    PAD,
    RELU,
    RFFT,
    SPECTRUM,
    STEM,
    SUM,
    TRANSFORM_INPUT,
)


class FourierWriter(LayerWriter):
    """Writes the layers before the decoder in the order in which they run.

    Attributes:
        encoded: The outputs of the stem and of the downsamplings except for the last one, after :meth:`write_blocks`.
    """

    def __init__(self, config: NetworkConfig, weights: Mapping[str, np.ndarray], graph: GraphBuilder) -> None:
        """Keep what the layers depend on.

        Args:
            config: The network, of kind ffc.
            weights: The parameters by their names in the checkpoint.
            graph: The graph.
        """
        super().__init__(config, weights, graph)
        self.encoded: list[str] = []
        self._fft: MatmulFFT | SplitFFT | DftFFT | PluginFFT | None = None
        self._scale: float | str = 1.0

    def write_blocks(self, x: str, fft: Lowering, bottleneck: tuple[int, int] | None) -> str:
        """Write the stem, the downsampling, the blocks and the concatenation.

        Args:
            x: The network's input [B, 4 or 7, H, W].
            fft: How the transforms are written.
            bottleneck: The (height, width) of the blocks. None: any size.

        Returns:
            The bottleneck [B, C, h, w].
        """
        config = self.config
        local, globl = self._write_ffc("model.1", STEM, x, None, padding=3)
        for level in range(config.n_downsampling):
            self.encoded.append(local)
            local, globl = self._write_ffc(f"model.{2 + level}", f"{DOWN}{level}", local, globl, padding=1, stride=2)
        assert globl is not None
        self._fft = _make_transforms(self.graph, fft, bottleneck, globl)
        self._scale = self._find_scale(bottleneck, globl)
        for block in range(config.n_blocks):
            source, name = f"model.{config.first_block + block}", f"{BLOCK}{block}"
            inner: tuple[str, str | None] = (local, globl)
            for layer in BLOCK_LAYERS:
                inner = self._write_ffc(
                    f"{source}.{layer}", f"{name}/{layer}", *inner, padding=config.dilation, dilation=config.dilation
                )
            local = self.graph.add("Add", [local, inner[0]], f"{name}/{LOCAL}")
            globl = self.graph.add("Add", [globl, str(inner[1])], f"{name}/{GLOBAL}")
        return self.graph.add("Concat", [local, globl], BOTTLENECK, axis=1)

    def _write_ffc(
        self, source: str, name: str, local: str, globl: str | None, *, padding: int, stride: int = 1, dilation: int = 1
    ) -> tuple[str, str | None]:
        """Write an FFC layer with folded norms and its ReLUs.

        Args:
            source: The layer's name in the checkpoint.
            name: The prefix of the nodes' names.
            local: The local input [B, C, H, W].
            globl: The global input; None before the blocks.
            padding: Pixels of reflection padding on each side.
            stride: The convolutions' stride.
            dilation: The convolutions' dilation.

        Returns:
            The local and the global output; None where the layer has no global output.
        """
        conv = partial(self.write_conv, stride=stride, dilation=dilation)
        weight = {path: self.weights.get(f"{source}.ffc.{path}.weight") for path in ("convl2l", "convl2g", "convg2l")}
        scale, shift = self.fold_norm(f"{source}.bn_l")
        padded = self.write_pad(local, padding, f"{name}/{LOCAL}_{PAD}")
        assert weight["convl2l"] is not None
        out_l = conv(padded, scale_kernel(weight["convl2l"], scale), shift, f"{name}/{LOCAL_TO_LOCAL}")
        if globl is not None and weight["convg2l"] is not None:
            padded_g = self.write_pad(globl, padding, f"{name}/{GLOBAL}_{PAD}")
            from_g = conv(padded_g, scale_kernel(weight["convg2l"], scale), None, f"{name}/{GLOBAL_TO_LOCAL}")
            out_l = self.graph.add("Add", [out_l, from_g], f"{name}/{LOCAL}_{SUM}")
        out_l = self.graph.add("Relu", [out_l], f"{name}/{LOCAL}")
        if weight["convl2g"] is None:
            return out_l, None
        scale, shift = self.fold_norm(f"{source}.bn_g")
        out_g = conv(padded, scale_kernel(weight["convl2g"], scale), shift, f"{name}/{LOCAL_TO_GLOBAL}")
        if globl is not None:
            from_g = self._write_fourier_unit(f"{source}.ffc.convg2g", f"{name}/{GLOBAL_TO_GLOBAL}", globl, scale)
            out_g = self.graph.add("Add", [out_g, from_g], f"{name}/{GLOBAL}_{SUM}")
        return out_l, self.graph.add("Relu", [out_g], f"{name}/{GLOBAL}")

    def _write_fourier_unit(self, source: str, name: str, x: str, out_scale: np.ndarray) -> str:
        """Write the Fourier unit; `out_scale` [C] is the scale of the following norm, for the last convolution."""
        assert self._fft is not None
        add, channels = self.graph.add, self.config.spectral_channels
        scale, shift = self.fold_norm(f"{source}.conv1.1")
        x = self.write_conv(x, scale_kernel(self.weights[f"{source}.conv1.0.weight"], scale), shift, f"{name}/in")
        x = add("Relu", [x], f"{name}/{TRANSFORM_INPUT}")
        z = self._fft.forward(x, channels, f"{name}/{RFFT}")
        scale, shift = self.fold_norm(f"{source}.fu.bn")
        z = self._write_spectral_conv(
            z, scale_kernel(self.weights[f"{source}.fu.conv_layer.weight"], scale), shift, f"{name}/{SPECTRUM}"
        )
        z = add("Relu", [z], f"{name}/{SPECTRUM}_{RELU}")
        z = self._fft.inverse(z, channels, f"{name}/{IRFFT}", like=x)
        x = add("Add", [x, z], f"{name}/{SUM}")
        return self.write_conv(x, scale_kernel(self.weights[f"{source}.conv2.weight"], out_scale), None, f"{name}/out")

    def _write_spectral_conv(self, z: str, kernel: np.ndarray, shift: np.ndarray, name: str) -> str:
        """Write the convolution on the spectrum.

        The transforms are orthonormal. With another `fft_norm`, the spectrum that LaMa's network sees is larger by the
        root of the number of pixels, or smaller. Only the shift of the norm, which is added to the spectrum, depends on
        this factor: a ReLU keeps positive factors, and the inverse transform takes the factor back.
        """
        if not isinstance(self._scale, str):
            return self.write_conv(z, kernel, shift * self._scale, name)
        values = self.graph.constant(f"{name}/shift", shift.astype(np.float32)[:, None, None])
        scaled = self.graph.add("Mul", [values, self._scale], f"{name}_{NORM_SHIFT}")
        return self.graph.add("Add", [self.write_conv(z, kernel, None, name), scaled], f"{name}_{SUM}")

    def _find_scale(self, bottleneck: tuple[int, int] | None, like: str) -> float | str:
        """Return the factor of shifts on the spectrum: a number, or a value of the graph that depends on its size."""
        norm = self.config.fft_norm
        if norm == "ortho":
            return 1.0
        if bottleneck is not None:
            factor = math.sqrt(bottleneck[0] * bottleneck[1])
            return factor if norm == "forward" else 1 / factor
        add = self.graph.add
        shape = add("Shape", [like], f"{FFT}/{NORM_SHIFT}/sides", start=2, end=4)
        sides = add("Cast", [shape], f"{FFT}/{NORM_SHIFT}/sides_float", to=1)
        roots = add("Sqrt", [sides], f"{FFT}/{NORM_SHIFT}/roots")  # before the product, which may exceed fp16
        root = add("ReduceProd", [roots], f"{FFT}/{NORM_SHIFT}/root", keepdims=0)
        return root if norm == "forward" else add("Reciprocal", [root], f"{FFT}/{NORM_SHIFT}/inverse_root")


def _make_transforms(
    graph: GraphBuilder, fft: Lowering, size: tuple[int, int] | None, like: str
) -> MatmulFFT | SplitFFT | DftFFT | PluginFFT:
    if fft == "split":
        assert size is not None
        return SplitFFT(graph, size)
    if fft == "matmul":
        return MatmulFFT(graph, size, like)
    return (DftFFT if fft == "dft" else PluginFFT)(graph, size, like)
