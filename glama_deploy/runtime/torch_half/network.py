"""A generator whose layers before the activation compute in a half type.

The reference's own code masks, interpolates, resamples between stages, applies the activation and composites, in
float32. These are the parts that :mod:`glama_deploy.export.numerics.half` keeps in float32, too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glama_deploy.reference.generator import Generator, Layers
from glama_deploy.runtime.torch_half.layers import FFCLayer, FineLayers, fold_layers
from glama_deploy.runtime.torch_half.tables import Tables

#: Input sizes whose tables are kept.
_MAX_SIZES = 8


class HalfLayers(nn.Module):
    """The layers from the network's input to the head: float32 [B, C, H, W] to float32 [B, 3, H, W].

    A value that is not finite in the head's output becomes NaN there, which no activation hides.

    Args:
        modules: The layers of the reference, float32, with the head as the last one.
        dtype: The half type.
    """

    def __init__(self, modules: list[nn.Module], dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(fold_layers(modules, dtype))
        self._has_skips = any(isinstance(layer, FineLayers) for layer in self.layers)
        self._dtype = dtype
        self._tables: dict[tuple[int, ...], Tables] = {}

    def forward(self, x: Tensor) -> Tensor:
        tables = self._get_tables(x)
        x = x.permute(0, 2, 3, 1).to(self._dtype, memory_format=torch.contiguous_format)
        encoded: list[Tensor] = []
        for layer in self.layers:
            x = layer(x + encoded.pop() if isinstance(layer, FineLayers) else x, tables)
            if self._has_skips and isinstance(layer, FFCLayer) and layer.is_local:
                encoded.append(x)
        logits = x.permute(0, 3, 1, 2).float()
        return logits + (logits - logits)  # NaN where the value is infinite, else unchanged

    def list_tables(self) -> list[Tables]:
        """List the tables that the last runs read.

        Returns:
            The tables of the sizes seen last.
        """
        return list(self._tables.values())

    def _get_tables(self, x: Tensor) -> Tables:
        key = tuple(x.shape)
        tables = self._tables.pop(key, None) or Tables(torch.empty(0, dtype=self._dtype, device=x.device))
        self._tables[key] = tables
        while len(self._tables) > _MAX_SIZES:
            del self._tables[next(iter(self._tables))]
        return tables


def convert_to_half(generator: Generator, dtype: torch.dtype) -> None:
    """Replace the layers before a generator's activation, and those of its coarse network, by half layers.

    Args:
        generator: The generator in evaluation mode, float32, which is changed.
        dtype: torch.float16 or torch.bfloat16.
    """
    modules = list(generator.model)
    head = next(n for n in reversed(range(len(modules))) if isinstance(modules[n], nn.Conv2d))
    generator.model = Layers(HalfLayers(modules[: head + 1], dtype), *modules[head + 1 :])
    if generator.coarse is not None:
        convert_to_half(generator.coarse, dtype)
