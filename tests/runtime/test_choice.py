"""Which engine runs, and what is said of those that do not."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import glama_deploy
from glama_deploy import catalogue
from glama_deploy.benchmarks.bench import contenders, run
from glama_deploy.bundle import Bundle
from glama_deploy.cli.bench import main as glama_bench
from glama_deploy.cli.eval import main as glama_eval
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.errors import EngineError
from glama_deploy.fastest import resolution
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request, installed, require
from glama_deploy.runtime.devices import Device
from glama_deploy.runtime.onnxruntime import providers
from glama_deploy.runtime.onnxruntime import runner as onnxruntime
from glama_deploy.runtime.openvino import runner as openvino
from glama_deploy.runtime.tensorrt import runner as tensorrt
from glama_deploy.system import cpu


def failing(what: str):
    """An `open` that does not."""

    def opener(bundle, request):
        raise EngineError(f"{what} is broken ({request.device})")

    return opener


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_backend_asked_for_is_the_one_that_runs(tiny_bundle, backend):
    inpainter = glama_deploy.load(tiny_bundle.path, backend)
    assert inpainter.backend == backend
    assert inpainter.precision == "fp32"


def test_auto_takes_openvino_on_a_cpu_without_a_word(tiny_bundle, caplog):
    assert glama_deploy.load(tiny_bundle.path).backend == "openvino"
    assert not caplog.messages


def test_auto_goes_through_its_order_and_says_what_failed(tiny_bundle, monkeypatch, caplog):
    monkeypatch.setattr(tensorrt, "absent", lambda bundle, request: False)
    monkeypatch.setattr(tensorrt, "open", failing("TensorRT"))
    monkeypatch.setattr(openvino, "open", failing("OpenVINO"))
    with caplog.at_level(logging.WARNING):
        assert glama_deploy.load(tiny_bundle.path).backend == "onnxruntime"
    assert [message.split(";")[0] for message in caplog.messages] == [
        "TensorRT is broken (cuda)",
        "OpenVINO is broken (cpu)",
    ]
    assert all("using ONNX Runtime" in message for message in caplog.messages)


@pytest.mark.parametrize("hidden", [None, "", "-1"])
def test_a_gpu_that_stays_idle_is_noted_once(tiny_bundle, monkeypatch, caplog, hidden):
    monkeypatch.setattr(choice, "_has_noted_gpu", False)
    monkeypatch.setattr(choice.gpus, "read_names", lambda: ("NVIDIA T4", "NVIDIA T4"))
    monkeypatch.setattr(onnxruntime, "absent", lambda bundle, request: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with caplog.at_level(logging.WARNING, "glama_deploy"):
        first = glama_deploy.load(tiny_bundle.path)
        glama_deploy.load(tiny_bundle.path)
        glama_deploy.load(tiny_bundle.path, "openvino")
    note = (
        f"{first.description} leaves the GPU (NVIDIA T4) idle; to use the GPU, install onnxruntime-gpu in place of "
        "onnxruntime, or give `backend=torch` and `precision=fp16` with a checkpoint"
    )
    assert caplog.messages == ([note] if hidden is None else [])


def test_where_nothing_runs_every_reason_is_in_the_one_line(tiny_bundle, monkeypatch):
    for name, module in (("openvino", openvino), ("onnxruntime", onnxruntime), ("tensorrt", tensorrt)):
        monkeypatch.setattr(module, "absent", lambda bundle, request: False)
        monkeypatch.setattr(module, "open", failing(name))
    with pytest.raises(EngineError, match=r"^tensorrt is broken.*; onnxruntime is .*; openvino is .*; onnxruntime is"):
        glama_deploy.load(tiny_bundle.path)


def test_without_any_engine_the_error_names_a_package_to_install(tiny_bundle, monkeypatch):
    for module in (openvino, onnxruntime, tensorrt):
        monkeypatch.setattr(module, "absent", lambda bundle, request: True)
    with pytest.raises(EngineError, match="no engine for this bundle is installed; pip install"):
        glama_deploy.load(tiny_bundle.path)


def test_a_checkpoint_is_exported_into_the_cache_once(tiny, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO, "glama_deploy"):
        first = glama_deploy.load(tiny)
        second = glama_deploy.load(tiny)
    assert first.backend == second.backend == "openvino"
    assert sum("exporting" in message for message in caplog.messages) == 1


def test_a_damaged_cache_is_made_anew(tiny, tmp_path, monkeypatch, photo, hole):
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path))
    expected = glama_deploy.load(tiny, "openvino")(photo, hole)
    (bundle,) = (tmp_path / "bundles").iterdir()
    for damaged in (bundle / "openvino" / "model.bin", bundle / "manifest.json"):
        damaged.write_bytes(b"damaged")
        assert (glama_deploy.load(tiny, "openvino")(photo, hole) == expected).all()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ImportError('libopenvino.so: no such file')", "(ImportError: libopenvino.so: no such file)"),
        ("raise ValueError('numpy.dtype size changed')", "(ValueError: numpy.dtype size changed)"),
        ("raise RuntimeError('first line\\nsecond line')", "(RuntimeError: first line)"),
        ("raise SystemError", "(SystemError: no reason is given)"),
        ("import sys; sys.maxsize.nothing", "(AttributeError: 'int' object has no attribute 'nothing')"),
        ("", "openvino.py has no Core); remove that file where it is your own"),
    ],
)
def test_a_package_that_is_installed_but_not_usable_is_passed_over(
    tiny_bundle, tmp_path, monkeypatch, caplog, body, reason
):
    (tmp_path / "openvino.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, name)
    assert glama_deploy.load(tiny_bundle.path).backend == "onnxruntime"
    (message,) = caplog.messages
    assert message.startswith("OpenVINO is installed but not usable (")
    assert reason in message
    assert "pip install --upgrade --force-reinstall openvino; using ONNX Runtime" in message
    assert "\n" not in message


def test_an_interrupt_during_an_engines_import_is_no_broken_package(tmp_path, monkeypatch):
    (tmp_path / "interrupted_engine.py").write_text("raise KeyboardInterrupt", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        require("interrupted_engine", "the engine", "pip install engine")


def test_a_folder_of_a_packages_name_is_no_package(tmp_path, monkeypatch):
    """Bundles have folders of these names, and `python -c` looks for packages in the current folder."""
    (tmp_path / "some_engine").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not installed("some_engine")
    with pytest.raises(EngineError, match="the engine is not installed; pip install engine"):
        require("some_engine", "the engine", "pip install engine")


def test_a_parent_package_that_fails_is_reported_with_its_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_parent").mkdir()
    (tmp_path / "broken_parent" / "__init__.py").write_text("raise OSError('no driver')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed("broken_parent.child")
    with pytest.raises(EngineError, match=r"not usable \(OSError: no driver\)"):
        require("broken_parent.child", "the engine", "pip install engine")


def _pretend_installed(folder: Path, name: str) -> None:
    metadata = folder / f"{name.replace('-', '_')}-9.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n", encoding="utf-8")


def test_two_distributions_of_onnxruntime_are_refused_with_both_names(tiny_bundle, tmp_path, monkeypatch, caplog):
    _pretend_installed(tmp_path, "onnxruntime")
    _pretend_installed(tmp_path, "onnxruntime-gpu")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EngineError, match="onnxruntime and onnxruntime-gpu overwrite each other's files") as refused:
        glama_deploy.load(tiny_bundle.path, "onnxruntime")
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu" in str(refused.value)
    assert glama_deploy.load(tiny_bundle.path).backend == "openvino"
    (message,) = caplog.messages  # for a GPU, ONNX Runtime would have come first
    assert message.startswith(f"{refused.value}; using OpenVINO")


def test_onnxruntime_whose_files_are_gone_is_to_be_reinstalled(tmp_path, monkeypatch):
    _pretend_installed(tmp_path, "onnxruntime-gpu")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(providers, "_DISTRIBUTIONS", ("onnxruntime-gpu",))
    monkeypatch.setattr(providers, "installed", lambda package: False)
    with pytest.raises(EngineError, match="pip install --force-reinstall onnxruntime-gpu"):
        providers.require_onnxruntime()


@pytest.mark.parametrize("io", ["float", "uint8"])
def test_in_half_precision_two_engines_compute_the_same_at_every_size(tiny, make_bundle, monkeypatch, io):
    """This CPU may have no half type, so the runner is told that it has one and computes in f32 all the same."""
    monkeypatch.setattr(openvino, "choose_precision", lambda *_, **__: ("bf16", ""))
    monkeypatch.setitem(openvino.PRECISION_HINTS, "bf16", "f32")
    bundle = make_bundle(tiny, io=io)
    half = glama_deploy.load(bundle.path, "openvino", "bf16")
    full = glama_deploy.load(bundle.path, "onnxruntime")
    rng = np.random.default_rng(0)
    for side in (32, 40, 48, 56, 64, 72, 32):
        image, mask = rng.integers(0, 256, (side, 64, 3), np.uint8), rng.random((side, 64)) < 0.3
        # the same arithmetic in two engines
        assert np.abs(half.predict(image, mask) - full.predict(image, mask)).max() < 2e-5


def test_the_embedded_network_is_the_default(photo, hole):
    inpainter = glama_deploy.load()
    out = inpainter(photo, hole)
    assert (out[~hole] == photo[~hole]).all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("openvino:GPU", "give `backend=openvino` and `device=GPU`; "),
        ("OpenVINO:npu", "give `backend=openvino` and `device=NPU`; "),
        ("torch:cuda:1", "give `backend=torch` and `device=cuda:1`; "),
        ("trt:cuda", "give `backend=tensorrt` and `device=cuda`; "),
        ("ort:webgpu", "is onnxruntime:webgpu meant?"),
        ("tensorrt-rtx", "is tensorrt meant?"),
        ("trt", "is tensorrt meant?"),
        ("TRT-RTX", "is tensorrt meant?"),
        ("ort", "is onnxruntime meant?"),
        ("onnx", "is onnxruntime meant?"),
        ("webgpu", "is onnxruntime:webgpu meant?"),
        ("directml", "is onnxruntime:directml meant?"),
        ("cuda", "is onnxruntime:cuda meant?"),
        ("openvin", "is openvino meant?"),
        ("onnxruntime:web-gpu", "is onnxruntime:webgpu meant?"),
    ],
)
def test_a_wrong_backend_gets_the_name_that_is_meant(tiny_bundle, wrong, says):
    with pytest.raises(EngineError) as caught:
        glama_deploy.load(tiny_bundle.path, wrong)
    assert str(caught.value).startswith(f"unknown backend {wrong!r}; {says}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"backend": None}, "backend is None, precision 'auto'; names are expected"),
        (
            {"backend": "tvm"},
            r"unknown backend 'tvm'; expected auto, torch, onnxruntime \(onnxruntime:PROVIDER with cpu, cuda, .*\), "
            "openvino, tensorrt$",
        ),
        (
            {"precision": "fp8"},
            "unknown precision 'fp8'; expected auto, fastest, fp32, bf16, fp16, int8, .* or int8.fp16",
        ),
        ({"threads": 0}, "threads is 0; expected a whole number from 1 to 4096, or None for all"),
        ({"threads": 2147483648}, "threads is 2147483648; expected a whole number from 1 to 4096"),
        ({"streams": 2147483648}, "streams is 2147483648; expected a whole number from 1 to 4096"),
        ({"threads": "2"}, "threads is '2'"),
        ({"backend": "torch"}, "is a bundle, which holds no PyTorch network"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "is chosen at export"),
    ],
)
def test_what_cannot_be_chosen_says_what_can(tiny_bundle, arguments, says):
    with pytest.raises(EngineError, match=says):
        glama_deploy.load(tiny_bundle.path, **arguments)


def test_a_precision_that_the_cpu_lacks_falls_back_to_fp32_with_the_reason(tiny_bundle, monkeypatch):
    monkeypatch.setattr("glama_deploy.runtime.openvino.precision._CAPABILITIES", {"bf16": "NO SUCH CAPABILITY"})
    inpainter = glama_deploy.load(tiny_bundle.path, "openvino", "bf16")
    assert inpainter.precision == "fp32"
    assert "this CPU has no bf16" in inpainter.description


@pytest.fixture
def slow_half_types(monkeypatch):
    """A CPU that computes in bf16, and in bf16 more slowly than in fp32. The tests' CPU computes in fp32 instead."""
    monkeypatch.setattr(openvino, "choose_precision", lambda asked, **_: ("fp32" if asked == "auto" else asked, ""))
    monkeypatch.setitem(openvino.PRECISION_HINTS, "bf16", "f32")
    monkeypatch.setattr(cpu, "_read_features", lambda: frozenset({"avx2", "avx512f", "avx512_bf16", "avx512_fp16"}))
    monkeypatch.setattr(cpu, "_read_maker", lambda: "GenuineIntel")


@pytest.mark.usefixtures("slow_half_types")
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_a_half_type_that_is_slow_on_the_cpu_is_a_note(tiny_bundle, tiny, caplog, precision):
    note = (
        "this CPU has no AMX and computes bf16 more slowly than fp32; `precision=fastest` takes the fastest precision"
    )
    for model in (tiny_bundle.path, tiny):
        caplog.clear()
        glama_deploy.load(model, "openvino", precision)
        assert caplog.messages == ([note] if precision == "bf16" else [])


@pytest.mark.usefixtures("slow_half_types")
def test_the_fastest_precision_is_no_note(tiny_bundle, caplog, monkeypatch):
    monkeypatch.setattr(
        resolution,
        "open_fastest",
        lambda bundle, backend, request, open_engine: open_engine(replace(request, precision="bf16")),
    )
    assert glama_deploy.load(tiny_bundle.path, "openvino", "fastest").precision == "bf16"
    assert not caplog.messages


def test_a_compiled_model_is_kept_for_the_next_start(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path))
    glama_deploy.load(tiny_bundle.path, "openvino")
    (blob,) = (tmp_path / "openvino").iterdir()
    before = blob.stat().st_mtime_ns
    glama_deploy.load(tiny_bundle.path, "openvino")
    assert [path.stat().st_mtime_ns for path in (tmp_path / "openvino").iterdir()] == [before]


def test_a_cache_that_cannot_be_written_is_done_without(tiny_bundle, tmp_path, monkeypatch, photo, hole):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "file"))
    assert glama_deploy.load(tiny_bundle.path, "openvino")(photo, hole).shape == photo.shape


def test_onnx_runtime_on_cuda_is_absent_where_it_is_not_built_in(tiny_bundle):
    if "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    assert onnxruntime.absent(tiny_bundle, Request(device=Device("cuda")))
    with pytest.raises(EngineError, match="CUDA"):
        onnxruntime.open(tiny_bundle, Request(device=Device("cuda")))


def test_an_onnx_runtime_without_cuda_is_not_imported_to_be_asked(tiny_bundle):
    """Its import takes longer than to open a small bundle."""
    if "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    code = "import sys, glama_deploy; print(glama_deploy.load(sys.argv[1]).backend, 'onnxruntime' in sys.modules)"
    command = [sys.executable, "-c", code, str(tiny_bundle.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["openvino", "False"]


def test_a_library_of_cuda_in_onnx_runtimes_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "onnxruntime" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    assert providers._has_library(providers.PROVIDERS["cuda"])
    assert not providers._has_library(providers.PROVIDERS["tensorrt"])
    assert providers._has_library(providers.PROVIDERS["cpu"])


def test_threads_are_taken(tiny_bundle, photo, hole):
    for backend in ("openvino", "onnxruntime"):
        assert glama_deploy.load(tiny_bundle.path, backend, threads=1)(photo, hole).shape == photo.shape


def test_threads_of_the_reference_are_its_own(photo, hole):
    """They are a setting of the process, on which a training run's sums depend to the bit."""
    before, seen = torch.get_num_threads(), []
    inpainter = glama_deploy.load("default", "torch", threads=before + 1)
    handle = inpainter._runner._generator.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    inpainter(photo, hole)
    handle.remove()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_auto_tries_every_backend():
    assert {record.backend for record, _ in catalogue.auto_order()} == set(catalogue.backends())


@pytest.mark.parametrize("allowed", [False, True])
def test_the_users_option_about_an_engines_code_reaches_the_engine(tiny_bundle, monkeypatch, allowed, tmp_path):
    asked: list[Request] = []

    def opened(bundle: Bundle, backend: str, request: Request) -> None:
        asked.append(request)
        raise EngineError("not here")

    monkeypatch.setattr(choice, "open_bundle", opened)
    with pytest.raises(EngineError, match="not here"):
        glama_deploy.load(tiny_bundle.path, allow_engine_code=allowed)
    for name in ("image.png", "mask.png"):
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / name)
    files = ["--image", tmp_path / "image.png", "--mask", tmp_path / "mask.png", "--out", tmp_path / "out.png"]
    option = ["--allow-engine-code"] if allowed else []
    assert glama_inpaint.run([*map(str, files), "--model", str(tiny_bundle.path), *option]) == 2
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    data = ["--data", str(tmp_path / "photos"), "--out", str(tmp_path / "results")]
    assert glama_eval.run([*data, "--model", str(tiny_bundle.path), *option]) == 2
    monkeypatch.setattr(run, "_measure_limits", lambda precisions, threads, step: {})
    monkeypatch.setattr(run, "_measure_in_turns", lambda tasks, runs, step: contenders._open(tasks[0]))
    assert glama_bench.run(["--model", str(tiny_bundle.path), "--subject", "openvino", *option]) == 2
    assert [request.allow_engine_code for request in asked] == [allowed] * 4


def test_whether_an_engines_code_is_allowed_is_yes_or_no(tiny_bundle):
    with pytest.raises(EngineError, match="allow_engine_code is 'yes'; True or False is expected"):
        glama_deploy.load(tiny_bundle.path, allow_engine_code="yes")


def test_tensorrt_for_the_embedded_network_asks_for_a_bundle_and_not_for_an_engine_in_the_cache():
    says = (
        "^default has no TensorRT engine; make a bundle with one, and load that: "
        r"`export\(checkpoint=default, targets=trt, out=BUNDLE\)`$"
    )
    with pytest.raises(EngineError, match=says):
        glama_deploy.load("default", "tensorrt")
