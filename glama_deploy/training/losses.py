"""The joint loss of GLaMa (Lu et al., CVPRW 2022, section 3.3); numbers in brackets are the paper's equations.

Images are [B, 3, H, W], 0…1; masks [B, 1, H, W], 1 = missing. Every loss is a scalar.

Where the paper leaves a choice, this is the one that was made:

- (1) is the mean over all values of the image, known or not (as in LaMa's code), so its size follows the known share.
- Of two stages (section 4.5, which does not say how they are trained) the first has a loss of its own at its size: all
  terms here but those of a second network. The gradient of stage two reaches it as well.
- L1 on the missing pixels is no term of the paper's; LaMa's code has it with a weight of 0, and so has this. It stands
  in for the perceptual loss where its weights cannot be had. It is a mean over each image's own missing pixels, so that
  an image counts the same however little of it is missing.
- −PSNR of the missing pixels is none of the paper's either (NAFNet's loss; Chen et al., ECCV 2022). L1 gives every
  missing pixel the same say, so that the errors of wide holes, most of which nothing could have foretold, drown those
  of lines and grids, which are ten times smaller and could. In decibels an image's error is measured against itself.
- (9) is divided by its largest value in each channel of each image and takes no gradient, and the transforms of (8)
  are orthonormal, as in the official code of Jiang et al. (ICCV 2021; EndlessSora/focal-frequency-loss): w lies in 0…1.
- Feature matching is an L1 distance in the paper and a squared one in LaMa's code. `feature_distance` says which.
- (6) and (7) multiply the discriminator's loss by λadv. LaMa's code leaves that loss as it is. `discriminator` is its
  weight.
- (10) is a sum over pixels in print. Here it is the mean over them: the sum grows with the image's area (65,536 terms a
  channel at 256×256), and beside losses that are means a weight of α1 = 1 would leave nothing but smoothness. As a mean
  it is 0.005 to 0.009 on crops of the sample photograph, a hundredth of λ1 times an L1 of 0.05: with α1 = 1 the gentle
  regularizer that the paper's ablation shows (its Table 3: a better FID with it, no blur).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F


class Weights(BaseModel):
    """λ of (7), α of (11), and where LaMa's code differs from the paper. The defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    l1: float = Field(default=10.0, ge=0, description="λ1: known pixels")
    l1_missing: float = Field(default=0.0, ge=0, description="L1 on the missing pixels, which the paper does without")
    psnr_missing: float = Field(default=0.0, ge=0, description="−PSNR of the missing pixels in dB, which neither has")
    adversarial: float = Field(default=10.0, ge=0, description="λadv; 0: no adversarial training")
    discriminator: float | None = Field(
        default=None, gt=0, description="weight of the discriminator's loss (3) + λP·(5); None: λadv, as in (7)"
    )
    feature_matching: float = Field(default=30.0, ge=0, description="λfm")
    feature_distance: Literal["absolute", "squared"] = Field(
        default="absolute", description="of matched features: absolute in the paper, squared in LaMa's code"
    )
    perceptual: float = Field(default=100.0, ge=0, description="λPL")
    gradient_penalty: float = Field(default=0.001, ge=0, description="λP of (6): R1")
    total_variation: float = Field(default=1.0, ge=0, description="α1")
    focal_frequency: float = Field(default=1.0, ge=0, description="α2")
    lama: float = Field(default=1.0, ge=0, description="α3")
    coarse: float = Field(default=1.0, ge=0, description="stage one's own loss, of two stages")


#: Fields of the weights that are not weights of a term of the generator's loss.
_NOT_TERMS = {"lama", "gradient_penalty", "discriminator", "feature_distance"}

#: The paper's weights, and those of LaMa's own code (`lama-fourier.yaml`). LaMa has the weights of feature matching and
#: of the perceptual loss the other way round, matches features by squares, leaves the discriminator's loss as it is,
#: and has neither of the two new terms.
WEIGHTS = {
    "paper": Weights(),
    "lama": Weights(
        discriminator=1.0,
        feature_matching=100.0,
        feature_distance="squared",
        perceptual=30.0,
        total_variation=0.0,
        focal_frequency=0.0,
    ),
}


def l1_known(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """(1): |x − x̂| ⊙ (1 − M), its mean over all values."""
    return ((predicted - image).abs() * (1 - mask)).mean()


def l1_missing(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """|x − x̂| ⊙ M, its mean over the missing pixels of each image, averaged over images; one without any counts 0."""
    error = ((predicted - image).abs() * mask).mean(1).sum((1, 2))
    return (error / mask.sum((1, 2, 3)).clamp_min(1)).mean()


def psnr_missing(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """10·log10 of the mean square of (x − x̂) ⊙ M over the missing pixels of each image, averaged over images; negative
    decibels. 1e-4 is added to it, so that nothing is gained beyond 40 dB. Computed in float32."""
    squared = ((predicted.float() - image).square() * mask).mean(1).sum((1, 2))
    return (10 * torch.log10(squared / mask.sum((1, 2, 3)).clamp_min(1) + 1e-4)).mean()


def discriminator_loss(real: Tensor, fake: Tensor, mask: Tensor) -> Tensor:
    """(3) on logits [B, 1, h, w]: −log D(x) − log D(x̂) ⊙ (1 − M) − log(1 − D(x̂)) ⊙ M, its mean; D is the sigmoid.

    A generated image is fake only where pixels were missing; the mask is brought to the logits' size by its nearest
    pixel, as in LaMa.
    """
    missing = F.interpolate(mask, fake.shape[2:], mode="nearest")
    on_fake = F.softplus(-fake) * (1 - missing) + F.softplus(fake) * missing
    return (F.softplus(-real) + on_fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """(4) on logits: −log D(x̂), its mean."""
    return F.softplus(-fake).mean()


def gradient_penalty(real: Tensor, image: Tensor) -> Tensor:
    """(5), R1 (Mescheder et al., ICML 2018): ‖∇x D(x)‖² of real images, summed over an image, its mean over the batch.

    `real` are the logits of `image`, which requires its gradient.
    """
    (gradient,) = torch.autograd.grad(real.sum(), image, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def feature_matching(
    real: Sequence[Tensor], fake: Sequence[Tensor], distance: Literal["absolute", "squared"] = "absolute"
) -> Tensor:
    """Return Lfm of (7): the mean distance of the discriminator's features, averaged over its layers.

    Args:
        real: Features of real images, one tensor for each layer. They get no gradient.
        fake: Features of generated images, of the same shapes.
        distance: `absolute` (the paper) or `squared` (LaMa's code).

    Returns:
        A scalar.
    """
    measure = F.mse_loss if distance == "squared" else F.l1_loss
    return torch.stack([measure(f, r.detach()) for r, f in zip(real, fake, strict=True)]).mean()


def perceptual(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """(2): [φ(x) − φ(x̂)]², its mean over each feature map of the network φ, summed over them."""
    return torch.stack([F.mse_loss(f, r.detach()) for r, f in zip(real, fake, strict=True)]).sum()


def focal_frequency(predicted: Tensor, image: Tensor, alpha: float = 1.0) -> Tensor:
    """Return (8): the mean of w·|Fr − Ff|² over frequencies, channels and images, computed in float32 at least.

    Args:
        predicted: Generated images [B, C, H, W].
        image: Real images of the same shape.
        alpha: α of (9). w is divided by its largest value in each channel of each image.

    Returns:
        A scalar.
    """
    real = image if image.dtype == torch.float64 else image.float()
    difference = torch.fft.fft2(real, norm="ortho") - torch.fft.fft2(predicted.to(real.dtype), norm="ortho")
    squared = difference.real.square() + difference.imag.square()
    weight = squared.detach().pow(alpha / 2)
    weight = weight / weight.amax(dim=(2, 3), keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
    return (weight * squared).mean()


def total_variation(predicted: Tensor, beta: float = 2.0) -> Tensor:
    """(10): ((x[i, j+1] − x[i, j])² + (x[i+1, j] − x[i, j])²)^(β/2), its mean over the pixels with both neighbours."""
    across = (predicted[..., :-1, 1:] - predicted[..., :-1, :-1]).square()
    down = (predicted[..., 1:, :-1] - predicted[..., :-1, :-1]).square()
    squared = across + down
    return (squared if beta == 2 else squared.clamp_min(1e-12).pow(beta / 2)).mean()


def joint(terms: dict[str, Tensor], weights: Weights) -> Tensor:
    """(11) with (7), the generator's part: the sum of `terms` by their names in :class:`Weights`, weighted.

    Terms: l1, l1_missing, psnr_missing, adversarial, feature_matching and perceptual, which α3 weighs once more;
    total_variation, focal_frequency and coarse. Those that are absent count as 0. Raises KeyError for a name that has
    no weight.
    """
    outside = {"total_variation", "focal_frequency", "coarse"}
    total = torch.zeros((), dtype=torch.float32, device=next(iter(terms.values())).device)
    for name, value in terms.items():
        if name not in Weights.model_fields or name in _NOT_TERMS:
            raise KeyError(f"{name} is no term of the generator's loss")
        total = total + getattr(weights, name) * (1.0 if name in outside else weights.lama) * value
    return total
