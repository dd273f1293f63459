"""At the edge there is no torch: importing, loading a bundle, inpainting and building an engine must work without it.

Each claim runs in a process in which any import of torch fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "lightning"):
            raise ModuleNotFoundError("No module named 'torch' (blocked)", name=name)
sys.meta_path.insert(0, Block())
"""

#: The onnx package is not there, either.
BLOCK_ONNX = BLOCK.replace('"torch", ', '"torch", "onnx", ')

#: As on a Jetson after the install of docs/tensorrt.md.
BLOCK_TOOLS = BLOCK.replace('"torch", ', '"torch", "onnx", "openvino", "cv2", "matplotlib", "tensorrt_rtx", ')


def run(code: str, *arguments: Path | str, block: str = BLOCK, **environment: str) -> str:
    """What the code prints; Python runs the block at the start of this process and of every one that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(block)
        child = subprocess.run(
            [sys.executable, "-c", "import sys\n" + code, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": folder, **environment},
        )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_the_block_blocks():
    with pytest.raises(AssertionError, match="blocked"):
        run("import torch")
    with pytest.raises(AssertionError, match="returned non-zero"):
        run("import subprocess; subprocess.run([sys.executable, '-c', 'import torch'], check=True)")


def test_importing_imports_no_engine_and_no_torch():
    loaded = run("import glama_deploy; glama_deploy.Inpainter; print(*sys.modules)").split()
    assert "glama_deploy.inpainting.inpainter" in loaded
    assert not {"torch", "onnx", "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx", "polygraphy"} & set(loaded)


def test_a_command_starts_without_an_import_that_takes_time():
    """A Ctrl-C is answered as early as that, without a traceback."""
    loaded = run("import glama_deploy.cli.start; print(*sys.modules)").split()
    assert "glama_deploy" in loaded
    assert not {"numpy", "pydantic", "typer", "rich", "PIL", "glama_deploy.runtime"} & set(loaded)


def test_a_command_that_fills_pictures_imports_nothing_of_videos_but_their_names():
    loaded = run("import glama_deploy.cli.inpaint; print(*sys.modules)").split()
    names = {"glama_deploy.video", "glama_deploy.video.options", "glama_deploy.video.sequences"}
    assert {name for name in loaded if name.startswith(("glama_deploy.video", "glama_deploy.cli.video"))} == names


def test_a_command_that_fills_a_picture_imports_nothing_of_clusters_and_assistants(tiny_bundle, photo, hole, tmp_path):
    for name, pixels in (("image", photo), ("mask", hole)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    code = "from glama_deploy.cli.inpaint import main; assert main.run(sys.argv[1:]) == 0; print(*sys.modules)"
    paths = (tmp_path / f"{name}.png" for name in ("image", "mask", "out"))
    loaded = run(code, *paths, "--model", tiny_bundle.path).split()
    foreign = {"ray", "fsspec", "pyarrow", "braceexpand", "mcp", "glama_deploy.ray"}
    assert foreign.isdisjoint(loaded)
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize("backend", ["auto", "openvino", "onnxruntime"])
def test_a_bundle_loads_and_inpaints(tiny_bundle, backend):
    code = """
import numpy, glama_deploy
inpainter = glama_deploy.load(sys.argv[1], sys.argv[2])
image, mask = numpy.zeros((40, 50, 3), numpy.uint8), numpy.zeros((40, 50), bool)
mask[10:20, 10:20] = True
assert (inpainter(image, mask)[~mask] == 0).all()
print(inpainter.backend)
"""
    assert run(code, tiny_bundle.path, backend).strip() == ("openvino" if backend == "auto" else backend)


def test_the_embedded_network_loads_and_inpaints():
    code = """
import numpy, glama_deploy
image, mask = numpy.full((64, 64, 3), 128, numpy.uint8), numpy.zeros((64, 64), bool)
mask[20:40, 20:40] = True
print(glama_deploy.load("default")(image, mask)[30, 30])
"""
    assert run(code)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_embedded_network_needs_no_onnx_package(tmp_path, backend):
    """The extras `openvino` and `onnxruntime` do not install the package. The cache is empty at first."""
    code = """
import numpy, glama_deploy
image, mask = numpy.random.default_rng(0).integers(0, 256, (64, 72, 3), numpy.uint8), numpy.zeros((64, 72), bool)
mask[20:40, 20:40] = True
inpainter = glama_deploy.load("default", sys.argv[1])
print(inpainter.backend, inpainter(image, mask).tolist())
"""
    without = run(code, backend, block=BLOCK_ONNX, GLAMA_CACHE=str(tmp_path / "without"))
    assert without.startswith(backend)
    assert run(code, backend, block=BLOCK_ONNX, GLAMA_CACHE=str(tmp_path / "without")) == without  # from the cache
    assert run(code, backend, GLAMA_CACHE=str(tmp_path / "with")) == without
    (kept,) = (tmp_path / "without" / "bundles").glob("[!.]*")
    assert sorted(path.name for path in kept.iterdir()) == ["manifest.json", "model.onnx", "openvino"]


@pytest.mark.parametrize("target", ["openvino", "trt-rtx"])
def test_an_engine_is_built_on_the_device(tiny, make_bundle, tmp_path, target):
    import shutil

    shutil.copytree(make_bundle(tiny, ("onnx",)).path, tmp_path / "bundle")
    code = """
from glama_deploy.cli.build import main
sys.exit(main.run([sys.argv[1], "--target", sys.argv[2]]))
"""
    assert "fp32" in run(code, tmp_path / "bundle", target)


@pytest.mark.slow
def test_engines_are_measured_without_torch_onnx_and_matplotlib(tiny_bundle, tmp_path):
    code = """
from glama_deploy.cli.bench import main
sys.exit(main.run(["--model", sys.argv[1], "--size", "64x72", "--runs", "10", "--threads", "1", "--json",
                   "--out", sys.argv[2]]))
"""
    found = json.loads(run(code, tiny_bundle.path, tmp_path / "out", block=BLOCK_TOOLS))
    rows = {row["subject"]: row for row in found["rows"]}
    # those whose packages are missing are named in a note, and what needs a GPU has rows with reasons
    assert not {"torchscript", "torch", "torch-compile", "opencv", "openvino", "tensorrt"} & set(rows)
    assert rows["onnxruntime:cuda"]["reason"] or rows["onnxruntime:cuda"]["latency"]  # the latter on a GPU
    latency = rows["onnxruntime"]["latency"]
    assert set(latency) == {"total", "compute", "host"}  # copies are part of compute on a CPU
    assert 0 < latency["compute"]["p50"] < latency["total"]["p50"]
    assert latency["total"]["p90"] >= latency["total"]["p50"]
    assert latency["total"]["p99"] is None  # 10 runs do not tell
    assert rows["onnxruntime"]["images_per_second"] > 0
    assert rows["onnxruntime"]["peak_bytes"] > 10e6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["RESULTS.md", "results.json"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found


def test_a_benchmark_names_the_subjects_that_are_not_installed(tiny_bundle):
    code = """
from glama_deploy.benchmarks.bench import run
run.measure = lambda bundle, weights, subjects, *rest, **options: sys.exit(" ".join(subjects) != "onnxruntime "
    "onnxruntime:int8 onnxruntime:cuda onnxruntime:cuda:fp16")
sys.stderr = sys.stdout
from glama_deploy.cli.bench import main
main.run(["--model", sys.argv[1]])
"""
    said = " ".join(run(code, tiny_bundle.path, block=BLOCK_TOOLS).split())
    assert "they are left out: torchscript, torch, torch-compile, opencv, " in said
    assert "; give --ckpt" in said
    assert "note: openvino and tensorrt are not installed, so these subjects are left out: openvino, " in said


def test_the_check_of_a_gpu_needs_neither_torch_nor_onnx():
    code = """
from glama_deploy.benchmarks.gpu_check import __main__, accuracy, checks
print(*sys.modules)
"""
    loaded = run(code, block=BLOCK_TOOLS).split()
    assert "glama_deploy.engines.tensorrt.device_check" in loaded
    assert not {"torch", "onnx", "openvino", "onnxruntime"} & set(loaded)


def test_an_export_without_torch_says_that_parity_was_not_measured(tiny, tmp_path):
    code = """
from glama_deploy.cli.export import main
sys.exit(main.run(["--ckpt", sys.argv[1], "--out", sys.argv[2], "--target", "openvino"]))
"""
    assert "PyTorch, the reference, is not installed" in run(code, tiny, tmp_path / "bundle")


def test_the_torch_backend_says_what_to_install(tiny):
    code = """
import glama_deploy
try:
    glama_deploy.load(sys.argv[1], "torch")
except glama_deploy.EngineError as error:
    print(error)
"""
    assert "pip install torch" in run(code, tiny)
