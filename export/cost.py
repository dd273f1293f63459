"""What the network costs, by part, and which FFT lowering is the cheapest for a size.

The cost of a transform is counted in multiply-adds; a step (a product or a transpose) costs at least `MOVED` for each
element that it writes, however few products go into it. That constant was fitted on a CPU (OpenVINO, float32, 192
channels, 128×128 to 256×256, where it gave 53 to 60); a GPU's own would be another and is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from glama_deploy.bundle import Lowering
from glama_deploy.export import split
from glama_deploy.network import NetworkConfig

#: Multiply-adds that an element could have had in the time in which it is written (benchmarks/fourier.py).
MOVED = 56

#: The network's parts in the order in which they run; of two stages, the second's.
PARTS = ("stem", "down", "local", "spectral", "fft", "up", "head")


@dataclass(frozen=True)
class Step:
    """A pass over the data of one channel, forward: elements written, and multiply-adds for each."""

    written: int
    products: int

    @property
    def cost(self) -> int:
        return self.written * max(self.products, MOVED)


def choose(size: tuple[int, int] | None, n_downsampling: int = 3) -> Lowering:
    """`split` where it is cheaper than `matmul` for an image of this (height, width); `matmul` where the size is open.

    DFT nodes and the plugin are not chosen: on CPUs they are slower wherever it was measured (benchmarks/fourier.py),
    and on GPUs nothing was.
    """
    if size is None:
        return "matmul"
    height, width = (side // 2**n_downsampling for side in size)
    costs = {kind: sum(step.cost for step in steps(kind, height, width)) for kind in ("matmul", "split")}
    return "split" if costs["split"] < costs["matmul"] else "matmul"


def of_coarse(fft: Lowering, config: NetworkConfig) -> Lowering:
    """How stage one's transforms are written where stage two's are `fft`: it is of one size always, so the cheapest for
    that one, unless a library computes them all."""
    assert config.coarse is not None
    if fft in ("dft", "plugin"):
        return fft
    return choose((config.coarse_side, config.coarse_side), config.coarse.n_downsampling)


def steps(fft: str, height: int, width: int) -> list[Step]:
    """The forward transform of a bottleneck size; the inverse has the same steps backwards. A library's transform
    (`dft`, `plugin`) has no products that could be counted: none."""
    half = width // 2 + 1
    if fft == "matmul":
        return [Step(2 * height * half, width), Step(2 * height * half, 2 * height)]
    if fft != "split":
        return []
    (a, b), (c, d), columns = split.factors(width), split.factors(height), split.columns(width)
    return [
        Step(height * width, 0),
        Step(2 * height * width, a),
        *(Step(2 * height * columns, products) for products in (2 * b, 0, 2 * c, 2 * d, 0)),
    ]


def multiply_adds(config: NetworkConfig, size: tuple[int, int], fft: Lowering) -> dict[str, int]:
    """Multiply-adds of one image of this (height, width), by part of :data:`PARTS`, as the graph has them (the head as
    the 8×8 convolution that it is there; an interpolated picture is sums and has none). `local` are the 3×3
    convolutions of the blocks, `spectral` their 1×1 ones; `coarse`, of two stages, is the whole of the first, with the
    resampling."""
    total = dict.fromkeys(PARTS if config.coarse is None else ("coarse", *PARTS), 0)
    for part, count in _layers(config, size, fft):
        total[part] += count
    return total


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
    yield "fft", convolutions * 2 * half * sum(step.written * step.products for step in steps(fft, h, w))
    for step in range(config.n_downsampling):
        level = config.n_downsampling - step
        # each input pixel of a transposed convolution meets all nine weights once
        yield "up", (height >> level) * (width >> level) * config.channels(level) * config.channels(level - 1) * 9
    yield "head", (height // 2) * (width // 2) * config.ngf * 12 * 64
