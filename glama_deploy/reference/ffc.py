"""Fast Fourier Convolution (Chi et al., NeurIPS 2020) as LaMa uses it, with LaMa's parameter names.

A feature map is a pair of tensors (local, global). Plain convolutions map local to local channels, and a spectral
transform maps global to global channels. Two more convolutions map local to global and global to local channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FourierUnit(nn.Module):
    """A 1×1 convolution, batch norm and ReLU on the half spectrum: [B, C, H, W] to [B, C, H, W].

    Real and imaginary parts interleave as channels (c0.re, c0.im, c1.re, …). H and W may be even or odd, at
    least 1. The FFTs run in float32 or float64 even under autocast, because FFTs in half precision are not accurate
    enough.

    Args:
        channels: C.
        norm: Where the transforms are scaled, as torch.fft names it.
    """

    def __init__(self, channels: int, norm: str = "ortho") -> None:
        super().__init__()
        self.norm = norm
        self.conv_layer = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(2 * channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        real = x if x.dtype == torch.float64 else x.float()
        spectrum = torch.fft.rfft2(real, norm=self.norm)  # [B, C, H, W//2+1]
        stacked = torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).reshape(b, 2 * c, h, -1)
        stacked = self.relu(self.bn(self.conv_layer(stacked)))
        pairs = stacked.reshape(b, c, 2, h, -1).permute(0, 1, 3, 4, 2).contiguous()
        spectrum = torch.view_as_complex(pairs if pairs.dtype == torch.float64 else pairs.float())
        if spectrum.is_cuda:
            spectrum = hermitian(spectrum, w)
        return torch.fft.irfft2(spectrum, s=(h, w), norm=self.norm)


def hermitian(spectrum: Tensor, width: int) -> Tensor:
    """Make the inverse FFT on a GPU agree with the inverse FFT on a CPU.

    The output of the spectral convolution is not the spectrum of a real array. On a CPU, the inverse (NumPy's rule)
    reads only the Hermitian part along H, (z[h] + conj(z[−h])) / 2, of the first column and, for even W, of the last
    column. cuFFT assumes that these columns are Hermitian and gives another result if they are not. At 512×512 the
    output of the embedded network differed by 0.048 on an H100 (PyTorch 2.11, CUDA 13.0).

    Args:
        spectrum: complex [B, C, H, W//2+1], any values.
        width: W.

    Returns:
        complex [B, C, H, W//2+1], with the Hermitian part in the first column and, for even W, in the last column.
    """
    made = spectrum.clone()
    for column in (0, width // 2) if width % 2 == 0 else (0,):
        z = spectrum[..., column]
        made[..., column] = (z + z.flip(2).roll(1, 2).conj()) / 2
    return made


class SpectralTransform(nn.Module):
    """The path from global to global channels: halve the channels, add the output of a Fourier unit, and project.

    Args:
        in_channels: Channels of the input [B, in_channels, H, W].
        out_channels: Channels of the output [B, out_channels, H, W].
        norm: Where the transforms are scaled, as torch.fft names it.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str = "ortho") -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True)
        )
        self.fu = FourierUnit(half, norm)
        self.conv2 = nn.Conv2d(half, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(x + self.fu(x))


def _conv(cin: int, cout: int, kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = 0 if kernel == 7 else dilation  # a layer of its own pads before the 7×7 stem
    return nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False, padding_mode="reflect")


class FFC(nn.Module):
    """The four paths between local and global channels. A path without input or output channels does not exist.

    Args:
        cin: Local and global input channels.
        cout: Local and global output channels.
        kernel: Side of the convolutions' kernels in pixels.
        stride: Stride of the convolutions.
        dilation: Dilation of the convolutions.
        norm: Where the Fourier transforms are scaled, as torch.fft names it.
    """

    def __init__(
        self,
        cin: tuple[int, int],
        cout: tuple[int, int],
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        norm: str = "ortho",
    ) -> None:
        super().__init__()
        (in_l, in_g), (out_l, out_g) = cin, cout
        self.convl2l = _conv(in_l, out_l, kernel, stride, dilation)
        self.convl2g = _conv(in_l, out_g, kernel, stride, dilation) if out_g else None
        self.convg2l = _conv(in_g, out_l, kernel, stride, dilation) if in_g else None
        self.convg2g = SpectralTransform(in_g, out_g, norm) if in_g and out_g else None

    def forward(self, local: Tensor, globl: Tensor | None) -> tuple[Tensor, Tensor | None]:
        out_l = self.convl2l(local)
        out_g = self.convl2g(local) if self.convl2g is not None else None
        if globl is not None:
            if self.convg2l is not None:
                out_l = out_l + self.convg2l(globl)
            if self.convg2g is not None and out_g is not None:
                out_g = out_g + self.convg2g(globl)
        return out_l, out_g


class FFCNormAct(nn.Module):
    """FFC, then batch norm and ReLU on the local and on the global part.

    Args:
        cin: Local and global input channels.
        cout: Local and global output channels.
        kernel: Side of the convolutions' kernels in pixels.
        stride: Stride of the convolutions.
        dilation: Dilation of the convolutions.
        norm: Where the Fourier transforms are scaled, as torch.fft names it.
    """

    def __init__(
        self,
        cin: tuple[int, int],
        cout: tuple[int, int],
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        norm: str = "ortho",
    ) -> None:
        super().__init__()
        self.ffc = FFC(cin, cout, kernel, stride, dilation, norm)
        self.bn_l = nn.BatchNorm2d(cout[0])
        self.bn_g = nn.BatchNorm2d(cout[1]) if cout[1] else None
        self.act = nn.ReLU(inplace=True)

    def forward(self, parts: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
        local, globl = self.ffc(*parts)
        local = self.act(self.bn_l(local))
        if globl is not None and self.bn_g is not None:
            globl = self.act(self.bn_g(globl))
        return local, globl


class FFCResidualBlock(nn.Module):
    """Two FFC layers and a skip connection around them.

    Args:
        split: Local and global channels of the input and of the output.
        dilation: Dilation of the 3×3 convolutions.
        norm: Where the Fourier transforms are scaled, as torch.fft names it.
    """

    def __init__(self, split: tuple[int, int], dilation: int = 1, norm: str = "ortho") -> None:
        super().__init__()
        self.conv1 = FFCNormAct(split, split, 3, dilation=dilation, norm=norm)
        self.conv2 = FFCNormAct(split, split, 3, dilation=dilation, norm=norm)

    def forward(self, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        local, globl = self.conv2(self.conv1(parts))
        return parts[0] + local, parts[1] + globl
