"""LaMa's ResNet-like generator; the named configs are in :mod:`glama_deploy.network`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glama_deploy.network import NetworkConfig
from glama_deploy.reference import pull_push, two_stage
from glama_deploy.reference.ffc import FFCNormAct, FFCResidualBlock


class PadStem(nn.Module):
    """Reflection padding of 3 before the 7×7 stem, then the pair."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return nn.functional.pad(x, (3, 3, 3, 3), mode="reflect"), None


class Concat(nn.Module):
    """The pair (local, global) as one tensor."""

    def forward(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(parts, dim=1)


class Generator(nn.Module):
    """[B, 4, H, W] (image × (1 − mask), then mask; float, 0…1) → [B, 3, H, W] (0…1).

    H and W are multiples of 8, at least 16. Parameters bear the names of published LaMa checkpoints. With a coarse
    network in its config it first makes that one's picture, and refines it; with `fill` it interpolates one and
    corrects it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        split = (config.bottleneck_channels - config.global_channels, config.global_channels)
        layers: list[nn.Module] = [PadStem(), FFCNormAct((config.input_channels, 0), (config.ngf, 0), 7)]
        for level in range(config.n_downsampling):
            last = level == config.n_downsampling - 1
            cout = split if last else (config.channels(level + 1), 0)
            layers.append(FFCNormAct((config.channels(level), 0), cout, 3, stride=2))
        layers += [FFCResidualBlock(split) for _ in range(config.n_blocks)]
        layers.append(Concat())
        for level in range(config.n_downsampling, 0, -1):
            cin, cout_up = config.channels(level), config.channels(level - 1)
            layers += [
                nn.ConvTranspose2d(cin, cout_up, 3, stride=2, padding=1, output_padding=1),
                nn.BatchNorm2d(cout_up),
                nn.ReLU(inplace=True),
            ]
        head = nn.Conv2d(config.ngf, 3, 7)
        if config.fill is not None:  # nothing to add, so training begins with the interpolated picture
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        layers += [nn.ReflectionPad2d(3), head, nn.Sigmoid()]
        self.model = nn.Sequential(*layers)
        self.coarse = Generator(config.coarse) if config.coarse is not None else None

    def forward(self, x: Tensor) -> Tensor:
        if self.coarse is not None:
            return self.refine(x, *self.guess(x))
        return self.model(x) if self.config.fill is None else self.complete(x)

    def complete(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] by what the network adds to the log odds of the interpolated picture, which it sees."""
        picture = pull_push.fill(x)
        added = self.model[:-1](torch.cat([picture, x[:, 3:]], dim=1))
        return torch.sigmoid(added + pull_push.log_odds(picture))

    def guess(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Stage one for x [B, 4, H, W]: what the coarse network sees [B, 4, S, S], and predicts [B, 3, S, S]."""
        assert self.coarse is not None
        small = two_stage.shrink(x, self.config.coarse_side)
        return small, self.coarse(small)

    def refine(self, x: Tensor, small: Tensor, predicted: Tensor) -> Tensor:
        """Stage two, [B, 3, H, W]: x again, with the coarse picture, which is the prediction where nothing is known."""
        picture = small[:, :3] + small[:, 3:] * predicted
        return self.model(torch.cat([two_stage.enlarge(picture, *x.shape[2:]), x], dim=1))


def masked_input(image: Tensor, mask: Tensor) -> Tensor:
    """The network's input [B, 4, H, W] from image [B, 3, H, W] (0…1) and mask [B, 1, H, W] (1 = missing)."""
    return torch.cat([image * (1 - mask), mask], dim=1)


def predict(generator: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """The network's own output, [B, 3, H, W], for image [B, 3, H, W] (0…1) and mask [B, 1, H, W] (1 = missing)."""
    return generator(masked_input(image, mask))


def inpaint(generator: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """`mask · prediction + (1 − mask) · image`, [B, 3, H, W] (LaMa, section 2): what the exported graph computes."""
    return mask * predict(generator, image, mask) + (1 - mask) * image
