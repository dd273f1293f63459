"""An engine is run on its device before it comes into a bundle: over a CUDA driver and a TensorRT in memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.cuda_runtime import MemoryRuntime
from fakes.tensorrt_runtime import MemoryTensorRT
from glama_deploy import memory
from glama_deploy.bundle import Bundle, DeviceCheck, SizeRange
from glama_deploy.cli.build import main
from glama_deploy.engines.tensorrt import device_check, gpus
from glama_deploy.engines.tensorrt.device_check import list_corners
from glama_deploy.engines.tensorrt.register import register_engine
from glama_deploy.errors import EngineError
from glama_deploy.runtime.cuda.cuda_python import CudaPythonDevice
from glama_deploy.runtime.tensorrt import runner as tensorrt

SMALL = SizeRange(min=(64, 64), opt=(64, 64), max=(96, 96), max_batch=2)
LARGE = SizeRange(min=(64, 64), opt=(128, 128), max=(160, 192), max_batch=2)


@pytest.fixture
def bundle(tiny, make_bundle, tmp_path) -> Bundle:
    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "bundle")
    return Bundle.open(tmp_path / "bundle")


@pytest.fixture
def device(monkeypatch) -> Any:
    """A function that makes this a machine with a GPU and TensorRT in memory, and gives both."""

    def make(*, room: int = 1 << 30, **trt: Any) -> tuple[MemoryRuntime, MemoryTensorRT]:
        cuda = MemoryRuntime(room)
        fake = MemoryTensorRT(cuda, (SMALL, LARGE), **trt)
        monkeypatch.setitem(sys.modules, "tensorrt", fake.module("tensorrt", "10.3.0"))
        monkeypatch.setattr(gpus, "find_local_capability", lambda: "8.9")
        for module in (device_check, tensorrt):
            monkeypatch.setattr(module, "open_device", lambda index=None: CudaPythonDevice(cuda))
        return cuda, fake

    return make


@pytest.fixture
def engine_file(bundle, tmp_path) -> Path:
    """An engine of TensorRT in memory: its ONNX model."""
    return Path(shutil.copy(bundle.path / "model.onnx", tmp_path / "trtexec.engine"))


def patch_memory(monkeypatch: pytest.MonkeyPatch, fits: Callable[[int], bool]) -> None:
    """Let the check find memory free that fits; other code finds what the machine has."""
    monkeypatch.setattr(device_check, "memory", SimpleNamespace(estimate=memory.estimate, fits=fits))


def checked(bundle: Bundle) -> DeviceCheck:
    found = Bundle.open(bundle.path).manifest.engines["tensorrt"].device_check
    assert found is not None
    return found


def test_a_right_engine_is_registered_with_what_was_measured(bundle, engine_file, device):
    cuda, trt = device()
    register_engine(bundle, "trt", engine_file)
    found = checked(bundle)
    assert found.measured
    assert found.passed
    assert found.gpu == "Memory GPU"
    sizes = ("64x64", "64x64, batch 2", "96x96", "104x104", "104x104, batch 2", "128x128", "160x192")
    assert found.cases == sizes
    assert not found.not_checked
    assert found.max_abs_error < 1e-6  # the engine in memory and the reference are one program on one CPU
    assert trt.calls.count("execute") == 2 * len(sizes)  # a plain run, a capture; the third run replays
    assert cuda.names().count("launch") == 2 * len(sizes)
    assert not cuda.leaked
    assert {path.name for path in (bundle.path / "tensorrt").iterdir()} == {"model.engine"}


@pytest.mark.parametrize(
    ("fault", "worst"),
    [
        ({"wrong_profiles": (1,)}, r"(104|128|160)x\d+(, batch 2)?, .* run"),
        ({"wrong_replays": True}, ".*, repeated run"),
    ],
)
def test_an_engine_that_computes_wrong_values_is_refused_and_the_bundle_is_as_it_was(
    bundle, engine_file, device, fault, worst
):
    cuda, _ = device(**fault)
    before = (bundle.path / "manifest.json").read_bytes()
    says = (
        r"^the engine runs, and its output differs from ONNX Runtime's on this machine \(by 0\.\d+ where at most \S+ "
        rf"is expected in fp32; worst at {worst}\), so it is not registered; try `profiles=one` or a bundle that is "
        r"exported with `size`$"
    )
    with pytest.raises(EngineError, match=says):
        register_engine(bundle, "trt", engine_file)
    assert (bundle.path / "manifest.json").read_bytes() == before
    assert not (bundle.path / "tensorrt").exists()
    assert not cuda.leaked


def test_the_command_says_what_was_checked_and_can_leave_it_out(bundle, engine_file, device, capsys):
    cuda, _ = device(wrong_profiles=(0, 1))
    command = [str(bundle.path), "--target", "trt", "--engine", str(engine_file)]
    assert main.run(command) == 4
    assert "try --profiles one or a bundle that is exported with --size" in " ".join(capsys.readouterr().err.split())
    assert main.run([*command, "--no-check"]) == 0
    assert "tensorrt: not checked on this device: not asked for" in capsys.readouterr().out
    assert checked(bundle) == DeviceCheck(measured=False, reason="not asked for")
    assert "execute" not in cuda.names()
    device()
    assert main.run(command) == 0
    assert "tensorrt: checked on Memory GPU: 7 sizes, largest error" in capsys.readouterr().out


def test_sizes_that_do_not_fit_into_memory_are_left_out_by_name(bundle, engine_file, device, monkeypatch):
    device(room=1_800_000)  # enough for 128x128
    network = bundle.manifest.network
    most = memory.estimate(128, 128, network)
    patch_memory(monkeypatch, lambda needed: needed <= most)
    register_engine(bundle, "trt", engine_file)
    found = checked(bundle)
    assert found.cases == ("64x64", "64x64, batch 2", "96x96", "104x104", "128x128")
    assert [each.partition(":")[0] for each in found.not_checked] == ["104x104, batch 2", "160x192"]
    assert all("ONNX Runtime needs about" in each for each in found.not_checked)
    patch_memory(monkeypatch, lambda needed: True)
    register_engine(Bundle.open(bundle.path), "trt", engine_file)
    assert any(each.startswith("160x192: TensorRT") and "no memory" in each for each in checked(bundle).not_checked)


@pytest.mark.parametrize("missing", ["GPU", "ONNX Runtime", "room"])
def test_what_is_missing_for_the_check_stands_in_the_manifest(bundle, engine_file, device, monkeypatch, missing):
    device()
    reason = f"{missing} is not here"

    def refuse(*arguments: Any) -> None:
        raise EngineError(reason)

    if missing == "room":
        patch_memory(monkeypatch, lambda needed: False)
        reason = "no size could be checked (64x64: ONNX Runtime needs about"
    else:
        name = "open_device" if missing == "GPU" else "open_reference"
        monkeypatch.setattr(device_check, name, refuse)
    register_engine(bundle, "trt", engine_file)
    found = checked(bundle)
    assert not found.measured
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason


def test_profiles_are_checked_at_the_sizes_that_the_runtime_gives_them():
    assert list_corners((SMALL,)) == [(1, (64, 64)), (2, (64, 64)), (1, (96, 96))]
    for _, size in list_corners((SMALL, LARGE))[3:]:
        assert tensorrt.find_tightest_profile((SMALL, LARGE), 1, *size) == 1
    apart = SizeRange(min=(128, 128), opt=(128, 128), max=(256, 256))
    assert all(size >= (128, 128) for _, size in list_corners((SMALL, apart))[3:])
    static = SizeRange(min=(64, 96), opt=(64, 96), max=(64, 96), max_batch=1)
    assert list_corners((static,)) == [(1, (64, 96))]
