"""The network's cost in multiply-adds by part, and the cheapest FFT lowering for a size."""

from __future__ import annotations

from collections.abc import Iterator

from glama_deploy.bundle import Lowering
from glama_deploy.fourier import split
from glama_deploy.network import NetworkConfig

#: The network's parts in the order in which they run. In a network of two stages, these are the parts of stage two.
PARTS = ("stem", "down", "local", "spectral", "fft", "up", "head")


def choose_lowering(size: tuple[int, int] | None, n_downsampling: int = 3) -> Lowering:
    """Choose the FFT lowering with fewer multiply-adds.

    DFT nodes and the plugin are never chosen. On CPUs both were slower in all measurements
    (benchmarks/speed/fourier.py); on GPUs neither was measured.

    Args:
        size: (height, width) of the image in pixels, or None for a graph of any size.
        n_downsampling: Number of stride-2 convolutions before the FFTs.

    Returns:
        `split` where it is cheaper than `matmul`. Otherwise, and for a graph of any size, `matmul`.
    """
    if size is None:
        return "matmul"
    height, width = (side // 2**n_downsampling for side in size)
    return "split" if split.is_cheaper(height, width) else "matmul"


def choose_coarse_lowering(fft: Lowering, config: NetworkConfig) -> Lowering:
    """Choose the FFT lowering of stage one, which always has one size.

    Args:
        fft: The lowering of stage two.
        config: The config of stage two, with a coarse network.

    Returns:
        The cheapest lowering for the coarse network's size, or `fft` where a library computes the transforms.
    """
    assert config.coarse is not None
    if fft in ("dft", "plugin"):
        return fft
    return choose_lowering((config.coarse_side, config.coarse_side), config.coarse.n_downsampling)


def count_multiply_adds(config: NetworkConfig, size: tuple[int, int], fft: Lowering) -> dict[str, int]:
    """Count the multiply-adds of one image in the exported graph.

    In the graph the head is an 8×8 convolution. An interpolated picture consists of sums and counts 0.

    Args:
        config: The network's config.
        size: (height, width) of the image in pixels.
        fft: The FFT lowering.

    Returns:
        Multiply-adds for each of `PARTS`. `local` are the blocks' 3×3 convolutions, `spectral` their 1×1 convolutions.
        `up` includes the fine blocks.
        A network of two stages has one more part, `coarse`: all of stage one with its resampling.
    """
    total = dict.fromkeys(PARTS if config.coarse is None else ("coarse", *PARTS), 0)
    for part, count in _layers(config, size, fft):
        total[part] += count
    return total


def long_side(config: NetworkConfig) -> float:
    """Return how fast the share of the Fourier transforms grows with the image's sides, for the lowering `matmul`.

    Args:
        config: The network's config.

    Returns:
        Multiply-adds of the transforms for each pixel of the image and each pixel of (width + 2·height), divided by the
        multiply-adds of the other layers for each pixel. Stage one of a network of two stages, whose size is fixed, is
        not counted.
    """
    side = 512
    parts = count_multiply_adds(config, (side, side), "matmul")
    rest = sum(count for part, count in parts.items() if part not in ("coarse", "fft"))
    return parts["fft"] / rest / (3 * side)


def _layers(config: NetworkConfig, size: tuple[int, int], fft: Lowering) -> Iterator[tuple[str, int]]:
    height, width = size
    if config.coarse is not None:
        side = config.coarse_side
        resampling = 4 * side * width * (height + side) + 3 * height * side * (side + width)
        yield (
            "coarse",
            resampling
            + sum(count_multiply_adds(config.coarse, (side, side), choose_coarse_lowering(fft, config)).values()),
        )
    yield "stem", height * width * config.input_channels * config.ngf * 49
    for level in range(config.n_downsampling):
        pixels = (height >> level + 1) * (width >> level + 1)
        yield "down", pixels * config.channels(level) * config.channels(level + 1) * 9
    h, w = height >> config.n_downsampling, width >> config.n_downsampling
    globl, local = config.global_channels, config.bottleneck_channels - config.global_channels
    half = config.spectral_channels
    columns = split.count_columns(w) if fft == "split" else w // 2 + 1
    convolutions = 2 * config.n_blocks
    branches = 1 if config.splits_channels else config.branches
    yield "local", convolutions * h * w * 9 * local * (local + 2 * globl) * branches
    yield "spectral", convolutions * (2 * h * w * globl * half + h * columns * (2 * half) ** 2)
    yield "fft", convolutions * 2 * half * sum(each.written * each.products for each in split.list_passes(fft, h, w))
    for step in range(config.n_downsampling):
        level = config.n_downsampling - step
        # a transposed convolution multiplies each input pixel by all nine weights
        yield "up", (height >> level) * (width >> level) * config.channels(level) * config.channels(level - 1) * 9
        above = (height >> level - 1) * (width >> level - 1)
        yield "up", config.fine_blocks * 2 * above * config.channels(level - 1) ** 2 * 9
    yield "head", (height // 2) * (width // 2) * config.ngf * 12 * 64
