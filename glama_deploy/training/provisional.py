"""Provisional: trains the embedded network with L1 and stroke masks; the training package is to replace it.

    python -m glama_deploy.training.provisional PHOTOS OUT.safetensors --minutes N

PHOTOS is a folder of pictures. A run that was stopped goes on from its state file when started again.
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.optim.optimizer import Optimizer

from glama_deploy.files import atomic_file
from glama_deploy.masks import by_name
from glama_deploy.network import NAMED
from glama_deploy.reference import checkpoint
from glama_deploy.reference.generator import Generator, masked_input

NETWORK = "glama-tiny"
SHORT_SIDE = 512
CROP = 128
BATCH = 8
PEAK_RATE = 1e-3
WARM_UP = 0.03
KNOWN_WEIGHT = 1.0
EMA_DECAY = 0.995
SAVE_SECONDS = 60.0

_Done = dict[str, float]


def read_photos(folder: Path) -> list[np.ndarray]:
    """Every picture of the folder: uint8 H×W×3, RGB, its short side SHORT_SIDE."""
    photos = []
    for path in sorted(folder.iterdir()):
        photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        scale = SHORT_SIDE / min(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        photos.append(np.asarray(photo.resize(size, Image.Resampling.LANCZOS)))
    return photos


def recolour(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop (float32 h×w×3, 0…1) in other colours, so that a hole's colour is read off its surroundings.

    Of few photos, the network would learn by heart that grass is green.
    """
    if rng.random() < 0.5:
        crop = crop[..., rng.permutation(3)]
    grey = crop.mean(axis=2, keepdims=True)
    saturation, brightness = rng.uniform(0.2, 1.2), rng.uniform(0.6, 1.2)
    return np.clip(brightness * (grey + saturation * (crop - grey)), 0, 1).astype(np.float32)


def draw_batch(photos: list[np.ndarray], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops, half of them flipped, float32 [B, 3, H, W] (0…1), and masks [B, 1, H, W] (0, 1)."""
    draw_mask = by_name("lama")
    crops, masks = [], []
    for _ in range(BATCH):
        photo = photos[rng.integers(len(photos))]
        top, left = (int(rng.integers(side - CROP + 1)) for side in photo.shape[:2])
        crop = photo[top : top + CROP, left : left + CROP] / np.float32(255)
        crops.append(recolour(crop[:, ::-1] if rng.random() < 0.5 else crop, rng))
        masks.append(draw_mask(CROP, CROP, rng))
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.stack(masks))[:, None].float()


def weighted_l1(output: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute error over an image's missing pixels, plus KNOWN_WEIGHT times that over its known ones.

    Each image counts the same however much of it is missing, so a pixel of a thin stroke weighs most.
    """
    error = (output - image).abs().mean(1, keepdim=True)
    missing = (error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
    known = (error * (1 - mask)).sum((1, 2, 3)) / (1 - mask).sum((1, 2, 3))
    return (missing + KNOWN_WEIGHT * known).mean()


def learning_rate(progress: float) -> float:
    """A linear rise to PEAK_RATE, then half a cosine down to zero; progress 0…1."""
    if progress < WARM_UP:
        return PEAK_RATE * progress / WARM_UP
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


@torch.no_grad()
def follow(average: Generator, generator: Generator, step: float) -> None:
    """Move the average's weights and batch-norm statistics a little towards the generator's."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), generator.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)


def save_network(path: Path, average: Generator) -> None:
    """Write the averaged network as float16 safetensors."""
    state = {name: value.half().numpy() for name, value in average.state_dict().items()}
    weights = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    checkpoint.save(path, average.config, weights)


def save_state(path: Path, generator: Generator, average: Generator, optimizer: Optimizer, done: _Done) -> None:
    with atomic_file(path) as temporary:
        models = {"generator": generator.state_dict(), "average": average.state_dict()}
        torch.save({**models, "optimizer": optimizer.state_dict(), "done": done}, temporary)


def train(photos: list[np.ndarray], out: Path, minutes: float, state: Path, preview_after: float) -> None:
    """Train for `minutes` in all, over every run that shared the state file; write `out` at the end.

    `out` is also written once after `preview_after` minutes.
    """
    torch.manual_seed(0)
    generator = Generator(NAMED[NETWORK]).to(memory_format=torch.channels_last)
    average = copy.deepcopy(generator).eval()
    optimizer = torch.optim.Adam(generator.parameters(), lr=PEAK_RATE)
    done: _Done = {"seconds": 0.0, "steps": 0}
    if state.exists():
        saved = torch.load(state, weights_only=True)
        generator.load_state_dict(saved["generator"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        done = saved["done"]
    start = time.monotonic() - done["seconds"]
    saved_at, losses = done["seconds"], []
    rng = np.random.default_rng(int(done["steps"]))
    while done["seconds"] < minutes * 60:
        image, mask = draw_batch(photos, rng)
        inputs = masked_input(image, mask).contiguous(memory_format=torch.channels_last)
        loss = weighted_l1(generator(inputs), image, mask)
        optimizer.param_groups[0]["lr"] = learning_rate(done["seconds"] / (minutes * 60))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimizer.step()
        follow(average, generator, done["steps"])
        losses.append(loss.item())
        previous, done = done["seconds"], {"seconds": time.monotonic() - start, "steps": done["steps"] + 1}
        if previous < preview_after * 60 <= done["seconds"]:
            save_network(out, average)
        if done["seconds"] - saved_at >= SAVE_SECONDS:
            save_state(state, generator, average, optimizer, done)
            saved_at = done["seconds"]
            print(f"{saved_at / 60:.1f} min, {done['steps']} steps, loss {np.mean(losses):.4f}", flush=True)
            losses = []
    save_state(state, generator, average, optimizer, done)
    save_network(out, average)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    state = Path(tempfile.gettempdir()) / "glama-provisional.pt"
    parser.add_argument("--state", type=Path, default=state, help="written every minute, to go on from")
    parser.add_argument("--preview-after", type=float, default=10.0, help="write OUT early, after so many minutes")
    options = parser.parse_args()
    train(read_photos(options.photos), options.out, options.minutes, options.state, options.preview_after)


if __name__ == "__main__":
    main()
