"""The inputs and outputs of other programs' models, so that the programs load our graph in place of the model.

    carve   Carve's LaMa: image float32 [B, 3, H, W] of 0…1, mask float32 [B, 1, H, W] (1 = missing) → output float32
            [B, 3, H, W] of 0…255. The output has whole numbers, because programs cut the fraction off.
    migan   MI-GAN's pipeline: image uint8 [B, 3, H, W], mask uint8 [B, 1, H, W] (255 = known) → result uint8
            [B, 3, H, W].

The output is the filled image: known pixels are those of the input. A graph of any size pads to multiples of 8 and
crops, as with io `uint8`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence

import numpy as np

from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.inputs_outputs import make_one, write_activation, write_bounds, write_mirror_indices
from glama_deploy.export.graph.window import Window
from glama_deploy.network import Activation
from glama_deploy.node_names import (
    BATCH,
    CARVE_OUTPUT,
    COMPOSE,
    COMPOSE_CROPPED,
    COMPOSE_PREDICTED,
    HEIGHT,
    IMAGE,
    KEEP,
    MASK,
    MASKED,
    MIGAN_OUTPUT,
    WIDTH,
)


class _PlanarInterface(ABC):
    """Writes the inputs and the output of a graph whose tensors are [B, C, H, W]."""

    #: The output's name.
    output: str
    #: The type of all tensors.
    dtype: str

    def __init__(self, graph: GraphBuilder, size: tuple[int, int] | None, activation: Activation = "sigmoid") -> None:
        """Keep what the nodes depend on.

        Args:
            graph: The graph.
            size: The images' (height, width). None: any size.
            activation: What follows the network's head.
        """
        self._graph, self._dynamic, self._activation = graph, size is None, activation
        self._sides = size or (HEIGHT, WIDTH)

    def write_inputs(self) -> str:
        """Write the nodes before the network.

        Returns:
            The network's input [B, 4, H, W], the masked image and the mask; H and W are multiples of 8.
        """
        add = self._graph.add
        image, mask = self._write_units()
        if self._dynamic:
            for axis, side in ((2, HEIGHT), (3, WIDTH)):
                index = write_mirror_indices(self._graph, IMAGE, axis, side)
                image = add("Gather", [image, index], f"{COMPOSE}/image_{side}", axis=axis)
                mask = add("Gather", [mask, index], f"{COMPOSE}/mask_{side}", axis=axis)
        keep = add("Sub", [make_one(self._graph), mask], KEEP)
        masked = add("Mul", [image, keep], MASKED)
        return add("Concat", [masked, mask], f"{COMPOSE}/stacked", axis=1)

    def write_outputs(self, logits: str, outputs: Collection[str], window: Window) -> None:
        """Write the nodes after the network.

        Args:
            logits: The network's output [B, 3, H, W] before the activation.
            outputs: Not used: the graph has one output.
            window: Not used: the graph computes whole images.
        """
        graph = self._graph
        add = graph.add
        predicted = write_activation(graph, self._activation, logits, COMPOSE_PREDICTED)
        if self._dynamic:
            sides = add("Shape", [IMAGE], f"{COMPOSE}/sides", start=2, end=4)
            predicted = add("Slice", [predicted, graph.ints(0, 0), sides, graph.ints(2, 3)], COMPOSE_CROPPED)
        scaled = add(
            "Mul", [write_bounds(graph, self._activation, predicted), self._make_levels()], f"{COMPOSE}/scaled"
        )
        self._write_composite(add("Round", [scaled], f"{COMPOSE}/filled"))

    @abstractmethod
    def _write_units(self) -> tuple[str, str]:
        """Write the image and the mask as float32 of 0…1, and return them."""

    @abstractmethod
    def _write_composite(self, filled: str) -> None:
        """Write the output from the network's image, float32 of whole numbers 0…255."""

    def _make_levels(self) -> str:
        return self._graph.constant("const/levels", np.array(255, np.float32))

    def inputs(self) -> list[Value]:
        """Return the graph's inputs.

        Returns:
            The image and the mask.
        """
        return [
            Value(IMAGE, self.dtype, (BATCH, 3, *self._sides)),
            Value(MASK, self.dtype, (BATCH, 1, *self._sides)),
        ]

    def outputs(self, names: Sequence[str]) -> list[Value]:
        """Return the graph's outputs.

        Args:
            names: Not used: the graph has one output.

        Returns:
            The output.
        """
        return [Value(self.output, self.dtype, (BATCH, 3, *self._sides))]


class CarveInterface(_PlanarInterface):
    """Writes the inputs and the output of Carve's LaMa."""

    output, dtype = CARVE_OUTPUT, "float32"

    def _write_units(self) -> tuple[str, str]:
        return IMAGE, MASK

    def _write_composite(self, filled: str) -> None:
        add, levels = self._graph.add, self._make_levels()
        image = add("Mul", [IMAGE, levels], f"{COMPOSE}/image_levels")
        keep = add("Sub", [make_one(self._graph), MASK], f"{COMPOSE}/keep_whole")
        known = add("Mul", [image, keep], f"{COMPOSE}/known")
        missing = add("Mul", [filled, MASK], f"{COMPOSE}/missing")
        composed = add("Add", [known, missing], f"{COMPOSE}/composed")
        add("Round", [composed], CARVE_OUTPUT)  # a mask between 0 and 1 mixes whole numbers to others


class MiganInterface(_PlanarInterface):
    """Writes the inputs and the output of MI-GAN's pipeline."""

    output, dtype = MIGAN_OUTPUT, "uint8"

    def _write_units(self) -> tuple[str, str]:
        add, levels = self._graph.add, self._make_levels()
        image = add("Cast", [IMAGE], f"{COMPOSE}/image_float", to=1)
        known = add("Cast", [MASK], f"{COMPOSE}/mask_float", to=1)
        missing = add("Less", [known, levels], f"{COMPOSE}/missing")
        return (
            add("Div", [image, levels], f"{COMPOSE}/unit"),
            add("Cast", [missing], f"{COMPOSE}/mask", to=1),
        )

    def _write_composite(self, filled: str) -> None:
        add = self._graph.add
        composed = add("Where", [f"{COMPOSE}/missing", filled, f"{COMPOSE}/image_float"], f"{COMPOSE}/composed")
        add("Cast", [composed], MIGAN_OUTPUT, to=2)
