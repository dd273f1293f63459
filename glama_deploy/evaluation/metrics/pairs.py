"""What a metric of one image takes and gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

#: The pixels that a metric is of: the missing ones alone, or those of the whole image.
Region = Literal["missing", "whole"]

REGIONS: tuple[Region, ...] = get_args(Region)


@dataclass(frozen=True)
class Pair:
    """An inpainted image beside the photograph.

    Attributes:
        found: the inpainted image with the known pixels in place, uint8 H×W×3.
        truth: the photograph, uint8 H×W×3.
        missing: bool H×W; at least one pixel is missing.
        device: where networks run, as PyTorch names it.
    """

    found: np.ndarray
    truth: np.ndarray
    missing: np.ndarray
    device: str = "cpu"

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the two images and the missing pixels on the device.

        Returns:
            float32 [1, 3, H, W] of 0…1 twice, and bool [H, W].
        """
        import torch

        images = (torch.from_numpy(image / np.float32(255)) for image in (self.found, self.truth))
        found, truth = (image.permute(2, 0, 1)[None].to(self.device) for image in images)
        return found, truth, torch.from_numpy(self.missing).to(self.device)


@dataclass(frozen=True)
class Measurement:
    """A metric's values of one image.

    Attributes:
        missing: the value of the missing pixels.
        whole: the value of the whole image.
        rings: of a metric by frequency, the values of its rings by region; None for a ring without frequencies.
    """

    missing: float
    whole: float
    rings: dict[Region, tuple[float | None, ...]] = field(default_factory=dict)
