"""The memory that nested control groups leave, read from made-up trees of both versions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glama_deploy import memory
from glama_deploy.system import cgroups

MOUNT = "30 23 0:26 {mounted} {point} rw,nosuid - {kind} {kind} rw{options}\n"


def group(folder: Path, limit: object, usage: int, inactive: int = 0, version: int = 2, **stat: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, usage), strict=True):
        (folder / name).write_text(f"{value}\n", encoding="ascii")
    stat["inactive_file" if version == 2 else "total_inactive_file"] = inactive
    text = "anon 200\n" + "".join(f"{name} {value}\n" for name, value in stat.items())
    (folder / "memory.stat").write_text(text, encoding="ascii")


def process(root: Path, group: str, *mounts: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group, encoding="utf-8")
    (root / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(mounts), "utf-8")


def mount(kind: str, point: str, mounted: str = "/", options: str = "") -> str:
    return MOUNT.format(kind=kind, point=point, mounted=mounted, options=options)


def test_version_2_takes_the_tightest_of_the_groups_above(tmp_path):
    process(tmp_path, "0::/user/shop/job\n", mount("cgroup2", "/sys/fs/cgroup"))
    top = tmp_path / "sys/fs/cgroup"
    group(top / "user/shop/job", "max", 50)
    group(top / "user/shop", 1000, 900, inactive=600)  # files in its cache count as free
    group(top / "user", 5000, 4500)
    assert cgroups.free_memory(tmp_path) == 500
    group(top / "user/shop/job", 400, 50)
    assert cgroups.free_memory(tmp_path) == 350
    group(top / "user/shop/job", 40, 50)
    assert cgroups.free_memory(tmp_path) == 0


def test_the_limit_above_which_a_group_is_slowed_down_counts(tmp_path):
    process(tmp_path, "0::/job\n", mount("cgroup2", "/sys/fs/cgroup"))
    job = tmp_path / "sys/fs/cgroup/job"
    group(job, "max", 400)
    (job / "memory.high").write_text("1000\n", encoding="ascii")
    assert cgroups.free_memory(tmp_path) == 600
    (job / "memory.stat").write_text("inactive_file odd\n", encoding="ascii")
    assert cgroups.free_memory(tmp_path) == 600


def test_version_1_reads_the_memory_controllers_group(tmp_path):
    line = "9:cpu,cpuacct:/other\n4:memory:/shop/job\n0::/elsewhere\n"
    process(
        tmp_path, line, mount("cgroup", "/cg/memory", options=",memory"), mount("cgroup", "/cg/cpu", options=",cpu")
    )
    group(tmp_path / "cg/memory/shop/job", 2**63 - 4096, 10, version=1)
    group(tmp_path / "cg/memory/shop", 1000, 700, inactive=100, version=1)
    group(tmp_path / "cg/cpu/other", 1, 1, version=1)
    assert cgroups.free_memory(tmp_path) == 400
    # of a limit above what is mounted only the group's own statistics know
    group(tmp_path / "cg/memory/shop/job", 2**63 - 4096, 10, version=1, hierarchical_memory_limit=300)
    assert cgroups.free_memory(tmp_path) == 290


@pytest.mark.parametrize(
    ("path", "mounted"),
    [
        ("/docker/a1", "/docker/a1"),  # without a namespace, the container's own group is mounted
        ("/", "/"),  # with one
        ("/../../outside", "/"),  # a process that was moved into the namespace
    ],
)
def test_a_container_sees_its_own_group_at_the_mount(tmp_path, path, mounted):
    process(tmp_path, f"0::{path}\n", mount("cgroup2", "/sys/fs/cgroup", mounted))
    group(tmp_path / "sys/fs/cgroup", 1000, 300)
    assert cgroups.free_memory(tmp_path) == 700


def test_without_groups_or_limits_nothing_is_said(tmp_path):
    assert cgroups.free_memory(tmp_path) is None
    process(tmp_path, "0::/a\nnonsense\n", mount("cgroup2", "/sys/fs/cgroup"), "nonsense - \n")
    assert cgroups.free_memory(tmp_path) is None
    group(tmp_path / "sys/fs/cgroup/a", "max", 50)
    assert cgroups.free_memory(tmp_path) is None


@pytest.mark.parametrize("limited", ["system", "group", "process"])
def test_the_least_of_system_group_and_process_is_available(monkeypatch, limited):
    for name, function in (("system", "_of_system"), ("process", "_of_process")):
        monkeypatch.setattr(memory, function, lambda name=name: 100 if name == limited else 900)
    monkeypatch.setattr(memory.cgroups, "free_memory", lambda: 100 if limited == "group" else None)
    assert memory.available() == 100


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set as on Linux")
@pytest.mark.parametrize(("limit", "used"), [("RLIMIT_AS", "vms"), ("RLIMIT_DATA", "data")])
def test_a_limit_of_the_process_counts(limit, used):
    code = f"""
import resource, psutil
from glama_deploy import memory
held = psutil.Process().memory_info().{used}
resource.setrlimit(resource.{limit}, (held + 50_000_000, resource.RLIM_INFINITY))
print(memory.available())
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert 0 < int(child.stdout) <= 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set as on Linux")
def test_the_tighter_of_two_limits_of_the_process_counts():
    code = """
import resource, psutil
from glama_deploy import memory
held = psutil.Process().memory_info()
resource.setrlimit(resource.RLIMIT_AS, (held.vms + 90_000_000, resource.RLIM_INFINITY))
resource.setrlimit(resource.RLIMIT_DATA, (held.data + 40_000_000, resource.RLIM_INFINITY))
print(memory.available())
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert 0 < int(child.stdout) <= 40_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="held against /proc/meminfo")
def test_this_machines_own_number_is_plausible():
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    available = memory.available()
    assert available is not None
    assert 0 < available <= total
