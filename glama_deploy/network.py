"""The config of a generator network, the named configs, and the parameters that a config implies.

This module needs neither torch nor numpy. Bundles, engines and the exporter describe networks only with this module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from glama_deploy.frozen import FrozenModel

#: The generators that are supported: LaMa's with Fourier convolutions, LaMa's regular one without them, and the regular
#: one whose blocks have several dilations (LaMa-Dilated).
Kind = Literal["ffc", "regular", "multidilated"]

#: What follows the head. Only a sigmoid gives values from 0 to 1.
Activation = Literal["sigmoid", "tanh", "none"]

#: Height and width of the network's input must be multiples of this, because of three stride-2 downsamplings.
SIZE_MULTIPLE = 8

#: Smallest height and width in pixels. The bottleneck is then 2×2, the smallest size for a reflection padding of 1.
MIN_SIDE = 16

#: Greatest height and width in pixels. Larger sides are refused, because no engine of this project ever ran them.
MAX_SIDE = 16384

#: Number of box means at each level of the pyramid of `fill: pull-push`, the finest level first. Checkpoints do not
#: store these constants, so other values need another name than `pull-push`.
FILL_SMOOTHINGS = (2, 4, 4, 4, 4, 8, 8)

#: Smallest distance of interpolated values from 0 and 1 before their log odds are taken: half of a step of 8 bits.
FILL_LEAST = 2.0**-9

#: Smallest divisor of the mean colour, below the known share of one known cell of the coarsest level.
FILL_LEAST_KNOWN = 2.0**-20


def next_side(side: int) -> int:
    """Round a side up to the next height or width that a network accepts.

    Args:
        side: Height or width in pixels.

    Returns:
        A multiple of `SIZE_MULTIPLE`, at least `MIN_SIDE` and at least `side`.
    """
    return max(MIN_SIDE, -(-side // SIZE_MULTIPLE) * SIZE_MULTIPLE)


#: Fields that a config is written without where they have their defaults, as versions without these fields did.
_LATER_FIELDS = ("kind", "activation", "fft_norm", "dilation", "branches", "splits_channels", "fill", "fine_blocks")


class NetworkConfig(FrozenModel):
    """The config of a generator like LaMa's (Suvorov et al., WACV 2022).

    The network consists of a stem, downsampling, residual blocks, upsampling and a head. The input is
    [B, 4, H, W] (masked image and mask, 0…1), the output is [B, 3, H, W] (0…1 with `activation` sigmoid).
    """

    ngf: int = Field(default=64, ge=1, le=1024, description="channels after the stem")
    n_blocks: int = Field(default=9, ge=1, le=64, description="residual blocks")
    n_downsampling: int = Field(default=3, ge=1, le=3, description="stride-2 convolutions before the blocks")
    ratio: float = Field(
        default=0.75, ge=0.0, lt=1.0, description="share of global channels in the blocks; 0 if kind is not ffc"
    )
    max_features: int = Field(default=1024, ge=1, description="upper bound of the channels of any layer")
    kind: Kind = Field(default="ffc", description="whether the blocks have Fourier convolutions, one or more dilations")
    activation: Activation = Field(default="sigmoid", description="what follows the head")
    fft_norm: Literal["ortho", "backward", "forward"] = Field(
        default="ortho", description="where the Fourier transforms are scaled, as torch.fft names it"
    )
    dilation: int = Field(default=1, ge=1, le=16, description="of the blocks' 3×3 convolutions, the least one")
    branches: int = Field(
        default=1, ge=1, le=5, description="convolutions side by side in kind multidilated; the dilation doubles"
    )
    splits_channels: bool = Field(
        default=False, description="each branch takes its own share of the channels (LaMa's comb_mode cat_in)"
    )
    fill: Literal["pull-push"] | None = Field(
        default=None, description="interpolation of missing pixels; the network predicts a correction of its log odds"
    )
    fine_blocks: int = Field(
        default=0,
        ge=0,
        le=16,
        description="residual blocks behind each upsampling, which also see the encoder's maps (as in a U-Net)",
    )
    coarse: NetworkConfig | None = Field(
        default=None, description="stage one of GLaMa-2stage (section 4.5), whose picture this network refines"
    )
    coarse_side: int = Field(
        default=256, ge=MIN_SIDE, le=1024, multiple_of=SIZE_MULTIPLE, description="side of the coarse picture"
    )

    @model_validator(mode="after")
    def _two_stages(self) -> NetworkConfig:
        if self.coarse is not None and self.coarse.coarse is not None:
            raise ValueError("the coarse network has a coarse network itself; at most two stages are supported")
        if self.coarse is not None and self.fill is not None:
            raise ValueError("fill is set beside coarse; set coarse.fill instead")
        if self.coarse is None and self.coarse_side != type(self).model_fields["coarse_side"].default:
            raise ValueError(f"coarse_side is {self.coarse_side}, but coarse is not set; remove coarse_side")
        return self

    @model_validator(mode="after")
    def _relatives(self) -> NetworkConfig:
        if (self.fill is not None or self.coarse is not None) and (self.kind, self.activation) != ("ffc", "sigmoid"):
            raise ValueError("fill and coarse are for kind ffc with activation sigmoid; remove one of the fields")
        if self.kind != "ffc" and (self.ratio or self.fft_norm != "ortho"):
            raise ValueError(f"kind {self.kind} has no Fourier convolutions; give ratio 0 and leave fft_norm out")
        if self.kind != "ffc" and self.fine_blocks:
            raise ValueError(f"fine_blocks is for kind ffc, not {self.kind}; remove fine_blocks")
        if self.kind != "multidilated" and (self.branches != 1 or self.splits_channels):
            raise ValueError(f"branches and splits_channels are for kind multidilated, not {self.kind}; remove them")
        if self.splits_channels and self.bottleneck_channels % self.branches:
            raise ValueError(
                f"{self.bottleneck_channels} bottleneck channels cannot be shared by {self.branches} branches; give "
                "a divisor, or leave splits_channels out"
            )
        if self.coarse is not None and self.coarse_side < self.coarse.min_side:
            raise ValueError(
                f"coarse_side is {self.coarse_side}; the dilation of the coarse network needs {self.coarse.min_side}"
            )
        return self

    @model_validator(mode="after")
    def _stem_fits(self) -> NetworkConfig:
        if self.max_features < self.ngf:
            raise ValueError(f"max_features is {self.max_features}, below ngf ({self.ngf}); give at least ngf")
        return self

    @model_validator(mode="after")
    def _splits(self) -> NetworkConfig:
        if self.kind == "ffc" and (not 1 < self.global_channels < self.bottleneck_channels or self.global_channels % 2):
            raise ValueError(
                f"ratio {self.ratio:.4g} of {self.bottleneck_channels} bottleneck channels gives "
                f"{self.global_channels} global channels; give a ratio that makes them even and fewer than "
                f"{self.bottleneck_channels}"
            )
        return self

    def channels(self, level: int) -> int:
        """Return the number of channels at a level.

        Args:
            level: Number of downsamplings before; 0 is the stem.

        Returns:
            The number of channels, at most `max_features`.
        """
        return min(self.max_features, self.ngf * 2**level)

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the config without the fields that have their defaults and that old versions did not have."""
        unset = {"coarse", "coarse_side"} if self.coarse is None else set()
        fields = type(self).model_fields
        unset |= {name for name in _LATER_FIELDS if getattr(self, name) == fields[name].default}
        return {name: value for name, value in dump(self).items() if name not in unset}

    @property
    def input_channels(self) -> int:
        """Channels of the input: the masked image and the mask, after the coarse picture if the network has one."""
        return 4 if self.coarse is None else 7

    @property
    def reduction(self) -> int:
        """Pixels of the image for each value in the blocks, along each side."""
        return 2**self.n_downsampling

    @property
    def decoder_reach(self) -> int:
        """Pixels that a pixel depends on behind the blocks, on each side, before they are rounded up to `reduction`.

        The 7×7 head sees 3 pixels. Each 3×3 convolution of a fine block sees one value of its level.
        """
        return 3 + 2 * self.fine_blocks * (self.reduction - 1)

    @property
    def bottleneck_channels(self) -> int:
        """Channels of the blocks, local and global."""
        return self.channels(self.n_downsampling)

    @property
    def global_channels(self) -> int:
        """Global (spectral) channels of the blocks."""
        return int(self.bottleneck_channels * self.ratio)

    @property
    def spectral_channels(self) -> int:
        """Channels that a Fourier unit transforms."""
        return self.global_channels // 2

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of each branch of the blocks' convolutions. LaMa doubles the dilation from branch to branch."""
        return tuple(self.dilation * 2**branch for branch in range(self.branches))

    @property
    def min_side(self) -> int:
        """Smallest height and width in pixels. Reflection needs more values in the blocks than the dilation."""
        return next_side(self.reduction * (max(self.dilations) + 1))

    @property
    def first_block(self) -> int:
        """Index of the first residual block in the checkpoint's `model.N` names."""
        # an FFC layer is one entry, a regular convolution three: the convolution, its norm and its activation
        return 2 + self.n_downsampling if self.kind == "ffc" else 1 + 3 * (1 + self.n_downsampling)

    @property
    def ups(self) -> tuple[int, ...]:
        """Index of each transposed convolution. Its norm, its activation and the fine blocks of its level follow."""
        first = self.first_block + self.n_blocks + (self.kind == "ffc")  # there, a concatenation follows the blocks
        return tuple(first + self._up_entries * step for step in range(self.n_downsampling))

    @property
    def head(self) -> int:
        """Index of the last convolution, which stands between a reflection padding and the activation."""
        return self.ups[-1] + self._up_entries + 1

    @property
    def _up_entries(self) -> int:
        return 4 if self.fine_blocks else 3


#: The named configs.
NAMED: dict[str, NetworkConfig] = {
    "lama": NetworkConfig(n_blocks=9),
    "big-lama": NetworkConfig(n_blocks=18),
    "glama": NetworkConfig(n_blocks=9),
    "glama-tiny": NetworkConfig(ngf=32, n_blocks=4),
    "glama-2stage": NetworkConfig(n_blocks=9, coarse=NetworkConfig(n_blocks=9)),
}


def get_named(name: str, n_blocks: int | None = None) -> NetworkConfig:
    """Return a named config.

    Args:
        name: A key of `NAMED`.
        n_blocks: Number of residual blocks, or None for the number of the named config. `glama` has 6 to 18 blocks
            (GLaMa, section 4.1).

    Returns:
        The config.

    Raises:
        ValueError: The name is unknown, or `glama` does not have this number of blocks.
    """
    if name not in NAMED:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(NAMED)}")
    config = NAMED[name]
    if n_blocks is None:
        return config
    if name == "glama" and not 6 <= n_blocks <= 18:
        raise ValueError(f"glama has 6 to 18 residual blocks, not {n_blocks}")
    return NetworkConfig(**{**config.model_dump(), "n_blocks": n_blocks})


@dataclass(frozen=True)
class RegularLayer:
    """A convolution and its norm in a block of a regular network, by their names below `conv_block`.

    Attributes:
        branches: The names of the convolutions, whose outputs are summed: one, or one for each dilation.
        branch_channels: Input channels of each convolution.
        norm: The name of the norm.
    """

    branches: tuple[str, ...]
    branch_channels: int
    norm: str


def list_regular_layers(config: NetworkConfig) -> tuple[RegularLayer, RegularLayer]:
    """List the two layers of a block of a regular network.

    Args:
        config: The network's config, of kind regular or multidilated.

    Returns:
        The layers. Paddings and activations also have names, so the names are not consecutive.
    """
    width = config.bottleneck_channels
    if config.kind == "regular":
        return RegularLayer(("1",), width, "2"), RegularLayer(("5",), width, "6")
    if config.splits_channels:
        width //= config.branches
    first, second = (
        RegularLayer(tuple(f"{index}.convs.{branch}" for branch in range(config.branches)), width, str(index + 1))
        for index in (0, 3)
    )
    return first, second


class _Shapes(dict[str, tuple[int, ...]]):
    """Shapes by name, to which whole layers are added. Channels of FFC layers are (local, global)."""

    def add_norm(self, name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.{part}"] = (channels,)

    def add_conv(self, name: str, cin: int, cout: int, kernel: int) -> None:
        self[f"{name}.weight"], self[f"{name}.bias"] = (cout, cin, kernel, kernel), (cout,)

    def add_ffc(self, name: str, cin: tuple[int, int], cout: tuple[int, int], kernel: int) -> None:
        (in_l, in_g), (out_l, out_g) = cin, cout
        self[f"{name}.ffc.convl2l.weight"] = (out_l, in_l, kernel, kernel)
        if out_g:
            self[f"{name}.ffc.convl2g.weight"] = (out_g, in_l, kernel, kernel)
        if in_g:
            self[f"{name}.ffc.convg2l.weight"] = (out_l, in_g, kernel, kernel)
        if in_g and out_g:
            half = out_g // 2
            self[f"{name}.ffc.convg2g.conv1.0.weight"] = (half, in_g, 1, 1)
            self.add_norm(f"{name}.ffc.convg2g.conv1.1", half)
            self[f"{name}.ffc.convg2g.fu.conv_layer.weight"] = (2 * half, 2 * half, 1, 1)
            self.add_norm(f"{name}.ffc.convg2g.fu.bn", 2 * half)
            self[f"{name}.ffc.convg2g.conv2.weight"] = (out_g, half, 1, 1)
        self.add_norm(f"{name}.bn_l", out_l)
        if out_g:
            self.add_norm(f"{name}.bn_g", out_g)

    def add_ffc_layers(self, config: NetworkConfig) -> None:
        # the stem, the downsampling and the blocks of kind ffc
        self.add_ffc("model.1", (config.input_channels, 0), (config.ngf, 0), 7)
        split = (config.bottleneck_channels - config.global_channels, config.global_channels)
        for level in range(config.n_downsampling):
            last = level == config.n_downsampling - 1
            cout = split if last else (config.channels(level + 1), 0)
            self.add_ffc(f"model.{2 + level}", (config.channels(level), 0), cout, 3)
        for block in range(config.n_blocks):
            for layer in ("conv1", "conv2"):
                self.add_ffc(f"model.{config.first_block + block}.{layer}", split, split, 3)

    def add_regular_layers(self, config: NetworkConfig) -> None:
        # the stem, the downsampling and the blocks of the other kinds
        self.add_conv("model.1", config.input_channels, config.ngf, 7)
        self.add_norm("model.2", config.ngf)
        for level in range(config.n_downsampling):
            self.add_conv(f"model.{4 + 3 * level}", config.channels(level), config.channels(level + 1), 3)
            self.add_norm(f"model.{5 + 3 * level}", config.channels(level + 1))
        width = config.bottleneck_channels
        for block in range(config.n_blocks):
            name = f"model.{config.first_block + block}.conv_block"
            for layer in list_regular_layers(config):
                for branch in layer.branches:
                    self.add_conv(f"{name}.{branch}", layer.branch_channels, width, 3)
                self.add_norm(f"{name}.{layer.norm}", width)


def parameter_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """List the parameters and buffers of a network.

    Args:
        config: The network's config.

    Returns:
        Shapes by name, with the names and the order of a checkpoint. `num_batches_tracked`, which only training reads,
        is left out.
    """
    shapes = _Shapes()
    if config.kind == "ffc":
        shapes.add_ffc_layers(config)
    else:
        shapes.add_regular_layers(config)
    for step, index in enumerate(config.ups):
        level = config.n_downsampling - step
        cin, width = config.channels(level), config.channels(level - 1)
        shapes[f"model.{index}.weight"] = (cin, width, 3, 3)
        shapes[f"model.{index}.bias"] = (width,)
        shapes.add_norm(f"model.{index + 1}", width)
        for block in range(config.fine_blocks):
            for layer in ("1", "2"):
                shapes[f"model.{index + 3}.{block}.conv{layer}.weight"] = (width, width, 3, 3)
                shapes.add_norm(f"model.{index + 3}.{block}.bn{layer}", width)
    shapes.add_conv(f"model.{config.head}", config.ngf, 3, 7)
    if config.coarse is not None:
        shapes |= {f"coarse.{name}": shape for name, shape in parameter_shapes(config.coarse).items()}
    return dict(shapes)


def is_same_network(one: NetworkConfig, other: NetworkConfig) -> bool:
    """Tell whether two configs describe one network. For example, 0.7 and 0.69921875 of 512 channels are equal.

    Args:
        one: A config.
        other: Another config.

    Returns:
        Whether parameters of one network are parameters of the other, and both compute the same with them.
    """
    numbers = {"ratio", "max_features", "coarse"}  # shapes imply the first two
    if parameter_shapes(one) != parameter_shapes(other):
        return False
    if any(getattr(one, name) != getattr(other, name) for name in NetworkConfig.model_fields if name not in numbers):
        return False
    return one.coarse is None or other.coarse is None or is_same_network(one.coarse, other.coarse)


def list_differences(found: NetworkConfig, asked: NetworkConfig) -> str:
    """Describe the differences of two networks for people.

    Args:
        found: A config.
        asked: The config that is expected.

    Returns:
        A text such as `ngf is 8, not 16`; empty without a difference.
    """
    names = [name for name in NetworkConfig.model_fields if getattr(found, name) != getattr(asked, name)]
    return ", ".join(f"{name} is {_show(found, name)}, not {_show(asked, name)}" for name in names)


def _show(config: NetworkConfig, name: str) -> object:
    value = getattr(config, name)
    return value.model_dump() if isinstance(value, NetworkConfig) else value


def parameter_count(config: NetworkConfig) -> int:
    """Count the trainable parameters. Running statistics are not trainable.

    Args:
        config: The network's config.

    Returns:
        The number of values.
    """
    return sum(math.prod(shape) for name, shape in parameter_shapes(config).items() if ".running_" not in name)
