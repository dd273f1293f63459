"""ONNX Runtime's WebGPU provider, run for real on a GPU in software: SwiftShader, the Vulkan driver of Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glama_deploy.bundle import Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.export.samples import SAMPLE
from glama_deploy.runtime import torch as torch_runtime
from glama_deploy.runtime.base import Request, installed
from glama_deploy.runtime.choice import open_bundle
from glama_deploy.runtime.devices import CPU

#: Fills the scenes of an .npz with a bundle on WebGPU, in a process of its own: the Vulkan loader reads its environment
#: once. `strict` makes ONNX Runtime refuse a session in which a node is left to the CPU.
_FILL = """
import json, logging, sys
import numpy as np, onnxruntime
from pathlib import Path
from glama_deploy.bundle import Bundle
from glama_deploy.errors import EngineError
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.choice import open_bundle

bundle, scenes, out, precision, strict = sys.argv[1:]
if strict == "strict":
    class Options(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    onnxruntime.SessionOptions = Options
logging.getLogger("glama_deploy").addHandler(handler := logging.StreamHandler(sys.stdout))
try:
    runner = open_bundle(Bundle.open(Path(bundle)), "onnxruntime:webgpu", Request(precision))
except EngineError as error:
    sys.exit(f"refused: {error}")
given = np.load(scenes)
results = {str(n): runner.run(given[f"image{n}"], given[f"mask{n}"]) for n in range(len(given) // 2)}
np.savez(out, **results)
print(json.dumps([runner.description, runner.device, runner.precision, runner.takes_windows]))
"""

Scene = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def driver() -> dict[str, str]:
    """The environment in which Vulkan has SwiftShader as its only driver."""
    if not installed("onnxruntime_ep_webgpu"):
        pytest.skip("onnxruntime-ep-webgpu is not installed (Python 3.11 or later)")
    program = shutil.which("chromium")
    folders = [Path("/usr/lib/chromium"), *([Path(program).resolve().parent] if program else [])]
    found = [folder for folder in folders if (folder / "vk_swiftshader_icd.json").is_file()]
    if not found:
        pytest.skip("no SwiftShader here (Debian: apt-get install chromium)")
    manifest = str(found[0] / "vk_swiftshader_icd.json")
    return {
        **os.environ,
        "VK_DRIVER_FILES": manifest,
        "VK_ICD_FILENAMES": manifest,
        "LD_LIBRARY_PATH": str(found[0]),  # it has a Vulkan loader, too
        "XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR") or "/tmp",
        "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
    }


@pytest.fixture
def fill(driver, tmp_path):
    """A function that fills scenes on the GPU and returns the results, the runner's description, and what was said."""

    def run(
        bundle: Bundle, scenes: list[Scene], precision: str = "auto", strict: str = "", **changes: str
    ) -> tuple[list[np.ndarray], list[Any], str]:
        arrays = {
            f"{kind}{n}": x for n, scene in enumerate(scenes) for kind, x in zip(("image", "mask"), scene, strict=True)
        }
        np.savez(tmp_path / "scenes.npz", **arrays)
        given = [str(bundle.path), str(tmp_path / "scenes.npz"), str(tmp_path / "out.npz"), precision, strict]
        done = subprocess.run(
            [sys.executable, "-c", _FILL, *given], env={**driver, **changes}, capture_output=True, text=True
        )
        if done.returncode:
            return [], [], done.stderr
        found = np.load(tmp_path / "out.npz")
        *said, described = done.stdout.splitlines()
        return [found[str(n)] for n in range(len(scenes))], json.loads(described), "\n".join(said)

    return run


def make_scene(height: int, width: int, io: str = "float") -> Scene:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, height, width, 3)).astype(np.uint8)
    mask = (rng.random((1, height, width)) < 0.3).astype(np.uint8)
    if io == "uint8":
        return image, mask
    return (image.transpose(0, 3, 1, 2) / 255).astype(np.float32), mask[:, None].astype(np.float32)


@pytest.mark.slow
def test_the_embedded_network_is_within_the_bound_of_parity_with_all_nodes_on_the_gpu(fill, make_bundle):
    bundle = make_bundle("default", ("onnx",), size=(64, 64))
    scene = make_scene(64, 64)
    (result,), described, said = fill(bundle, [scene], strict="strict")
    assert described[1:] == ["gpu", "fp32", False]
    assert "WebGPU fp32" in described[0]
    assert said == ""
    reference = torch_runtime.open(formats.read("default"), Request(device=CPU))
    np.testing.assert_allclose(result, reference.run(*scene), rtol=0, atol=2e-5)  # the bound of parity in fp32


@pytest.mark.slow
def test_bytes_stay_on_the_gpu_with_a_split_fft(fill, tiny, make_bundle):
    bundle = make_bundle(tiny, ("onnx",), size=(64, 64), fft="split", io="uint8")
    scene = make_scene(64, 64, "uint8")
    (result,), _, _ = fill(bundle, [scene], strict="strict")
    usual = open_bundle(bundle, "onnxruntime:cpu").run(*scene)
    assert np.abs(result.astype(int) - usual).max() <= 1  # a level, where a sum is near a half


@pytest.mark.slow
def test_a_graph_of_any_size_keeps_its_digits(fill, tiny, make_bundle):
    """The bases of its FFTs, from the GPU's sines and cosines, would cost this network the bound of parity."""
    bundle = make_bundle(tiny, ("onnx",))
    scene = make_scene(72, 96)
    (result,), described, _ = fill(bundle, [scene])
    assert described[3]  # it takes windows
    usual = open_bundle(bundle, "onnxruntime:cpu").run(*scene)
    # measured: 5e-7 with the CPU's bases, 4e-5 with the GPU's
    np.testing.assert_allclose(result, usual, rtol=0, atol=2e-6)


def test_without_fp16_on_the_gpu_auto_takes_the_fp32_graph_and_says_so(fill, tiny, make_bundle):
    """SwiftShader does not have the feature shader-f16."""
    bundle = make_bundle(tiny, ("onnx",), precision="fp16", size=(64, 64))
    _, described, said = fill(bundle, [])
    assert described[2] == "fp32"
    assert "the GPU does not compute in fp16 (no feature shader-f16)" in said
    _, _, error = fill(bundle, [], precision="fp16")
    assert error.splitlines()[-1].startswith("refused: ONNX Runtime has a WebGPU provider but it does not start here: ")
    assert "take `precision` fp32" in error


def test_a_machine_without_an_adapter_is_one_line_with_a_remedy(fill, tiny_bundle):
    nothing = {"VK_DRIVER_FILES": "/nothing.json", "VK_ICD_FILENAMES": "/nothing.json"}
    _, _, error = fill(tiny_bundle, [], **nothing)
    assert error.splitlines()[-1] == (
        "refused: ONNX Runtime has a WebGPU provider but it does not start here: no WebGPU adapter; install the GPU's "
        "driver (on Linux with Vulkan), or take another `backend`"
    )


def test_a_driver_that_computes_on_the_cpu_is_not_taken_unless_the_user_allows_it(driver, tiny_bundle, tmp_path):
    listed = subprocess.run(
        [sys.executable, "-c", "import onnxruntime as o; print(*{d.device.type.name for d in o.get_ep_devices()})"],
        capture_output=True,
        text=True,
        check=True,
    )
    if "GPU" in listed.stdout:
        pytest.skip("ONNX Runtime lists a GPU here")
    folder, filled = tmp_path / "photos", tmp_path / "filled.png"
    folder.mkdir()
    command = [sys.executable, "-m", "glama_deploy", "inpaint", str(SAMPLE), str(filled), "--box", "9,9,20,20"]
    command += ["--model", str(tiny_bundle.path), "--backend", "onnxruntime:webgpu"]
    environment = {name: value for name, value in driver.items() if not name.startswith("ORT_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "ONNX Runtime's WebGPU provider finds no device here; install the GPU's driver" in line
    assert not filled.exists()
