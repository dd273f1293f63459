"""The FFT as nodes that a library computes: ONNX's DFT, or `glama::RFFT2` and `glama::IRFFT2` of a TensorRT plugin.

    dft       DFT over the width (real to half spectrum), DFT over the height, × 1/√(HW). Back: inverse DFT over the
              height, × √(HW) (the inverse divides by H·W), inverse DFT over the width. Before the last step the
              imaginary parts of the first column and, for even W, of the last are multiplied by 0. An irfft ignores
              these parts, which are not 0 after a convolution; cuFFT does not promise to ignore them. TensorRT
              computes DFT nodes with cuFFT from 11.2 on. ONNX Runtime and OpenVINO support DFT nodes.
    plugin    RFFT2: x [B,C,H,W] → [B,C,H,F,2]; IRFFT2: z [B,C,H,F,2], x → [B,C,H,W]. IRFFT2 uses only the shape of x,
              because F does not tell whether W is even. A multiplication by 1/√(HW) follows each. For TensorRT 10.

The spectrum [B, C, H, F, 2] is transposed to the interleaved channels [B, 2C, H, F] that the convolution takes. The
transforms and their scaling compute in float32 on every engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from glama_deploy.errors import EngineError
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.node_names import (
    COLUMN,
    COMPLEX,
    DEINTERLEAVE,
    FFT,
    INTERLEAVE,
    IRFFT,
    PARTS_FIRST,
    RFFT,
    ROW,
    SCALE,
)
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session, require_onnxruntime
from glama_deploy.runtime.tensorrt.plugins.fft import NAMESPACE, VERSION

#: Operators that stay float32: cuFFT has half types for few sizes only, other libraries have none.
FP32_OPERATORS = ("DFT", "RFFT2", "IRFFT2")

#: The ends of the names of the other nodes that stay float32: the scaling, and the reshape between two DFT nodes.
FP32_SUFFIXES = (f"/{RFFT}/{SCALE}", f"/{IRFFT}/{SCALE}", f"/{RFFT}/{COMPLEX}")


class _NodeFFT(ABC):
    """The base of both kinds: the scaling, and the layouts [B, C, H, F, 2] and [B, 2C, H, F]."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, like: str) -> None:
        """Write what all transforms share.

        Args:
            graph: The graph.
            size: The bottleneck's (height, width). None: the size of `like` at run time.
            like: A value [B, C, H, W] of the bottleneck's size.
        """
        self._graph, self._size = graph, size
        add, ints = graph.add, graph.ints
        if size is not None:
            area = np.float32(size[0] * size[1])
            self._inverse_root = graph.constant(f"{FFT}/inverse_root", 1 / np.sqrt(area))
            self._width = graph.constant(f"{FFT}/width", np.array(size[1], np.int64))
            return
        width = add("Shape", [like], f"{FFT}/width_axis", start=3, end=4)
        self._width = add("Squeeze", [width, ints(0)], f"{FFT}/width")
        sides = add("Shape", [like], f"{FFT}/sides", start=2, end=4)
        area = add("Cast", [add("ReduceProd", [sides], f"{FFT}/area", keepdims=0)], f"{FFT}/area_float", to=1)
        self._inverse_root = add("Reciprocal", [add("Sqrt", [area], f"{FFT}/root")], f"{FFT}/inverse_root")
        half = add("Add", [add("Div", [width, ints(2)], f"{FFT}/half_width"), ints(1)], f"{FFT}/half")
        height = add("Shape", [like], f"{FFT}/height", start=2, end=3)
        self._height_half = add("Concat", [height, half], f"{FFT}/height_half", axis=0)

    def forward(self, x: str, channels: int, name: str) -> str:
        """Write the rfft2 of x [B, C, H, W].

        Args:
            x: The input value.
            channels: C.
            name: The prefix of the nodes' names.

        Returns:
            The spectrum [B, 2C, H, F], real and imaginary parts interleaved as channels.
        """
        y = self._transform(x, channels, name)
        y = self._graph.add("Mul", [y, self._inverse_root], f"{name}/{SCALE}")
        y = self._graph.add("Transpose", [y], f"{name}/{PARTS_FIRST}", perm=[0, 1, 4, 2, 3])
        return self._reshape(y, (0, 2 * channels), f"{name}/{INTERLEAVE}")

    def inverse(self, z: str, channels: int, name: str, like: str) -> str:
        """Write the irfft2 of z.

        Args:
            z: The spectrum [B, 2C, H, F].
            channels: C.
            name: The prefix of the nodes' names.
            like: A value of the result's shape.

        Returns:
            The result [B, C, H, W].
        """
        y = self._reshape(z, (0, channels, 2), f"{name}/{DEINTERLEAVE}")
        y = self._graph.add("Transpose", [y], f"{name}/parts_last", perm=[0, 1, 3, 4, 2])
        return self._transform_back(y, channels, name, like)

    def _reshape(self, x: str, front: tuple[int, ...], name: str) -> str:
        """Reshape to [*front, H, F]."""
        if self._size is not None:
            shape = self._graph.ints(*front, self._size[0], self._size[1] // 2 + 1)
        else:
            shape = f"{FFT}/shape_{'_'.join(map(str, front))}"
            if not self._graph.has(shape):
                self._graph.add("Concat", [self._graph.ints(*front), self._height_half], shape, axis=0)
        return self._graph.add("Reshape", [x, shape], name)

    @abstractmethod
    def _transform(self, x: str, channels: int, name: str) -> str:
        """Return the half spectrum [B, C, H, F, 2] of x [B, C, H, W], without scaling."""

    @abstractmethod
    def _transform_back(self, z: str, channels: int, name: str, like: str) -> str:
        """Return the inverse [B, C, H, W] of z [B, C, H, F, 2], scaled by 1/√(HW)."""


class DftFFT(_NodeFFT):
    """Writes ONNX DFT nodes of version 17, whose axis is an attribute: OpenVINO does not support the later version."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, like: str) -> None:
        """Write what all transforms share.

        Args:
            graph: The graph.
            size: The bottleneck's (height, width). None: the size of `like` at run time.
            like: A value [B, C, H, W] of the bottleneck's size.
        """
        super().__init__(graph, size, like)
        if size is not None:
            real = 2 * np.arange(size[1] // 2 + 1) % size[1] == 0
            weight = np.stack([np.ones(len(real)), np.where(real, 0.0, 1.0)], axis=1) * np.sqrt(size[0] * size[1])
            self._inverse_scale = graph.constant(f"{FFT}/inverse_scale", weight.astype(np.float32))
            return
        add, ints = graph.add, graph.ints
        twice = add("Mul", [graph.range(f"{FFT}/half", f"{FFT}/f"), ints(2)], f"{FFT}/f_twice")
        other = add("Cast", [add("Mod", [twice, f"{FFT}/width"], f"{FFT}/f_twice_mod")], f"{FFT}/f_float", to=1)
        one = graph.constant("const/one", np.array(1, np.float32))
        imaginary = add("Mul", [f"{FFT}/root", add("Min", [other, one], f"{FFT}/f_imaginary")], f"{FFT}/imaginary_root")
        full = add("Expand", [f"{FFT}/root", f"{FFT}/half"], f"{FFT}/real_root")
        columns = [add("Unsqueeze", [part, ints(1)], f"{part}_column") for part in (full, imaginary)]
        self._inverse_scale = add("Concat", columns, f"{FFT}/inverse_scale", axis=1)

    def _transform(self, x: str, channels: int, name: str) -> str:
        add, ints = self._graph.add, self._graph.ints
        y = add("Unsqueeze", [x, ints(-1)], f"{name}/real")
        y = add("DFT", [y], f"{name}/{ROW}", axis=3, onesided=1)
        # This is the standard's shape. OpenVINO keeps the real input's last axis: [B, C, H, F, 1, 2].
        y = add("Reshape", [y, ints(0, 0, 0, -1, 2)], f"{name}/{COMPLEX}")
        return add("DFT", [y], f"{name}/{COLUMN}", axis=2)

    def _transform_back(self, z: str, channels: int, name: str, like: str) -> str:
        add, ints = self._graph.add, self._graph.ints
        y = add("DFT", [z], f"{name}/{COLUMN}", axis=2, inverse=1)
        y = add("Mul", [y, self._inverse_scale], f"{name}/{SCALE}")
        y = add("DFT", [y, self._width], f"{name}/{ROW}", axis=3, inverse=1, onesided=1)
        return add("Reshape", [y, ints(0, 0, 0, -1)], f"{name}/real")  # OpenVINO drops the last axis itself


class PluginFFT(_NodeFFT):
    """Writes this project's own nodes. ONNX cannot infer their shapes, so the graph declares them."""

    def _transform(self, x: str, channels: int, name: str) -> str:
        half = self._size[1] // 2 + 1 if self._size else None
        return self._add_plugin_node("RFFT2", [x], f"{name}/fft", (channels, *self._get_sides(half), 2))

    def _transform_back(self, z: str, channels: int, name: str, like: str) -> str:
        width = self._size[1] if self._size else None
        y = self._add_plugin_node("IRFFT2", [z, like], f"{name}/fft", (channels, *self._get_sides(width)))
        return self._graph.add("Mul", [y, self._inverse_root], f"{name}/{SCALE}")

    def _get_sides(self, width: int | None) -> tuple[int | None, int | None]:
        return (self._size[0] if self._size else None), width

    def _add_plugin_node(self, op: str, inputs: list[str], name: str, shape: tuple[int | None, ...]) -> str:
        self._graph.declare(name, (None, *shape))
        return self._graph.add(op, inputs, name, domain=NAMESPACE, plugin_namespace=NAMESPACE, plugin_version=VERSION)


def check_onnxruntime() -> None:
    """Check that the installed ONNX Runtime computes an inverse one-sided DFT, which older versions do not support.

    Raises:
        EngineError: ONNX Runtime is not installed, or does not compute this DFT.
    """
    onnxruntime = require_onnxruntime()

    graph = GraphBuilder()
    graph.add("Identity", [DftFFT(graph, (2, 2), "x").inverse("z", 1, IRFFT, like="x")], "y")
    shapes = [Value("z", "float32", (1, 2, 2, 2))], [Value("y", "float32", (1, 1, 2, 2))]
    data = graph.model(*shapes, {}).SerializeToString()
    try:
        session = open_cpu_session(data, is_silent=True)
        session.run(None, {"z": np.zeros((1, 2, 2, 2), np.float32)})
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime {onnxruntime.__version__} does not compute inverse real DFT nodes, which `fft=dft` and the "
            "calibration of `fft=plugin` need; install a newer ONNX Runtime"
        ) from error
