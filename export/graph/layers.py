"""The layers of all networks of LaMa's family as ONNX nodes: convolutions with folded norms, and the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import FINE, HEAD, PAD, RELU, SKIP, SUM, UP

#: The constant that batch norm adds to the variance: PyTorch's default, which LaMa uses.
BATCH_NORM_EPSILON = 1e-5


class LayerWriter:
    """Writes single layers of a network."""

    def __init__(self, config: NetworkConfig, weights: Mapping[str, np.ndarray], graph: GraphBuilder) -> None:
        """Keep what the layers depend on.

        Args:
            config: The network.
            weights: The parameters by their names in the checkpoint.
            graph: The graph.
        """
        self.config, self.weights, self.graph = config, weights, graph

    def write_decoder(self, x: str, encoded: Sequence[str] = ()) -> str:
        """Write the transposed convolutions, the fine blocks and the head.

        Args:
            x: The output of the last block [B, C, H, W].
            encoded: The encoder's maps that the fine blocks read, that of the finest level first.

        Returns:
            The head's output [B, 3, H, W] at the image's resolution, without the activation.
        """
        for step, index in enumerate(self.config.ups):
            x = self._write_up(index, f"{UP}{step}", x)
            if self.config.fine_blocks:
                x = self.graph.add("Add", [x, encoded[-1 - step]], f"{UP}{step}/{SKIP}")
            for block in range(self.config.fine_blocks):
                x = self._write_fine_block(f"model.{index + 3}.{block}", f"{UP}{step}/{FINE}{block}", x)
        return self._write_head(x)

    def write_pad(self, x: str, padding: int, name: str) -> str:
        """Write a reflection padding.

        Args:
            x: The input [B, C, H, W].
            padding: Pixels on each side.
            name: The node's name.

        Returns:
            The output's name.
        """
        pads = self.graph.ints(0, 0, padding, padding, 0, 0, padding, padding)
        return self.graph.add("Pad", [x, pads], name, mode="reflect")

    def write_conv(
        self,
        x: str,
        kernel: np.ndarray,
        bias: np.ndarray | None,
        name: str,
        stride: int = 1,
        *,
        dilation: int = 1,
        zeros: int = 0,
    ) -> str:
        """Write a convolution.

        Args:
            x: The input [B, C, H, W].
            kernel: The weights [O, C, h, w].
            bias: The biases [O], or None.
            name: The node's name.
            stride: The stride of both sides.
            dilation: The dilation of both sides.
            zeros: Rows and columns of zeros around the input.

        Returns:
            The output's name.
        """
        inputs = [x, self.graph.constant(f"{name}/weight", kernel.astype(np.float32))]
        if bias is not None:
            inputs.append(self.graph.constant(f"{name}/bias", bias.astype(np.float32)))
        sides = list(kernel.shape[2:])
        attributes = {"dilations": [dilation] * 2} if dilation > 1 else {}  # defaults are left out, as ever
        attributes |= {"pads": [zeros] * 4} if zeros else {}
        return self.graph.add("Conv", inputs, name, kernel_shape=sides, strides=[stride, stride], **attributes)

    def fold_norm(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Fold a batch norm in eval mode.

        Args:
            name: The norm's name in the checkpoint.

        Returns:
            (scale, shift), float64 [C]: y = scale · x + shift.
        """
        part = {p: self.weights[f"{name}.{p}"].astype(np.float64) for p in ("weight", "bias")}
        mean, var = (self.weights[f"{name}.running_{p}"].astype(np.float64) for p in ("mean", "var"))
        scale = part["weight"] / np.sqrt(var + BATCH_NORM_EPSILON)
        return scale, part["bias"] - mean * scale

    def _write_up(self, index: int, name: str, x: str) -> str:
        """Write a transposed convolution, which doubles height and width, with folded norm and ReLU."""
        scale, shift = self.fold_norm(f"model.{index + 1}")
        kernel = self.weights[f"model.{index}.weight"].astype(np.float64) * scale[None, :, None, None]
        bias = self.weights[f"model.{index}.bias"].astype(np.float64) * scale + shift
        x = self.graph.add(
            "ConvTranspose",
            [
                x,
                self.graph.constant(f"{name}/conv/weight", kernel.astype(np.float32)),
                self.graph.constant(f"{name}/conv/bias", bias.astype(np.float32)),
            ],
            f"{name}/conv",
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            output_padding=[1, 1],
        )
        return self.graph.add("Relu", [x], f"{name}/{RELU}")

    def _write_fine_block(self, source: str, name: str, x: str) -> str:
        """Write two 3×3 convolutions with folded norms, and the skip connection around them."""
        inner = x
        for number in (1, 2):
            scale, shift = self.fold_norm(f"{source}.bn{number}")
            inner = self.write_pad(inner, 1, f"{name}/conv{number}_{PAD}")
            kernel = scale_kernel(self.weights[f"{source}.conv{number}.weight"], scale)
            inner = self.write_conv(inner, kernel, shift, f"{name}/conv{number}")
            if number == 1:
                inner = self.graph.add("Relu", [inner], f"{name}/{RELU}")
        return self.graph.add("Add", [x, inner], f"{name}/{SUM}")

    def _write_head(self, x: str) -> str:
        """Write the 7×7 convolution to three channels as an 8×8 one of stride 2 to twelve, and a depth-to-space.

        The sums are the same, for four neighbouring pixels at once. Three output channels leave vector units idle.
        """
        kernel, bias = (self.weights[f"model.{self.config.head}.{part}"] for part in ("weight", "bias"))
        wide = np.zeros((3, 2, 2, kernel.shape[1], 8, 8), np.float32)
        for row in range(2):
            for column in range(2):
                wide[:, row, column, :, row : row + 7, column : column + 7] = kernel
        x = self.write_pad(x, 3, f"{HEAD}/{PAD}")
        x = self.write_conv(x, wide.reshape(12, -1, 8, 8), np.repeat(bias, 4), f"{HEAD}/conv", stride=2)
        return self.graph.add("DepthToSpace", [x], f"{HEAD}/pixels", blocksize=2, mode="CRD")


def scale_kernel(kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Multiply each output channel of a convolution's kernel by its scale.

    Args:
        kernel: The weights [O, C, h, w].
        scale: The scales [O].

    Returns:
        float64 [O, C, h, w].
    """
    return kernel.astype(np.float64) * scale[:, None, None, None]
