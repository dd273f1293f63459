"""The memory that OpenVINO needs to inpaint an image, by the form of the model.

A model of one size knows all sizes of its feature maps, and OpenVINO lays the maps into one block: the most that are
alive at once. A model of any size forms sets of maps from the order of the layers alone. benchmarks/speed/scale.py
measures both, and benchmarks/RESULTS-COSTS.md has the figures.
"""

from __future__ import annotations

from functools import lru_cache

from glama_deploy import feature_maps, memory
from glama_deploy.network import NetworkConfig, parameter_count
from glama_deploy.runtime.openvino.rewrites import strips
from glama_deploy.system import cpu

#: Factor by which a model of any size exceeds the sets of :func:`glama_deploy.feature_maps.find_set_sum`: a map lives
#: on where OpenVINO waits for a size. With the window 1.4 (AVX2) to 1.62 (AVX-512) were measured with the embedded
#: network, and 1.64 with LaMa at 256x256, on 2026-11-30 (2 cores, EPYC Zen 4, OpenVINO 2026.4.1).
_SET_FACTOR = 1.9

#: The same factor for a decoder in strips, whose results so far keep some sets. LaMa at 2048x2048 took 2.5 GB in its
#: first run with a window of 30 %, and 3.77 GB with one of 95 % (two cores of an Intel Xeon, 2026-11-30, OpenVINO
#: 2026.4.1). The estimate has 1.1 times as much.
_STRIP_SET_FACTOR = 6

#: Bytes for each pixel, beside the feature maps, with which a half type computes the interpolated picture of `fill`.
_HALF_FILL_BYTES_PER_PIXEL = 128

#: Feature maps of full size and `ngf` channels that a CPU without AVX2 needs in addition: copies of a convolution's
#: input for the kernel positions. 3.1 were measured with ONEDNN_MAX_CPU_ISA=SSE41.
_COPIES_WITHOUT_AVX2 = 3.2

#: Factor by which the estimate exceeds the measurement. Layouts of feature maps depend on the CPU's vectors, and the
#: allocator rounds up: between AVX-512 and AVX2 the measurements differ by 6 %.
_SAFETY_FACTOR = 1.15

#: Bytes of the primitives that OpenVINO keeps for later runs. `CPU_RUNTIME_CACHE_CAPACITY` is 16 (runner.py). An entry
#: takes 0.7 MB with the embedded network, 1.1 MB with LaMa.
PRIMITIVE_CACHE_BYTES = 18_000_000

#: What the primitives of a model of any size take in addition, as a share of the fp32 weights.
_PRIMITIVE_WEIGHT_SHARE = 0.15

#: Bytes and copies of the fp32 weights that compiling a model of one size takes, by the bytes of a value. With LaMa 3.4
#: (fp32) and 2.5 (bf16) copies were measured together with these bytes, and with the embedded network 42 MB. Winograd's
#: method along both sides takes more in fp32: 7.5 copies were measured with LaMa on an Intel Xeon (820 MB, 256x256).
_COMPILE_BYTES, _COMPILE_WEIGHT_COPIES = 50_000_000, {4: 7.2, 2: 2.6}


def estimate_memory(
    height: int,
    width: int,
    network: NetworkConfig,
    batch: int,
    precision: str,
    *,
    has_own_model: bool = False,
    is_compiled: bool = False,
    window: tuple[int, int] | None = None,
) -> int:
    """Estimate the memory that OpenVINO needs on this CPU, at most, to inpaint images of one size.

    Args:
        height: height of the images in pixels, padded.
        width: width of the images in pixels, padded.
        network: the network's configuration.
        batch: number of images at once.
        precision: what OpenVINO computes in, as `Runner.precision` says.
        has_own_model: whether the size has a model of its own.
        is_compiled: whether the model of the size is compiled already.
        window: height and width of the window that the decoder computes, and that OpenVINO learns when it runs; None
            where the model has no window.

    Returns:
        Bytes beside the weights of the model of any size.
    """
    value_bytes = memory.count_value_bytes(precision)
    needed = 0.0
    for part, size in memory.list_stages(network, (height, width)):
        pixels = size[0] * size[1]
        decoded = window if part is network else None
        count = strips.count_strips(batch * pixels) if has_own_model and part is network else 1
        if has_own_model and decoded is not None:
            before, decoder = feature_maps.find_peak_with_window(part, size, value_bytes, decoded, count)
            needed += before + (_SET_FACTOR if count == 1 else _STRIP_SET_FACTOR) * decoder
        elif has_own_model:
            needed += feature_maps.find_peak(part, size, value_bytes)
        else:
            needed += _SET_FACTOR * feature_maps.find_set_sum(part, size, value_bytes, decoded)
        needed += memory.IO_BYTES_PER_PIXEL * pixels
        if part.fill is not None and value_bytes < 4:
            needed += _HALF_FILL_BYTES_PER_PIXEL * pixels
        if cpu.lacks_avx2():
            needed += _COPIES_WITHOUT_AVX2 * value_bytes * part.ngf * pixels
    return round(_SAFETY_FACTOR * batch * needed + _count_fixed_bytes(network, value_bytes, has_own_model, is_compiled))


def _count_fixed_bytes(network: NetworkConfig, value_bytes: int, has_own_model: bool, is_compiled: bool) -> float:
    """Return the bytes that do not depend on the size."""
    if not has_own_model:
        return PRIMITIVE_CACHE_BYTES + _PRIMITIVE_WEIGHT_SHARE * _count_weight_bytes(network)
    if is_compiled:
        return PRIMITIVE_CACHE_BYTES
    return _COMPILE_BYTES + _COMPILE_WEIGHT_COPIES[value_bytes] * _count_weight_bytes(network)


@lru_cache(maxsize=64)
def _count_weight_bytes(network: NetworkConfig) -> int:
    """Return the bytes of the weights in fp32."""
    return 4 * parameter_count(network)
