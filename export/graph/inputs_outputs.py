"""The two ends of the graph: what a user's tensors become before the network, and the network's output after it.

    float   image float32 [B, 3, H, W], mask float32 [B, 1, H, W] → float32 [B, 3, H, W], sides multiples of 8
    uint8   image uint8 [B, H, W, 3], mask uint8 [B, H, W] (> 0 = missing) → inpainted uint8 [B, H, W, 3] and predicted
            float32 [B, H, W, 3]; normalising, compositing and rounding are in the graph, and where it is dynamic
            padding to multiples of 8 (symmetric, at the bottom and the right) and cropping: any sides from 16 up

Both ends compute in float32 at every precision, so known pixels come through exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import helper

from glama_deploy.bundle import Io
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.network import SIZE_MULTIPLE

#: The parts of the graph that this file makes.
PARTS = ("compose", "inpainted", "predicted")


class FloatEnds:
    """float32 in and out; see the head of this file."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None) -> None:
        self._graph = graph
        self._sides = size or ("height", "width")

    def enter(self) -> str:
        """The network's input [B, 4, H, W]: masked image and mask."""
        add = self._graph.add
        keep = add("Sub", [_one(self._graph), "mask"], "compose/keep")
        add("Mul", ["image", keep], "compose/masked")
        return add("Concat", ["compose/masked", "mask"], "compose/stacked", axis=1)

    def leave(self, logits: str, outputs: Collection[str]) -> None:
        """The outputs from the network's, before the sigmoid."""
        add = self._graph.add
        predicted = add("Sigmoid", [logits], "predicted" if "predicted" in outputs else "compose/predicted")
        if "inpainted" in outputs:
            filled = add("Mul", ["mask", predicted], "compose/filled")
            add("Add", ["compose/masked", filled], "inpainted")

    @staticmethod
    def give_predicted(model: onnx.ModelProto) -> None:
        """Add the output `predicted` to a graph that was made without it."""
        _add_output(model, helper.make_node("Identity", ["compose/predicted"], ["predicted"], name="predicted"))

    def inputs(self) -> list[Value]:
        return [
            Value("image", "float32", ("batch", 3, *self._sides)),
            Value("mask", "float32", ("batch", 1, *self._sides)),
        ]

    def outputs(self, names: Sequence[str]) -> list[Value]:
        return [Value(name, "float32", ("batch", 3, *self._sides)) for name in names]


class ByteEnds:
    """uint8 in and out; see the head of this file."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None) -> None:
        self._graph, self._dynamic = graph, size is None
        self._sides = size or ("height", "width")

    def enter(self) -> str:
        """The network's input [B, 4, H, W], sides multiples of 8: masked image and mask."""
        graph = self._graph
        add = graph.add
        image = add("Cast", ["image"], "compose/image_float", to=1)
        image = add("Transpose", [image], "compose/image", perm=[0, 3, 1, 2])
        mask = add("Cast", ["mask"], "compose/mask_float", to=1)
        mask = add("Min", [mask, _one(graph)], "compose/mask_bounded")
        mask = add("Unsqueeze", [mask, graph.ints(1)], "compose/mask")
        if self._dynamic:
            for axis, side in ((2, "height"), (3, "width")):
                index = self._mirrored(axis, side)
                image = add("Gather", [image, index], f"compose/image_{side}", axis=axis)
                mask = add("Gather", [mask, index], f"compose/mask_{side}", axis=axis)
        levels = graph.constant("const/levels", np.array(255, np.float32))
        unit = add("Div", [image, levels], "compose/unit")
        keep = add("Sub", [_one(graph), mask], "compose/keep")
        masked = add("Mul", [unit, keep], "compose/masked")
        return add("Concat", [masked, mask], "compose/stacked", axis=1)

    def leave(self, logits: str, outputs: Collection[str]) -> None:
        """The outputs from the network's, before the sigmoid."""
        graph = self._graph
        add = graph.add
        predicted = add("Sigmoid", [logits], "compose/predicted")
        if self._dynamic:
            sides = add("Shape", ["compose/image"], "compose/sides", start=2, end=4)
            predicted = add("Slice", [predicted, graph.ints(0, 0), sides, graph.ints(2, 3)], "compose/cropped")
        if "predicted" in outputs:
            add("Transpose", [predicted], "predicted", perm=[0, 2, 3, 1])
        if "inpainted" in outputs:
            levels = graph.constant("const/levels", np.array(255, np.float32))
            filled = add("Round", [add("Mul", [predicted, levels], "compose/scaled")], "compose/filled")
            half = graph.constant("const/half", np.array(0.5, np.float32))
            missing = add("Greater", ["compose/mask", half], "compose/missing")
            composed = add("Where", [missing, filled, "compose/image"], "compose/composed")
            composed = add("Transpose", [composed], "compose/composed_last", perm=[0, 2, 3, 1])
            add("Cast", [composed], "inpainted", to=2)

    @staticmethod
    def give_predicted(model: onnx.ModelProto) -> None:
        """Add the output `predicted` to a graph that was made without it."""
        dynamic = any(node.name == "compose/cropped" for node in model.graph.node)
        source = "compose/cropped" if dynamic else "compose/predicted"
        _add_output(model, helper.make_node("Transpose", [source], ["predicted"], name="predicted", perm=[0, 2, 3, 1]))

    def _mirrored(self, axis: int, side: str) -> str:
        """0, 1, …, n−1, n−1, n−2, …: as many as the next multiple of 8 (n ≥ 16, so they never reach back to 0)."""
        graph, name = self._graph, f"compose/{side}"
        add, ints = graph.add, graph.ints
        length = add("Shape", ["compose/image"], f"{name}/length", start=axis, end=axis + 1)
        eighths = add(
            "Div",
            [add("Add", [length, ints(SIZE_MULTIPLE - 1)], f"{name}/more"), ints(SIZE_MULTIPLE)],
            f"{name}/eighths",
        )
        padded = add("Mul", [eighths, ints(SIZE_MULTIPLE)], f"{name}/padded")
        index = graph.range(padded, f"{name}/index")
        back = add("Sub", [add("Add", [length, length], f"{name}/twice"), ints(1)], f"{name}/last")
        back = add("Sub", [back, index], f"{name}/back")
        return add("Min", [index, back], f"{name}/mirrored")

    def inputs(self) -> list[Value]:
        return [
            Value("image", "uint8", ("batch", *self._sides, 3)),
            Value("mask", "uint8", ("batch", *self._sides)),
        ]

    def outputs(self, names: Sequence[str]) -> list[Value]:
        types = {"inpainted": "uint8", "predicted": "float32"}
        return [Value(name, types[name], ("batch", *self._sides, 3)) for name in names]


def _add_output(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Append a node that makes a float32 output of four axes."""
    model.graph.node.append(node)
    sides = [f"{node.name}_{axis}" for axis in range(4)]
    model.graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, sides))


def _one(graph: GraphBuilder) -> str:
    return graph.constant("const/one", np.array(1, np.float32))


ENDS: dict[Io, type[FloatEnds] | type[ByteEnds]] = {"float": FloatEnds, "uint8": ByteEnds}
