"""Refinement of features, for large images.

The method is that of Kulshreshtha et al., "Feature Refinement to Improve High Resolution Image Inpainting", 2022. A
network sees less of a structure in a large hole than in a small one, so the image is filled at the smallest scale of a
pyramid first. At each larger scale the features before the residual blocks are optimized: the prediction, scaled down,
shall be the picture of the scale below inside of the hole, and the image outside. The network's parameters stay as they
are. The number of scales, the loss and the optimizer's settings are those of the authors' code.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from glama_deploy import memory
from glama_deploy.checkpoints import formats
from glama_deploy.errors import EngineError
from glama_deploy.inpainting.inpainter import check
from glama_deploy.inpainting.tensors import match_depth, to_images, to_tensors
from glama_deploy.network import next_side
from glama_deploy.reference import pull_push, two_stage
from glama_deploy.reference.generator import Generator, Layers, masked_input, predict
from glama_deploy.runtime.torch import threads

log = logging.getLogger("glama_deploy")

#: Sigma of the blur in pixels before an image is halved, and the kernel's side.
_BLUR_SIGMA, _BLUR_SIDE = 1.0, 5

#: Side of the ellipse by which a hole shrinks before its inside is compared with the scale below.
_EROSION_SIDE = 15

#: Side of the image on which memory and time of a step are measured.
_PROBE_SIDE = 256

#: Steps that are measured. The least time counts, because the first one also prepares kernels.
_PROBES = 3

#: Bytes for each byte that a step keeps for its gradient: the gradients, and the buffers of convolutions.
_GRADIENT_FACTOR = 2.0

#: Bytes of the process beside the feature maps.
_BASE_BYTES = 300 << 20


@dataclass(frozen=True)
class Settings:
    """How features are refined.

    Attributes:
        least_side: the pyramid ends where the shorter side of the image is about this many pixels.
        most_scales: the most scales of the pyramid.
        steps: how often the prediction is computed at each scale but the smallest.
        rate: the learning rate of Adam.
    """

    least_side: int = 512
    most_scales: int = 3
    steps: int = 15
    rate: float = 0.002


#: The settings of the paper.
PAPER = Settings()


class Refiner:
    """Fills images with refined features. Shows the network whole images."""

    def __init__(self, generator: Generator, settings: Settings = PAPER, cpu_threads: int | None = None) -> None:
        """Take a generator.

        Args:
            generator: the generator in eval mode, float32, on the device that computes.
            settings: the settings.
            cpu_threads: CPU threads; None for all.
        """
        self._generator = generator.requires_grad_(requires_grad=False)
        self._settings, self._threads = settings, cpu_threads
        self._device = next(generator.parameters()).device
        self._cost: _Cost | None = None

    @classmethod
    def open(cls, model: str | Path, cpu_threads: int | None = None) -> Refiner:
        """Open a checkpoint on the GPU, if PyTorch sees one, else on the CPU.

        Args:
            model: the checkpoint, or `default`.
            cpu_threads: CPU threads; None for all.

        Returns:
            The refiner.

        Raises:
            CheckpointError: the checkpoint cannot be read, or is not supported.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(formats.load(model).to(device), cpu_threads=cpu_threads)

    @property
    def description(self) -> str:
        """Engine, version, device and precision, for people."""
        return f"PyTorch {torch.__version__} {self._device.type.upper()} fp32 with refined features"

    def __call__(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Fill the missing pixels of an image.

        Memory and time are told first, as a warning of the logger `glama_deploy`.

        Args:
            image: uint8 or uint16 H×W×3, RGB.
            mask: bool or uint8 H×W; a pixel above 0 is missing.

        Returns:
            H×W×3 of the same type, RGB. Known pixels are those of the image.

        Raises:
            ImageError: the image or the mask is not as described, or the memory does not suffice.
            EngineError: PyTorch is out of memory, or the network gives values that are not finite.
        """
        missing = check(image, mask)
        if not missing.any():
            return image.copy()
        height, width = missing.shape
        least = self._generator.config.min_side
        sides = [max(least, next_side(side)) for side in (height, width)]
        planar, holes = to_tensors(image[None], missing[None], "float", (sides[0] - height, sides[1] - width))
        with threads(self._threads):
            self._tell_cost((sides[0], sides[1]))
            try:
                pixels, mask_t = (torch.from_numpy(array).to(self._device) for array in (planar, holes))
                filled = refine(self._generator, pixels, mask_t, self._settings)
            except torch.OutOfMemoryError as error:
                raise EngineError("PyTorch is out of memory; leave out `refine`, or scale the image down") from error
        picture = to_images(filled.cpu().numpy(), "float", height, width)[0]
        if not np.isfinite(picture).all():
            raise EngineError(
                "the refinement gave values that are not finite; leave out `refine`, and report the image"
            )
        return np.where(missing[..., None], match_depth(picture, image.dtype), image)

    def _tell_cost(self, size: tuple[int, int]) -> None:
        """Log the memory and the time that an image needs; raise ImageError if the memory does not suffice."""
        if len(list_sizes(size, self._settings)) == 1:
            log.warning("an image of %dx%d has one scale; nothing is refined", *size)
            return
        if self._cost is None:
            self._cost = _measure_cost(self._generator, self._device)
        sizes = list_sizes(size, self._settings)
        share = size[0] * size[1] / _PROBE_SIDE**2
        needed = int(self._cost.kept_bytes * _GRADIENT_FACTOR * share) + _BASE_BYTES
        steps = self._settings.steps * sum(high * wide for high, wide in sizes[1:]) / _PROBE_SIDE**2
        what = f"the image is {size[0]}x{size[1]}, which is refined at {len(sizes)} scales,"
        if self._device.type == "cpu":
            memory.check(needed, what, "leave out `refine`, or scale the image down")
        log.warning(
            "refining %dx%d at %d scales: about %.1f GB of memory and %.0f s",
            *size,
            len(sizes),
            needed / 1e9,
            self._cost.step_seconds * steps,
        )


@dataclass(frozen=True)
class _Cost:
    """What one step on an image of `_PROBE_SIDE` costs.

    Attributes:
        kept_bytes: bytes that are kept for the gradient.
        step_seconds: seconds.
    """

    kept_bytes: int
    step_seconds: float


def _measure_cost(generator: Generator, device: torch.device) -> _Cost:
    """Measure one step on a blank image."""
    kept: dict[int, int] = {}

    def note(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return values

    parameters = {parameter.untyped_storage().data_ptr() for parameter in generator.parameters()}
    side = max(_PROBE_SIDE, generator.config.min_side)
    image = torch.full((1, 3, side, side), 0.5, device=device)
    split = _split(generator, masked_input(image, torch.ones_like(image[:, :1])))
    features = split.start()
    times = []
    for _ in range(_PROBES):
        kept.clear()
        begin = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
            split.predict(features).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    total = sum(size for place, size in kept.items() if place not in parameters)
    return _Cost(round(total * (_PROBE_SIDE / side) ** 2), min(times) * (_PROBE_SIDE / side) ** 2)


def list_sizes(size: tuple[int, int], settings: Settings = PAPER) -> list[tuple[int, int]]:
    """List the sizes of the pyramid.

    Args:
        size: height and width of the image in pixels.
        settings: the settings.

    Returns:
        Heights and widths, the smallest first.
    """
    doublings = round(max(0.0, float(np.log2(min(size) / settings.least_side))))
    count = min(1 + doublings, settings.most_scales)
    return [(size[0] >> scale, size[1] >> scale) for scale in reversed(range(count))]


def refine(generator: Generator, image: Tensor, mask: Tensor, settings: Settings = PAPER) -> Tensor:
    """Fill the missing pixels with refined features.

    Args:
        generator: the generator in eval mode.
        image: float [1, 3, H, W], 0…1. H and W are multiples of 8.
        mask: float [1, 1, H, W], 1 = missing, 0 = known.
        settings: the settings.

    Returns:
        float [1, 3, H, W], 0…1. Known pixels are those of the image. With one scale, the network's usual result.
    """
    images, masks = [image], [mask]
    for size in reversed(list_sizes((image.shape[2], image.shape[3]), settings)[:-1]):
        images.append(_halve(images[-1], size))
        masks.append((_halve(masks[-1], size) > 0).float())
    below: Tensor | None = None
    for whole, hole in zip(reversed(images), reversed(masks), strict=True):
        padded, missing = (_pad(values, generator.config.min_side) for values in (whole, hole))
        if below is None:
            with torch.no_grad():
                predicted = predict(generator, padded, missing)
        else:
            predicted = _optimize(generator, padded, missing, below, (whole.shape[2], whole.shape[3]), settings)
        predicted = predicted[..., : whole.shape[2], : whole.shape[3]].clamp(0, 1)
        below = hole * predicted + (1 - hole) * whole
    assert below is not None
    return below


def _optimize(
    generator: Generator, image: Tensor, mask: Tensor, below: Tensor, size: tuple[int, int], settings: Settings
) -> Tensor:
    """Return the prediction whose features were optimized towards the picture of the scale below.

    Args:
        generator: the generator.
        image: float [1, 3, H, W], padded.
        mask: float [1, 1, H, W], padded.
        below: float [1, 3, h, w], the picture of the scale below.
        size: height and width of the image without padding.
        settings: the settings.

    Returns:
        float [1, 3, H, W].
    """
    split = _split(generator, masked_input(image, mask))
    features = split.start()
    optimizer = torch.optim.Adam(features, lr=settings.rate)
    inside = _erode(_resize(mask[..., : size[0], : size[1]], below.shape[2:]) >= 1)
    known = mask < 0.5
    with torch.enable_grad():
        for _ in range(settings.steps - 1):
            optimizer.zero_grad()
            predicted = split.predict(features)
            small = _halve(predicted[..., : size[0], : size[1]], (below.shape[2], below.shape[3]))
            loss = _mean_distance(predicted, image, known) + _mean_distance(small, below, inside)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return split.predict(features)


def _mean_distance(values: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Return the mean absolute difference of the pixels in a mask; 0 for an empty mask."""
    weight = where.to(values.dtype)
    return ((values - wanted).abs() * weight).sum() / (weight.sum() * values.shape[1]).clamp_min(1)


@dataclass(frozen=True)
class _Split:
    """A generator in two parts, for one input.

    Attributes:
        front: the features before the residual blocks: local and global, or of a regular network one tensor.
        rear: the layers from the residual blocks on.
        finish: returns the prediction from the output of `rear`.
    """

    front: tuple[Tensor, ...]
    rear: Callable[..., Tensor]
    finish: Callable[[Tensor], Tensor]

    def start(self) -> list[Tensor]:
        """Copy the features, to optimize them.

        Returns:
            Leaves of a new graph of gradients.
        """
        return [values.detach().clone().requires_grad_() for values in self.front]

    def predict(self, features: list[Tensor]) -> Tensor:
        """Predict from features.

        Args:
            features: as :meth:`start` returns them.

        Returns:
            float [1, 3, H, W].
        """
        return self.finish(self.rear(tuple(features) if len(features) > 1 else features[0]))


def _split(generator: Generator, masked: Tensor) -> _Split:
    """Split a generator before its residual blocks.

    Args:
        generator: the generator.
        masked: float [1, 4, H, W], the generator's input.

    Returns:
        The parts.
    """
    config, layers = generator.config, generator.model
    front, rear = Layers(*layers[: config.first_block]), Layers(*layers[config.first_block :])
    finish: Callable[[Tensor], Tensor] = nn.Identity()
    with torch.no_grad():
        if config.fill is not None:
            picture = pull_push.fill(masked)
            masked = torch.cat([picture, masked[:, 3:]], dim=1)
            odds = pull_push.log_odds(picture)
            rear, finish = Layers(*rear[:-1]), lambda added: torch.sigmoid(added + odds)
        elif config.coarse is not None:
            small, predicted = generator.guess(masked)
            picture = small[:, :3] + small[:, 3:] * predicted
            masked = torch.cat([two_stage.enlarge(picture, *masked.shape[2:]), masked], dim=1)
        features, encoded = front.run(masked)
    features = features if isinstance(features, tuple) else (features,)
    return _Split(features, partial(rear, encoded=encoded if config.fine_blocks else []), finish)


def _halve(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Blur an image or a mask, and scale it down."""
    channels = values.shape[1]
    at = torch.arange(_BLUR_SIDE, device=values.device) - _BLUR_SIDE // 2
    line = torch.exp(-(at**2) / (2 * _BLUR_SIGMA**2))
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum()).to(values).expand(channels, 1, -1, -1)
    padded = nn.functional.pad(values, [_BLUR_SIDE // 2] * 4, mode="reflect")
    return _resize(nn.functional.conv2d(padded, kernel, groups=channels), size)


def _resize(values: Tensor, size: tuple[int, ...]) -> Tensor:
    return nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)


def _erode(hole: Tensor) -> Tensor:
    """Shrink a hole, bool [1, 1, H, W], by an ellipse. The border of the image does not shrink a hole."""
    radius = _EROSION_SIDE // 2
    at = torch.arange(-radius, radius + 1, device=hole.device)
    ellipse = (at[:, None] ** 2 + at**2 <= radius**2).float()[None, None]
    return nn.functional.conv2d((~hole).float(), ellipse, padding=radius) < 0.5


def _pad(values: Tensor, least: int) -> Tensor:
    """Pad an image or a mask at the bottom and the right to a size that the network takes."""
    high, wide = (max(least, next_side(side)) - side for side in values.shape[2:])
    return nn.functional.pad(values, [0, wide, 0, high], mode="reflect") if high or wide else values
