"""Warnings where a graph lacks layers that OpenVINO's transforms rewrite.

Five transforms make a graph faster: :mod:`.fed_bases`, :mod:`.pixel_products`, :mod:`.channels_last`,
:mod:`.column_convolutions` and :mod:`.split_fft`. Each seeks layers by name or by structure, and leaves the graph as it
is where it finds none. The manifest tells how many layers each transform must find. A graph with fewer layers computes
the same image and takes longer.

No layers are expected where the manifest promises none: DFT nodes have no products, narrow networks have no
convolutions for Winograd's method, and the split form is cheaper at some sizes only.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

from glama_deploy import cost
from glama_deploy.bundle import Lowering, Manifest
from glama_deploy.fourier import split
from glama_deploy.network import NetworkConfig, next_side
from glama_deploy.node_names import (
    BLOCK,
    BLOCK_LAYERS,
    COARSE_PREFIX,
    GLOBAL_TO_LOCAL,
    LOCAL_TO_GLOBAL,
    LOCAL_TO_LOCAL,
)
from glama_deploy.runtime.openvino.rewrites import fed_bases
from glama_deploy.runtime.openvino.rewrites.winograd import MIN_CHANNELS

log = logging.getLogger("glama_deploy")

#: Products with a two-dimensional constant on the left in a Fourier unit, forward and inverse together. `matmul`: the
#: columns. `split`: the first of two steps, over rows and over columns.
_LEFT_PRODUCTS: dict[Lowering, int] = {"matmul": 2, "split": 4, "dft": 0, "plugin": 0}


def count_left_products(manifest: Manifest) -> int:
    """Return how many products :mod:`.column_convolutions` must find in a bundle's graph.

    Args:
        manifest: The bundle's manifest.

    Returns:
        The number of matrix products with a constant left factor.
    """
    network, fft = manifest.network, manifest.fft
    count = _LEFT_PRODUCTS[fft] * _count_units(network)
    if network.coarse is not None:
        count += _LEFT_PRODUCTS[cost.choose_coarse_lowering(fft, network)] * _count_units(network.coarse)
    return count


def count_split_units(manifest: Manifest, height: int, width: int) -> int:
    """Return how many Fourier units :mod:`.split_fft` must rewrite.

    Args:
        manifest: The bundle's manifest.
        height: The image's height in pixels.
        width: The image's width in pixels.

    Returns:
        All units of the network, or 0 where the split form is not cheaper or the graph has another form. Stage one of
        two stages has the cheapest form of its size since the export.
    """
    if manifest.fft != "matmul" or not split.is_cheaper(*bottleneck_size(manifest.network, height, width)):
        return 0
    return _count_units(manifest.network)


def count_units(manifest: Manifest) -> int:
    """Return how many Fourier units :mod:`.channels_last` must find in a bundle's graph.

    Args:
        manifest: The bundle's manifest.

    Returns:
        The number of units whose transforms are products with one matrix for each side.
    """
    network, fft = manifest.network, manifest.fft
    # the shift of a spectrum that is not orthonormal depends on the size, and such units stay as they are
    count = _count_units(network) if fft == "matmul" and network.fft_norm == "ortho" else 0
    if network.coarse is not None and cost.choose_coarse_lowering(fft, network) == "matmul":
        count += _count_units(network.coarse)
    return count


def count_winograd_convolutions(manifest: Manifest, fp32_layers: Collection[str] | None = None) -> int:
    """Return how many convolutions :mod:`.winograd` must find in a bundle's graph.

    Args:
        manifest: The bundle's manifest.
        fp32_layers: Names of the layers that an int8 graph computes in fp32; the others are not rewritten. None: the
            graph has no int8.

    Returns:
        The number of 3x3 convolutions inside blocks that are wide enough.
    """
    names = list(_wide_convolutions(manifest.network))
    if manifest.network.coarse is not None:
        names += [f"{COARSE_PREFIX}{name}" for name in _wide_convolutions(manifest.network.coarse)]
    return len(names) if fp32_layers is None else len(set(names) & set(fp32_layers))


def bottleneck_size(network: NetworkConfig, height: int, width: int) -> tuple[int, int]:
    """Return the size that the Fourier units of a network see.

    Args:
        network: The network.
        height: The image's height in pixels.
        width: The image's width in pixels.

    Returns:
        (height, width) of the feature maps, of the image padded where it must be.
    """
    down = 2**network.n_downsampling
    return next_side(height) // down, next_side(width) // down


def _count_units(network: NetworkConfig) -> int:
    return network.n_blocks * len(BLOCK_LAYERS) if network.kind == "ffc" else 0


def _wide_convolutions(network: NetworkConfig) -> Iterator[str]:
    """Yield the names of the 3x3 convolutions without dilation inside blocks that have enough channels."""
    if network.dilation > 1 or network.branches > 1:
        return
    globl = network.global_channels
    local = network.bottleneck_channels - globl
    paths = [LOCAL_TO_LOCAL] if local >= MIN_CHANNELS else []
    paths += [LOCAL_TO_GLOBAL, GLOBAL_TO_LOCAL] if min(local, globl) >= MIN_CHANNELS else []
    for block in range(network.n_blocks):
        for layer in BLOCK_LAYERS:
            yield from (f"{BLOCK}{block}/{layer}/{path}" for path in paths)


class TransformChecks:
    """Compares what the transforms find in a graph with what the manifest promises; warns once of each transform."""

    def __init__(self, path: Path, manifest: Manifest, fp32_layers: Collection[str] | None = None) -> None:
        """Keep what the counts depend on.

        Args:
            path: The bundle's folder, which warnings name.
            manifest: The bundle's manifest.
            fp32_layers: As :func:`count_winograd_convolutions` takes them.
        """
        self._path, self._manifest, self._fp32_layers = path, manifest, fp32_layers
        self._missing: set[str] = set()

    @property
    def is_complete(self) -> bool:
        """Whether each transform found all of its layers so far."""
        return not self._missing

    def check_bases(self, found: int, *, static: bool) -> None:
        """Warn if :mod:`.fed_bases` replaced fewer bases than promised.

        Args:
            found: The number of bases that became inputs.
            static: Whether the graph is of one size, and has constants for bases.
        """
        has_bases = self._manifest.fft == "matmul" and not static and _count_units(self._manifest.network) > 0
        expected = fed_bases.COUNT if has_bases else 0
        self._check("bases of the Fourier transform", found, expected, "in bf16 and fp16 each size is compiled")

    def check_columns(self, found: int) -> None:
        """Warn if :mod:`.column_convolutions` rewrote fewer products than promised.

        Args:
            found: The number of products that were rewritten.
        """
        expected = count_left_products(self._manifest)
        self._check("Fourier products for the half type", found, expected, "these products are computed in fp32")

    def check_split(self, found: int, height: int, width: int) -> None:
        """Warn if :mod:`.split_fft` rewrote fewer Fourier units than promised.

        Args:
            found: The number of Fourier units that were rewritten.
            height: The images' height in pixels.
            width: The images' width in pixels.
        """
        expected = count_split_units(self._manifest, height, width)
        self._check("Fourier units to split", found, expected, "large images take longer")

    def check_units(self, found: int, height: int, width: int, *, half: bool) -> None:
        """Warn if :mod:`.channels_last` rewrote fewer Fourier units than promised.

        Args:
            found: The number of Fourier units that were rewritten.
            height: The images' height in pixels.
            width: The images' width in pixels.
            half: Whether the model computes in a half type, in which no unit is split.
        """
        split_units = 0 if half else count_split_units(self._manifest, height, width)
        expected = count_units(self._manifest) - split_units
        self._check("Fourier units without reorders", found, expected, "the other units take longer")

    def check_products(self, found: int) -> None:
        """Warn if :mod:`.pixel_products` rewrote fewer Fourier units than promised.

        Args:
            found: The number of Fourier units that were rewritten.
        """
        expected = count_units(self._manifest)
        self._check("Fourier units as products of pixels", found, expected, "the other units take longer")

    def check_winograd(self, found: int) -> None:
        """Warn if :mod:`.winograd`, or ONNX Runtime's rewrite of this name, finds fewer convolutions than promised.

        Args:
            found: The number of convolutions that were found.
        """
        expected = count_winograd_convolutions(self._manifest, self._fp32_layers)
        self._check("convolutions for Winograd's method", found, expected, "the others take longer")

    def _check(self, layers: str, found: int, expected: int, cost_of_it: str) -> None:
        if found >= expected or layers in self._missing:
            return
        self._missing.add(layers)
        report_missing(
            f"{self._path}: the graph has {found} {layers}, its manifest promises {expected}; {cost_of_it}, the image "
            "is the same; export the bundle again to make it as fast as it can be"
        )


def report_missing(message: str) -> None:
    """Log what a graph lacks. Tests put a failure in this function's place.

    Args:
        message: The warning, one line.
    """
    log.warning("%s", message)
