"""What is fast on a CPU, by the features that its system lists."""

from __future__ import annotations

import pytest

from glama_deploy.runtime.openvino import precision
from glama_deploy.system import cpu


@pytest.mark.parametrize(
    ("features", "in_fp32", "in_bf16"),
    [
        ({"avx2"}, True, True),
        ({"avx512f", "avx512_bf16"}, True, True),
        ({"avx512f", "avx512_bf16", "amx_bf16"}, True, False),
        (set(), True, False),  # Windows and macOS list none, and the CPU may have matrix units
    ],
)
def test_a_half_type_has_costly_products_where_the_cpu_is_known_to_lack_matrix_units(
    monkeypatch, features, in_fp32, in_bf16
):
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(cpu, "features", lambda: frozenset(features))
    assert precision.has_costly_products("fp32") is in_fp32
    assert precision.has_costly_products("bf16") is in_bf16
    monkeypatch.setattr(cpu.platform, "machine", lambda: "arm64")
    assert not precision.has_costly_products("fp32")
