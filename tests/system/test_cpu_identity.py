"""What the CPU is: Linux's file, and archspec, which asks the CPU itself where there is no such file."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from glama_deploy.system import cpu, cpu_identity

CPUINFO = Path("/proc/cpuinfo")

#: Features that decide what engines do, and that archspec 0.2.7 does not list.
NOT_LISTED = {"avx_ne_convert", "avx_vnni_int8"}

ARM = """processor\t: 0
Features\t: fp asimd evtstrm bf16 i8mm
CPU implementer\t: 0x41

Hardware\t: NVIDIA Jetson
"""


def test_a_file_of_linux_on_arm_is_read(tmp_path):
    (tmp_path / "cpuinfo").write_text(ARM, encoding="utf-8")
    found = cpu_identity.read_cpuinfo(tmp_path / "cpuinfo")
    assert found == cpu_identity.CpuIdentity("NVIDIA Jetson", "", frozenset(["fp", "asimd", "evtstrm", "bf16", "i8mm"]))


def test_without_the_file_nothing_is_known(tmp_path):
    found = cpu_identity.read_cpuinfo(tmp_path / "none")
    assert (found.maker, found.features) == ("", frozenset())


@pytest.mark.skipif(not CPUINFO.is_file() or not cpu.is_x86(), reason="the CPU is compared with Linux's file on x86")
def test_archspec_finds_what_linux_finds(monkeypatch):
    """archspec runs the instruction cpuid, as on Windows. A hypervisor may hide features from both alike."""
    from archspec.cpu import detect, host

    monkeypatch.setattr(detect, "INFO_FACTORY", {platform.system(): [detect.cpuid_info]})
    host.cache_clear()
    expected, found = cpu_identity.read_cpuinfo(CPUINFO), cpu_identity.ask_archspec()
    host.cache_clear()
    governed = cpu._GOVERNED - NOT_LISTED
    assert found.features & governed == expected.features & governed
    assert found.maker == expected.maker
    assert found.model.split()[0] == expected.model.split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no such file")
def test_linux_reads_its_file():
    assert cpu_identity.read_identity() == cpu_identity.read_cpuinfo(CPUINFO)
