"""The power mode of a Jetson and the CPU's clock, as the files and the tool of a system say."""

from __future__ import annotations

from pathlib import Path

import pytest

from glama_deploy.system import power

#: Lines of the file that an Orin NX has.
MODES = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=12 NAME=25W >\n< PM_CONFIG DEFAULT=0 >\n"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A system without any of the files and without the tool."""
    for name in ("_RELEASE", "_STATUS", "_MODES", "_CLOCK", "_BOARD"):
        monkeypatch.setattr(power, name, tmp_path / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write_tool(root: Path, text: str) -> None:
    tool = root / "nvpmodel"
    tool.write_text(f"#!/bin/sh\n{text}\n")
    tool.chmod(0o755)


def test_a_machine_that_tells_nothing_has_no_description(root):
    assert power.describe_power() == {}


def test_the_tool_names_the_mode(root):
    write_tool(root, "[ \"$1\" = -q ] && printf 'NV Power Mode: MODE_15W\\n2\\n'")
    assert power.read_power_mode() == "MODE_15W"


@pytest.mark.parametrize(
    ("status", "modes", "mode"),
    [("pmode:0012", MODES, "25W"), ("pmode:0000", MODES, "MAXN"), ("pmode:0003", MODES, "mode 3"), ("", MODES, "")],
)
@pytest.mark.parametrize("tool", ["echo 'NVPM ERROR: permission denied' >&2; exit 1", None])
def test_the_files_name_the_mode_where_the_tool_does_not(root, status, modes, mode, tool):
    if tool is not None:
        write_tool(root, tool)
    (root / "_STATUS").write_text(status)
    (root / "_MODES").write_text(modes)
    assert power.read_power_mode() == mode


@pytest.mark.parametrize(
    ("files", "clock"),
    [
        (
            {"scaling_governor": "schedutil", "scaling_min_freq": "729600", "scaling_max_freq": "1510400"},
            "0.73 to 1.51",
        ),
        ({"scaling_governor": "performance", "scaling_min_freq": "1510400", "scaling_max_freq": "1510400"}, "fixed at"),
        ({"scaling_governor": "performance"}, "performance"),
    ],
)
def test_the_clock_is_the_governor_with_its_limits(root, files, clock):
    (root / "_CLOCK").mkdir()
    for name, text in files.items():
        (root / "_CLOCK" / name).write_text(f"{text}\n")
    found = power.read_cpu_clock()
    assert found.startswith(files["scaling_governor"])
    assert clock in found


def test_a_jetson_is_described_by_its_board_and_release(root):
    (root / "_BOARD").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    (root / "_RELEASE").write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n# KERNEL\n")
    assert power.describe_power() == {
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
        "Jetson Linux": "R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
    }
