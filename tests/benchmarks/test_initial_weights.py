"""The weights with which the training of a U-Net begins."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glama_deploy.benchmarks.quality import initial_weights
from glama_deploy.checkpoints import formats
from glama_deploy.reference import pull_push
from glama_deploy.reference.generator import masked_input

CONFIG = """
base: glama-tiny
network: {{ngf: 8, n_blocks: 1, n_downsampling: 2, ratio: 0.5, fine_blocks: {fine}, fill: pull-push}}
weights: {{l1: 0, psnr_missing: 1, adversarial: 0, feature_matching: 0, perceptual: 0}}
data: {{train: [photos], side: 32, masks: EveryNLines+ThinStrokes, workers: 0}}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the program on a configuration in an empty folder with photographs."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (48, 48, 3), np.uint8)).save(f"photos/{number}.png")

    def run_main(fine: int) -> None:
        Path("run.yaml").write_text(CONFIG.format(fine=fine), encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["initial_weights.py", "--config", "run.yaml", "--out", "start.safetensors"])
        initial_weights.main()

    return run_main


def test_the_first_output_is_the_interpolated_picture_and_no_unit_is_closed(run):
    run(2)
    generator = formats.load("start.safetensors").eval()
    closed: list[str] = []
    for name, module in generator.named_modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(
                lambda _, __, output, name=name: closed.extend([name] * int((output.amax((0, 2, 3)) <= 0).sum()))
            )
    rng = torch.Generator().manual_seed(0)
    image, mask = torch.rand(4, 3, 32, 32, generator=rng), (torch.rand(4, 1, 32, 32, generator=rng) < 0.5).float()
    with torch.inference_mode():
        found = generator(masked_input(image, mask))
        expected = pull_push.fill(masked_input(image, mask))
    # the log odds and their sigmoid give 0 to 1 back but for the least distance from both, 2⁻⁹
    torch.testing.assert_close(found, expected, rtol=0, atol=2**-9 + 1e-6)
    assert closed == []


def test_the_same_configuration_gives_the_same_weights(run):
    run(1)
    first = formats.read("start.safetensors").weights
    run(1)
    again = formats.read("start.safetensors").weights
    assert all(np.array_equal(values, again[name]) for name, values in first.items())


def test_a_network_without_fine_blocks_is_refused(run, capsys):
    with pytest.raises(SystemExit) as end:
        run(0)
    assert end.value.code == 2
    assert "the config's network has no fill or no fine_blocks" in capsys.readouterr().err
    assert not Path("start.safetensors").exists()
