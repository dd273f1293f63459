"""The Dockerfiles of examples/docker: what hadolint (`make lint`) does not check."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from glama_deploy.cli.subcommands import SUBCOMMANDS

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples" / "docker").glob("*.Dockerfile"))


def read_instructions(file: Path) -> list[tuple[str, str]]:
    """Return each instruction with its arguments, in order."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def instructions(request) -> list[tuple[str, str]]:
    return read_instructions(request.param)


def test_there_is_a_dockerfile_for_each_kind_of_machine():
    assert [file.name for file in FILES] == ["cpu.Dockerfile", "cuda.Dockerfile", "jetson.Dockerfile"]


def test_the_base_image_has_an_exact_tag(instructions):
    (base,) = [rest for name, rest in instructions if name == "FROM"]
    assert re.fullmatch(r"[\w./-]+:r?\d+\.\d+\.\d+[\w.-]*", base)


def test_the_doctor_and_the_container_run_without_root(instructions):
    users = [position for position, (name, _) in enumerate(instructions) if name == "USER"]
    assert [instructions[position][1] for position in users] == ["1000"]
    assert users[0] < instructions.index(("RUN", "glama doctor"))


def test_pip_installs_the_versions_that_this_project_was_tested_with(instructions):
    (line,) = [rest for name, rest in instructions if name == "RUN" and "pip install" in rest]
    (constraints,) = re.findall(r"-c /source/(\S+)", line)
    assert (ROOT / constraints).is_file()
    assert "--no-cache-dir" in line


def test_the_health_check_asks_the_server_that_is_started(instructions):
    found = dict(instructions)
    assert json.loads(found["ENTRYPOINT"]) == ["glama"]
    command = json.loads(found["CMD"])
    assert command[0] in SUBCOMMANDS
    assert f"127.0.0.1:{found['EXPOSE']}/readyz" in found["HEALTHCHECK"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_comments_of_a_file_name_itself_and_commands_that_exist(file):
    comments = re.sub(r" *\\\n# *", " ", "".join(re.findall(r"^#.*\n", file.read_text(encoding="utf-8"), re.MULTILINE)))
    assert f"docker build -f {file.relative_to(ROOT)} " in comments
    used = re.findall(rf"docker run .*glama:{file.name.partition('.')[0]}(?: +(\w+))?", comments)
    assert used
    assert {command for command in used if command} <= set(SUBCOMMANDS)
