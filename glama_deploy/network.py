"""What a generator network is made of: its config, the named ones, and the parameters that a config implies.

Needs neither torch nor numpy: bundles, engines and the exporter read networks through this file alone.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

#: Height and width of what the network sees must be multiples of this (three stride-2 downsamplings).
SIZE_MULTIPLE = 8

#: Smallest height and width: the bottleneck is then 2×2, the least that a reflection padding of 1 takes.
MIN_SIDE = 16

#: What `fill: pull-push` is; no checkpoint holds it, so other values need another name beside that one. Box means at
#: each level of the pyramid, the finest first.
FILL_SMOOTHINGS = (2, 4, 4, 4, 4, 8, 8)

#: And how near to 0 and 1 its values may come where their log odds are taken; half of a step of 8 bits.
FILL_LEAST = 2.0**-9

#: And the least share that its mean colour is divided by: less than a single known cell of the coarsest level has.
FILL_LEAST_KNOWN = 2.0**-20


def next_side(side: int) -> int:
    """The smallest height or width that a network takes and that holds `side`."""
    return max(MIN_SIDE, -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE)


class NetworkConfig(BaseModel):
    """A LaMa-like generator (Suvorov et al., WACV 2022): stem, downsampling, FFC residual blocks, upsampling, head.

    It maps [B, 4, H, W] (masked image and mask, 0…1) to [B, 3, H, W] (0…1).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ngf: int = Field(default=64, ge=1, le=1024, description="channels behind the stem")
    n_blocks: int = Field(default=9, ge=1, le=64, description="FFC residual blocks")
    n_downsampling: int = Field(default=3, ge=1, le=3, description="stride-2 convolutions before the blocks")
    ratio: float = Field(default=0.75, gt=0.0, lt=1.0, description="share of global channels in the blocks")
    max_features: int = Field(default=1024, ge=1, description="upper bound of the channels of any layer")
    fill: Literal["pull-push"] | None = Field(
        default=None, description="missing pixels are interpolated first, and the network predicts what is to be added"
    )
    coarse: NetworkConfig | None = Field(
        default=None, description="stage one of GLaMa-2stage (section 4.5), whose picture this network refines"
    )
    coarse_side: int = Field(default=256, ge=MIN_SIDE, le=1024, multiple_of=SIZE_MULTIPLE, description="of its picture")

    @model_validator(mode="after")
    def _two_stages(self) -> NetworkConfig:
        if self.coarse is not None and self.coarse.coarse is not None:
            raise ValueError("the coarse network has a coarse one of its own; two stages are the most")
        if self.coarse is not None and self.fill is not None:
            raise ValueError("a network with a coarse one begins with its picture; fill may be the coarse network's")
        if self.coarse is None and self.coarse_side != type(self).model_fields["coarse_side"].default:
            raise ValueError(f"coarse_side is {self.coarse_side}, and there is no coarse network; leave it out")
        return self

    @model_validator(mode="after")
    def _stem_fits(self) -> NetworkConfig:
        if self.max_features < self.ngf:
            raise ValueError(f"max_features {self.max_features} is below ngf {self.ngf}: no layer fits behind the stem")
        return self

    @model_validator(mode="after")
    def _splits(self) -> NetworkConfig:
        if not 1 < self.global_channels < self.bottleneck_channels or self.global_channels % 2:
            raise ValueError(
                f"ratio {self.ratio:.4g} of {self.bottleneck_channels} bottleneck channels gives "
                f"{self.global_channels} global ones; an even number below {self.bottleneck_channels} is needed"
            )
        return self

    def channels(self, level: int) -> int:
        """Channels after `level` downsamplings (level 0 is the stem)."""
        return min(self.max_features, self.ngf * 2**level)

    @model_serializer(mode="wrap")
    def _without_what_it_lacks(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A network without `coarse` or `fill` is written as it was before there were such."""
        lacking = {"coarse", "coarse_side"} if self.coarse is None else set()
        lacking |= {"fill"} if self.fill is None else set()
        return {name: value for name, value in dump(self).items() if name not in lacking}

    @property
    def input_channels(self) -> int:
        """Masked image and mask, and in front of them the coarse picture where there is one."""
        return 4 if self.coarse is None else 7

    @property
    def bottleneck_channels(self) -> int:
        return self.channels(self.n_downsampling)

    @property
    def global_channels(self) -> int:
        """Channels of the global (spectral) branch in the bottleneck."""
        return int(self.bottleneck_channels * self.ratio)

    @property
    def spectral_channels(self) -> int:
        """Channels that a Fourier unit transforms."""
        return self.global_channels // 2

    @property
    def first_block(self) -> int:
        """Index of the first residual block in the checkpoint's `model.N` names."""
        return 2 + self.n_downsampling

    @property
    def first_up(self) -> int:
        """Index of the first transposed convolution; its norm and activation follow, three entries a level."""
        return self.first_block + self.n_blocks + 1

    @property
    def head(self) -> int:
        """Index of the last convolution (its reflection padding stands before it, the sigmoid after)."""
        return self.first_up + 3 * self.n_downsampling + 1


NAMED: dict[str, NetworkConfig] = {
    "lama": NetworkConfig(n_blocks=9),
    "big-lama": NetworkConfig(n_blocks=18),
    "glama": NetworkConfig(n_blocks=9),
    "glama-tiny": NetworkConfig(ngf=32, n_blocks=4),
    "glama-2stage": NetworkConfig(n_blocks=9, coarse=NetworkConfig(n_blocks=9)),
}


def named(name: str, n_blocks: int | None = None) -> NetworkConfig:
    """The named config, optionally with another depth (`glama` is defined for 6 to 18 blocks, GLaMa section 4.1).

    Raises ValueError for a name that is not known or a depth that the paper's family does not have.
    """
    if name not in NAMED:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(NAMED)}")
    config = NAMED[name]
    if n_blocks is None:
        return config
    if name == "glama" and not 6 <= n_blocks <= 18:
        raise ValueError(f"glama has 6 to 18 residual blocks, not {n_blocks}")
    return NetworkConfig(**{**config.model_dump(), "n_blocks": n_blocks})


def parameter_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter and buffer of the network, in the checkpoint's names and order.

    `num_batches_tracked`, which only training reads, is left out.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    def ffc(name: str, cin: tuple[int, int], cout: tuple[int, int], kernel: int) -> None:
        """An FFC layer with (local, global) input and output channels."""
        (in_l, in_g), (out_l, out_g) = cin, cout
        shapes[f"{name}.ffc.convl2l.weight"] = (out_l, in_l, kernel, kernel)
        if out_g:
            shapes[f"{name}.ffc.convl2g.weight"] = (out_g, in_l, kernel, kernel)
        if in_g:
            shapes[f"{name}.ffc.convg2l.weight"] = (out_l, in_g, kernel, kernel)
        if in_g and out_g:
            half = out_g // 2
            shapes[f"{name}.ffc.convg2g.conv1.0.weight"] = (half, in_g, 1, 1)
            norm(f"{name}.ffc.convg2g.conv1.1", half)
            shapes[f"{name}.ffc.convg2g.fu.conv_layer.weight"] = (2 * half, 2 * half, 1, 1)
            norm(f"{name}.ffc.convg2g.fu.bn", 2 * half)
            shapes[f"{name}.ffc.convg2g.conv2.weight"] = (out_g, half, 1, 1)
        norm(f"{name}.bn_l", out_l)
        if out_g:
            norm(f"{name}.bn_g", out_g)

    ffc("model.1", (config.input_channels, 0), (config.ngf, 0), 7)
    split = (config.bottleneck_channels - config.global_channels, config.global_channels)
    for level in range(config.n_downsampling):
        last = level == config.n_downsampling - 1
        cout = split if last else (config.channels(level + 1), 0)
        ffc(f"model.{2 + level}", (config.channels(level), 0), cout, 3)
    for block in range(config.n_blocks):
        for conv in ("conv1", "conv2"):
            ffc(f"model.{config.first_block + block}.{conv}", split, split, 3)
    for step in range(config.n_downsampling):
        index, level = config.first_up + 3 * step, config.n_downsampling - step
        cin, width = config.channels(level), config.channels(level - 1)
        shapes[f"model.{index}.weight"] = (cin, width, 3, 3)
        shapes[f"model.{index}.bias"] = (width,)
        norm(f"model.{index + 1}", width)
    shapes[f"model.{config.head}.weight"] = (3, config.ngf, 7, 7)
    shapes[f"model.{config.head}.bias"] = (3,)
    if config.coarse is not None:
        shapes |= {f"coarse.{name}": shape for name, shape in parameter_shapes(config.coarse).items()}
    return shapes


def parameter_count(config: NetworkConfig) -> int:
    """Trainable parameters (running statistics not counted)."""
    return sum(math.prod(shape) for name, shape in parameter_shapes(config).items() if ".running_" not in name)
