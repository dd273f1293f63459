"""How well a generator fills each of the seven kinds of holes in photographs that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from glama_deploy.masks import TYPES
from glama_deploy.reference.generator import inpaint
from glama_deploy.training.config import Config
from glama_deploy.training.data import Positions, Squares, batches


@dataclass(frozen=True)
class Score:
    """PSNR (dB, peak 1) and SSIM of the missing region, averaged over photographs."""

    psnr: float
    ssim: float


@torch.inference_mode()
def validate(generator: nn.Module, config: Config, device: torch.device) -> tuple[dict[str, Score], Tensor]:
    """Each mask's score on the same squares, and of the first photograph a strip of pictures for each mask: holes in
    grey, filled, and as it was; uint8 [7, 3, S, 3S]."""
    scores, strips = {}, []
    for name in TYPES:
        data = config.data.model_copy(update={"masks": name, "flip": False, "recolour": False, "distort": False})
        squares = Squares(config.data.valid, data, seed=0)
        count = min(len(squares), config.saving.validate_images)
        there = batches(squares, Positions(1), workers=0, device=device)
        found: list[Score] = []
        for _ in range(count):
            batch = next(there)
            image, mask = batch.image, batch.mask
            filled = inpaint(generator, image, mask)
            found.append(score(filled, image, mask))
            if len(found) == 1:
                holes = image * (1 - mask) + 0.5 * mask
                strips.append(torch.cat([holes, filled, image], dim=3)[0])
        scores[name] = Score(sum(one.psnr for one in found) / len(found), sum(one.ssim for one in found) / len(found))
    return scores, (torch.stack(strips).clamp(0, 1) * 255).round().byte().cpu()


def score(filled: Tensor, image: Tensor, mask: Tensor) -> Score:
    """PSNR over the missing pixels of [B, 3, H, W], and the mean there of the SSIM map (windows reach beyond them)."""
    missing = mask.expand_as(image)
    error = ((filled - image).square() * missing).sum() / missing.sum()
    _, map_ = structural_similarity_index_measure(filled, image, data_range=1.0, return_full_image=True)
    return Score(float(-10 * torch.log10(error.clamp_min(1e-10))), float((map_ * missing).sum() / missing.sum()))
