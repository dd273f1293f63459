"""The plugins under a module that asks of them what TensorRT's Python binding asks."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakes.cufft
from fakes.cufft import STREAM, MemoryCufft, over_memory
from fakes.spectra import close, real_array, shapes, spectrum_like
from fakes.tensorrt_plugins import Engine, fake_tensorrt, registered
from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import fft, registration


@settings(deadline=None)
@given(smaller=st.lists(shapes, min_size=1, max_size=4))
def test_the_plugins_compute_the_nodes_for_every_size_of_a_profile(smaller):
    largest = tuple(np.max(smaller, axis=0).tolist())
    trt = registered(MemoryCufft(work_per_array=256))
    forward = Engine(trt, "RFFT2", [largest])
    inverse = Engine(trt, "IRFFT2", [fft.rfft2_shape(largest), largest])
    for turn, shape in enumerate([*smaller, largest, smaller[0]]):
        x, z = real_array(shape), spectrum_like(shape)
        close(forward.run(turn % 2, x, fft.rfft2_shape(shape)), fft.rfft2(x))
        close(inverse.run(turn % 2, z, shape, shape), fft.irfft2(z, x))


def test_only_the_copys_symmetry_makes_the_inverse_numpys(monkeypatch):
    """Without it the test above would fail: the library over memory is no kinder than cuFFT."""
    monkeypatch.setattr(fakes.cufft, "hermitian_copy", lambda z, width: z)
    trt, shape = registered(MemoryCufft()), (1, 2, 6, 8)
    z = spectrum_like(shape)
    out = Engine(trt, "IRFFT2", [z.shape, shape]).run(0, z, shape, shape)
    assert np.abs(out - fft.irfft2(z, np.empty(shape))).max() > 1


def test_each_size_is_planned_once_before_it_runs():
    library = MemoryCufft()
    engine = Engine(registered(library), "RFFT2", [(1, 2, 8, 8)])
    plugin, desc = engine.contexts[0], [engine.desc((1, 2, 8, 8))]
    plugin.on_shape_change(desc, [])
    assert len(library.made) == 1
    engine.run(0, real_array((1, 2, 8, 8)), (1, 2, 8, 5, 2))
    engine.run(1, real_array((1, 2, 8, 8)), (1, 2, 8, 5, 2))
    assert len(library.made) == 1


def test_a_destroyed_plugin_holds_no_plan():
    engine = Engine(registered(MemoryCufft()), "RFFT2", [(1, 2, 8, 8)])
    engine.run(0, real_array((1, 2, 8, 8)), (1, 2, 8, 5, 2))
    engine.contexts[0].destroy()
    assert engine.contexts[0]._transform is None


@pytest.mark.parametrize(
    ("type_", "format_"), [("half", "linear"), ("int8", "linear"), ("float", "hwc"), ("half", "chw4")]
)
@pytest.mark.parametrize("pos", [0, 1, 2])
def test_only_linear_float32_tensors_are_supported(type_, format_, pos):
    engine = Engine(registered(MemoryCufft()), "IRFFT2", [(1, 2, 8, 5, 2), (1, 2, 8, 8)])
    good, bad = engine.desc(()), SimpleNamespace(dims=(), type=type_, format=format_)
    tensors = [SimpleNamespace(desc=bad if p == pos else good) for p in range(3)]
    assert [engine.contexts[0].supports_format_combination(p, tensors, 2) for p in range(3)] == [
        p != pos for p in range(3)
    ]


def test_a_node_with_the_wrong_number_of_inputs_supports_no_format():
    engine = Engine(registered(MemoryCufft()), "RFFT2", [(1, 2, 8, 8)])
    tensors = [SimpleNamespace(desc=engine.desc(()))] * 3
    assert not engine.contexts[0].supports_format_combination(0, tensors, 2)


def test_symbolic_shapes_are_those_of_the_arrays():
    operation = SimpleNamespace(SUM="+", FLOOR_DIV="//")
    builder = SimpleNamespace(constant=str, operation=lambda op, a, b: f"({a} {op} {b})")
    assert fft.rfft2_symbols(["b", "c", "h", "w"], builder, operation) == ["b", "c", "h", "((w // 2) + 1)", "2"]
    assert fft.irfft2_symbols(["b", "c", "h", "f", "2"], ["B", "C", "H", "w"]) == ["b", "c", "h", "w"]


def test_a_missing_workspace_is_refused():
    engine = Engine(registered(MemoryCufft()), "RFFT2", [(1, 2, 8, 8)])
    with pytest.raises(EngineError, match="RFFT2 no workspace"):
        engine.contexts[0].enqueue([engine.desc((1, 2, 8, 8))], [], [256], [512], 0, STREAM)


def test_inputs_of_different_widths_are_refused():
    engine = Engine(registered(MemoryCufft()), "IRFFT2", [(1, 2, 8, 5, 2), (1, 2, 8, 8)])
    with pytest.raises(ValueError, match="no spectrum"):
        engine.contexts[0].on_shape_change([engine.desc((1, 2, 8, 5, 2)), engine.desc((1, 2, 8, 12))], [])


def test_registering_twice_is_registering_once():
    library = MemoryCufft()
    trt = registered(library)
    before = dict(trt.get_plugin_registry().creators)
    assert [key[0] for key in before] == ["RFFT2", "IRFFT2"]
    registration.register(trt)  # looks for no cuFFT: there is nothing to register
    assert trt.get_plugin_registry().creators == before


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("tensorrt_rtx", "1.7.1.116", r"^TensorRT-RTX takes no plugins; export with `fft=matmul`$"),
        ("tensorrt", "8.6.1", r"^TensorRT 8\.6\.1 takes no V3 plugins; install 10 or newer"),
    ],
)
def test_a_module_without_the_plugins_is_refused(name, version, message):
    with pytest.raises(EngineError, match=message):
        registration.register(fake_tensorrt(name, version), over_memory(MemoryCufft()))


def test_a_refused_registration_is_an_error():
    trt = fake_tensorrt()
    trt.get_plugin_registry().refuses = True
    with pytest.raises(EngineError, match=r"TensorRT 10\.7\.0 refused the plugin glama::RFFT2"):
        registration.register(trt, over_memory(MemoryCufft()))


def test_tensorrt_rtx_itself_is_refused():
    with pytest.raises(EngineError, match="takes no plugins"):
        registration.register(pytest.importorskip("tensorrt_rtx"))


def test_the_plugin_classes_work_through_tensorrts_python_binding():
    """TensorRT-RTX's Python module has TensorRT's plugin classes and registry, though nothing that would run them: the
    calls below go through the binding. In a process of its own, since its parser aborts on a node of a known plugin."""
    pytest.importorskip("tensorrt_rtx")
    code = """
import gc
import tensorrt_rtx as trt
from glama_deploy.runtime.tensorrt.plugins import registration

for node, shapes in ((registration._Forward, [(1, 2, 8, 9)]), (registration._Inverse, [(1, 2, 8, 5, 2), (1, 2, 8, 9)])):
    registry = trt.get_plugin_registry()
    assert registry.get_creator(node.name, "1", "glama") is None
    registration._creators.append(registration._make_creator(trt, node, None))
    assert registry.register_creator(registration._creators[-1], "glama")
    creator = registry.get_creator(node.name, "1", "glama")
    assert (creator.name, creator.plugin_version, creator.plugin_namespace) == (node.name, "1", "glama")
    assert len(creator.field_names) == 0
    plugin = creator.create_plugin("a node", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD)
    for kind in (trt.PluginCapabilityType.CORE, trt.PluginCapabilityType.BUILD, trt.PluginCapabilityType.RUNTIME):
        assert trt.IPluginV3.get_capability_interface(plugin, kind) is plugin  # C++, which asks Python
    core, build = trt.IPluginV3OneCore, trt.IPluginV3OneBuild
    assert (core.plugin_name.fget(plugin), core.plugin_namespace.fget(plugin)) == (node.name, "glama")
    assert (build.num_outputs.fget(plugin), build.timing_cache_id.fget(plugin)) == (1, "")
    tensors = []
    for shape in shapes:
        desc, tensor = trt.PluginTensorDesc(), trt.DynamicPluginTensorDesc()
        desc.dims, desc.type, desc.format = trt.Dims(shape), trt.DataType.FLOAT, trt.TensorFormat.LINEAR
        tensor.desc, tensor.max = desc, trt.Dims(shape)
        tensors.append(tensor)
    assert plugin.supports_format_combination(0, tensors, node.inputs)
    assert plugin.get_workspace_size(tensors, []) == node.workspace(registration.fft.rfft2_size((1, 2, 8, 9)))
    assert node.size(*(tuple(t.desc.dims) for t in tensors)) == registration.fft.Size(2, 8, 9)
    assert type(plugin.clone()) is type(plugin.attach_to_context(None)) is type(plugin)
    del plugin
    gc.collect()
print("fits")
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout == "fits\n", child.stderr


def test_importing_the_package_needs_only_numpy():
    code = "import sys, glama_deploy.runtime.tensorrt.plugins; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "glama_deploy.runtime.tensorrt.plugins.transforms" in loaded
    assert not {"torch", "onnx", "polygraphy", "tensorrt", "tensorrt_rtx", "cuda"} & set(loaded)
