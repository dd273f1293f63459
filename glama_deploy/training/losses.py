"""The joint loss of GLaMa (Lu et al., CVPRW 2022, section 3.3). Numbers in brackets are the paper's equations.

Images are float [B, 3, H, W], 0…1. Masks are float [B, 1, H, W], 1 = missing. Every loss is a scalar.

Where the paper leaves a choice open, the choices are:

- (1) is the mean over all values of the image, known or missing, as in LaMa's code. The loss is therefore proportional
  to the known share.
- The paper does not say how two stages (section 4.5) are trained. Here stage one has its own loss at its own size, with
  all terms that need no second network. The gradient of stage two reaches stage one as well.
- The paper has no L1 on the missing pixels, and LaMa's code has this term with a weight of 0, as here. The term can
  replace the perceptual loss where the weights of that loss are not available. The term is a mean over the missing
  pixels of each image, so all images count equally.
- The paper has no −PSNR of the missing pixels either (the loss of NAFNet; Chen et al., ECCV 2022). L1 weighs all
  missing pixels equally. The errors of wide holes, which are mostly unpredictable, are ten times larger than the errors
  of lines and grids, which are predictable. In decibels, the error of each image counts relative to itself.
- (9) is divided by its largest value in each channel of each image and has no gradient, so w lies in 0…1. The
  transforms of (8) are orthonormal. Both are as in the official code of Jiang et al. (ICCV 2021;
  EndlessSora/focal-frequency-loss).
- The paper has no teacher. The term `teacher` is −PSNR with the prediction of another network in place of the real
  image (knowledge distillation; Hinton et al., 2015). A prediction depends on known pixels alone, and missing pixels of
  a real image do not, so the teacher's gradient has less noise.
- Feature matching is an L1 distance in the paper and a squared distance in LaMa's code. `feature_distance` selects one.
- (6) and (7) multiply the discriminator's loss by λadv. LaMa's code does not. `discriminator` is the weight of this
  loss.
- (10) is a sum over pixels in the paper and a mean here. The sum grows with the image's area (65,536 terms for each
  channel at 256×256). The other losses are means, so with α1 = 1 the sum would dominate and the network would learn
  only smoothness. The mean is 0.005 to 0.009 on crops of the sample photograph, a hundredth of λ1 times an L1 of 0.05.
  With α1 = 1 this is a weak regularizer, as in the paper's ablation (Table 3: a better FID, no blur).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from glama_deploy.frozen import FrozenModel


class Weights(FrozenModel):
    """The λ of (7), the α of (11), and settings in which LaMa's code differs from the paper.

    The defaults are those of the paper.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    l1: float = Field(default=10.0, ge=0, description="λ1: L1 of the known pixels (1)")
    l1_missing: float = Field(default=0.0, ge=0, description="L1 on the missing pixels, not in the paper")
    psnr_missing: float = Field(default=0.0, ge=0, description="−PSNR of the missing pixels in dB, not in the paper")
    adversarial: float = Field(default=10.0, ge=0, description="λadv; 0 turns adversarial training off")
    adversarial_distance: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="as texture_distance: D sees the truth but for wide holes; null: D sees the whole prediction",
    )
    discriminator: float | None = Field(
        default=None, gt=0, description="weight of the discriminator's loss (3) + λP·(5); null: λadv, as in (7)"
    )
    feature_matching: float = Field(default=30.0, ge=0, description="λfm: feature matching")
    feature_distance: Literal["absolute", "squared"] = Field(
        default="absolute", description="distance of features: absolute in the paper, squared in LaMa's code"
    )
    perceptual: float = Field(default=100.0, ge=0, description="λPL: perceptual loss (2)")
    perceptual_distance: int | None = Field(
        default=None,
        ge=0,
        le=256,
        description="as texture_distance: φ sees the truth but for wide holes; null: φ sees the whole prediction",
    )
    gradient_penalty: float = Field(default=0.001, ge=0, description="λP of (6): R1 penalty of the discriminator")
    total_variation: float = Field(default=1.0, ge=0, description="α1: total variation (10)")
    focal_frequency: float = Field(default=1.0, ge=0, description="α2: focal frequency loss (8)")
    lama: float = Field(
        default=1.0, ge=0, description="α3: factor of all terms except total_variation, focal_frequency, coarse"
    )
    texture: float = Field(
        default=0.0, ge=0, description="sliced Wasserstein distance of patches in wide holes, not in the paper"
    )
    texture_distance: int = Field(
        default=8, ge=0, le=256, description="pixels between a wide hole's patches and the nearest known pixel"
    )
    teacher: float = Field(
        default=0.0, ge=0, description="−PSNR of the missing pixels against the teacher's prediction, not in the paper"
    )
    coarse: float = Field(default=1.0, ge=0, description="loss of stage one in a network of two stages")


#: Fields of :class:`Weights` that are not weights of a term of the generator's loss.
_OTHER_FIELDS = {
    "lama",
    "gradient_penalty",
    "adversarial_distance",
    "discriminator",
    "feature_distance",
    "perceptual_distance",
    "texture_distance",
}

#: The weights of the paper and of LaMa's own code (`lama-fourier.yaml`). LaMa exchanges the weights of feature matching
#: and of the perceptual loss, squares the distances of features, does not weigh the discriminator's loss, and does not
#: have the paper's two new terms.
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
    """Compute (1), the mean of |x − x̂| ⊙ (1 − M) over all values.

    Args:
        predicted: Generated images x̂.
        image: Real images x.
        mask: Masks M.

    Returns:
        A scalar.
    """
    return ((predicted - image).abs() * (1 - mask)).mean()


def l1_missing(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean of |x − x̂| ⊙ M over the missing pixels of each image, averaged over images.

    Args:
        predicted: Generated images x̂.
        image: Real images x.
        mask: Masks M.

    Returns:
        A scalar. An image without missing pixels counts 0.
    """
    error = ((predicted - image).abs() * mask).mean(1).sum((1, 2))
    return (error / mask.sum((1, 2, 3)).clamp_min(1)).mean()


def psnr_missing(predicted: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Compute the negative PSNR of the missing pixels of each image, averaged over images.

    1e-4 is added to each mean square, so the loss has almost no gradient above 40 dB.

    Args:
        predicted: Generated images x̂.
        image: Real images x.
        mask: Masks M.

    Returns:
        A scalar in dB, computed in float32: 10·log10 of the mean square of (x − x̂) ⊙ M.
    """
    squared = ((predicted.float() - image).square() * mask).mean(1).sum((1, 2))
    return (10 * torch.log10(squared / mask.sum((1, 2, 3)).clamp_min(1) + 1e-4)).mean()


def discriminator_loss(real: Tensor, fake: Tensor, mask: Tensor) -> Tensor:
    """Compute (3), the mean of −log D(x) − log D(x̂) ⊙ (1 − M) − log(1 − D(x̂)) ⊙ M.

    D is the sigmoid of the logits. A generated image counts as fake only at missing pixels. As in LaMa, the mask is
    resized to the logits' size by nearest neighbours.

    Args:
        real: Logits [B, 1, h, w] of real images.
        fake: Logits [B, 1, h, w] of generated images.
        mask: Masks M [B, 1, H, W].

    Returns:
        A scalar.
    """
    missing = F.interpolate(mask, fake.shape[2:], mode="nearest")
    on_fake = F.softplus(-fake) * (1 - missing) + F.softplus(fake) * missing
    return (F.softplus(-real) + on_fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Compute (4), the mean of −log D(x̂).

    Args:
        fake: Logits of generated images.

    Returns:
        A scalar.
    """
    return F.softplus(-fake).mean()


def gradient_penalty(real: Tensor, image: Tensor) -> Tensor:
    """Compute (5), R1 (Mescheder et al., ICML 2018): ‖∇x D(x)‖² of each real image, averaged over the batch.

    Args:
        real: Logits of the real images.
        image: Real images x, which require their gradient.

    Returns:
        A scalar.
    """
    (gradient,) = torch.autograd.grad(real.sum(), image, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def feature_matching(
    real: Sequence[Tensor], fake: Sequence[Tensor], distance: Literal["absolute", "squared"] = "absolute"
) -> Tensor:
    """Compute Lfm of (7): the mean distance of the discriminator's features, averaged over the layers.

    Args:
        real: Features of real images, one tensor for each layer. These features get no gradient.
        fake: Features of generated images, of the same shapes.
        distance: `absolute` (the paper) or `squared` (LaMa's code).

    Returns:
        A scalar.
    """
    measure = F.mse_loss if distance == "squared" else F.l1_loss
    return torch.stack([measure(f, r.detach()) for r, f in zip(real, fake, strict=True)]).mean()


def perceptual(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Compute (2): the mean of [φ(x) − φ(x̂)]² over each feature map of the network φ, summed over the maps.

    Args:
        real: Features φ(x) of real images, one tensor for each map. These features get no gradient.
        fake: Features φ(x̂) of generated images, of the same shapes.

    Returns:
        A scalar.
    """
    return torch.stack([F.mse_loss(f, r.detach()) for r, f in zip(real, fake, strict=True)]).sum()


def focal_frequency(predicted: Tensor, image: Tensor, alpha: float = 1.0) -> Tensor:
    """Compute (8): the mean of w·|Fr − Ff|² over frequencies, channels and images, in float32 or float64.

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
    """Compute (10): the mean of ((x[i, j+1] − x[i, j])² + (x[i+1, j] − x[i, j])²)^(β/2).

    Args:
        predicted: Generated images.
        beta: The exponent β.

    Returns:
        A scalar, the mean over all pixels with both neighbours.
    """
    across = (predicted[..., :-1, 1:] - predicted[..., :-1, :-1]).square()
    down = (predicted[..., 1:, :-1] - predicted[..., :-1, :-1]).square()
    squared = across + down
    return (squared if beta == 2 else squared.clamp_min(1e-12).pow(beta / 2)).mean()


def joint(terms: dict[str, Tensor], weights: Weights) -> Tensor:
    """Compute the generator's loss (11) with (7), a weighted sum of terms.

    Args:
        terms: Scalars by their names in :class:`Weights`. A missing term counts 0.
        weights: The weights. `weights.lama` (α3) also multiplies all terms except total_variation, focal_frequency and
            coarse.

    Returns:
        A scalar, float32.

    Raises:
        KeyError: A name is not a term of the generator's loss.
    """
    outside = {"total_variation", "focal_frequency", "coarse"}
    total = torch.zeros((), dtype=torch.float32, device=next(iter(terms.values())).device)
    for name, value in terms.items():
        if name not in Weights.model_fields or name in _OTHER_FIELDS:
            raise KeyError(f"{name} is not a term of the generator's loss")
        total = total + getattr(weights, name) * (1.0 if name in outside else weights.lama) * value
    return total
