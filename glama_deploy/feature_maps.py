"""The feature maps of a network in the order of their computation, and the memory that they take at once.

An engine frees a feature map, or writes another one in its place, after the last layer that reads the map. So the
memory of a run follows from the sizes of the maps and from the steps at which they are alive. Two ways to reuse memory
are computed: of all maps with known sizes (:func:`find_peak`), and of maps whose sizes are not known beforehand
(:func:`find_set_sum`).

The blocks are alike, so one block stands for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from glama_deploy.network import NetworkConfig

#: A step after the last one: inputs and the interpolated picture are read at the end.
_END = 10_000

#: Channels of a picture of three channels in a layout of channel blocks (AVX-512: 16 channels, AVX2: 8).
_BLOCKED_CHANNELS = 16

#: Columns and rows that the padding of a 7×7 convolution adds to a side, and that of a 3×3 convolution.
_STEM_PADDING, _PADDING = 6, 2

#: Rows that the decoder needs beside a window, on each side: the receptive field of the head and of the transposed
#: convolutions. Fine blocks need more.
_WINDOW_MARGIN = 8

#: Steps of a fine block: the sum with the encoder's map, and two paddings and convolutions.
_FINE_STEPS = 5


@dataclass(frozen=True)
class FeatureMap:
    """A tensor between two layers.

    Attributes:
        first: step at which the map is written.
        last: last step at which the map is read.
        values: number of values.
        is_fp32: whether the values are float32 in each precision.
    """

    first: int
    last: int
    values: float
    is_fp32: bool = False

    def count_bytes(self, value_bytes: int) -> float:
        """Return the map's bytes.

        Args:
            value_bytes: bytes of a value of the engine's type.

        Returns:
            Bytes.
        """
        return self.values * (4 if self.is_fp32 else value_bytes)


def list_feature_maps(
    network: NetworkConfig, size: tuple[int, int], window: tuple[int, int] | None = None
) -> list[FeatureMap]:
    """List the feature maps of one image.

    Args:
        network: the network's configuration. Stage one of two stages is not included.
        size: height and width of the image in pixels, padded.
        window: height and width of the pixels that are decoded; None for the whole image.

    Returns:
        The maps in the order of their steps.
    """
    maps = _list_maps_before_decoder(network, size)
    step = _find_last_step(maps)
    return [*maps, *_list_skips(network, size, step), *_list_decoder(network, size, window or size, step)]


def _list_maps_before_decoder(network: NetworkConfig, size: tuple[int, int], strips: int = 1) -> list[FeatureMap]:
    """Return the maps of inputs, the interpolated picture, the encoder (in strips) and a block."""
    pixels = math.prod(size)
    maps = [FeatureMap(0, _END, 3 * pixels, True), FeatureMap(0, _END, pixels, True)]
    if network.fill is not None:
        picture = _BLOCKED_CHANNELS * pixels  # the pull and push: three at once, and the interpolated picture
        maps += [*[FeatureMap(1, 2, picture, True)] * 3, FeatureMap(2, _END, picture, True)]
    if strips == 1:
        maps += _list_encoder(network, size, 3)
    else:
        strip = list(_list_encoder(network, _cut_strip(size, strips), 3))
        whole = network.bottleneck_channels * math.prod(_shrink(size, network.n_downsampling))
        maps += [*strip, FeatureMap(3, strip[-1].last, whole)]  # all strips until they are put together
    maps += _list_block(network, size, maps[-1].last)
    return maps


def _cut_strip(size: tuple[int, int], strips: int, margin: int = _WINDOW_MARGIN) -> tuple[int, int]:
    """Return the height and width of a strip with the rows that it reads of its neighbours."""
    return min(size[0], -(-size[0] // strips) + 2 * margin), size[1]


def _find_fine_margin(network: NetworkConfig, level: int) -> int:
    """Return the values of a level that fine blocks need beside a window, on each side."""
    return 2 * network.fine_blocks * (2 ** (network.n_downsampling - level) - 1)


def _count_decoded(
    network: NetworkConfig, size: tuple[int, int], window: tuple[int, int], level: int, padding: int = 0
) -> int:
    """Return the values of a channel that the decoder has at a level. Fine blocks need none beyond the picture."""
    beside = 2 * _find_fine_margin(network, level)
    sides = (
        min(side + beside, whole) for side, whole in zip(_shrink(window, level), _shrink(size, level), strict=True)
    )
    return math.prod(side + padding + 2 * _WINDOW_MARGIN for side in sides)


def _list_skips(network: NetworkConfig, size: tuple[int, int], step: int) -> Iterator[FeatureMap]:
    """Yield the encoder's maps that fine blocks read, from the encoder's end on. The decoder begins at `step`."""
    for level in range(network.n_downsampling if network.fine_blocks else 0):
        read = step + 3 + (2 + _FINE_STEPS) * (network.n_downsampling - 1 - level)
        yield FeatureMap(6 + 2 * level, read, network.channels(level) * math.prod(_shrink(size, level)))


def _find_last_step(maps: list[FeatureMap]) -> int:
    """Return the last step at which a map of the network's layers is read."""
    return max(one.last for one in maps if one.last < _END)


def _list_encoder(network: NetworkConfig, size: tuple[int, int], step: int) -> Iterator[FeatureMap]:
    """Yield the maps of the stem and the strided convolutions: the padded input and the output of each."""
    yield FeatureMap(step, step + 1, network.input_channels * _count_padded(size, _STEM_PADDING))
    yield FeatureMap(step + 1, step + 2, network.ngf * math.prod(size))
    for level in range(network.n_downsampling):
        step += 2
        here, below = _shrink(size, level), _shrink(size, level + 1)
        yield FeatureMap(step, step + 1, network.channels(level) * _count_padded(here, _PADDING))
        yield FeatureMap(step + 1, step + 2, network.channels(level + 1) * math.prod(below))


def _list_block(network: NetworkConfig, size: tuple[int, int], step: int) -> Iterator[FeatureMap]:
    """Yield the maps of a residual block, whose input is read at its end.

    The spectra have a column more than half of the columns, twice: real and imaginary parts. The convolutions of a
    compiled size have 6 values in place of 4 (:mod:`glama_deploy.runtime.openvino.rewrites.winograd`).
    """
    bottleneck = _shrink(size, network.n_downsampling)
    pixels, padded = math.prod(bottleneck), _count_padded(bottleneck, _PADDING)
    globl, spectral = network.global_channels, network.spectral_channels
    local = network.bottleneck_channels - globl
    spectrum = 2 * spectral * bottleneck[0] * (bottleneck[1] // 2 + 1)
    yield FeatureMap(step, step + 6, network.bottleneck_channels * pixels)
    yield FeatureMap(step, step + 4, local * padded)
    yield FeatureMap(step, step + 4, globl * padded)
    yield FeatureMap(step + 1, step + 2, 1.5 * globl * padded)
    yield FeatureMap(step + 2, step + 3, 1.5 * globl * padded)
    yield FeatureMap(step + 2, step + 5, local * pixels)
    yield FeatureMap(step + 3, step + 5, globl * pixels)
    yield FeatureMap(step + 3, step + 4, spectral * pixels)
    yield FeatureMap(step + 3, step + 4, spectrum)
    yield FeatureMap(step + 4, step + 5, spectrum)
    yield FeatureMap(step + 5, step + 6, network.bottleneck_channels * pixels)


def _list_decoder(
    network: NetworkConfig, size: tuple[int, int], window: tuple[int, int], step: int
) -> Iterator[FeatureMap]:
    """Yield the maps of the transposed convolutions, of fine blocks, of the head and of the picture in the window.

    The fine blocks of a level are alike, so one of them stands for all.
    """
    bottleneck = _count_decoded(network, size, window, network.n_downsampling)
    yield FeatureMap(step, step + 1, network.bottleneck_channels * bottleneck)
    if network.fill is not None:  # the interpolated picture in the window
        end = step + (2 + (_FINE_STEPS if network.fine_blocks else 0)) * network.n_downsampling + 4
        yield FeatureMap(step, end, _BLOCKED_CHANNELS * math.prod(window), True)
    step += 1
    for level in reversed(range(network.n_downsampling)):
        values = network.channels(level) * _count_decoded(network, size, window, level)
        yield FeatureMap(step, step + 1, values)
        yield FeatureMap(step + 1, step + 2, values)
        step += 2
        if network.fine_blocks:
            yield FeatureMap(step, step + 1, values)  # the encoder's map in the window
            yield FeatureMap(step, step + _FINE_STEPS, values)  # the sum, which the skip connection reads
            for inner in range(1, _FINE_STEPS):  # two paddings and two convolutions
                yield FeatureMap(step + inner, step + inner + 1, values)
            step += _FINE_STEPS
    yield FeatureMap(step, step + 1, network.ngf * _count_decoded(network, size, window, 0, _STEM_PADDING))
    yield FeatureMap(step + 1, step + 2, 3 * math.prod(window), True)
    yield FeatureMap(step + 2, step + 3, 3 * math.prod(window), True)


def _shrink(size: tuple[int, int], level: int) -> tuple[int, int]:
    return max(1, size[0] >> level), max(1, size[1] >> level)


def _count_padded(size: tuple[int, int], padding: int) -> int:
    return (size[0] + padding) * (size[1] + padding)


@lru_cache(maxsize=1024)
def find_peak(
    network: NetworkConfig, size: tuple[int, int], value_bytes: int, window: tuple[int, int] | None = None
) -> float:
    """Return the most bytes of feature maps that are alive at one step, for one image.

    Args:
        network: the network's configuration. Stage one of two stages is not included.
        size: height and width of the image in pixels, padded.
        value_bytes: bytes of a value of the engine's type.
        window: height and width of the pixels that are decoded; None for the whole image.

    Returns:
        Bytes.
    """
    return _find_peak(list_feature_maps(network, size, window), value_bytes)


@lru_cache(maxsize=1024)
def find_peak_with_window(
    network: NetworkConfig,
    size: tuple[int, int],
    value_bytes: int,
    window: tuple[int, int] | None = None,
    strips: int = 1,
) -> tuple[float, float]:
    """Return the bytes of an engine that knows the image's size beforehand, and the window's when it runs.

    Args:
        network: the network's configuration. Stage one of two stages is not included.
        size: height and width of the image in pixels, padded.
        value_bytes: bytes of a value of the engine's type.
        window: height and width of the pixels that are decoded; None for the whole image.
        strips: number of strips in which the encoder and the decoder are computed.

    Returns:
        The peak before the decoder, and the bytes of the decoder's sets (:func:`find_set_sum`).
    """
    maps = _list_maps_before_decoder(network, size, strips)
    decoded = (
        window or size
        if strips == 1
        else _cut_strip(window or size, strips, _WINDOW_MARGIN + _find_fine_margin(network, 0))
    )
    step = _find_last_step(maps)
    decoder = list(_list_decoder(network, size, decoded, step))
    return _find_peak([*maps, *_list_skips(network, size, step)], value_bytes), _sum_sets(decoder, value_bytes)


def _find_peak(maps: list[FeatureMap], value_bytes: int) -> float:
    """Return the most bytes that are alive at one step."""
    steps = {one.first for one in maps}
    return max(sum(one.count_bytes(value_bytes) for one in maps if one.first <= step <= one.last) for step in steps)


@lru_cache(maxsize=1024)
def find_set_sum(
    network: NetworkConfig, size: tuple[int, int], value_bytes: int, window: tuple[int, int] | None = None
) -> float:
    """Return the bytes of sets of feature maps, none of which is alive with another one of its set, for one image.

    An engine that does not know the sizes beforehand forms such sets from the steps alone. Each set takes the memory of
    its largest map.

    Args:
        network: the network's configuration. Stage one of two stages is not included.
        size: height and width of the image in pixels, padded.
        value_bytes: bytes of a value of the engine's type.
        window: height and width of the pixels that are decoded; None for the whole image.

    Returns:
        Bytes of all sets.
    """
    return _sum_sets(list_feature_maps(network, size, window), value_bytes)


def _sum_sets(maps: list[FeatureMap], value_bytes: int) -> float:
    """Return the bytes of sets of maps."""
    ends: list[int] = []
    largest: list[float] = []
    for one in sorted(maps, key=lambda one: (one.first, one.last)):
        needed = one.count_bytes(value_bytes)
        free = next((number for number, end in enumerate(ends) if end < one.first), None)
        if free is None:
            ends.append(one.last)
            largest.append(needed)
        else:
            ends[free], largest[free] = one.last, max(largest[free], needed)
    return sum(largest)
