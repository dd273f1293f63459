"""The layers of a regular network, without Fourier convolutions (kinds regular and multidilated), as ONNX nodes."""

from __future__ import annotations

import numpy as np

from glama_deploy.export.graph.layers import LayerWriter
from glama_deploy.network import RegularLayer, list_regular_layers
from glama_deploy.node_names import BLOCK, BLOCK_LAYERS, DOWN, LOCAL, LOCAL_TO_LOCAL, PAD, STEM, SUM


class RegularWriter(LayerWriter):
    """Writes the layers before the decoder in the order in which they run. All channels are local."""

    def write_blocks(self, x: str) -> str:
        """Write the stem, the downsampling and the blocks.

        Args:
            x: The network's input [B, 4, H, W].

        Returns:
            The output of the last block [B, C, h, w].
        """
        add, config = self.graph.add, self.config
        x = self.write_pad(x, 3, f"{STEM}/{LOCAL}_{PAD}")
        x = self.write_conv(x, *self._fold("model.1", "model.2"), f"{STEM}/{LOCAL_TO_LOCAL}")
        x = add("Relu", [x], f"{STEM}/{LOCAL}")
        for level in range(config.n_downsampling):
            name, index = f"{DOWN}{level}", 4 + 3 * level
            folded = self._fold(f"model.{index}", f"model.{index + 1}")
            # unlike all other layers, these pad with zeros
            x = self.write_conv(x, *folded, f"{name}/{LOCAL_TO_LOCAL}", 2, zeros=1)
            x = add("Relu", [x], f"{name}/{LOCAL}")
        first, second = list_regular_layers(config)
        for block in range(config.n_blocks):
            source, name = f"model.{config.first_block + block}.conv_block", f"{BLOCK}{block}"
            inner = self._write_layer(source, first, f"{name}/{BLOCK_LAYERS[0]}", x)
            inner = add("Relu", [inner], f"{name}/{BLOCK_LAYERS[0]}/{LOCAL}")
            inner = self._write_layer(source, second, f"{name}/{BLOCK_LAYERS[1]}", inner)
            x = add("Add", [x, inner], f"{name}/{LOCAL}")
        return x

    def _write_layer(self, source: str, layer: RegularLayer, name: str, x: str) -> str:
        """Write a layer of a block: one convolution for each dilation, their sum, and the folded norm."""
        parts = [x] * len(layer.branches)
        if self.config.splits_channels and len(parts) > 1:
            parts = self._split(x, layer, name)
        outputs = []
        for branch, (path, part) in enumerate(zip(layer.branches, parts, strict=True)):
            dilation = self.config.dilations[branch]
            own = f"_{branch}" if len(parts) > 1 else ""
            padded = self.write_pad(part, dilation, f"{name}/{LOCAL}_{PAD}{own}")
            kernel, bias = self._fold(f"{source}.{path}", f"{source}.{layer.norm}", shifts=branch == 0)
            outputs.append(self.write_conv(padded, kernel, bias, f"{name}/{LOCAL_TO_LOCAL}{own}", dilation=dilation))
        total = outputs[0]
        for branch, output in enumerate(outputs[1:], 1):
            total = self.graph.add("Add", [total, output], f"{name}/{LOCAL}_{SUM}_{branch}")
        return total

    def _split(self, x: str, layer: RegularLayer, name: str) -> list[str]:
        """Return the share of the channels of each branch."""
        ints, each = self.graph.ints, layer.branch_channels
        return [
            self.graph.add(
                "Slice", [x, ints(branch * each), ints((branch + 1) * each), ints(1)], f"{name}/{LOCAL}_part_{branch}"
            )
            for branch in range(len(layer.branches))
        ]

    def _fold(self, conv: str, norm: str, *, shifts: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel and the biases of a convolution with the norm behind it, which shifts if `shifts`."""
        scale, shift = self.fold_norm(norm)
        kernel = self.weights[f"{conv}.weight"].astype(np.float64) * scale[:, None, None, None]
        return kernel, self.weights[f"{conv}.bias"].astype(np.float64) * scale + (shift if shifts else 0)
