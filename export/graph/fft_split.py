"""The split FFT (:mod:`glama_deploy.fourier.split`) of one size in an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glama_deploy.export.graph.builder import GraphBuilder
from glama_deploy.fourier import split
from glama_deploy.node_names import FFT, INVERSE_SUFFIX


class SplitFFT:
    """Writes the split transforms of one bottleneck size. All Fourier units share its bases."""

    def __init__(self, graph: GraphBuilder, size: tuple[int, int]) -> None:
        """Write the bases.

        Args:
            graph: The graph.
            size: The bottleneck's (height, width).
        """
        self._graph, self._size = graph, size
        bases = split.compute_bases(*size)
        self._bases = {name: graph.constant(f"{FFT}/{name}", basis.astype(np.float32)) for name, basis in bases.items()}

    def forward(self, x: str, channels: int, name: str) -> str:
        """Write the rfft2 of x [B, C, H, W].

        Args:
            x: The input value.
            channels: C.
            name: The prefix of the nodes' names.

        Returns:
            The spectrum [B, 2C, H, split.count_columns(W)], the frequencies in the order of their digits.
        """
        return self._write_steps(x, split.list_forward_steps(self._size, channels), name)

    def inverse(self, z: str, channels: int, name: str, like: str) -> str:
        """Write the irfft2 of z.

        Args:
            z: The spectrum [B, 2C, H, split.count_columns(W)].
            channels: C.
            name: The prefix of the nodes' names.
            like: Not used.

        Returns:
            The result [B, C, H, W].
        """
        return self._write_steps(z, split.list_inverse_steps(self._size, channels), name)

    def _write_steps(self, x: str, steps: Iterable[split.Step], prefix: str) -> str:
        for step in steps:
            name = f"{prefix}/{step.name.removesuffix(INVERSE_SUFFIX)}"
            if step.kind == "product":
                x = self._graph.add("MatMul", [self._bases[step.name], x], name)
            elif step.kind == "reshape":
                x = self._graph.add("Reshape", [x, self._graph.ints(*step.shape)], name)
            else:
                x = self._graph.add("Transpose", [x], name, perm=list(step.shape))
        return x
