"""Engines that are tried in processes of their own."""

from __future__ import annotations

import subprocess

import glama_deploy
from glama_deploy.doctor.probe import list_engines, probe_engine


def test_an_engine_that_runs_is_reported_as_load_describes_it():
    for name in ("openvino", "onnxruntime:cpu"):
        opened = glama_deploy.load("default", name)
        report = probe_engine(name)
        assert report.runs, report.reason
        assert (report.description, report.precisions) == (opened.description, opened.precisions)
        assert report.seconds is not None
        assert report.seconds > 0


def test_openvino_names_the_devices_that_it_finds():
    from glama_deploy.runtime.openvino.core import core

    devices = [f"{name} ({core().get_property(name, 'FULL_DEVICE_NAME')})" for name in core().available_devices]
    assert list(probe_engine("openvino").devices) == devices
    assert not probe_engine("onnxruntime:cpu").devices


def test_every_backend_and_provider_is_tried():
    assert list_engines() == [
        "onnxruntime:cpu",
        "onnxruntime:cuda",
        "onnxruntime:tensorrt",
        "onnxruntime:tensorrt-rtx",
        "onnxruntime:webgpu",
        "onnxruntime:directml",
        "onnxruntime:coreml",
        "onnxruntime:openvino",
        "openvino",
        "tensorrt",
        "tensorrt-rtx",
        "torch",
    ]


def put_package(folder, monkeypatch, text: str) -> None:
    """Put a package `tensorrt` before all others on the search path of new processes."""
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt" / "__init__.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_package_that_ends_the_process_is_named_with_the_signal(tmp_path, monkeypatch):
    put_package(tmp_path, monkeypatch, "import os, signal\nprint('before')\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    report = probe_engine("tensorrt")
    assert not report.runs
    assert "was ended by SIGSEGV" in report.reason
    assert "reinstall the engine's package" in report.reason


def test_a_package_that_ends_with_a_code_is_named_with_its_last_line(tmp_path, monkeypatch):
    put_package(
        tmp_path, monkeypatch, "import os, sys\nprint('no licence', file=sys.stderr, flush=True)\nos._exit(7)\n"
    )
    assert "ended with exit code 7 (no licence)" in probe_engine("tensorrt").reason


def test_a_crash_on_windows_is_named_as_windows_documents_it(monkeypatch):
    """0xc0000005 is STATUS_ACCESS_VIOLATION. A process on Linux cannot end with such a code."""
    ended = subprocess.CompletedProcess([], 0xC0000005, "", "the last line")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: ended)
    assert "ended with exit code 0xc0000005 (the last line)" in probe_engine("tensorrt").reason


def test_a_package_that_cannot_be_imported_is_told_with_its_reason(tmp_path, monkeypatch):
    put_package(tmp_path, monkeypatch, "raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    report = probe_engine("tensorrt")
    assert report.reason.startswith("TensorRT is installed but not usable (ImportError: libnvinfer.so.10: cannot open")


def test_files_of_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    assert "a file of the user" not in probe_engine("tensorrt").reason
