"""LaMa's regular generators without Fourier convolutions, with LaMa's parameter names.

LaMa-Regular has plain residual blocks. The blocks of LaMa-Dilated sum convolutions of several dilations.
"""

from __future__ import annotations

from torch import Tensor, nn

from glama_deploy.network import NetworkConfig


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a skip connection around them: [B, C, H, W] to [B, C, H, W].

    Args:
        config: The network's config, of kind regular or multidilated. H and W are above the largest dilation.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.bottleneck_channels
        layers: list[nn.Module] = []
        for activation in ([nn.ReLU(inplace=True)], []):
            if config.kind == "regular":
                layers += [nn.ReflectionPad2d(config.dilation), nn.Conv2d(width, width, 3, dilation=config.dilation)]
            else:
                layers.append(MultidilatedConv(width, config.dilations, config.splits_channels))
            layers += [nn.BatchNorm2d(width), *activation]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class MultidilatedConv(nn.Module):
    """The sum of 3×3 convolutions of several dilations: [B, C, H, W] to [B, C, H, W].

    Args:
        channels: C.
        dilations: The dilation of each convolution.
        splits_channels: Whether each convolution reads its own share of the channels, or all channels.
    """

    def __init__(self, channels: int, dilations: tuple[int, ...], splits_channels: bool) -> None:
        super().__init__()
        self._share = channels // len(dilations) if splits_channels else channels
        self._splits = splits_channels
        self.convs = nn.ModuleList(
            nn.Conv2d(self._share, channels, 3, padding=dilation, dilation=dilation, padding_mode="reflect")
            for dilation in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self._share, dim=1) if self._splits else [x] * len(self.convs)
        first, *others = (conv(part) for conv, part in zip(self.convs, parts, strict=True))
        return sum(others, first)


def list_layers(config: NetworkConfig) -> list[nn.Module]:
    """List the layers before the upsampling.

    Args:
        config: The network's config, of kind regular or multidilated.

    Returns:
        The stem, the downsampling and the blocks. The strided convolutions pad with zeros.
    """
    layers: list[nn.Module] = [
        nn.ReflectionPad2d(3),
        nn.Conv2d(config.input_channels, config.ngf, 7),
        nn.BatchNorm2d(config.ngf),
        nn.ReLU(inplace=True),
    ]
    for level in range(config.n_downsampling):
        width = config.channels(level + 1)
        layers += [
            nn.Conv2d(config.channels(level), width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return layers + [ResidualBlock(config) for _ in range(config.n_blocks)]
