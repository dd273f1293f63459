"""Equalization of channel ranges before int8. The network stays the same function and uses more of int8's 256 steps.

All channels of a tensor share one step, and in LaMa most channels reach a third of the widest channel's range. ReLUs,
sums, pads and Fourier transforms keep a positive factor of a channel. So each channel of a tensor is divided by a
factor in the norm that writes it, and multiplied by the factor in all weights that read it (Nagel et al., Data-Free
Quantization Through Weight Equalization and Bias Correction, ICCV 2019, section 4.1). The factors depend on the ranges
of activations on calibration images (as in Xiao et al., SmoothQuant, ICML 2023, section 4). The sums between the blocks
have one factor for each channel through all blocks.
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
    FINE,
    GLOBAL,
    GLOBAL_TO_GLOBAL,
    LOCAL,
    RELU,
    SKIP,
    SUM,
    UP,
    get_encoder_map,
)

#: A channel's factor is its range to this power. 1 makes the ranges of activations equal and those of weights unequal.
#: An untrained LaMa all in int8 reached 35.1 dB without factors, 36.5 with 0.3, 37.0 with 0.5, 37.2 with 0.7 and 36.2
#: with 1. The embedded network reached 43.8 dB without factors, 46.0 with 0.5, 45.4 with 0.65 and 45.2 with 0.8.
FACTOR_EXPONENT = 0.5

#: The least range of a channel, as a share of the widest channel's range.
MIN_RANGE_SHARE = 1 / 64


@dataclass(frozen=True)
class _Reader:
    """Weights that read a tensor: the axis of its channels, the first of them, and the entries for each channel."""

    weight: str
    axis: int = 1
    first: int = 0
    each: int = 1


@dataclass(frozen=True)
class _SharedFactors:
    """Tensors whose channels share factors.

    Attributes:
        tensors: Their names in the graph.
        norms: The norms that write them, by their names in the checkpoint, with the norm's channels for each channel.
        readers: The weights that read them.
    """

    tensors: tuple[str, ...]
    norms: tuple[tuple[str, int], ...]
    readers: tuple[_Reader, ...]

    def of_coarse(self) -> _SharedFactors:
        """Return the same place of stage one.

        Returns:
            The place, with the prefixes of stage one's names.
        """
        return _SharedFactors(
            tuple(f"{COARSE_PREFIX}{name}" for name in self.tensors),
            tuple((f"coarse.{norm}", each) for norm, each in self.norms),
            tuple(replace(reader, weight=f"coarse.{reader.weight}") for reader in self.readers),
        )


def equalize_channels(
    config: NetworkConfig,
    weights: Mapping[str, np.ndarray],
    ranges: Callable[[Sequence[str]], Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Equalize the channel ranges of a network's activations.

    Args:
        config: The network.
        weights: The parameters by their names in the checkpoint.
        ranges: Returns, for names of tensors in the network's graph, the largest magnitude of each channel, [C], on
            calibration images.

    Returns:
        The parameters, float32, of the same function. Those of a regular network are returned as they are.
    """
    if config.kind != "ffc":  # not measured for such networks
        return dict(weights)
    result = {name: values.astype(np.float64) for name, values in weights.items()}
    places = list(_find_shared_factors(config))
    if config.coarse is not None:
        places += [place.of_coarse() for place in _find_shared_factors(config.coarse)]
    found = ranges(sorted({name for place in places for name in place.tensors}))
    for place in places:
        share = np.max(
            [found[name] / max(found[name].max(), np.finfo(np.float32).tiny) for name in place.tensors], axis=0
        )
        factors = np.maximum(share, MIN_RANGE_SHARE) ** FACTOR_EXPONENT
        for norm, each in place.norms:
            for part in ("weight", "bias"):
                result[f"{norm}.{part}"] /= np.repeat(factors, each)
        for reader in place.readers:
            values = np.repeat(factors, reader.each)
            channels = np.moveaxis(result[reader.weight], reader.axis, -1)
            channels[..., reader.first : reader.first + len(values)] *= values  # a view
    return {name: values.astype(np.float32) for name, values in result.items()}


def _find_shared_factors(config: NetworkConfig) -> Iterator[_SharedFactors]:
    last = config.n_downsampling + 1
    local = config.bottleneck_channels - config.global_channels
    blocks = [f"model.{config.first_block + block}" for block in range(config.n_blocks)]
    up = f"model.{config.ups[0]}.weight"
    for level in range(config.n_downsampling if not config.fine_blocks else 0):
        readers = _list_encoder_readers(config, level)
        yield _SharedFactors((get_encoder_map(level),), ((f"model.{level + 1}.bn_l", 1),), tuple(readers))
    for kind, first, readers_of in ((LOCAL, 0, _list_local_readers), (GLOBAL, local, _list_global_readers)):
        norm = f"bn_{kind[0]}"
        tensors = (f"{DOWN}{config.n_downsampling - 1}/{kind}", *(f"{BLOCK}{b}/{kind}" for b in range(config.n_blocks)))
        norms = [f"model.{last}.{norm}", *(f"{block}.conv2.{norm}" for block in blocks)]
        readers = [reader for block in blocks for reader in readers_of(f"{block}.conv1")]
        yield _SharedFactors(tensors, tuple((name, 1) for name in norms), (*readers, _Reader(up, axis=0, first=first)))
        for number, block in enumerate(blocks):
            made = ((f"{block}.conv1.{norm}", 1),)
            yield _SharedFactors(
                (f"{BLOCK}{number}/{BLOCK_LAYERS[0]}/{kind}",), made, tuple(readers_of(f"{block}.conv2"))
            )
    for number, block in enumerate(blocks):
        for layer in BLOCK_LAYERS:
            source = f"{block}.{layer}.ffc.convg2g"
            readers = [_Reader(f"{source}.conv2.weight"), _Reader(f"{source}.fu.conv_layer.weight", each=2)]
            norms_of_sum = ((f"{source}.conv1.1", 1), (f"{source}.fu.bn", 2))
            yield _SharedFactors((f"{BLOCK}{number}/{layer}/{GLOBAL_TO_GLOBAL}/{SUM}",), norms_of_sum, tuple(readers))
    yield from _find_decoder_factors(config)


def _find_decoder_factors(config: NetworkConfig) -> Iterator[_SharedFactors]:
    """Yield the places of the decoder, and with fine blocks those of the encoder, whose maps are added there."""
    for step, index in enumerate(config.ups):
        level = config.n_downsampling - 1 - step
        name, norms, tensors = f"{UP}{step}", [f"model.{index + 1}"], [f"{UP}{step}/{RELU}"]
        end = step == config.n_downsampling - 1
        reader = _Reader(f"model.{config.head}.weight") if end else _Reader(f"model.{config.ups[step + 1]}.weight", 0)
        readers = [reader]
        if config.fine_blocks:
            norms.append(f"model.{level + 1}.bn_l")
            tensors += [get_encoder_map(level), f"{name}/{SKIP}"]
            readers += _list_encoder_readers(config, level)
        for block in range(config.fine_blocks):
            source, node = f"model.{index + 3}.{block}", f"{name}/{FINE}{block}"
            yield _SharedFactors((f"{node}/{RELU}",), ((f"{source}.bn1", 1),), (_Reader(f"{source}.conv2.weight"),))
            norms.append(f"{source}.bn2")
            tensors.append(f"{node}/{SUM}")
            readers.append(_Reader(f"{source}.conv1.weight"))
        yield _SharedFactors(tuple(tensors), tuple((norm, 1) for norm in norms), tuple(readers))


def _list_encoder_readers(config: NetworkConfig, level: int) -> list[_Reader]:
    """Return the weights of the downsampling behind a level. The last one also makes global channels."""
    return _list_local_readers(f"model.{level + 2}", level == config.n_downsampling - 1)


def _list_local_readers(layer: str, both: bool = True) -> list[_Reader]:
    names = ("convl2l", "convl2g") if both else ("convl2l",)
    return [_Reader(f"{layer}.ffc.{name}.weight") for name in names]


def _list_global_readers(layer: str) -> list[_Reader]:
    return [_Reader(f"{layer}.ffc.{name}.weight") for name in ("convg2l", "convg2g.conv1.0")]
