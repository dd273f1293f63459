"""The graph's inputs and outputs: the nodes before the network (masking) and after the network (compositing).

    float   image float32 [B, 3, H, W], mask float32 [B, 1, H, W] → float32 [B, 3, H, W], sides multiples of 8
    uint8   image uint8 [B, H, W, 3], mask uint8 [B, H, W] (> 0 = missing) → inpainted uint8 [B, H, W, 3] and predicted
            float32 [B, H, W, 3]; any sides from 16 up. The graph normalises, composites and rounds. A graph of any size
            also pads to multiples of 8 (symmetric, at the bottom and the right) and crops.

All these nodes compute in float32 at every precision, so known pixels stay exact.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx
from onnx import helper

from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.window import Window
from glama_deploy.network import SIZE_MULTIPLE, Activation
from glama_deploy.node_names import (
    BATCH,
    COMPOSE,
    COMPOSE_CROPPED,
    COMPOSE_PREDICTED,
    HEIGHT,
    IMAGE,
    INPAINTED,
    KEEP,
    MASK,
    MASKED,
    PREDICTED,
    WIDTH,
)

#: The parts of the graph that this module writes.
PARTS = (COMPOSE, INPAINTED, PREDICTED)


class FloatInterface:
    """Writes the inputs and outputs of a graph with io `float`."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, activation: Activation = "sigmoid") -> None:
        """Keep what the nodes depend on.

        Args:
            graph: The graph.
            size: The images' (height, width). None: any size.
            activation: What follows the network's head.
        """
        self._activation = activation
        self._graph = graph
        self._sides = size or (HEIGHT, WIDTH)

    def write_inputs(self) -> str:
        """Write the nodes before the network.

        Returns:
            The network's input [B, 4, H, W], the masked image and the mask.
        """
        add = self._graph.add
        keep = add("Sub", [make_one(self._graph), MASK], KEEP)
        add("Mul", [IMAGE, keep], MASKED)
        return add("Concat", [MASKED, MASK], f"{COMPOSE}/stacked", axis=1)

    def write_outputs(self, logits: str, outputs: Collection[str], window: Window) -> None:
        """Write the nodes after the network.

        Args:
            logits: The network's output [B, 3, H, W] before the activation, in the window.
            outputs: The names of the graph's outputs.
            window: The graph's window.
        """
        add = self._graph.add
        name = PREDICTED if PREDICTED in outputs else COMPOSE_PREDICTED
        predicted = write_activation(self._graph, self._activation, logits, name)
        if INPAINTED in outputs:
            mask = window.cut(MASK, f"{COMPOSE}/mask_window")
            masked = window.cut(MASKED, f"{COMPOSE}/masked_window")
            bounded = write_bounds(self._graph, self._activation, predicted)
            filled = add("Mul", [mask, bounded], f"{COMPOSE}/filled")
            add("Add", [masked, filled], INPAINTED)

    @staticmethod
    def add_predicted(model: onnx.ModelProto) -> None:
        """Add the output `predicted` to a graph that does not have the output.

        Args:
            model: The graph, which is changed.
        """
        _add_output(model, helper.make_node("Identity", [COMPOSE_PREDICTED], [PREDICTED], name=PREDICTED))

    def inputs(self) -> list[Value]:
        """Return the graph's inputs.

        Returns:
            The image and the mask.
        """
        return [
            Value(IMAGE, "float32", (BATCH, 3, *self._sides)),
            Value(MASK, "float32", (BATCH, 1, *self._sides)),
        ]

    def outputs(self, names: Sequence[str]) -> list[Value]:
        """Return the graph's outputs.

        Args:
            names: The outputs' names.

        Returns:
            The outputs, in the order of the names.
        """
        return [Value(name, "float32", (BATCH, 3, *self._sides)) for name in names]


class ByteInterface:
    """Writes the inputs and outputs of a graph with io `uint8`."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, activation: Activation = "sigmoid") -> None:
        """Keep what the nodes depend on.

        Args:
            graph: The graph.
            size: The images' (height, width). None: any size.
            activation: What follows the network's head.
        """
        self._activation = activation
        self._graph, self._dynamic = graph, size is None
        self._sides = size or (HEIGHT, WIDTH)

    def write_inputs(self) -> str:
        """Write the nodes before the network.

        Returns:
            The network's input [B, 4, H, W], the masked image and the mask; H and W are multiples of 8.
        """
        graph = self._graph
        add = graph.add
        image = add("Cast", [IMAGE], f"{COMPOSE}/image_float", to=1)
        image = add("Transpose", [image], f"{COMPOSE}/image", perm=[0, 3, 1, 2])
        mask = add("Cast", [MASK], f"{COMPOSE}/mask_float", to=1)
        mask = add("Min", [mask, make_one(graph)], f"{COMPOSE}/mask_bounded")
        mask = add("Unsqueeze", [mask, graph.ints(1)], f"{COMPOSE}/mask")
        if self._dynamic:
            for axis, side in ((2, HEIGHT), (3, WIDTH)):
                index = write_mirror_indices(graph, f"{COMPOSE}/image", axis, side)
                image = add("Gather", [image, index], f"{COMPOSE}/image_{side}", axis=axis)
                mask = add("Gather", [mask, index], f"{COMPOSE}/mask_{side}", axis=axis)
        levels = graph.constant("const/levels", np.array(255, np.float32))
        unit = add("Div", [image, levels], f"{COMPOSE}/unit")
        keep = add("Sub", [make_one(graph), mask], KEEP)
        masked = add("Mul", [unit, keep], MASKED)
        return add("Concat", [masked, mask], f"{COMPOSE}/stacked", axis=1)

    def write_outputs(self, logits: str, outputs: Collection[str], window: Window) -> None:
        """Write the nodes after the network.

        Args:
            logits: The network's output [B, 3, H, W] before the activation, in the window.
            outputs: The names of the graph's outputs.
            window: The graph's window, which may reach into the padding.
        """
        graph = self._graph
        add = graph.add
        predicted = write_activation(graph, self._activation, logits, COMPOSE_PREDICTED)
        image = window.cut(f"{COMPOSE}/image", f"{COMPOSE}/image_window")
        if self._dynamic:
            sides = add("Shape", [image], f"{COMPOSE}/sides", start=2, end=4)
            predicted = add("Slice", [predicted, graph.ints(0, 0), sides, graph.ints(2, 3)], COMPOSE_CROPPED)
        if PREDICTED in outputs:
            add("Transpose", [predicted], PREDICTED, perm=[0, 2, 3, 1])
        if INPAINTED in outputs:
            levels = graph.constant("const/levels", np.array(255, np.float32))
            bounded = write_bounds(graph, self._activation, predicted)
            filled = add("Round", [add("Mul", [bounded, levels], f"{COMPOSE}/scaled")], f"{COMPOSE}/filled")
            half = graph.constant("const/half", np.array(0.5, np.float32))
            mask = window.cut(f"{COMPOSE}/mask", f"{COMPOSE}/mask_window")
            missing = add("Greater", [mask, half], f"{COMPOSE}/missing")
            composed = add("Where", [missing, filled, image], f"{COMPOSE}/composed")
            composed = add("Transpose", [composed], f"{COMPOSE}/composed_last", perm=[0, 2, 3, 1])
            add("Cast", [composed], INPAINTED, to=2)

    @staticmethod
    def add_predicted(model: onnx.ModelProto) -> None:
        """Add the output `predicted` to a graph that does not have the output.

        Args:
            model: The graph, which is changed.
        """
        dynamic = any(node.name == COMPOSE_CROPPED for node in model.graph.node)
        source = COMPOSE_CROPPED if dynamic else COMPOSE_PREDICTED
        _add_output(model, helper.make_node("Transpose", [source], [PREDICTED], name=PREDICTED, perm=[0, 2, 3, 1]))

    def inputs(self) -> list[Value]:
        """Return the graph's inputs.

        Returns:
            The image and the mask.
        """
        return [
            Value(IMAGE, "uint8", (BATCH, *self._sides, 3)),
            Value(MASK, "uint8", (BATCH, *self._sides)),
        ]

    def outputs(self, names: Sequence[str]) -> list[Value]:
        """Return the graph's outputs.

        Args:
            names: The outputs' names.

        Returns:
            The outputs, in the order of the names.
        """
        types = {INPAINTED: "uint8", PREDICTED: "float32"}
        return [Value(name, types[name], (BATCH, *self._sides, 3)) for name in names]


def write_mirror_indices(graph: GraphBuilder, image: str, axis: int, side: str) -> str:
    """Write the indices 0, 1, …, n−1, n−1, n−2, … of an axis of length n ≥ 16, padded to a multiple of 8.

    Args:
        graph: The graph.
        image: The images.
        axis: The axis of the images.
        side: The axis' name.

    Returns:
        The indices' name.
    """
    name = f"{COMPOSE}/{side}"
    add, ints = graph.add, graph.ints
    length = add("Shape", [image], f"{name}/length", start=axis, end=axis + 1)
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


def write_activation(graph: GraphBuilder, activation: Activation, logits: str, name: str) -> str:
    """Write what follows the network's head.

    Args:
        graph: The graph.
        activation: The network's activation.
        logits: The head's output.
        name: The node's name.

    Returns:
        The output's name.
    """
    operator = {"sigmoid": "Sigmoid", "tanh": "Tanh", "none": "Identity"}[activation]
    return graph.add(operator, [logits], name)


def write_bounds(graph: GraphBuilder, activation: Activation, predicted: str) -> str:
    """Cut a prediction to 0…1, as LaMa's programs do where a network does not end in a sigmoid.

    Args:
        graph: The graph.
        activation: The network's activation.
        predicted: The prediction.

    Returns:
        The name of the prediction in 0…1.
    """
    if activation == "sigmoid":
        return predicted
    return graph.add("Clip", [predicted, graph.scalar(0.0), graph.scalar(1.0)], f"{COMPOSE}/bounded")


def _add_output(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Append a node, whose output becomes a float32 output of the graph with four axes."""
    model.graph.node.append(node)
    sides = [f"{node.name}_{axis}" for axis in range(4)]
    model.graph.output.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, sides))


def make_one(graph: GraphBuilder) -> str:
    """Add the constant 1.

    Args:
        graph: The graph.

    Returns:
        The constant's name.
    """
    return graph.constant("const/one", np.array(1, np.float32))
