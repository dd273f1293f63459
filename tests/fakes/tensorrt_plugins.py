"""The part of TensorRT that calls plugins, and one node's life in it."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from fakes.cufft import STREAM, Buffer, MemoryCufft, over_memory
from glama_deploy.runtime.tensorrt.plugins import registration


def fake_tensorrt(name: str = "tensorrt", version: str = "10.7.0") -> Any:
    """A module with what of TensorRT the plugins touch: its base classes insist on being initialised, as the binding's
    do, and its registry hands out creators by name, version and namespace."""

    def base(title: str) -> type:
        def init(self: Any) -> None:
            self.__dict__.setdefault("initialised", set()).add(title)

        return type(title, (), {"__init__": init})

    titles = ["IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime", "IPluginCreatorV3One"]
    bases = {title: base(title) for title in titles}
    trt: Any = ModuleType(name)
    vars(trt).update(bases, __version__=version)
    trt.DataType = SimpleNamespace(FLOAT="float", HALF="half", INT8="int8")
    trt.TensorFormat = SimpleNamespace(LINEAR="linear", HWC="hwc", CHW4="chw4")
    trt.DimensionOperation = SimpleNamespace(SUM=lambda a, b: a + b, FLOOR_DIV=lambda a, b: a // b)
    trt.DimsExprs = trt.PluginFieldCollection = list
    trt.INetworkDefinition = type("INetworkDefinition", (), {"add_plugin_v3": None})
    trt.TensorRTPhase = SimpleNamespace(BUILD=0, RUNTIME=1)
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    return trt


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}
        self.refuses = False

    def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> Any:
        return self.creators.get((type, version, plugin_namespace))

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        key = (creator.name, creator.plugin_version, plugin_namespace)
        if self.refuses or key in self.creators:
            return False
        assert creator.initialised == {"IPluginCreatorV3One"}
        assert creator.plugin_namespace == plugin_namespace
        assert creator.field_names == []
        self.creators[key] = creator
        return True


class Expressions:
    """TensorRT's IExprBuilder; expressions are numbers here."""

    def constant(self, value: int) -> int:
        return value

    def operation(self, operation: Any, first: int, second: int) -> int:
        return operation(first, second)


class Engine:
    """One node's life in TensorRT: built for a profile, run by two contexts."""

    capabilities: ClassVar = {"IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime"}

    def __init__(self, trt: Any, node: str, largest: list[tuple[int, ...]]) -> None:
        self.trt = trt
        self.creator = trt.get_plugin_registry().get_creator(node, "1", "glama")
        plugin = self.creator.create_plugin("a node", [], trt.TensorRTPhase.BUILD).clone()
        assert plugin.initialised == self.capabilities
        assert (plugin.plugin_name, plugin.plugin_version, plugin.plugin_namespace) == (node, "1", "glama")
        assert plugin.num_outputs == 1
        for capability in range(3):
            assert plugin.get_capability_interface(capability) is plugin
        assert plugin.get_output_data_types([trt.DataType.FLOAT] * len(largest)) == [trt.DataType.FLOAT]
        (output,) = plugin.get_output_shapes([list(shape) for shape in largest], [], Expressions())
        tensors = [SimpleNamespace(desc=self.desc(s), max=s) for s in (*largest, tuple(output))]
        inputs, outputs = tensors[:-1], tensors[-1:]
        assert all(plugin.supports_format_combination(p, tensors, len(inputs)) for p in range(len(tensors)))
        plugin.configure_plugin(inputs, outputs)
        assert plugin.get_valid_tactics() == []
        assert plugin.get_fields_to_serialize() == []
        assert plugin.get_fields_to_serialize() is plugin.get_fields_to_serialize()  # the binding keeps a bare pointer
        self.workspace = plugin.get_workspace_size(inputs, outputs)
        loaded = self.creator.create_plugin("a node", [], trt.TensorRTPhase.RUNTIME)
        self.contexts = [loaded.attach_to_context(None) for _ in range(2)]
        for context in self.contexts:
            assert context is not loaded
            context.set_tactic(0)

    def desc(self, shape: tuple[int, ...]) -> SimpleNamespace:
        return SimpleNamespace(dims=shape, type=self.trt.DataType.FLOAT, format=self.trt.TensorFormat.LINEAR)

    def run(self, context: int, source: np.ndarray, shape: tuple[int, ...], *others: tuple[int, ...]) -> np.ndarray:
        """The node's output of `shape`; of `others` inputs there is only the shape, and no memory to read."""
        inputs = [self.desc(source.shape), *map(self.desc, others)]
        outputs = [self.desc(shape)]
        plugin, workspace = self.contexts[context], Buffer(self.workspace)
        given_, target = Buffer(source.nbytes, source), Buffer(4 * int(np.prod(shape)))
        plugin.on_shape_change(inputs, outputs)
        addresses = [given_.address, *(0 for _ in others)]
        plugin.enqueue(inputs, outputs, addresses, [target.address], workspace.address, STREAM)
        np.testing.assert_array_equal(given_.array(source.shape), source)  # a plugin must not write its inputs
        for buffer in (given_, target, workspace):
            buffer.assert_guards()
        return target.array(shape).copy()


def registered(library: MemoryCufft) -> Any:
    trt = fake_tensorrt()
    registration.register(trt, over_memory(library))
    return trt
