"""Channels of like range, before int8: the same network, with less of a tensor's 256 steps left unused.

A tensor has one step for all of its channels, and in LaMa most reach a third of the range of the widest. A ReLU does
not mind a positive factor, nor do sums, pads and Fourier transforms: so each channel of a tensor is divided by a factor
in the norm that makes it, and multiplied by it in the weights of all that read it (Nagel et al., Data-Free Quantization
Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1). The factors follow the ranges of activations
on calibration images (as in Xiao et al., SmoothQuant, ICML 2023, section 4). What the blocks add to has one factor a
channel through all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import (
    BLOCK,
    BLOCK_LAYERS,
    COARSE_PREFIX,
    DOWN,
    GLOBAL,
    GLOBAL_TO_GLOBAL,
    LOCAL,
    RELU,
    STEM,
    SUM,
    UP,
)

#: Factors are ranges to this power: 1 would make all ranges alike and the weights' ranges the more unlike.
#: (plain, 0.3, 0.5, 0.7, 1 left 35.1, 36.5, 37.0, 37.2, 36.2 dB of an untrained LaMa all in int8; of the embedded
#: network plain, 0.5, 0.65, 0.8 left 43.8, 46.0, 45.4, 45.2)
STRENGTH = 0.5

#: A channel's range counts as this share of the widest at least.
LEAST_SHARE = 1 / 64


@dataclass(frozen=True)
class _Reader:
    """Weights that read a tensor: which of their axes has its channels, from which on, and how many for each."""

    weight: str
    axis: int = 1
    first: int = 0
    each: int = 1


@dataclass(frozen=True)
class _Place:
    """Tensors whose channels share factors: their names in the graph, the norms that make them (in the checkpoint, with
    how many of their channels belong to one), and what reads them."""

    tensors: tuple[str, ...]
    norms: tuple[tuple[str, int], ...]
    readers: tuple[_Reader, ...]

    def of_coarse(self) -> _Place:
        """The same of stage one, whose names begin so in the graph and in the checkpoint."""
        return _Place(
            tuple(f"{COARSE_PREFIX}{name}" for name in self.tensors),
            tuple((f"coarse.{norm}", each) for norm, each in self.norms),
            tuple(replace(reader, weight=f"coarse.{reader.weight}") for reader in self.readers),
        )


def equalized(
    config: NetworkConfig,
    weights: Mapping[str, np.ndarray],
    ranges: Callable[[Sequence[str]], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The weights, float32, of the same network with channels of like range.

    `ranges` gives, for names of tensors in the network's graph, the largest magnitude of each channel, [C], on
    calibration images.
    """
    result = {name: values.astype(np.float64) for name, values in weights.items()}
    places = list(_places(config))
    if config.coarse is not None:
        places += [place.of_coarse() for place in _places(config.coarse)]
    found = ranges(sorted({name for place in places for name in place.tensors}))
    for place in places:
        share = np.max(
            [found[name] / max(found[name].max(), np.finfo(np.float32).tiny) for name in place.tensors], axis=0
        )
        factors = np.maximum(share, LEAST_SHARE) ** STRENGTH
        for norm, each in place.norms:
            for part in ("weight", "bias"):
                result[f"{norm}.{part}"] /= np.repeat(factors, each)
        for reader in place.readers:
            values = np.repeat(factors, reader.each)
            channels = np.moveaxis(result[reader.weight], reader.axis, -1)
            channels[..., reader.first : reader.first + len(values)] *= values  # a view
    return {name: values.astype(np.float32) for name, values in result.items()}


def _places(config: NetworkConfig) -> Iterator[_Place]:
    last = config.n_downsampling + 1
    local = config.bottleneck_channels - config.global_channels
    blocks = [f"model.{config.first_block + block}" for block in range(config.n_blocks)]
    up = f"model.{config.first_up}.weight"
    yield _Place((f"{STEM}/{LOCAL}",), (("model.1.bn_l", 1),), tuple(_local_readers("model.2", last == 2)))
    for level in range(config.n_downsampling - 1):
        source = f"model.{level + 2}.bn_l"
        readers = _local_readers(f"model.{level + 3}", level + 3 == last)
        yield _Place((f"{DOWN}{level}/{LOCAL}",), ((source, 1),), tuple(readers))
    for kind, first, readers_of in ((LOCAL, 0, _local_readers), (GLOBAL, local, _global_readers)):
        norm = f"bn_{kind[0]}"
        tensors = (f"{DOWN}{config.n_downsampling - 1}/{kind}", *(f"{BLOCK}{b}/{kind}" for b in range(config.n_blocks)))
        norms = [f"model.{last}.{norm}", *(f"{block}.conv2.{norm}" for block in blocks)]
        readers = [reader for block in blocks for reader in readers_of(f"{block}.conv1")]
        yield _Place(tensors, tuple((name, 1) for name in norms), (*readers, _Reader(up, axis=0, first=first)))
        for number, block in enumerate(blocks):
            made = ((f"{block}.conv1.{norm}", 1),)
            yield _Place((f"{BLOCK}{number}/{BLOCK_LAYERS[0]}/{kind}",), made, tuple(readers_of(f"{block}.conv2")))
    for number, block in enumerate(blocks):
        for layer in BLOCK_LAYERS:
            source = f"{block}.{layer}.ffc.convg2g"
            readers = [_Reader(f"{source}.conv2.weight"), _Reader(f"{source}.fu.conv_layer.weight", each=2)]
            norms_of_sum = ((f"{source}.conv1.1", 1), (f"{source}.fu.bn", 2))
            yield _Place((f"{BLOCK}{number}/{layer}/{GLOBAL_TO_GLOBAL}/{SUM}",), norms_of_sum, tuple(readers))
    for step in range(config.n_downsampling):
        index, end = config.first_up + 3 * step, step == config.n_downsampling - 1
        reader = _Reader(f"model.{config.head}.weight") if end else _Reader(f"model.{index + 3}.weight", axis=0)
        yield _Place((f"{UP}{step}/{RELU}",), ((f"model.{index + 1}", 1),), (reader,))


def _local_readers(layer: str, both: bool = True) -> list[_Reader]:
    names = ("convl2l", "convl2g") if both else ("convl2l",)
    return [_Reader(f"{layer}.ffc.{name}.weight") for name in names]


def _global_readers(layer: str) -> list[_Reader]:
    return [_Reader(f"{layer}.ffc.{name}.weight") for name in ("convg2l", "convg2g.conv1.0")]
