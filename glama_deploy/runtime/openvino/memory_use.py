"""The memory that OpenVINO needs to inpaint an image. benchmarks/speed/scale.py measures it."""

from __future__ import annotations

from glama_deploy import memory
from glama_deploy.network import NetworkConfig
from glama_deploy.system import cpu

#: Feature maps that exist at once, at most, by the bytes of a value. In fp32 on AVX2 4.44 were measured on 2026-11-29
#: (2 cores, EPYC Zen 3, OpenVINO 2026.4.1), and 4.2 with AVX-512.
_PEAK_FEATURE_MAPS = {4: 4.5, 2: 3.3}

#: The same without AVX2, where convolutions need a copy of their input for each kernel position. 7.6 were measured with
#: ONEDNN_MAX_CPU_ISA=SSE41.
_PEAK_FEATURE_MAPS_WITHOUT_AVX2 = 7.7

#: Factor by which the estimate exceeds the measurement. Layouts of feature maps depend on the CPU's vectors, and the
#: allocator rounds up: between AVX-512 and AVX2 the measurements differ by 6 %.
_SAFETY_FACTOR = 1.1

#: Bytes of the primitives that OpenVINO keeps for later runs. `CPU_RUNTIME_CACHE_CAPACITY` is 16 (runner.py). An entry
#: takes 0.7 MB with the embedded network, 1.1 MB with LaMa.
PRIMITIVE_CACHE_BYTES = 18_000_000


def estimate_memory(height: int, width: int, network: NetworkConfig, batch: int, precision: str) -> int:
    """Estimate the memory that OpenVINO needs on this CPU, at most, to inpaint images of one size.

    Args:
        height: height of the images in pixels, padded.
        width: width of the images in pixels, padded.
        network: the network's configuration.
        batch: number of images at once.
        precision: what OpenVINO computes in, as `Runner.precision` says.

    Returns:
        Bytes beside the weights.
    """
    feature_maps = _PEAK_FEATURE_MAPS_WITHOUT_AVX2
    if not cpu.lacks_avx2():
        feature_maps = _PEAK_FEATURE_MAPS[memory.count_value_bytes(precision)]
    measured = memory.estimate(height, width, network, batch, precision, feature_maps)
    return round(_SAFETY_FACTOR * measured + PRIMITIVE_CACHE_BYTES)
