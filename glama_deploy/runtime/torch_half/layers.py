"""The layers of LaMa's family in a half type: norms folded, channels last, real parts before imaginary parts.

A map is [B, H, W, C], contiguous. The local and the global channels of a layer lie side by side in one map, so the
paths of an FFC layer add to parts of one output. Norms are folded in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from glama_deploy.errors import EngineError
from glama_deploy.reference import ffc, regular
from glama_deploy.runtime.torch_half.tables import Tables

#: The half types by their names in the catalogue.
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

#: The factor by which weights stay away from both ends of a type's range, as values of exported graphs do.
_RANGE_MARGIN = 4.0


class Layer(nn.Module):
    """A layer from map to map. The tables are those of the network's input size."""

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        """Compute the layer.

        Args:
            x: The input [B, H, W, C].
            tables: The tables of the network's input size.

        Returns:
            The output [B, h, w, c], contiguous.
        """
        raise NotImplementedError


class Convolution(Layer):
    """A convolution, with its norm and ReLU.

    Args:
        conv: A convolution or a transposed convolution.
        norm: The norm behind the convolution, or None.
        dtype: The half type.
        reflected: Pixels of reflection padding before the convolution.
        has_relu: Whether a ReLU follows.
    """

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        norm: nn.BatchNorm2d | None,
        dtype: torch.dtype,
        *,
        reflected: int = 0,
        has_relu: bool = False,
    ) -> None:
        super().__init__()
        scale, shift = fold_norm(norm, conv.out_channels)
        is_transposed = isinstance(conv, nn.ConvTranspose2d)
        weight = conv.weight.double() * (scale[None, :, None, None] if is_transposed else scale[:, None, None, None])
        bias = shift if conv.bias is None else conv.bias.double() * scale + shift
        self.weight, self.bias = _hold_kernel(weight, dtype), _hold(bias, dtype)
        self._stride, self._dilation = conv.stride[0], conv.dilation[0]
        self._is_transposed, self._has_relu = is_transposed, has_relu
        self._output_padding = int(conv.output_padding[0])
        own = _find_padding(conv)
        self._reflected = reflected + (own if conv.padding_mode == "reflect" else 0)
        self._zeros = own if conv.padding_mode == "zeros" else 0

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        x = tables.pad(x, self._reflected)
        if self._is_transposed:
            x = functional.conv_transpose2d(
                _to_planar(x), self.weight, self.bias, self._stride, self._zeros, self._output_padding
            )
        else:
            x = functional.conv2d(_to_planar(x), self.weight, self.bias, self._stride, self._zeros, self._dilation)
        x = _to_channels_last(x)
        return x.relu_() if self._has_relu else x


class Sum(Layer):
    """The sum of convolutions, each of its own share of the channels or of all channels, and a ReLU.

    Args:
        source: The convolutions of several dilations.
        norm: The norm behind the sum.
        dtype: The half type.
        has_relu: Whether a ReLU follows.
    """

    def __init__(
        self, source: regular.MultidilatedConv, norm: nn.BatchNorm2d, dtype: torch.dtype, *, has_relu: bool
    ) -> None:
        super().__init__()
        convs = [conv for conv in source.convs if isinstance(conv, nn.Conv2d)]
        self._splits, self._share, self._has_relu = source._splits, source._share, has_relu
        self.convs = nn.ModuleList(
            Convolution(conv, _without_shift(norm) if number else norm, dtype) for number, conv in enumerate(convs)
        )

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        parts = x.split(self._share, dim=3) if self._splits else [x] * len(self.convs)
        first, *others = (conv(part, tables) for conv, part in zip(self.convs, parts, strict=True))
        for other in others:
            first += other
        return first.relu_() if self._has_relu else first


class FourierUnit(nn.Module):
    """The path from global to global channels, which is added to a part of a map.

    Args:
        source: The path.
        scale: The scale of the norm behind the path, float64 [C].
        dtype: The half type.
    """

    def __init__(self, source: ffc.SpectralTransform, scale: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        conv, norm = source.conv1[0], source.conv1[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        factor, shift = fold_norm(norm, conv.out_channels)
        self.first, self.first_bias = _hold(_to_matrix(conv) * factor[:, None], dtype), _hold(shift, dtype)
        factor, shift = fold_norm(source.fu.bn, source.fu.bn.num_features)
        spectral = _to_matrix(source.fu.conv_layer) * factor[:, None]
        order = torch.arange(len(spectral)).view(-1, 2).T.flatten()  # c0.re, c0.im, c1.re, … to re, im
        self.spectral = _hold(spectral[order][:, order], dtype)
        self.spectral_shift = _hold(shift[order], torch.float32)
        self.last = _hold((_to_matrix(source.conv2) * scale[:, None]).T, dtype)
        self._norm = source.fu.norm

    def add_to(self, target: Tensor, x: Tensor, tables: Tables) -> None:
        """Add the path's output.

        Args:
            target: [B, H, W, Cout], a part of a map's channels, which is changed.
            x: [B, H, W, Cin], a part of a map's channels.
            tables: The tables of the network's input size.
        """
        b, h, w, _ = x.shape
        reduced = functional.linear(x.flatten(0, 2), self.first, self.first_bias).relu_().view(b, h, w, -1)
        transforms = tables.get_transforms(h, w)
        # A ReLU keeps positive factors, so only the shift depends on the transforms' scaling.
        factor = {"ortho": 1.0, "forward": 1 / math.sqrt(h * w), "backward": math.sqrt(h * w)}[self._norm]
        shift = tables.get_shift(self, self.spectral_shift, transforms.scale / factor, h, w)
        spectrum = transforms.forward(reduced)
        spectrum = functional.linear(spectrum.flatten(0, 2), self.spectral, shift).relu_().view_as(spectrum)
        target.flatten(0, 2).addmm_(transforms.add_inverse(reduced, spectrum).flatten(0, 2), self.last)


class FFCLayer(Layer):
    """An FFC layer with its norms and ReLUs. Local and global channels lie side by side.

    Args:
        source: The layer.
        dtype: The half type.

    Attributes:
        is_local: Whether the output has local channels only.
    """

    def __init__(self, source: ffc.FFCNormAct, dtype: torch.dtype) -> None:
        super().__init__()
        paths, conv = source.ffc, source.ffc.convl2l
        scale, shift = fold_norm(source.bn_l, conv.out_channels)
        weights, shifts = [conv.weight.double() * scale[:, None, None, None]], [shift]
        self._local, self._local_out = conv.in_channels, conv.out_channels
        self._stride, self._dilation = conv.stride[0], conv.dilation[0]
        self._padding = _find_padding(conv) or (conv.kernel_size[0] - 1) // 2  # the stem is padded by another layer
        self.is_local = paths.convl2g is None
        self.from_global = None
        if paths.convg2l is not None:
            self.from_global = _hold_kernel(paths.convg2l.weight.double() * scale[:, None, None, None], dtype)
        self.fourier = None
        if paths.convl2g is not None:
            assert source.bn_g is not None
            scale, shift = fold_norm(source.bn_g, paths.convl2g.out_channels)
            weights.append(paths.convl2g.weight.double() * scale[:, None, None, None])
            shifts.append(shift)
            if paths.convg2g is not None:
                self.fourier = FourierUnit(paths.convg2g, scale, dtype)
        self.weight, self.bias = _hold_kernel(torch.cat(weights), dtype), _hold(torch.cat(shifts), dtype)

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        out = self._convolve(x[..., : self._local], self.weight, self.bias, tables)
        globl = x[..., self._local :]
        if self.from_global is not None:
            out[..., : self._local_out].add_(self._convolve(globl, self.from_global, None, tables))
        if self.fourier is not None:
            self.fourier.add_to(out[..., self._local_out :], globl, tables)
        return out.relu_()

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, tables: Tables) -> Tensor:
        x = _to_planar(tables.pad(x, self._padding))
        return _to_channels_last(functional.conv2d(x, weight, bias, self._stride, 0, self._dilation))


class Residual(Layer):
    """Layers and a skip connection around them.

    Args:
        layers: The layers.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        out = x
        for layer in self.layers:
            out = layer(out, tables)
        return out.add_(x)


class FineLayers(Layer):
    """The fine blocks of a level.

    Args:
        layers: The residual blocks.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, tables: Tables) -> Tensor:
        for layer in self.layers:
            x = layer(x, tables)
        return x


def fold_layers(modules: Sequence[nn.Module], dtype: torch.dtype) -> list[Layer]:
    """Fold the layers of a generator from the input to the head.

    Args:
        modules: Layers of a :class:`glama_deploy.reference.generator.Generator`, float32.
        dtype: The half type.

    Returns:
        The same function in the half type.

    Raises:
        EngineError: Weights are out of the half type's range.
        TypeError: A layer is of another kind.
    """
    from glama_deploy.reference.generator import Concat, FineBlocks, PadStem

    layers: list[Layer] = []
    left, reflected = list(modules), 0
    while left:
        module = left.pop(0)
        if isinstance(module, PadStem | Concat):
            continue  # the stem pads by itself, and the channels are side by side
        if isinstance(module, nn.ReflectionPad2d):
            reflected = int(module.padding[0])
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | regular.MultidilatedConv):
            norm, has_relu = _take_norm(left), _take_relu(left)
            if isinstance(module, regular.MultidilatedConv):
                assert norm is not None
                layers.append(Sum(module, norm, dtype, has_relu=has_relu))
            else:
                layers.append(Convolution(module, norm, dtype, reflected=reflected, has_relu=has_relu))
            reflected = 0
        elif isinstance(module, ffc.FFCNormAct):
            layers.append(FFCLayer(module, dtype))
        elif isinstance(module, ffc.FFCResidualBlock):
            layers.append(Residual([FFCLayer(layer, dtype) for layer in (module.conv1, module.conv2)]))
        elif isinstance(module, FineBlocks):
            layers.append(FineLayers([_fold_fine_block(block, dtype) for block in module]))
        elif isinstance(module, regular.ResidualBlock):
            layers.append(Residual(fold_layers(list(module.conv_block), dtype)))
        else:
            raise TypeError(f"a generator has a layer {type(module).__name__}, which has no half form")
    return layers


def _fold_fine_block(block: nn.Module, dtype: torch.dtype) -> Residual:
    """Fold a fine block."""
    from glama_deploy.reference.generator import FineBlock

    assert isinstance(block, FineBlock)
    first = Convolution(block.conv1, block.bn1, dtype, has_relu=True)
    return Residual([first, Convolution(block.conv2, block.bn2, dtype)])


def fold_norm(norm: nn.BatchNorm2d | None, channels: int) -> tuple[Tensor, Tensor]:
    """Fold a norm in evaluation mode.

    Args:
        norm: The norm; None: no norm.
        channels: C.

    Returns:
        (scale, shift), float64 [C]: y = scale · x + shift.
    """
    if norm is None:
        return torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _without_shift(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Return a norm that scales as `norm` does and adds nothing: the sum is shifted once."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scaling = nn.BatchNorm2d(norm.num_features, norm.eps)
    scaling.weight, scaling.running_var = norm.weight, norm.running_var
    return scaling


def _take_norm(left: list[nn.Module]) -> nn.BatchNorm2d | None:
    """Remove the next module and return it, if it is a norm."""
    if left and isinstance(left[0], nn.BatchNorm2d):
        norm = left.pop(0)
        assert isinstance(norm, nn.BatchNorm2d)
        return norm
    return None


def _take_relu(left: list[nn.Module]) -> bool:
    """Remove the next module and return True, if it is a ReLU."""
    if left and isinstance(left[0], nn.ReLU):
        left.pop(0)
        return True
    return False


def _find_padding(conv: nn.Conv2d | nn.ConvTranspose2d) -> int:
    """Return the pixels that a convolution pads on each side."""
    assert not isinstance(conv.padding, str)
    return int(conv.padding[0])


def _to_matrix(conv: nn.Conv2d) -> Tensor:
    """Return the kernel of a 1×1 convolution, float64 [O, C]."""
    return conv.weight.double()[:, :, 0, 0]


def _hold(values: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """Round biases, or weights of a matrix product, to a type."""
    _check_range(values, dtype)
    return nn.Parameter(values.detach().to(dtype).contiguous(), requires_grad=False)


def _hold_kernel(weight: Tensor, dtype: torch.dtype) -> nn.Parameter:
    """Round a convolution's kernel to a type, in the memory format of maps."""
    _check_range(weight, dtype)
    held = weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
    return nn.Parameter(held, requires_grad=False)


def _check_range(values: Tensor, dtype: torch.dtype) -> None:
    """Raise EngineError for values beyond a type, or for a kernel that is too small for the type's digits."""
    largest, numbers = float(values.detach().abs().max()), torch.finfo(dtype)
    is_small = values.ndim > 1 and 0 < largest < numbers.smallest_normal * _RANGE_MARGIN
    if is_small or not largest * _RANGE_MARGIN < numbers.max:
        name = next((name for name, half in DTYPES.items() if half == dtype), str(dtype))
        raise EngineError(
            f"a layer has weights up to {largest:.3g}, and {name} holds {numbers.smallest_normal:.2g} to "
            f"{numbers.max:.5g}; use precision fp32"
        )


def _to_planar(x: Tensor) -> Tensor:
    """View a map as [B, C, H, W], which lies in memory as PyTorch's format channels_last."""
    return x.permute(0, 3, 1, 2)


def _to_channels_last(x: Tensor) -> Tensor:
    """View a convolution's output as a map, and copy it where the convolution did not keep the format."""
    return x.permute(0, 2, 3, 1).contiguous()
