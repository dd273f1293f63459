"""Measure PSNR and SSIM of a generator on validation photographs, with each of the seven masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from glama_deploy.masks import TYPES
from glama_deploy.psnr import compute_psnr
from glama_deploy.reference.generator import inpaint
from glama_deploy.training.config import Config
from glama_deploy.training.data import Positions, Squares, read_batches


@dataclass(frozen=True)
class Score:
    """PSNR and SSIM of the missing region.

    Attributes:
        psnr: PSNR in dB, for a peak value of 1.
        ssim: SSIM.
    """

    psnr: float
    ssim: float


@torch.inference_mode()
def validate(generator: nn.Module, config: Config, device: torch.device) -> tuple[dict[str, Score], Tensor]:
    """Score a generator with each mask on the same images.

    Args:
        generator: The generator, in eval mode.
        config: The run's config, which names the photographs and their number.
        device: Device of the generator.

    Returns:
        The mean score for each mask. Then pictures of the first photograph, uint8 [7, 3, S, 3S], one for each mask:
        the image with gray missing pixels, the result, and the original image side by side.
    """
    scores, strips = {}, []
    for name in TYPES:
        data = config.data.model_copy(update={"masks": name, "flip": False, "recolour": False, "distort": False})
        squares = Squares(config.data.valid, data, seed=0)
        count = min(len(squares), config.saving.validate_images)
        samples = read_batches(squares, Positions(1), workers=0, device=device)
        found: list[Score] = []
        for _ in range(count):
            batch = next(samples)
            image, mask = batch.image, batch.mask
            filled = inpaint(generator, image, mask)
            found.append(score(filled, image, mask))
            if len(found) == 1:
                holes = image * (1 - mask) + 0.5 * mask
                strips.append(torch.cat([holes, filled, image], dim=3)[0])
        scores[name] = Score(sum(one.psnr for one in found) / len(found), sum(one.ssim for one in found) / len(found))
    return scores, (torch.stack(strips).clamp(0, 1) * 255).round().byte().cpu()


def score(filled: Tensor, image: Tensor, mask: Tensor) -> Score:
    """Score results on the missing pixels.

    Args:
        filled: Results [B, 3, H, W], 0…1.
        image: Original images [B, 3, H, W], 0…1.
        mask: Masks [B, 1, H, W], 1 = missing.

    Returns:
        PSNR of the missing pixels, and the mean of the SSIM map over the missing pixels. The windows of SSIM also
        contain known pixels.
    """
    missing = mask.expand_as(image)
    error = ((filled - image).square() * missing).sum() / missing.sum()
    _, map_ = structural_similarity_index_measure(filled, image, data_range=1.0, return_full_image=True)
    return Score(compute_psnr(max(float(error), 1e-10)), float((map_ * missing).sum() / missing.sum()))
