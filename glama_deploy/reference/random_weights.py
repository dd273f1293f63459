"""Random weights for tests and benchmarks, with activations of the size that a trained network has.

With PyTorch's default weights, activations shrink from block to block until the output is nearly constant, and an error
of an engine does not show. Here the running statistics of the norms come from a forward pass. Every layer then has
activations of ordinary size, and the output uses the range 0…1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from glama_deploy.network import NetworkConfig
from glama_deploy.reference.generator import Generator


def untrained(config: NetworkConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the weights of a network.

    Args:
        config: The network's config.
        seed: Seed of the generator of random numbers. The same seed gives the same weights.

    Returns:
        Parameters and running statistics by name, float32.
    """
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
            module.momentum = 1.0  # the running statistics are those of the last forward pass alone
    with torch.no_grad():
        generator.train()
        side = max(64, config.min_side)
        generator(torch.rand(2, 4, side, side, generator=rng))
        for stage in (generator, generator.coarse):
            if stage is not None:
                head = stage.model[stage.config.head]
                assert isinstance(head, nn.Conv2d)
                head.weight *= 0.2  # keeps the sigmoid away from 0 and 1
    return {
        name: values.numpy()
        for name, values in generator.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
