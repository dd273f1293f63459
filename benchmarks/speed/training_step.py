"""A training step of glama-train against the same step written plainly in PyTorch, in turns.

    python benchmarks/speed/training_step.py [--network lama] [--side 256] [--batch 4] [--threads 2] [--runs 5]

Both do the generator's step and the discriminator's with the paper's losses but the perceptual one (whose weights are a
download), and the running average; neither reads photographs. The plain one is what one would write first: float32,
contiguous tensors, one backward each.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch.nn import functional as F

from glama_deploy.network import NAMED
from glama_deploy.reference.discriminator import PatchDiscriminator
from glama_deploy.reference.generator import Generator
from glama_deploy.training import config
from glama_deploy.training.data import Batch
from glama_deploy.training.trainer import Trainer


def make_plain_step(network: str, image: torch.Tensor, mask: torch.Tensor) -> Callable[[], None]:
    """Make the plain step. Only the networks are this project's.

    Args:
        network: name of the network.
        image: float32 [B, 3, H, W] in 0…1.
        mask: float32 [B, 1, H, W], 1 for missing.

    Returns:
        A function that does one step.
    """
    generator, discriminator = Generator(NAMED[network]), PatchDiscriminator()
    average = copy.deepcopy(generator).eval()
    adam = torch.optim.Adam(generator.parameters(), lr=1e-3)
    other = torch.optim.Adam(discriminator.parameters(), lr=1e-4)

    def step() -> None:
        predicted = generator(torch.cat([image * (1 - mask), mask], 1))
        with torch.no_grad():
            _, real_features = discriminator(image)
        fake, fake_features = discriminator(predicted)
        matching = sum(F.l1_loss(f, r) for f, r in zip(fake_features, real_features, strict=True)) / len(real_features)
        difference = torch.fft.fft2(image, norm="ortho") - torch.fft.fft2(predicted, norm="ortho")
        distance = difference.abs().square()
        weight = difference.abs().detach()
        weight = weight / weight.amax((1, 2, 3), keepdim=True)
        across = predicted[..., :-1, 1:] - predicted[..., :-1, :-1]
        down = predicted[..., 1:, :-1] - predicted[..., :-1, :-1]
        l1 = ((predicted - image).abs() * (1 - mask)).mean()
        loss = 10 * l1 + 10 * F.softplus(-fake).mean() + 30 * matching
        loss = loss + (weight * distance).mean() + (across.square() + down.square()).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

        truth = image.clone().requires_grad_()
        real, _ = discriminator(truth)
        fake, _ = discriminator(predicted.detach())
        missing = F.interpolate(mask, fake.shape[2:])
        judged = F.softplus(-real) + F.softplus(-fake) * (1 - missing) + F.softplus(fake) * missing
        (gradient,) = torch.autograd.grad(real.sum(), truth, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean()
        other.zero_grad()
        (judged.mean() + 0.001 * penalty).backward()
        other.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), generator.parameters(), strict=True):
                mean.lerp_(value, 0.001)

    return step


def make_own_step(network: str, image: torch.Tensor, mask: torch.Tensor) -> Callable[[], None]:
    """Make the step of glama-train.

    Args:
        network: name of the configuration.
        image: float32 [B, 3, H, W] in 0…1.
        mask: float32 [B, 1, H, W], 1 for missing.

    Returns:
        A function that does one step.
    """
    asked = config.load(network, ["weights.perceptual=0", f"optimization.batch={len(image)}"])
    asked = asked.model_copy(update={"weights": config.load("glama", ["weights.perceptual=0"]).weights})
    trainer = Trainer(asked, Fabric(accelerator="cpu", devices=1))
    batches = itertools.repeat(Batch(image, mask, ()))

    def step() -> None:
        trainer.advance(batches)

    return step


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="lama", choices=["lama", "glama-tiny", "big-lama"])
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    image = torch.rand(options.batch, 3, options.side, options.side)
    mask = torch.zeros(options.batch, 1, options.side, options.side)
    mask[..., options.side // 4 : options.side // 2, :] = 1
    ways = {
        "plain": make_plain_step(options.network, image, mask),
        "glama-train": make_own_step(options.network, image, mask),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(options.runs + 1):
        for name, step in ways.items():
            start = time.perf_counter()
            step()
            if run:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["glama-train"], strict=True)]
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    what = f"{options.network} {options.side}x{options.side}, batch {options.batch}, {options.threads} threads"
    print(f"{what}: plain {medians['plain']:.2f} s, glama-train {medians['glama-train']:.2f} s a step")
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f}…{max(ratios):.2f}), {options.runs} runs in turns")


if __name__ == "__main__":
    main()
