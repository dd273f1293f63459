"""The report of a machine, and the command that prints it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from glama_deploy.cli import doctor as command
from glama_deploy.doctor import report
from glama_deploy.doctor.report import Diagnosis, diagnose
from glama_deploy.system.processors import count_processors


def test_the_report_has_the_machine_and_the_packages(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = diagnose([])
    assert found.machine.cores == count_processors()
    assert found.machine.memory_bytes >= (found.machine.free_memory_bytes or 0) > 0
    assert found.packages["openvino"] == version("openvino")
    assert found.variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "avx512f" not in found.machine.features


def test_the_gpus_of_cuda_have_the_numbers_that_the_option_takes(monkeypatch, capsys):
    monkeypatch.setattr(report, "list_gpus", lambda: ("NVIDIA H100", "NVIDIA T4"))
    monkeypatch.setattr(command, "diagnose", lambda: diagnose([]))
    assert command.main.run([]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines if "cuda:" in line] == [
        ["cuda:0", "NVIDIA H100"],
        ["cuda:1", "NVIDIA T4"],
    ]


def test_a_target_whose_package_is_missing_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(report, "installed", lambda module: module not in ("onnx", "polygraphy", "tensorrt"))
    targets = {target.name: target for target in diagnose([]).targets}
    assert targets["onnx"].reason == "onnx is not installed; pip install 'glama-deploy[export]'"
    expected = "onnx, tensorrt and polygraphy are not installed; pip install 'glama-deploy[export,tensorrt]'"
    assert targets["trt"].reason == expected
    assert not targets["web"].builds


def test_a_site_needs_npm(monkeypatch):
    monkeypatch.setenv("PATH", "")
    site = next(target for target in diagnose([]).targets if target.name == "web")
    assert "npm, which fetches onnxruntime-web, is not installed" in site.reason


def test_the_report_itself_imports_no_engine():
    program = (
        "import sys\nfrom glama_deploy.doctor.report import diagnose\ndiagnose([])\n"
        "print({'torch', 'openvino', 'onnxruntime', 'onnx'} & set(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout == "set()\n"


@pytest.fixture
def one_engine(monkeypatch):
    """The command tries OpenVINO alone."""
    monkeypatch.setattr(command, "diagnose", lambda: diagnose(["openvino", "nosuch"]))


def test_the_command_prints_the_report_for_people(one_engine, capsys):
    assert command.main.run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("CPU ") for line in lines)
    assert any(line.split()[:2] == ["openvino", "runs:"] for line in lines)
    assert any(line.split()[:4] == ["nosuch", "does", "not", "run:"] for line in lines)


def test_the_command_prints_the_report_for_programs(one_engine, capsys):
    assert command.main.run(["--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = Diagnosis.model_validate_json(captured.out)
    assert [engine.runs for engine in found.engines] == [True, False]


def test_a_machine_without_an_engine_gives_exit_code_4(monkeypatch, capsys):
    monkeypatch.setattr(command, "diagnose", lambda: diagnose(["nosuch"]))
    assert command.main.run([]) == 4
