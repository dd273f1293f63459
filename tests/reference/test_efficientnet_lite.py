"""EfficientNet-Lite0 with the weights of its package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.models import ResNet50_Weights

from glama_deploy.errors import CheckpointError
from glama_deploy.io.packages import find_packaged_file
from glama_deploy.reference import efficientnet_lite

PHOTOS = Path(__file__).parents[2] / "benchmarks" / "photos"


@pytest.fixture(scope="module")
def network() -> efficientnet_lite.EfficientNetLite0:
    path = find_packaged_file(efficientnet_lite.PACKAGE, efficientnet_lite.FILE)
    assert path is not None
    return efficientnet_lite.load(path)


def read_square(name: str, side: int) -> torch.Tensor:
    with Image.open(PHOTOS / f"{name}.jpg") as photo:
        square = ImageOps.fit(photo.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(square) / np.float32(255)).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("koala", "koala"),
        ("panda", "giant panda"),
        ("polar-bear", "ice bear"),
        ("scarlet-macaw", "macaw"),
        ("european-honey-bee", "bee"),
        ("hawa-mahal", "palace"),
    ],
)
def test_photographs_are_what_they_show(network, photo, expected):
    chances = network.classify(read_square(photo, 224)).softmax(1)[0]
    assert ResNet50_Weights.DEFAULT.meta["categories"][int(chances.argmax())] == expected
    assert chances.max() > 0.8  # 0.90 and more; a wrong normalization, padding or ε of the batch norms lowers it


def test_it_has_the_published_number_of_parameters(network):
    assert sum(values.numel() for values in network.parameters()) == 4_652_008


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47), (1, 1)])
def test_maps_are_of_the_side_over_each_stride_rounded_up(network, height, width):
    maps = network.compute_maps(torch.rand(1, 3, height, width))
    sizes = ((96, 2), (144, 4), (240, 8), (672, 16), (1280, 32))
    expected = [(channels, -(-height // stride), -(-width // stride)) for channels, stride in sizes]
    assert [tuple(found.shape[1:]) for found in maps] == expected


def test_features_are_unit_vectors_of_the_maps(network):
    image = read_square("koala", 64)
    for found, feature in zip(network.compute_maps(image), network(image), strict=True):
        vectors = found[0].double().numpy()
        expected = vectors / np.linalg.norm(vectors, axis=0) * np.sqrt(len(vectors) / 5)
        np.testing.assert_allclose(feature[0].numpy(), expected, atol=2e-5)  # float32; lengths plus 1e-6


def test_it_stays_frozen_and_in_eval_mode_but_passes_gradients_to_the_image(network):
    network.train()
    assert not any(module.training for module in network.modules())
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    sum(feature.square().mean() * 0.5 + feature.mean() for feature in network(image)).backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().max() > 0
    assert all(values.grad is None for values in network.parameters())


def test_another_file_is_refused_in_one_line(network, tmp_path):
    path = tmp_path / efficientnet_lite.FILE
    with pytest.raises(CheckpointError, match="cannot be read"):
        efficientnet_lite.load(path)
    torch.save({**network.state_dict(), "_fc.bias": torch.zeros(1000)}, path)
    with pytest.raises(CheckpointError, match="has the SHA-256 ") as caught:
        efficientnet_lite.load(path)
    assert "\n" not in str(caught.value)
