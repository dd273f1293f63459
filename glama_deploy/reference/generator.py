"""LaMa's ResNet-like generator. The named configs are in :mod:`glama_deploy.network`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glama_deploy.network import Activation, NetworkConfig
from glama_deploy.reference import pull_push, regular, two_stage
from glama_deploy.reference.ffc import FFCNormAct, FFCResidualBlock

#: The layers after the head, which have no parameters.
_ACTIVATIONS: dict[Activation, tuple[type[nn.Module], ...]] = {"sigmoid": (nn.Sigmoid,), "tanh": (nn.Tanh,), "none": ()}


class PadStem(nn.Module):
    """Pad by 3 pixels before the 7×7 stem: [B, C, H, W] to (local [B, C, H+6, W+6], no global part)."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return nn.functional.pad(x, (3, 3, 3, 3), mode="reflect"), None


class Concat(nn.Module):
    """Concatenate the local and the global channels."""

    def forward(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(parts, dim=1)


class FineBlock(nn.Module):
    """Two 3×3 convolutions with norms, and a skip connection around them: [B, C, H, W] to [B, C, H, W].

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False, padding_mode="reflect") for _ in range(2)
        )
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))


class FineBlocks(nn.Sequential):
    """The fine blocks of a level."""


class Layers(nn.Sequential):
    """The layers of a generator in their order.

    Fine blocks take the sum of the map before them and of the encoder's map of their level: the output of the stem, or
    of a downsampling that is not the last one.
    """

    def forward(self, x: Any, encoded: Sequence[Tensor] = ()) -> Any:
        """Run the layers.

        Args:
            x: The first layer's input.
            encoded: The encoder's maps, if the layers begin behind the encoder, that of the finest level first.

        Returns:
            The last layer's output.
        """
        if any(isinstance(layer, FineBlocks) for layer in self):
            return self.run(x, encoded)[0]
        return super().forward(x)  # keeps no map of the encoder, which would take memory up to the end

    def run(self, x: Any, encoded: Sequence[Tensor] = ()) -> tuple[Any, list[Tensor]]:
        """Run the layers.

        Args:
            x: The first layer's input.
            encoded: As :meth:`forward` takes it.

        Returns:
            The last layer's output, and the encoder's maps that no fine blocks have read.
        """
        kept = list(encoded)
        for layer in self:
            x = layer(x + kept.pop() if isinstance(layer, FineBlocks) else x)
            if isinstance(layer, FFCNormAct) and x[1] is None:
                kept.append(x[0])
        return x, kept


class Generator(nn.Module):
    """The generator: [B, 4, H, W] to [B, 3, H, W], float, 0…1 after a sigmoid.

    The input is image × (1 − mask), then the mask. H and W are multiples of 8, at least `config.min_side`. Parameters
    have the names of published LaMa checkpoints. With `config.coarse` the network refines the picture of a coarse
    network. With `config.fill` the network corrects an interpolated picture. With `config.fine_blocks` the network is a
    U-Net.

    Args:
        config: The network's config.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        layers = _list_ffc_layers(config) if config.kind == "ffc" else regular.list_layers(config)
        for level in range(config.n_downsampling, 0, -1):
            cin, cout_up = config.channels(level), config.channels(level - 1)
            layers += [
                nn.ConvTranspose2d(cin, cout_up, 3, stride=2, padding=1, output_padding=1),
                nn.BatchNorm2d(cout_up),
                nn.ReLU(inplace=True),
            ]
            if config.fine_blocks:
                layers.append(FineBlocks(*(FineBlock(cout_up) for _ in range(config.fine_blocks))))
        head = nn.Conv2d(config.ngf, 3, 7)
        if config.fill is not None:  # with a head of zeros the first output is the interpolated picture
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        layers += [nn.ReflectionPad2d(3), head, *(layer() for layer in _ACTIVATIONS[config.activation])]
        self.model = Layers(*layers)
        self.coarse = Generator(config.coarse) if config.coarse is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Predict the whole image.

        Args:
            x: float [B, 4, H, W], as :func:`masked_input` makes.

        Returns:
            float [B, 3, H, W]: 0…1 after a sigmoid, −1…1 after a tanh, any values without an activation.
        """
        if self.coarse is not None:
            return self.refine(x, *self.guess(x))
        return self.model(x) if self.config.fill is None else self.complete(x)

    def complete(self, x: Tensor) -> Tensor:
        """Predict with an interpolated picture, to whose log odds the network adds its output.

        Args:
            x: float [B, 4, H, W], the generator's input.

        Returns:
            float [B, 3, H, W], 0…1.
        """
        picture = pull_push.fill(x)
        added = self.model[:-1](torch.cat([picture, x[:, 3:]], dim=1))
        return torch.sigmoid(added + pull_push.log_odds(picture))

    def guess(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run stage one, the coarse network, on a shrunk image. S is `config.coarse_side`.

        Args:
            x: float [B, 4, H, W], the generator's input.

        Returns:
            The coarse network's input [B, 4, S, S] and its prediction [B, 3, S, S].
        """
        assert self.coarse is not None
        small = two_stage.shrink(x, self.config.coarse_side)
        return small, self.coarse(small)

    def refine(self, x: Tensor, small: Tensor, predicted: Tensor) -> Tensor:
        """Run stage two, which refines the coarse picture.

        Args:
            x: float [B, 4, H, W], the generator's input.
            small: float [B, 4, S, S], the coarse network's input.
            predicted: float [B, 3, S, S], the coarse network's prediction. Only its missing pixels are used.

        Returns:
            float [B, 3, H, W], 0…1.
        """
        picture = small[:, :3] + small[:, 3:] * predicted
        return self.model(torch.cat([two_stage.enlarge(picture, *x.shape[2:]), x], dim=1))


def _list_ffc_layers(config: NetworkConfig) -> list[nn.Module]:
    """Return the stem, the downsampling, the blocks and the concatenation of kind ffc."""
    split = (config.bottleneck_channels - config.global_channels, config.global_channels)
    layers: list[nn.Module] = [PadStem(), FFCNormAct((config.input_channels, 0), (config.ngf, 0), 7)]
    for level in range(config.n_downsampling):
        last = level == config.n_downsampling - 1
        cout = split if last else (config.channels(level + 1), 0)
        layers.append(FFCNormAct((config.channels(level), 0), cout, 3, stride=2))
    layers += [FFCResidualBlock(split, config.dilation, config.fft_norm) for _ in range(config.n_blocks)]
    return [*layers, Concat()]


def masked_input(image: Tensor, mask: Tensor) -> Tensor:
    """Build the network's input.

    Args:
        image: float [B, 3, H, W], 0…1.
        mask: float [B, 1, H, W], 1 = missing, 0 = known.

    Returns:
        float [B, 4, H, W]: image × (1 − mask), then the mask.
    """
    return torch.cat([image * (1 - mask), mask], dim=1)


def predict(generator: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Run the network and return its whole output.

    Args:
        generator: A :class:`Generator`, or a module with its input and output.
        image: float [B, 3, H, W], 0…1.
        mask: float [B, 1, H, W], 1 = missing, 0 = known.

    Returns:
        float [B, 3, H, W], 0…1 after a sigmoid. Known pixels are predicted too.
    """
    return generator(masked_input(image, mask))


def inpaint(generator: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Fill the missing pixels (LaMa, section 2). The exported graph computes the same.

    Args:
        generator: A :class:`Generator`, or a module with its input and output.
        image: float [B, 3, H, W], 0…1.
        mask: float [B, 1, H, W], 1 = missing, 0 = known.

    Returns:
        float [B, 3, H, W], 0…1: mask · prediction + (1 − mask) · image. The prediction is cut to 0…1.
    """
    return mask * predict(generator, image, mask).clamp(0, 1) + (1 - mask) * image
