"""The CPU's features, as `ONEDNN_MAX_CPU_ISA` leaves them."""

from __future__ import annotations

import pytest

from glama_deploy.system import cpu

#: A CPU with all that this package asks for.
EVERYTHING = cpu._GOVERNED | {"sse4_1"}


@pytest.fixture(autouse=True)
def new_cpu(monkeypatch):
    monkeypatch.setattr(cpu, "_read_features", lambda: EVERYTHING)
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "_read_maker", lambda: "GenuineIntel")
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("level", "on", "off"),
    [
        ("SSE41", {"sse4_1"}, {"avx", "avx2", "avx512_vnni"}),
        ("AVX2", {"avx2"}, {"avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16"}),
        ("avx2_vnni", {"avx2", "avx_vnni"}, {"avx512f", "avx512_bf16"}),
        ("AVX512_CORE", {"avx2", "avx512f"}, {"avx512_vnni", "avx512_bf16"}),
        ("AVX512_CORE_BF16", {"avx512_vnni", "avx512_bf16"}, {"amx_bf16", "avx512_fp16"}),
        ("AVX512_CORE_AMX", {"amx_bf16", "avx512_bf16"}, set()),
        ("no such level", {"amx_bf16"}, set()),
    ],
)
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_level_leaves_the_features_of_an_older_cpu(monkeypatch, name, level, on, off):
    monkeypatch.setenv(name, level)
    assert on <= cpu.features()
    assert not off & cpu.features()


@pytest.mark.parametrize(("level", "is_off"), [("AVX2", True), ("AVX512_CORE_BF16", False), ("", False)])
def test_bf16_is_off_below_its_level(monkeypatch, level, is_off):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", level)
    assert cpu.is_half_switched_off("bf16") is is_off
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    assert not cpu.is_half_switched_off("bf16")


@pytest.mark.parametrize(
    ("feature", "bf16_is_off", "fp16_is_off"),
    [("avx512_bf16", True, False), ("avx512_fp16", False, True), ("avx_ne_convert", False, False)],
)
def test_a_level_switches_a_half_type_off_where_the_cpu_has_the_type_by_other_instructions(
    monkeypatch, feature, bf16_is_off, fp16_is_off
):
    """AVX2_VNNI_2 leaves the half types of CPUs with `avx_ne_convert` alone."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2_VNNI_2")
    monkeypatch.setattr(cpu, "_read_features", lambda: frozenset({"avx", "avx2", "avx512f", feature}))
    assert cpu.is_half_switched_off("bf16") is bf16_is_off
    assert cpu.is_half_switched_off("fp16") is fp16_is_off


def test_a_level_switches_half_types_off_where_the_system_lists_no_features(monkeypatch):
    monkeypatch.setattr(cpu, "_read_features", frozenset)
    assert not cpu.is_half_switched_off("bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert cpu.is_half_switched_off("bf16")


def test_avx2_is_missed_below_its_level_and_on_older_cpus_alone(monkeypatch):
    assert not cpu.lacks_avx2()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX")
    assert cpu.lacks_avx2()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(cpu, "_read_features", lambda: frozenset({"avx"}))
    assert cpu.lacks_avx2()
    monkeypatch.setattr(cpu, "_read_features", lambda: frozenset())  # another system than Linux
    assert not cpu.lacks_avx2()


def test_half_types_are_slow_on_intels_newer_cpus_without_matrix_units_alone(monkeypatch):
    assert not cpu.has_slow_half_types()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
    assert cpu.has_slow_half_types()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(cpu, "_read_features", lambda: EVERYTHING - {"amx_tile", "amx_int8", "amx_bf16", "amx_fp16"})
    assert cpu.has_slow_half_types()
    monkeypatch.setattr(cpu, "_read_features", lambda: frozenset({"avx512f", "avx512_bf16"}))  # Cooper Lake
    assert not cpu.has_slow_half_types()


def test_half_types_are_not_slow_on_other_makers_cpus(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")
    monkeypatch.setattr(cpu, "_read_maker", lambda: "AuthenticAMD")
    assert not cpu.has_slow_half_types()
