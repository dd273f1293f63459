"""GLaMa-2stage trains: both stages by one loss, into one checkpoint, which exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from glama_deploy.checkpoints import formats
from glama_deploy.errors import CheckpointError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.reference import two_stage
from glama_deploy.training import config, losses
from glama_deploy.training.data import Squares
from glama_deploy.training.run import train
from glama_deploy.training.trainer import Trainer

COARSE = {"network.coarse.ngf": 8, "network.coarse.n_blocks": 1}


def asked(photos: Path, name: str = "glama-2stage", **changes: object) -> config.Config:
    settings = {
        "network.ngf": 8,
        "network.n_blocks": 1,
        "discriminator.channels": 8,
        "discriminator.layers": 2,
        "weights.perceptual": 0,
        "data.train": f"[{photos}]",
        "data.side": 64,
        "data.workers": 0,
        "optimization.batch": 2,
        "optimization.steps": 3,
        **({**COARSE, "network.coarse_side": 32} if name == "glama-2stage" else {}),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return config.load(name, [f"{key}={value}" for key, value in settings.items()])


def test_the_named_config_trains_at_512_on_a_coarse_picture_of_256():
    named = config.load("glama-2stage")
    assert (named.data.side, named.network.coarse_side) == (512, 256)
    assert named.network.coarse == config.load("glama").network


def test_a_step_moves_both_stages_and_counts_the_coarse_pictures_own_loss(photos):
    run = Trainer(asked(photos), Fabric(accelerator="cpu", devices=1))
    before = {name: value.clone() for name, value in run._generator.named_parameters()}
    (batch,) = [next(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))]
    with torch.no_grad():
        small, coarse = run._generator.guess(torch.cat([batch.image * (1 - batch.mask), batch.mask], 1))
    run.advance(iter([batch]))
    moved = {name for name, value in run._generator.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("coarse.") for name in moved)
    assert any(name.startswith("model.") for name in moved)
    # the coarse picture is held against the whole image at its size
    scalars, _ = Trainer(asked(photos), Fabric(accelerator="cpu", devices=1)).advance(iter([batch]))
    whole = two_stage.shrink(torch.cat([batch.image, torch.zeros_like(batch.mask)], 1), 32)[:, :3]
    weights = run.config.weights
    expected = (
        weights.l1 * losses.l1_known(coarse, whole, small[:, 3:])
        + weights.total_variation * losses.total_variation(coarse)
        + weights.focal_frequency * losses.focal_frequency(coarse, whole)
    )
    # guess() above ran on other batch-norm statistics' running means only, which training does not read
    assert scalars["coarse"] == pytest.approx(float(expected), rel=1e-4)


def test_stage_one_may_come_from_a_checkpoint_of_its_own(photos, tmp_path):
    first = train(asked(photos, "glama"), tmp_path / "first", device="cpu")
    run = Trainer(asked(photos), Fabric(accelerator="cpu", devices=1))
    mine = {name: value.clone() for name, value in run._generator.model.state_dict().items()}
    run.start_from(first)
    for name, value in formats.read(first).weights.items():
        assert torch.equal(run._generator.coarse.state_dict()[name], torch.tensor(value)), name
    for name, value in run._generator.model.state_dict().items():
        assert torch.equal(value, mine[name])
    other = train(asked(photos, "glama", network__n_blocks=2), tmp_path / "other", device="cpu")
    with pytest.raises(CheckpointError, match="is of another network than the config's"):
        run.start_from(other)


def test_its_checkpoint_exports_as_one_bundle_and_resumes(photos, tmp_path):
    train(asked(photos), tmp_path / "run", device="cpu")
    last = train(asked(photos, optimization__steps=5), tmp_path / "run", resume=True, device="cpu")
    outcome = export(Request(last, tmp_path / "bundle", ("onnx",)))
    assert outcome.bundle.manifest.network == asked(photos).network
    assert outcome.bundle.manifest.engines["onnx"].parity.passed
