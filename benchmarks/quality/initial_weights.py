"""Write the weights with which a network's training from nothing begins.

    python benchmarks/quality/initial_weights.py --config RUN.yaml --out START.safetensors

    glama-train --config RUN.yaml --weights START.safetensors --out RUN

With PyTorch's own first weights, a U-Net that corrects an interpolated picture lost most of its units: ReLUs closed in
the first hundreds of steps. Adam moves all weights of the head alike, so a step changes the sum of many positive values
by more than the error that is left. These weights avoid this:

- Convolutions have weights of He et al. (ICCV 2015, equation 10), which keep the variance of activations.
- Norms have the statistics of the run's first samples.
- The last map before the head, and what residual blocks add, are small. The head is zero, so that the first output is
  the interpolated picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from glama_deploy.checkpoints import formats
from glama_deploy.reference.ffc import FFCNormAct, FFCResidualBlock
from glama_deploy.reference.generator import FineBlock, FineBlocks, Generator, masked_input
from glama_deploy.training import config
from glama_deploy.training.data import Squares

#: Scale of what a residual block adds, against the map that it adds to.
BLOCK_SCALE = 0.2

#: Scale of the map before the head. Activations elsewhere have a variance of about one.
HEAD_MAP_SCALE = 0.1

#: Batches and samples of each, from which the norms' statistics come.
BATCHES, BATCH = 12, 8


def draw_weights(generator: Generator) -> None:
    """Draw the weights of all layers, except for the statistics of norms.

    Args:
        generator: A network with `fill` and fine blocks, which is changed.
    """
    network = generator.config
    for module in generator.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.ConvTranspose2d):  # of stride 2: a quarter of the kernel makes each value
            nn.init.normal_(module.weight, 0, (2 / (module.in_channels * 9 / 4)) ** 0.5)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in generator.modules():
        if isinstance(module, FineBlock):
            nn.init.constant_(module.bn2.weight, BLOCK_SCALE)
        elif isinstance(module, FFCResidualBlock):
            for norm in (module.conv2.bn_l, module.conv2.bn_g):
                assert norm is not None
                nn.init.constant_(norm.weight, BLOCK_SCALE)
    stem, up, blocks, head = (
        generator.model[place] for place in (1, network.ups[-1] + 1, network.ups[-1] + 3, network.head)
    )
    assert isinstance(stem, FFCNormAct)
    assert isinstance(up, nn.BatchNorm2d)
    assert isinstance(blocks, FineBlocks)
    assert isinstance(head, nn.Conv2d)
    for norm in (stem.bn_l, up):
        nn.init.constant_(norm.weight, HEAD_MAP_SCALE)
    for block in blocks:
        assert isinstance(block, FineBlock)
        nn.init.constant_(block.bn2.weight, HEAD_MAP_SCALE * BLOCK_SCALE)
    nn.init.zeros_(head.weight)


@torch.no_grad()
def measure_statistics(generator: Generator, samples: Squares) -> None:
    """Give all norms the mean statistics of the first samples.

    Args:
        generator: The network, which is changed.
        samples: The run's samples.
    """
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    generator.train()
    for first in range(0, BATCHES * BATCH, BATCH):
        images, masks, _ = zip(*(samples[first + place] for place in range(BATCH)), strict=True)
        image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        generator(masked_input(image, torch.from_numpy(np.stack(masks))[:, None].float()))


def main() -> None:
    """Parse the options, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="as glama-train takes it")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = config.load(options.config)
    if run.network.fill is None or not run.network.fine_blocks:
        parser.error("the config's network has no fill or no fine_blocks; give a network with both")
    torch.manual_seed(run.optimization.seed)
    generator = Generator(run.network)
    draw_weights(generator)
    measure_statistics(generator, Squares(run.data.train, run.data, run.optimization.seed))
    weights = {name: value.numpy() for name, value in generator.state_dict().items()}
    formats.save(
        options.out, run.network, {name: value for name, value in weights.items() if "num_batches" not in name}
    )


if __name__ == "__main__":
    main()
