"""Compiled OpenVINO models on disk: a damaged file is never used."""

from __future__ import annotations

import errno
import gc
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from glama_deploy.bundle import Bundle
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Request
from glama_deploy.runtime.openvino import compiled_models
from glama_deploy.runtime.openvino import runner as openvino

pytest.importorskip("openvino")

#: Places of the file in which a bit is flipped: the first and the last byte, and others at equal distances.
FLIPPED_BITS = 20


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path))
    return tmp_path / "openvino"


@pytest.fixture(scope="module")
def of_one_size(make_checkpoint, make_bundle) -> Bundle:
    """A bundle of one size whose model is rewritten before it is compiled."""
    return make_bundle(make_checkpoint(NetworkConfig(ngf=32, n_blocks=1)), size=(64, 72))


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((1, 3, 64, 72), np.float32), (rng.random((1, 1, 64, 72)) < 0.3).astype(np.float32)


def result(bundle: Bundle) -> np.ndarray:
    return openvino.open(bundle, Request("fp32", threads=1)).run(*inputs())


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("name", ["tiny_bundle", "of_one_size"])
def test_a_model_is_stored_once_and_computes_the_same(name, folder, request, monkeypatch):
    bundle = request.getfixturevalue(name)
    expected = result(bundle)
    stored = only_file(folder)
    before = stored.read_bytes()
    monkeypatch.setattr(openvino.OpenVINORunner, "_fix_size", None)  # what is imported is not made again
    np.testing.assert_array_equal(result(bundle), expected)
    assert only_file(folder) == stored
    assert stored.read_bytes() == before


def test_an_imported_model_keeps_the_memory_that_its_weights_lie_in(tiny_bundle, folder):
    """OpenVINO does not copy the weights. Without the memory, the first run would be a segmentation fault."""
    expected = result(tiny_bundle)
    runner = openvino.open(tiny_bundle, Request("fp32", threads=1))
    gc.collect()
    (kept,) = (model._weights for model in runner._compiled.values())
    stored = only_file(folder)
    assert Path(kept.filename) == stored
    stored.unlink()  # another process may replace the file meanwhile
    np.testing.assert_array_equal(runner.run(*inputs()), expected)


@pytest.mark.slow
def test_a_file_with_a_flipped_bit_is_replaced_and_the_image_stays_the_same(tiny_bundle, folder, caplog):
    expected = result(tiny_bundle)
    stored = only_file(folder)
    whole = stored.read_bytes()
    for place in np.linspace(0, len(whole) - 1, FLIPPED_BITS).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        stored.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "glama_deploy"):
            np.testing.assert_array_equal(result(tiny_bundle), expected)
        assert f"the compiled model {stored} is damaged" in caplog.text
        assert only_file(folder) == stored
        assert compiled_models.read(stored) is not None


@pytest.mark.parametrize("left", [0, 5, 40, -1])
def test_a_file_that_was_cut_off_is_replaced(tiny_bundle, folder, left):
    expected = result(tiny_bundle)
    stored = only_file(folder)
    stored.write_bytes(stored.read_bytes()[:left])
    np.testing.assert_array_equal(result(tiny_bundle), expected)
    assert compiled_models.read(stored) is not None


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE, errno.EACCES])
def test_a_file_that_cannot_be_read_now_is_left(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    path = tmp_path / "a.compiled"
    compiled_models.write(path, b"model")
    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", refuse)
        assert compiled_models.read(path) is None
    assert f"{path} cannot be read ({os.strerror(code)}), and the model is compiled again" in caplog.text
    assert compiled_models.read(path).tobytes() == b"model"


def test_whole_bytes_that_openvino_does_not_take_are_replaced(tiny_bundle, folder):
    expected = result(tiny_bundle)
    stored = only_file(folder)
    compiled_models.write(stored, b"not a model")
    np.testing.assert_array_equal(result(tiny_bundle), expected)
    assert compiled_models.read(stored).tobytes() != b"not a model"


def test_files_of_openvinos_own_cache_are_not_used(tiny_bundle, folder):
    import openvino as library

    folder.mkdir()
    core = library.Core()
    model = core.read_model(str(tiny_bundle.files("openvino")[0]))
    # by default OpenVINO takes bf16 where the CPU has bf16, also where ONEDNN_MAX_CPU_ISA switches bf16 off
    core.compile_model(model, "CPU", {"CACHE_DIR": str(folder), "INFERENCE_PRECISION_HINT": "f32"})
    theirs = set(folder.iterdir())
    for path in theirs:
        path.write_bytes(b"damaged")
    assert theirs
    result(tiny_bundle)
    assert all(path.read_bytes() == b"damaged" for path in theirs)


def test_a_cache_that_cannot_be_written_is_a_note(tiny_bundle, folder, caplog):
    folder.parent.mkdir(exist_ok=True)
    with caplog.at_level(logging.WARNING, "glama_deploy"):
        compiled_models.write(folder / "missing" / "a.compiled", b"model")
    assert "cannot write" in caplog.text
    assert "compiled again at the next start" in caplog.text


def test_another_setting_is_another_file(tiny_bundle, folder, monkeypatch):
    result(tiny_bundle)
    openvino.open(tiny_bundle, Request("fp32", threads=2))
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(openvino.cpu, "features", lambda: frozenset({"another"}))
    result(tiny_bundle)
    assert len(list(folder.iterdir())) == 3
