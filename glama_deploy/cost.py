"""What the network costs, by part, and which FFT lowering is the cheapest for a size."""

from __future__ import annotations

from collections.abc import Iterator

from glama_deploy.bundle import Lowering
from glama_deploy.fourier import split
from glama_deploy.network import NetworkConfig

#: The network's parts in the order in which they run; of two stages, the second's.
PARTS = ("stem", "down", "local", "spectral", "fft", "up", "head")


def choose(size: tuple[int, int] | None, n_downsampling: int = 3) -> Lowering:
    """`split` where it is cheaper than `matmul` for an image of this (height, width); `matmul` where the size is open.

    DFT nodes and the plugin are not chosen: on CPUs they are slower wherever it was measured
    (benchmarks/speed/fourier.py), and on GPUs nothing was.
    """
    if size is None:
        return "matmul"
    height, width = (side // 2**n_downsampling for side in size)
    return "split" if split.pays(height, width) else "matmul"


def of_coarse(fft: Lowering, config: NetworkConfig) -> Lowering:
    """How stage one's transforms are written where stage two's are `fft`: it is of one size always, so the cheapest for
    that one, unless a library computes them all."""
    assert config.coarse is not None
    if fft in ("dft", "plugin"):
        return fft
    return choose((config.coarse_side, config.coarse_side), config.coarse.n_downsampling)


def multiply_adds(config: NetworkConfig, size: tuple[int, int], fft: Lowering) -> dict[str, int]:
    """Multiply-adds of one image of this (height, width), by part of :data:`PARTS`, as the graph has them (the head as
    the 8×8 convolution that it is there; an interpolated picture is sums and has none). `local` are the 3×3
    convolutions of the blocks, `spectral` their 1×1 ones; `coarse`, of two stages, is the whole of the first, with the
    resampling."""
    total = dict.fromkeys(PARTS if config.coarse is None else ("coarse", *PARTS), 0)
    for part, count in _layers(config, size, fft):
        total[part] += count
    return total


def long_side(config: NetworkConfig) -> float:
    """Return what the Fourier transforms cost in a large image, where they are products with one matrix a side.

    Returns:
        Cost for each pixel of the image and each pixel of (width + 2·height), as a share of what the other layers cost
        for each pixel. Stage one of two stages, whose size is fixed, is left out.
    """
    side = 512
    parts = multiply_adds(config, (side, side), "matmul")
    rest = sum(count for part, count in parts.items() if part not in ("coarse", "fft"))
    return parts["fft"] / rest / (3 * side)


def _layers(config: NetworkConfig, size: tuple[int, int], fft: Lowering) -> Iterator[tuple[str, int]]:
    height, width = size
    if config.coarse is not None:
        side = config.coarse_side
        resampling = 4 * side * width * (height + side) + 3 * height * side * (side + width)
        yield "coarse", resampling + sum(multiply_adds(config.coarse, (side, side), of_coarse(fft, config)).values())
    yield "stem", height * width * config.input_channels * config.ngf * 49
    for level in range(config.n_downsampling):
        pixels = (height >> level + 1) * (width >> level + 1)
        yield "down", pixels * config.channels(level) * config.channels(level + 1) * 9
    h, w = height >> config.n_downsampling, width >> config.n_downsampling
    globl, local = config.global_channels, config.bottleneck_channels - config.global_channels
    half = config.spectral_channels
    columns = split.columns(w) if fft == "split" else w // 2 + 1
    convolutions = 2 * config.n_blocks
    yield "local", convolutions * h * w * 9 * local * (local + 2 * globl)
    yield "spectral", convolutions * (2 * h * w * globl * half + h * columns * (2 * half) ** 2)
    yield "fft", convolutions * 2 * half * sum(each.written * each.products for each in split.passes(fft, h, w))
    for step in range(config.n_downsampling):
        level = config.n_downsampling - step
        # each input pixel of a transposed convolution meets all nine weights once
        yield "up", (height >> level) * (width >> level) * config.channels(level) * config.channels(level - 1) * 9
    yield "head", (height // 2) * (width // 2) * config.ngf * 12 * 64
