"""`precision="fastest"`: the measurement is made once, and kept in the cache."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

import glama_deploy
from glama_deploy.catalogue import PRECISIONS
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.fastest import resolution
from glama_deploy.fastest.measurement import Measurement, measure
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request
from glama_deploy.system import cpu, gpus

MEASURED = (
    Measurement(precision="fp32", seconds=2.0, decibels=None),
    Measurement(precision="bf16", seconds=1.0, decibels=48.0),
)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    """The cache's folder of these measurements."""
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "precisions"


@pytest.fixture
def runs(monkeypatch) -> list[tuple[int, int]]:
    """The sizes that were measured. The figures are injected, so that no test depends on this machine's speed."""
    sizes = []

    def measure_nothing(open_inpainter, size):
        sizes.append(size)
        return MEASURED

    monkeypatch.setattr(resolution, "measure", measure_nothing)
    return sizes


def resolve(bundle, backend="openvino", **settings) -> str:
    request = Request("fastest", **settings)
    return resolution.open_fastest(bundle, backend, request, lambda asked: asked.precision)


def test_a_real_measurement_is_kept(tiny_bundle, folder, monkeypatch):
    """The one test that measures. Whichever precision is the fastest here, it is one that the CPU has."""
    sizes = []
    monkeypatch.setattr(resolution, "measure", lambda opens, size: (sizes.append(size), measure(opens, size))[1])
    first = glama_deploy.load(tiny_bundle.path, "openvino", "fastest")
    assert first.precision in PRECISIONS
    (path,) = folder.glob("*.json")
    kept = resolution.Record.model_validate_json(path.read_text(encoding="utf-8")).measurements
    assert kept[0].precision == "fp32"
    assert all(one.seconds > 0 for one in kept)
    assert glama_deploy.load(tiny_bundle.path, "openvino", "fastest").precision == first.precision
    assert sizes == [(256, 256)]


def test_the_choice_and_its_reasons_are_told(tiny_bundle, runs, caplog):
    with caplog.at_level(logging.INFO, "glama_deploy"):
        assert resolve(tiny_bundle) == "bf16"
    assert "the fastest precision with at least 40 dB against fp32 is bf16 (fp32 2 s, bf16 1 s 48.0 dB)" in caplog.text


def test_auto_stays_fp32(tiny_bundle, runs):
    resolve(tiny_bundle)
    assert glama_deploy.load(tiny_bundle.path, "openvino").precision == "fp32"


def test_another_machine_bundle_or_number_of_threads_is_measured_again(
    tiny_bundle, make_bundle, tiny, runs, monkeypatch
):
    resolve(tiny_bundle)
    resolve(tiny_bundle)
    assert len(runs) == 1
    resolve(tiny_bundle, threads=7)
    resolve(make_bundle(tiny, io="uint8"))
    monkeypatch.setattr(cpu, "read_model", lambda: "another CPU")
    resolve(tiny_bundle)
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"another"}))
    resolve(tiny_bundle)
    monkeypatch.setattr(resolution, "read_versions", lambda *names: {"openvino": "another"})
    resolve(tiny_bundle)
    assert len(runs) == 6
    monkeypatch.setattr(gpus, "read_names", lambda: ("a GPU",))
    resolve(tiny_bundle)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    resolve(tiny_bundle)
    assert len(runs) == 8


def test_a_recorded_precision_that_does_not_open_any_more_is_measured_again(tiny_bundle, runs, monkeypatch, caplog):
    """As where a GPU that the driver does not name is gone."""
    resolve(tiny_bundle)
    monkeypatch.setattr(resolution, "measure", lambda *_: (runs.append((0, 0)), MEASURED[:1])[1])

    def open_engine(request: Request) -> str:
        if request.precision == "bf16":
            raise EngineError("no bf16 here")
        return request.precision

    asked = (tiny_bundle, "openvino", Request("fastest"), open_engine)
    assert resolution.open_fastest(*asked) == "fp32"
    assert "bf16 was the fastest here and does not open now (no bf16 here)" in caplog.text
    assert len(runs) == 2
    assert resolution.open_fastest(*asked) == "fp32"
    assert len(runs) == 2


def test_an_engine_that_does_not_open_after_its_measurement_is_an_error(tiny_bundle, runs):
    def refuse(request: Request) -> None:
        raise EngineError("not here")

    with pytest.raises(EngineError, match="not here"):
        resolution.open_fastest(tiny_bundle, "openvino", Request("fastest"), refuse)
    assert len(runs) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"measurements": []}',
        '{"measurements": [{"precision": "fp32", "seconds": -1, "decibels": null}]}',
        '{"measurements": [{"precision": "bf16", "seconds": 1, "decibels": 50}]}',
        '{"measurements": [{"precision": "fp32", "seconds": 1, "decibels": null}, '
        '{"precision": "fp8", "seconds": 0.1, "decibels": 90}]}',
    ],
)
def test_a_damaged_file_is_measured_again_with_a_note(tiny_bundle, folder, runs, caplog, text):
    resolve(tiny_bundle)
    (path,) = folder.glob("*.json")
    whole = path.read_bytes()
    path.write_text(text, encoding="utf-8")
    assert resolve(tiny_bundle) == "bf16"
    assert len(runs) == 2
    assert "is damaged" in caplog.text
    assert path.read_bytes() == whole


def test_threads_that_ask_at_once_measure_once(tiny_bundle, runs):
    meeting = threading.Barrier(3)

    def ask():
        meeting.wait()
        resolve(tiny_bundle)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 1


def test_without_a_cache_each_load_measures(tiny_bundle, runs, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("GLAMA_CACHE", str(tmp_path / "file"))
    assert [resolve(tiny_bundle), resolve(tiny_bundle)] == ["bf16", "bf16"]
    assert len(runs) == 2


def test_without_a_cache_the_note_does_not_promise_that_the_result_is_kept(tiny_bundle, runs, monkeypatch, caplog):
    resolve(tiny_bundle)
    assert "is the fastest here, once for this machine" in caplog.text
    caplog.clear()
    monkeypatch.setattr(resolution.cache, "folder", lambda name: None)
    resolve(tiny_bundle)
    assert "is the fastest here, at each start, because the result cannot be kept" in caplog.text


@pytest.mark.parametrize("what", ["atomic_file", "locks"])
def test_a_result_that_cannot_be_written_is_a_note(tiny_bundle, runs, monkeypatch, caplog, folder, what):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if what == "locks":
        monkeypatch.setattr(resolution.locks, "hold", refuse)
    else:
        monkeypatch.setattr("glama_deploy.io.files.flush", refuse)
    assert resolve(tiny_bundle) == "bf16"
    assert "no space is left on the disk" in caplog.text
    assert not list(folder.glob("*.json"))


@pytest.mark.parametrize("kind", [EngineError, ImageError])
def test_an_engine_that_cannot_be_compared_stays_as_it_is(tiny_bundle, monkeypatch, caplog, folder, kind):
    def refuse(open_inpainter, size):
        raise kind("no fp32 here")

    monkeypatch.setattr(resolution, "measure", refuse)
    assert resolve(tiny_bundle) == "auto"
    assert "the precisions cannot be compared (no fp32 here); using OpenVINO" in caplog.text
    assert not list(folder.glob("*.json"))


def test_short_memory_leaves_the_precision_as_it_is(tiny_bundle, monkeypatch, caplog, folder):
    monkeypatch.setattr("glama_deploy.memory.available", lambda: 1000)
    assert glama_deploy.load(tiny_bundle.path, "openvino", "fastest").precision == "fp32"
    assert "the precisions cannot be compared" in caplog.text
    assert not list(folder.glob("*.json"))


def test_a_checkpoint_is_measured_on_its_engine_and_is_fp32_in_pytorch(tiny, runs):
    assert glama_deploy.load(tiny, precision="fastest").backend == "openvino"
    assert len(runs) == 1
    assert glama_deploy.load(tiny, "torch", "fastest").precision == "fp32"
    assert len(runs) == 1


def test_the_command_takes_it(tiny_bundle, runs, tmp_path, sample_files):
    image, mask = sample_files
    arguments = ["--image", str(image), "--mask", str(mask), "--out", str(tmp_path / "out.png")]
    assert glama_inpaint.run([*arguments, "--model", str(tiny_bundle.path), "--precision", "fastest"]) == 0
    assert len(runs) == 1


def test_it_is_measured_by_load_alone(tiny_bundle):
    with pytest.raises(EngineError, match=r"'fastest' is measured by `glama_deploy\.load`; give another"):
        choice.open_bundle(tiny_bundle, "openvino", Request("fastest"))


@pytest.fixture
def sample_files(tmp_path) -> tuple[Path, Path]:
    from glama_deploy.export.samples import SAMPLE

    return SAMPLE, SAMPLE.with_name("sample_mask.png")
