"""The weight files that LPIPS and FID are computed with: where they are looked for, and what is said of those that are
not there.

LPIPS sees with torchvision's AlexNet and VGG-16 (its own linear layers come with torchmetrics), FID with the Inception
network of the original FID as torch-fidelity converted it. The files keep the names that they are published under.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from torch import nn

from glama_deploy.errors import GlamaError

Backbone = Literal["lpips-alex", "lpips-vgg", "fid"]


@dataclass(frozen=True)
class Published:
    """A weight file: the names that it is known under, the first of them torch's own, and where it is published."""

    names: tuple[str, ...]
    url: str

    @property
    def digest(self) -> str:
        """The beginning of its SHA-256, which its name ends with."""
        return Path(self.names[0]).stem.rpartition("-")[2]


PUBLISHED: dict[Backbone, Published] = {
    "lpips-alex": Published(
        ("alexnet-owt-7be5be79.pth",), "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
    ),
    "lpips-vgg": Published(("vgg16-397923af.pth",), "https://download.pytorch.org/models/vgg16-397923af.pth"),
    "fid": Published(
        ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
}


def cache() -> Path:
    """Torch's own folder of downloaded weights (`$TORCH_HOME/hub/checkpoints`)."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find(backbone: Backbone, folder: Path | None) -> Path | None:
    """The backbone's file in `folder` or in torch's cache, or None."""
    places = [place for place in (folder, cache()) if place is not None]
    paths = [place / name for place in places for name in PUBLISHED[backbone].names]
    return next((path for path in paths if path.is_file()), None)


def absent(backbone: Backbone) -> str:
    """What is said of a backbone whose file is not there."""
    published = PUBLISHED[backbone]
    return (
        f"{published.names[0]} is neither in --weights nor in {cache()}; "
        f"put it there (from {published.url}), or pass --download"
    )


def download(backbone: Backbone) -> Path:
    """Fetch the backbone's file into torch's cache, checked against its digest. Raises GlamaError: no network, another
    file."""
    published, target = PUBLISHED[backbone], cache()
    path = target / published.names[0]
    try:
        target.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.url, str(path), published.digest, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise GlamaError(
            f"{published.url} cannot be downloaded ({error}); download it elsewhere and put it into --weights"
        ) from error
    return path


def lpips(backbone: Backbone, path: Path) -> nn.Module:
    """LPIPS of torchmetrics over the weights in a file: two tensors [B, 3, H, W], 0…1, → their distances' mean."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    _check_inert(path)
    before = torch.hub._hub_dir  # None where $TORCH_HOME says it
    with tempfile.TemporaryDirectory() as folder:
        # torchvision looks for its weights in torch's hub folder and in no other place
        there = Path(folder) / "checkpoints"
        there.mkdir()
        (there / PUBLISHED[backbone].names[0]).symlink_to(path.resolve())
        torch.hub.set_dir(folder)
        try:
            net = "alex" if backbone == "lpips-alex" else "vgg"
            return _fitting(
                path, lambda: LearnedPerceptualImagePatchSimilarity(net_type=net, normalize=True).eval()
            ).requires_grad_(False)
        finally:
            torch.hub._hub_dir = before


def inception(path: Path) -> nn.Module:
    """Inception of the original FID over the weights in a file: uint8 [B, 3, H, W] → a tuple of float32 [B, 2048]."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    _check_inert(path)
    return _fitting(
        path,
        lambda: FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).eval(),
    )


def _check_inert(path: Path) -> None:
    """Raise GlamaError unless the file holds tensors and nothing that would run: the packages read it with pickle."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise GlamaError(f"{path} is damaged or no file of PyTorch's weights; download it again") from error


def _fitting(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """What is built from a file. Raises GlamaError where its weights are of another network."""
    try:
        return build()
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise GlamaError(
            f"{path} holds the weights of another network than its name says; download it again"
        ) from error
