"""The file of kernels that TensorRT-RTX compiled."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes.tensorrt_bundles import SIZES, OnDevice, World, inputs, with_engine
from glama_deploy.bundle import Bundle, artifact
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.tensorrt import runner as tensorrt


@pytest.fixture
def rtx_bundle(tiny_bundle, tmp_path) -> Bundle:
    """The tiny bundle with a TensorRT-RTX engine in a folder of its own, to be written into."""
    folder = tmp_path / "rtx"
    shutil.copytree(tiny_bundle.path, folder)
    (folder / "tensorrt-rtx").mkdir()
    path = Path(shutil.copy(folder / "model.onnx", folder / "tensorrt-rtx" / "model.engine"))
    versions = {"tensorrt_rtx": "10.3.0"}
    bundle = Bundle(folder, tiny_bundle.manifest)
    return with_engine(bundle, "tensorrt-rtx", files=(artifact(folder, path),), versions=versions)


def finished(world: World) -> World:
    world.runner.close()
    return world


def test_compiled_kernels_are_kept_beside_the_engine_for_the_next_time(opened, rtx_bundle):
    file = rtx_bundle.path / "tensorrt-rtx" / "runtime.cache"
    world = opened(rtx_bundle, "tensorrt-rtx")
    assert world.trt.stored == []
    world.trt.kernels = b"kernels of 64x64"
    world.runner.run(*inputs(1, 64, 64))
    written = file.read_bytes()  # after a new size, not only at the end
    before = file.stat().st_mtime_ns
    for _ in range(3):
        world.runner.run(*(OnDevice(world.device, array) for array in inputs(1, 64, 64)))
    assert world.trt.serialized == 1  # a size that has run before brings nothing new
    finished(world)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == (written, before)  # nothing new
    again = opened(rtx_bundle, "tensorrt-rtx")
    assert again.trt.stored == [b"kernels of 64x64"]
    again.trt.kernels += b", and those that were compiled since"
    finished(again)
    assert finished(opened(rtx_bundle, "tensorrt-rtx")).trt.stored == [again.trt.kernels]


@pytest.mark.parametrize("damage", [b"", b"half", None])
def test_a_damaged_file_of_kernels_never_reaches_the_engine_and_is_written_anew(opened, rtx_bundle, damage):
    file = rtx_bundle.path / "tensorrt-rtx" / "runtime.cache"
    finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x" if damage is None else damage)
    world = finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels"))
    assert world.trt.stored == []
    assert file.read_bytes() == whole


def test_kernels_of_another_gpu_are_replaced(opened, rtx_bundle):
    finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"for another GPU"))
    world = opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels")
    world.check(*inputs(1, 64, 64))
    finished(world)
    assert finished(opened(rtx_bundle, "tensorrt-rtx")).trt.stored == [b"kernels"]


@pytest.mark.parametrize("cache", [True, False])
def test_a_bundle_that_cannot_be_written_keeps_kernels_in_the_users_cache_or_not_at_all(
    opened, rtx_bundle, tmp_path, monkeypatch, caplog, cache
):
    caplog.set_level(logging.INFO, "glama_deploy")
    from glama_deploy.runtime.tensorrt import kernel_cache

    atomic_file = kernel_cache.atomic_file

    def refuse(path: Path) -> Any:
        return atomic_file(path if path.is_relative_to(tmp_path / "cache") else path / "no folder")

    monkeypatch.setattr(kernel_cache, "atomic_file", refuse)
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    if not cache:
        (tmp_path / "cache").write_text("in the way")
    world = opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels")
    world.check(*inputs(1, 64, 64))
    finished(world)
    assert "compiled kernels are not kept there: cannot write" in caplog.text
    assert finished(opened(rtx_bundle, "tensorrt-rtx")).trt.stored == ([b"kernels"] if cache else [])


def test_the_kernel_cache_is_not_among_the_bundles_files(opened, rtx_bundle):
    finished(opened(rtx_bundle, "tensorrt-rtx", kernels=b"kernels"))
    assert [path.name for path in rtx_bundle.files("tensorrt-rtx")] == ["model.engine"]


@pytest.mark.gpu
def test_a_real_engine_keeps_its_kernels(tiny, make_bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    folder = tmp_path / "copy"
    shutil.copytree(make_bundle(tiny, ("trt-rtx",), profile=SIZES).path, folder)
    bundle = Bundle.open(folder)
    results = []
    for _ in range(2):
        runner = tensorrt.open(bundle, Request(engine="tensorrt-rtx"))
        results.append([runner.run(*inputs(1, 64, 64, seed)) for seed in range(3)])
        runner.close()
        assert (folder / "tensorrt-rtx" / "runtime.cache").stat().st_size > 32
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=2e-5)  # other kernels may serve, in fp32 as exact
