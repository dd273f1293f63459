"""The patch discriminator of pix2pixHD (Wang et al., CVPR 2018) as LaMa uses it, with LaMa's parameter names."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

#: Channels never grow beyond this.
_MOST_CHANNELS = 512


class PatchDiscriminator(nn.Module):
    """image [B, 3, H, W] (0…1) → (logits [B, 1, h, w], the features before them, for feature matching).

    Each logit judges a patch: positive is real. `n_layers` convolutions of stride 2, then two of stride 1, all 4×4 with
    a padding of 2, batch norm on all but the first and the last: h = H/2^n_layers + 3 for sides that are multiples of
    2^n_layers. Parameters are `model0.0`, `model1.0`, `model1.1`, … as in published LaMa checkpoints.
    """

    def __init__(self, channels: int = 64, n_layers: int = 4) -> None:
        super().__init__()
        widths = [min(channels * 2**n, _MOST_CHANNELS) for n in range(n_layers + 1)]
        stages = [nn.Sequential(_conv(3, widths[0], 2), _activation())]
        for n, (before, after) in enumerate(pairwise(widths), start=1):
            stride = 2 if n < n_layers else 1
            stages.append(nn.Sequential(_conv(before, after, stride), nn.BatchNorm2d(after), _activation()))
        stages.append(nn.Sequential(_conv(widths[-1], 1, 1)))
        self._count = len(stages)
        for n, stage in enumerate(stages):
            self.add_module(f"model{n}", stage)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        features, x = [], image
        for n in range(self._count):
            x = self.get_submodule(f"model{n}")(x)
            features.append(x)
        return features[-1], features[:-1]


def _conv(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 4, stride, padding=2)


def _activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2)  # (not in place: the R1 penalty differentiates twice)
