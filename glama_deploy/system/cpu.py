"""The instruction sets of this machine's CPU, as far as the engines use them.

The variable `ONEDNN_MAX_CPU_ISA` keeps oneDNN, which OpenVINO and PyTorch compute with, to the instructions of an older
CPU. Its values are in oneDNN's guide, "CPU Dispatcher Control".
"""

from __future__ import annotations

import os
import platform

from glama_deploy.system.cpu_identity import read_identity

#: Features of a CPU that decide how fast a network runs, by Linux's names.
SPEED_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
)

#: The maker of Intel's CPUs.
_INTEL = "GenuineIntel"

#: Features that the variable switches off, by Linux's names.
_GOVERNED = frozenset(
    {"avx", "avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"}
    | {"avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"}
    | {"amx_tile", "amx_int8", "amx_bf16", "amx_fp16"}
)

#: Values of the variable, with the governed features that stay on. Other values switch nothing off that this package
#: asks for.
_LEVELS = {
    "SSE41": frozenset[str](),
    "AVX": frozenset({"avx"}),
    "AVX2": frozenset({"avx", "avx2"}),
    "AVX2_VNNI": frozenset({"avx", "avx2", "avx_vnni"}),
    "AVX2_VNNI_2": frozenset({"avx", "avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert"}),
    "AVX512_CORE": frozenset({"avx", "avx2", "avx512f"}),
    "AVX512_CORE_VNNI": frozenset({"avx", "avx2", "avx512f", "avx512_vnni"}),
    "AVX512_CORE_BF16": frozenset({"avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16"}),
    "AVX512_CORE_FP16": _GOVERNED - {"amx_tile", "amx_int8", "amx_bf16", "amx_fp16"},
}

#: Features of the matrix units that multiply a half type.
_MATRIX_UNITS = frozenset({"amx_bf16", "amx_fp16"})

#: Features with which a CPU computes in a half type. One of them suffices.
_HALF_FEATURES = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "avx_ne_convert"}),
}


def features() -> frozenset[str]:
    """Return the CPU's features that the engines may use.

    Returns:
        The features by Linux's names, for example `avx2`. The set is empty where the system does not list them.
    """
    return _read_features() - _list_switched_off()


def read_model() -> str:
    """Return the name of the CPU's model.

    Returns:
        The name, for example `AMD EPYC 9B14`. Empty where the system does not tell.
    """
    return read_identity().model


def is_x86() -> bool:
    """Return whether the CPU is an x86 CPU of 64 bits.

    Returns:
        True on x86-64, by whatever name the system calls it.
    """
    return platform.machine().lower() in ("x86_64", "amd64")


def lacks_avx2() -> bool:
    """Return whether OpenVINO computes without AVX2 on an x86 CPU.

    Returns:
        True without AVX2. False on other CPUs, and where the system does not list the features.
    """
    if not is_x86():
        return False
    return "avx2" in _list_switched_off() or (bool(_read_features()) and "avx2" not in features())


def is_half_switched_off(precision: str) -> bool:
    """Return whether `ONEDNN_MAX_CPU_ISA` keeps an x86 CPU from computing in a half type.

    Args:
        precision: `bf16` or `fp16`.

    Returns:
        True if all instructions of the type that the CPU has are switched off. A CPU whose system does not list the
        features counts as having all of them. False on other CPUs, and on CPUs without such instructions.
    """
    there = _HALF_FEATURES[precision] & (_read_features() or _GOVERNED)
    return is_x86() and bool(there) and there <= _list_switched_off()


def has_slow_half_types() -> bool:
    """Return whether this CPU computes in bf16 and fp16 more slowly than in fp32.

    Intel's CPUs with `avx512_fp16` (Sapphire Rapids and later) are made to multiply bf16 in their matrix units (AMX).
    Many virtual machines hide these units. Measured on an Emerald Rapids without AMX: LaMa takes 1.7 times as long in
    bf16 and in fp16 as in fp32 (benchmarks/RESULTS-PRECISION.md). AMD's CPUs with bf16 have no matrix units, and
    multiply bf16 twice as fast as fp32.

    Returns:
        True on such a CPU without matrix units, or where `ONEDNN_MAX_CPU_ISA` switches the units off.
    """
    return _read_maker() == _INTEL and "avx512_fp16" in _read_features() and features().isdisjoint(_MATRIX_UNITS)


def _list_switched_off() -> frozenset[str]:
    """Return the features that the variable switches off. oneDNN also reads the variable by its former name."""
    asked = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "").upper()
    return _GOVERNED - _LEVELS[asked] if asked in _LEVELS else frozenset()


def _read_features() -> frozenset[str]:
    return read_identity().features


def _read_maker() -> str:
    return read_identity().maker
