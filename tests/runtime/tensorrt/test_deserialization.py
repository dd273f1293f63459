"""Whether an engine may be opened here: its GPU, its version, its files, its weights and its plugins."""

from __future__ import annotations

import logging
import re
import sys
from types import ModuleType
from typing import Any

import pytest

from fakes.tensorrt_bundles import inputs, with_engine
from fakes.tensorrt_runtime import EngineInvalidityDiagnostics, EngineValidity
from glama_deploy.bundle import Artifact, BuildSettings, Bundle
from glama_deploy.errors import BundleError, EngineError


@pytest.mark.parametrize(
    ("capabilities", "runs"),
    [
        ((), True),
        (("8.9",), True),
        (("8.6", "8.9"), True),
        (("8.0+",), True),
        (("8.9+",), True),
        (("8.6",), False),
        (("9.0+",), False),
        (("12.0", "10.0+"), False),
    ],
)
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_for_another_gpu_is_refused_with_both_capabilities_and_the_command(
    opened, tiny_bundle, name, capabilities, runs
):
    versions = {"tensorrt": "10.3.0", "tensorrt_rtx": "10.3.0"}
    bundle = with_engine(tiny_bundle, name, compute_capabilities=capabilities, versions=versions)
    if runs:
        opened(bundle, name).check(*inputs(1, 64, 64))
        return
    target = r"trt\)`" if name == "tensorrt" else r"trt-rtx\)` `gpus=8\.9`"
    with pytest.raises(
        EngineError,
        match=rf"^{name}: the engine is for GPUs of compute capability {re.escape(', '.join(capabilities))}, "
        rf"Memory GPU has 8\.9; rebuild with: `build\(\S+, target={target}$",
    ):
        opened(bundle, name)
    assert not opened.last.cuda.leaked
    assert not opened.last.trt.calls  # it was never deserialized


@pytest.mark.parametrize(
    ("name", "built", "compatible", "runs"),
    [
        ("tensorrt", "10.3.0", False, True),
        ("tensorrt", "10.2.9", False, False),
        ("tensorrt", "10.2.9", True, True),
        ("tensorrt", "10.10.0", True, False),  # made by a newer one
        ("tensorrt", "9.3.0", True, False),
        ("tensorrt", "unknown", True, False),
        ("tensorrt-rtx", "10.2.9", True, False),  # which has no such engines
    ],
)
def test_an_engine_runs_on_its_own_version_and_if_version_compatible_on_later_ones(
    opened, tiny_bundle, name, built, compatible, runs
):
    versions = {name.replace("-", "_"): built}
    bundle = with_engine(tiny_bundle, name, versions=versions, settings=BuildSettings(version_compatible=compatible))
    if runs:
        world = opened(bundle, name, allow_engine_code=True)
        world.check(*inputs(1, 64, 64))
        assert f"deserialize, host code {compatible}" in world.trt.calls  # allowed, where the engine needs that
    else:
        with pytest.raises(EngineError, match=rf"built with \w+ {built}, 10\.3\.0 is installed; rebuild with: `build"):
            opened(bundle, name)


def test_a_bundle_cannot_allow_the_code_of_its_own_engine(opened, tiny_bundle):
    """The manifest says that the engine is version-compatible; the user has not said to trust the engine."""
    settings = BuildSettings(version_compatible=True)
    bundle = with_engine(tiny_bundle, versions={"tensorrt": "10.2.9"}, settings=settings)
    says = r"^tensorrt: the engine is version-compatible.*native code.*allow_engine_code=True[^\n]*$"
    with pytest.raises(EngineError, match=says):
        opened(bundle)
    assert not opened.last.trt.calls  # TensorRT saw no byte of the engine
    assert not opened.last.cuda.leaked


def test_an_engine_that_tensorrt_rtx_calls_invalid_is_refused_with_its_reasons(opened, tiny_bundle, caplog):
    caplog.set_level(logging.INFO, "glama_deploy")
    bundle = with_engine(tiny_bundle, "tensorrt-rtx")
    opened(bundle, "tensorrt-rtx").check(*inputs(1, 64, 64))
    assert "TensorRT-RTX says that the engine is valid here" in caplog.text
    says = (
        r"^tensorrt-rtx: TensorRT-RTX says that the engine is invalid here \(unsupported cc, old cuda driver\); build"
    )
    with pytest.raises(EngineError, match=says):
        opened(bundle, "tensorrt-rtx", validity=("INVALID", 2 | 4))
    assert not opened.last.trt.calls  # it was not deserialized
    assert not opened.last.cuda.leaked


def test_an_engine_that_tensorrt_rtx_calls_suboptimal_runs_with_a_warning(opened, tiny_bundle, caplog):
    opened(with_engine(tiny_bundle, "tensorrt-rtx"), "tensorrt-rtx", validity=("SUBOPTIMAL", 0)).check(
        *inputs(1, 64, 64)
    )
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "is suboptimal here (no reason); build the engine again for this GPU alone" in record.getMessage()


def test_the_fake_has_the_validities_of_tensorrt_rtx():
    real = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    for ours in (EngineValidity, EngineInvalidityDiagnostics):
        theirs = {name: int(value) for name, value in getattr(real, ours.__name__).__members__.items()}
        assert {each.name: each.value for each in ours}.items() <= theirs.items()
    runtime = real.Runtime(real.Logger(real.Logger.INTERNAL_ERROR))
    validity, diagnostics = runtime.get_engine_validity(b"no engine")
    assert validity == real.EngineValidity.INVALID
    assert int(diagnostics) >= 0


def test_a_changed_or_refused_engine_is_an_error_of_one_line(opened, tiny_bundle):
    with pytest.raises(EngineError, match=r"^tensorrt: \S+ was not accepted on this GPU; rebuild with: `build[^\n]*$"):
        opened(with_engine(tiny_bundle), accepts=False)
    assert not opened.last.cuda.leaked
    good = tiny_bundle.manifest.engines["onnx"].files[0]
    changed = Artifact(path=good.path, sha256="0" * 64, bytes=good.bytes)
    with pytest.raises(BundleError, match="its SHA-256 differs"):
        opened(with_engine(tiny_bundle, files=(changed,)))
    assert not opened.last.cuda.leaked
    assert not opened.last.trt.calls


def test_an_engine_without_weights_is_refitted_from_the_bundle(opened, tiny_bundle):
    world = opened(with_engine(tiny_bundle, settings=BuildSettings(stripped=True)))
    assert world.trt.calls == ["deserialize, host code False", "refit model.onnx"]
    world.check(*inputs(1, 64, 64))


@pytest.mark.parametrize(
    ("refits", "message"),
    [
        ({"not refittable": True}, "was built without weights and takes none; rebuild with"),
        ({"parser": True}, r"do not fit the engine \(weights of conv1 have another shape\); rebuild with"),
        ({"missing": ["a", "b"]}, r"model\.onnx lacks 2 of the engine's weights; rebuild with"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_of_one_line(opened, tiny_bundle, refits, message):
    with pytest.raises(EngineError, match=message) as raised:
        opened(with_engine(tiny_bundle, settings=BuildSettings(stripped=True)), refits=refits)
    assert "\n" not in str(raised.value)
    assert not opened.last.cuda.leaked


def test_plugins_are_registered_before_the_engine_is_deserialized(opened, tiny_bundle, monkeypatch):
    bundle = with_engine(tiny_bundle)
    bundle = Bundle(bundle.path, bundle.manifest.model_copy(update={"fft": "plugin"}))
    plugins = ModuleType("glama_deploy.runtime.tensorrt.plugins")
    registered = []

    def register(trt: Any) -> None:
        registered.append((trt.__name__, list(opened.last.trt.calls)))

    plugins.register = register
    monkeypatch.setitem(sys.modules, "glama_deploy.runtime.tensorrt.plugins", plugins)
    opened(bundle)
    assert registered == [("tensorrt", [])]

    def refuse(trt: Any) -> None:
        raise EngineError("no plugins here; export with `fft=matmul`")

    plugins.register = refuse
    with pytest.raises(EngineError, match="no plugins here"):
        opened(bundle)
    assert not opened.last.cuda.leaked


def test_tensorrts_plugin_library_is_initialized_before_an_engine_with_dft_nodes_is_deserialized(opened, tiny_bundle):
    bundle = with_engine(tiny_bundle)
    opened(bundle)
    assert opened.last.trt.calls == ["deserialize, host code False"]  # no other graph needs the library
    bundle = Bundle(bundle.path, bundle.manifest.model_copy(update={"fft": "dft"}))
    opened(bundle)
    assert opened.last.trt.calls == ["initialize plugins of namespace ''", "deserialize, host code False"]
    says = r"^tensorrt: TensorRT 10\.3\.0 did not initialize its plugin library, .*export again with `fft=matmul`$"
    with pytest.raises(EngineError, match=says):
        opened(bundle, has_plugin_library=False)
    assert not opened.last.cuda.leaked
