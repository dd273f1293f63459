"""Register the nodes `glama::RFFT2` and `glama::IRFFT2` with TensorRT 10 or newer, as V3 plugins written in Python.

Call :func:`register` before a network with these nodes is parsed, and before an engine with them is deserialized: an
engine contains the plugins' names only. TensorRT catches what a plugin raises, prints the exception to stderr and
reports that the run failed.

TensorRT's Python binding (pyPlugin.cpp) has rules beyond its documentation. Each base class is initialised by itself.
The binding does not keep the collection of fields to serialize alive, so the plugin does. Python never collects objects
that TensorRT owns, so `destroy` drops their contents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from glama_deploy.catalogue import TENSORRT_RTX
from glama_deploy.errors import EngineError
from glama_deploy.runtime.tensorrt.plugins import cufft, fft
from glama_deploy.runtime.tensorrt.plugins.hermitian import HermitianCopy
from glama_deploy.runtime.tensorrt.plugins.transforms import Transform, Transforms, forward_workspace, inverse_workspace

#: The creators that were registered. The registry does not hold references to creators written in Python.
_creators: list[Any] = []


def register(trt: Any, transforms: Transforms | None = None) -> None:
    """Register the creators of both plugins with a TensorRT module. Further calls change nothing.

    Args:
        trt: The module `tensorrt`.
        transforms: The transforms that the plugins run. None: cuFFT on the GPU.

    Raises:
        EngineError: the module is TensorRT-RTX (no plugins) or TensorRT before 10 (no V3 plugins), or cuFFT or
            cuda-python is missing.
    """
    _check_version(trt)
    registry = trt.get_plugin_registry()
    missing = [node for node in (_Forward, _Inverse) if not registry.get_creator(node.name, fft.VERSION, fft.NAMESPACE)]
    if not missing:
        return
    shared = transforms or Transforms(cufft.load(), HermitianCopy())
    for node in missing:
        creator = _make_creator(trt, node, shared)
        if not registry.register_creator(creator, fft.NAMESPACE):
            raise EngineError(f"TensorRT {trt.__version__} refused the plugin {fft.NAMESPACE}::{node.name}")
        _creators.append(creator)


def _check_version(trt: Any) -> None:
    if trt.__name__.partition(".")[0] == TENSORRT_RTX.package:
        raise EngineError("TensorRT-RTX takes no plugins; export with `fft=matmul`")
    if int(trt.__version__.partition(".")[0]) < 10 or not hasattr(trt.INetworkDefinition, "add_plugin_v3"):
        raise EngineError(
            f"TensorRT {trt.__version__} takes no V3 plugins; install 10 or newer, or export with `fft=matmul`"
        )


class _Forward:
    """RFFT2 for the plugin: all sizes follow from the inputs' shapes."""

    name, inputs = "RFFT2", 1
    size = staticmethod(fft.rfft2_size)
    workspace = staticmethod(forward_workspace)

    @staticmethod
    def symbols(inputs: Sequence[Any], builder: Any, operation: Any) -> list[Any]:
        return fft.rfft2_symbols(inputs[0], builder, operation)

    @staticmethod
    def transform(transforms: Transforms, size: fft.Size) -> Transform:
        return transforms.forward(size)


class _Inverse:
    """IRFFT2 for the plugin."""

    name, inputs = "IRFFT2", 2
    size = staticmethod(fft.irfft2_size)
    workspace = staticmethod(inverse_workspace)

    @staticmethod
    def symbols(inputs: Sequence[Any], builder: Any, operation: Any) -> list[Any]:
        return fft.irfft2_symbols(*inputs)

    @staticmethod
    def transform(transforms: Transforms, size: fft.Size) -> Transform:
        return transforms.inverse(size)


_Node = type[_Forward] | type[_Inverse]


def _make_creator(trt: Any, node: _Node, transforms: Transforms) -> Any:
    """Return an IPluginCreatorV3One of a node's plugins."""
    bases = (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime)
    plugin = type(node.name, (_Plugin, *bases), {"trt": trt, "bases": bases, "node": node, "transforms": transforms})
    creator = {"trt": trt, "node": node, "plugin": plugin}
    return type(f"{node.name}Creator", (_Creator, trt.IPluginCreatorV3One), creator)()


class _Creator:
    """The methods of IPluginCreatorV3One. A subclass adds that base class and sets the three attributes."""

    trt: Any
    node: _Node
    plugin: Callable[[], Any]

    def __init__(self) -> None:
        self.trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_version, self.plugin_namespace = self.node.name, fft.VERSION, fft.NAMESPACE
        self.field_names = self.trt.PluginFieldCollection([])

    def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
        return self.plugin()  # the nodes have no fields, and both phases are alike


class _Plugin:
    """The methods of IPluginV3 and its capabilities. A subclass adds these base classes and sets the attributes."""

    trt: Any
    bases: tuple[Any, ...]
    node: _Node
    transforms: Transforms

    def __init__(self) -> None:
        for base in self.bases:
            base.__init__(self)
        self.plugin_name, self.plugin_version, self.plugin_namespace = self.node.name, fft.VERSION, fft.NAMESPACE
        self.num_outputs = 1
        self.timing_cache_id = ""  # nodes of one size are alike, so one measurement serves all
        self._fields = self.trt.PluginFieldCollection([])
        self._transform: Transform | None = None

    # IPluginV3

    def get_capability_interface(self, type: Any) -> Any:
        return self

    def clone(self) -> Any:
        return self.__class__()  # all plugins share the plans

    def destroy(self) -> None:
        self._transform = None

    # build

    def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
        return [self.trt.DataType.FLOAT]

    def get_output_shapes(self, inputs: Sequence[Any], shape_inputs: Sequence[Any], expr_builder: Any) -> list[Any]:
        return [self.trt.DimsExprs(self.node.symbols(inputs, expr_builder, self.trt.DimensionOperation))]

    def supports_format_combination(self, pos: int, in_out: Sequence[Any], num_inputs: int) -> bool:
        desc = in_out[pos].desc
        dense = desc.type == self.trt.DataType.FLOAT and desc.format == self.trt.TensorFormat.LINEAR
        return bool(dense and num_inputs == self.node.inputs)

    def configure_plugin(self, inp: Sequence[Any], out: Sequence[Any]) -> None:
        pass  # there is nothing to choose

    def get_workspace_size(self, inp: Sequence[Any], out: Sequence[Any]) -> int:
        # Enough for the profile's largest size and every smaller one. The last input is the real one of both nodes.
        return self.node.workspace(fft.rfft2_size(tuple(inp[-1].max)))

    def get_valid_tactics(self) -> list[int]:
        return []

    # runtime

    def set_tactic(self, tactic: int) -> None:
        pass  # called with 0, because there are none

    def get_fields_to_serialize(self) -> Any:
        return self._fields

    def attach_to_context(self, context: Any) -> Any:
        return self.clone()

    def on_shape_change(self, inp: Sequence[Any], out: Sequence[Any]) -> None:
        # Plan here, where allocating and waiting are allowed: `enqueue` may be captured in a CUDA graph.
        self._get_transform(inp)

    def enqueue(
        self,
        input_desc: Sequence[Any],
        output_desc: Sequence[Any],
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        # Inputs, outputs and workspace are device addresses. IRFFT2's second input is never read.
        if not workspace:
            raise EngineError(
                f"TensorRT gave {self.node.name} no workspace; build the engine again with a larger `workspace_mib`"
            )
        self._get_transform(input_desc).run(inputs[0], outputs[0], workspace, stream)

    def _get_transform(self, inputs: Sequence[Any]) -> Transform:
        size = self.node.size(*(tuple(tensor.dims) for tensor in inputs))
        if self._transform is None or self._transform.size != size:
            self._transform = self.node.transform(self.transforms, size)
        return self._transform
