"""Weights of a network that was never trained but behaves like one that was: for tests and benchmarks.

PyTorch's defaults let activations fade through the blocks until every engine agrees on a constant. Here the norms'
running statistics are those of a forward pass, so that every layer sees values of ordinary size and the output uses the
range 0…1: an error of an engine shows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from glama_deploy.network import NetworkConfig
from glama_deploy.reference.generator import Generator


def untrained(config: NetworkConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Parameters and statistics by name, float32, the same for a seed."""
    rng = torch.Generator().manual_seed(seed)
    generator = Generator(config)
    for module in generator.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, generator=rng)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1, generator=rng)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=rng)
            nn.init.uniform_(module.bias, -0.3, 0.3, generator=rng)
            module.momentum = 1.0  # the statistics of the last forward pass, whole
    with torch.no_grad():
        generator.train()
        generator(torch.rand(2, 4, 64, 64, generator=rng))
        for stage in (generator, generator.coarse):
            if stage is not None:
                head = stage.model[stage.config.head]
                assert isinstance(head, nn.Conv2d)
                head.weight *= 0.2  # keeps the sigmoid off its ends
    return {
        name: values.numpy()
        for name, values in generator.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
