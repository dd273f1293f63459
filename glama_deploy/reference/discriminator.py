"""The patch discriminator of pix2pixHD (Wang et al., CVPR 2018) as LaMa uses it, with LaMa's parameter names."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

#: The largest number of channels of a layer.
_MAX_CHANNELS = 512


class PatchDiscriminator(nn.Module):
    """A network that tells real from generated patches: image [B, 3, H, W] (0…1) to logits [B, 1, h, w].

    Each logit judges one patch; a positive logit means real. The network has `n_layers` convolutions of stride 2, then
    two of stride 1. All are 4×4 with a padding of 2, so h = H/2^n_layers + 3 for sides that are multiples of
    2^n_layers. All convolutions except the first and the last are followed by batch norm. Parameters are named
    `model0.0`, `model1.0`, `model1.1`, … as in published LaMa checkpoints.

    Args:
        channels: Channels of the first layer. Each further layer has twice as many, up to 512.
        n_layers: Number of convolutions of stride 2.
    """

    def __init__(self, channels: int = 64, n_layers: int = 4) -> None:
        super().__init__()
        widths = [min(channels * 2**n, _MAX_CHANNELS) for n in range(n_layers + 1)]
        stages = [nn.Sequential(_conv(3, widths[0], 2), _activation())]
        for n, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if n < n_layers else 1
            stages.append(nn.Sequential(_conv(before, after, stride), nn.BatchNorm2d(after), _activation()))
        stages.append(nn.Sequential(_conv(widths[-1], 1, 1)))
        self._count = len(stages)
        for n, stage in enumerate(stages):
            self.add_module(f"model{n}", stage)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge images.

        Args:
            image: float [B, 3, H, W], 0…1.

        Returns:
            Logits [B, 1, h, w], and the features of all layers before the logits, for feature matching.
        """
        features, x = [], image
        for n in range(self._count):
            x = self.get_submodule(f"model{n}")(x)
            features.append(x)
        return features[-1], features[:-1]


def _conv(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride, padding=2)


def _activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2)  # not in place, because the R1 penalty differentiates twice
