"""Interpolate the weights of two checkpoints of one network: w = a·A + (1 − a)·B.

    python benchmarks/quality/interpolate.py A B --out FOLDER [--shares 0.25 0.5 0.75] [--train PHOTOS]

A network that was trained without a discriminator and its adversarial fine-tuning are often A and B (network
interpolation; Wang et al., ESRGAN, 2018, section 3.4). Both must come from one training, or the results are noise.

The running statistics of batch norms are no weights: those of the interpolated network are not the interpolated ones.
With `--train` they are measured again, on squares and masks as in training. Without `--train` they are interpolated,
which is an approximation. `glama-eval` scores the files, which are named interpolated-0.25.pt by the share a of A.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from glama_deploy.checkpoints import formats
from glama_deploy.checkpoints.formats import Checkpoint
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.io.files import check_overwrite
from glama_deploy.network import is_same_network, list_differences
from glama_deploy.reference.generator import masked_input
from glama_deploy.training import config
from glama_deploy.training.config import Data
from glama_deploy.training.data import Positions, Squares, read_batches

#: The batches that statistics are measured on: their number, and images in each.
BATCHES, BATCH = 50, 8


def interpolate(one: Checkpoint, other: Checkpoint, share: float) -> dict[str, np.ndarray]:
    """Interpolate all parameters and running statistics of two checkpoints.

    Args:
        one: Checkpoint A.
        other: Checkpoint B, of the same network.
        share: The share a of A, 0…1.

    Returns:
        float32 arrays by name, a·A + (1 − a)·B, computed in float64.

    Raises:
        CheckpointError: The checkpoints are of two networks, or have values that are not finite.
        GlamaError: The share is out of range.
    """
    if not 0 <= share <= 1:
        raise GlamaError(f"the share of A is {share}; a number from 0 to 1 is expected")
    if not is_same_network(one.config, other.config):
        raise CheckpointError(
            f"{one.path} and {other.path} are of two networks ({list_differences(one.config, other.config)}); give two "
            "checkpoints of one network"
        )
    for checkpoint in (one, other):
        broken = [name for name, values in checkpoint.weights.items() if not np.isfinite(values).all()]
        if broken:
            raise CheckpointError(f"{checkpoint.path}: {broken[0]} has values that are not finite; give another file")
    return {
        name: (share * values.astype(np.float64) + (1 - share) * other.weights[name].astype(np.float64)).astype(
            np.float32
        )
        for name, values in one.weights.items()
    }


def measure_statistics(checkpoint: Checkpoint, weights: dict[str, np.ndarray], data: Data) -> dict[str, np.ndarray]:
    """Measure the running statistics of all batch norms again, as means over `BATCHES` batches.

    Args:
        checkpoint: A checkpoint of the network, whose weights are not used.
        weights: The weights.
        data: Photographs in `train`, masks, and side.

    Returns:
        The weights with new running means and variances.

    Raises:
        GlamaError: The photographs cannot be read.
    """
    named = Checkpoint(checkpoint.path, checkpoint.kind, checkpoint.sha256, checkpoint.config, weights)
    generator = formats.build_module(named)
    with torch.no_grad():
        update_bn(_read_inputs(data), generator)
    state = generator.state_dict()
    return {name: state[name].numpy() for name in weights}


def _read_inputs(data: Data) -> Iterator[Tensor]:
    batches = read_batches(Squares(data.train, data, seed=0), Positions(BATCH), workers=0)
    for batch in islice(batches, BATCHES):
        yield masked_input(batch.image, batch.mask)


def main(arguments: list[str] | None = None) -> None:
    """Parse the options, and write a checkpoint for each share.

    Args:
        arguments: The arguments of the command; None takes those of the process.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("one", metavar="A", type=Path)
    parser.add_argument("other", metavar="B", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 0.5, 0.75], help="shares of A")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--train", help="photographs on which the running statistics are measured again")
    parser.add_argument("--masks", default="general", help="masks of these photographs")
    parser.add_argument("--side", type=int, default=256, help="side of the squares in pixels")
    options = parser.parse_args(arguments)
    try:
        one, other = (formats.read(path) for path in (options.one, options.other))
        results = {share: interpolate(one, other, share) for share in options.shares}
        paths = {share: options.out / f"interpolated-{share}.pt" for share in results}
        asked = config.load("glama", [f"data.masks={options.masks}", f"data.side={options.side}"]).data
        for path in paths.values():
            check_overwrite(path, is_there=path.exists(), overwrite=False)
        if options.train is not None:
            data = asked.model_copy(update={"train": (options.train,)})
            results = {share: measure_statistics(one, weights, data) for share, weights in results.items()}
        options.out.mkdir(parents=True, exist_ok=True)
        for share, weights in results.items():
            formats.save(paths[share], one.config, weights)
            print(paths[share])
    except (GlamaError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
