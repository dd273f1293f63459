"""Training itself: a step's arithmetic, exact resumption, what is kept, what is said."""

from __future__ import annotations

import copy
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from glama_deploy.checkpoints import formats
from glama_deploy.cli.train import main
from glama_deploy.errors import CheckpointError, GlamaError
from glama_deploy.export.pipeline import Request, export
from glama_deploy.training import checkpoints, config
from glama_deploy.training.data import Squares
from glama_deploy.training.run import train
from glama_deploy.training.trainer import Trainer, compute_rate_factor
from training.tiny_run import list_overrides


def overrides(photos: Path, **changes: object) -> list[str]:
    return list_overrides(photos, **{"optimization__steps": 40, "saving__every": 10, **changes})


def asked(photos: Path, **changes: object) -> config.Config:
    return config.load("glama-tiny", overrides(photos, **changes))


def trainer(settings: config.Config) -> Trainer:
    return Trainer(settings, Fabric(accelerator="cpu", devices=1))


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = checkpoints.read(path)
    flat = {f"average.{name}": value for name, value in state["state_dict"].items()}
    for network in ("generator", "discriminator"):
        flat |= {f"{network}.{name}": value for name, value in state["training"][network].items()}
    return flat


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


def note(losses: list[float], _step: int, scalars: dict[str, float]) -> None:
    losses.append(scalars["total"])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_the_first_steps_are_those_of_a_cpu(photos, tmp_path, precision):
    """The losses of three steps, and a checkpoint that goes straight into the export."""
    found: dict[str, list[float]] = {"cpu": [], "cuda": []}
    settings = asked(photos, optimization__steps=3, optimization__precision=precision)
    for device, losses in found.items():
        last = train(settings, tmp_path / device, device=device, on_step=partial(note, losses))
    # TF32 and bf16 keep 10 and 7 bits; from the second step on Adam multiplies what rounding there is
    np.testing.assert_allclose(found["cuda"], found["cpu"], rtol=1e-2 if precision == "fp32" else 5e-2)
    assert export(Request(last, tmp_path / "bundle", parity=False)).bundle.engine("onnx")


def test_40_steps_are_20_a_kill_and_20_more(photos, tmp_path, wait_until):
    """The process is killed in the middle of a step after the 20th; what was saved last is gone on from, exactly."""
    straight = train(asked(photos), tmp_path / "straight", device="cpu")
    code = "import sys; from glama_deploy.cli.train import main; main(sys.argv[1:])"
    command = ["--config", "glama-tiny", "--out", tmp_path / "killed", "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, command), *overrides(photos)], stderr=subprocess.PIPE, env={**os.environ}
    )
    wait_until((tmp_path / "killed" / "step-00000020.pt").exists)
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = {path.name for path in (tmp_path / "killed").glob("*.pt")}
    assert "step-00000020.pt" in left
    resumed = train(asked(photos), tmp_path / "killed", resume=True, device="cpu")
    assert resumed.name == straight.name == "step-00000040.pt"
    assert_equal(weights(resumed), weights(straight))


def test_a_checkpoint_without_a_best_score_resumes(photos, tmp_path):
    last = train(asked(photos, optimization__steps=2), tmp_path / "run", device="cpu")
    state = checkpoints.read(last)
    del state["training"]["best"]
    torch.save(state, last)
    train(asked(photos, optimization__steps=3), tmp_path / "run", resume=True, device="cpu")


def test_the_same_network_in_other_words_is_taken(photos, tmp_path):
    """A checkpoint's config is read off its shapes, where 0.7 of 64 channels is 44 of 64."""
    first = train(asked(photos, network__ratio=0.7, optimization__steps=1), tmp_path / "first", device="cpu")
    trainer(asked(photos, network__ratio=0.7, network__max_features=64)).start_from(first)


def test_weights_of_a_network_that_computes_otherwise_are_refused(photos, tmp_path):
    """The parameters have the same names and shapes."""
    first = train(asked(photos, optimization__steps=1), tmp_path / "first", device="cpu")
    for field, value, says in (
        ("activation", "tanh", "activation is tanh, not sigmoid"),
        ("fft_norm", "forward", "fft_norm is forward, not ortho"),
    ):
        state = checkpoints.read(first)
        state["config"][field] = value
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=says):
            trainer(asked(photos)).start_from(tmp_path / "other.pt")


def test_a_run_may_begin_with_the_generator_of_another(photos, tmp_path):
    first = train(asked(photos, optimization__steps=3), tmp_path / "first", device="cpu")
    run = trainer(asked(photos))
    run.start_from(first)
    averaged = checkpoints.read(first)["state_dict"]
    names = [name for name in averaged if not name.endswith("num_batches_tracked")]
    for network in (run._generator, run.average):
        for name in names:
            assert torch.equal(network.state_dict()[name], averaged[name]), name
    last = train(asked(photos, data__side=48, optimization__steps=3), tmp_path / "next", weights=first, device="cpu")
    assert checkpoints.read(last)["training"]["step"] == 3


def test_a_run_may_begin_with_a_published_network(photos, tmp_path, model_host, monkeypatch):
    first = train(asked(photos, optimization__steps=1), tmp_path / "first", device="cpu")
    catalogue = model_host.write_catalogue(tmp_path / "models.json", {"name": "little", "content": first.read_bytes()})
    monkeypatch.setenv("GLAMA_MODELS_CATALOGUE", str(catalogue))
    last = train(asked(photos, optimization__steps=1), tmp_path / "next", weights="little", device="cpu")
    assert checkpoints.read(last)["training"]["step"] == 1
    assert len(model_host.asked) == 1
    with pytest.raises(GlamaError, match=r"no published model of this name; is little meant\?"):
        train(asked(photos, optimization__steps=1), tmp_path / "other", weights="litle", device="cpu")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("schedule", "warm_up", "expected"),
    [("constant", 0, {0: 1, 50: 1, 99: 1}), ("cosine", 0, {0: 1, 50: 0.5}), ("cosine", 9, {0: 0.1, 50: 0.5})],
)
def test_the_rate_follows_its_schedule(photos, schedule, warm_up, expected):
    settings = asked(
        photos, optimization__schedule=schedule, optimization__warm_up=warm_up, optimization__steps=100
    ).optimization
    for step, share in expected.items():
        assert compute_rate_factor(step, settings) == pytest.approx(share)
    run = trainer(asked(photos, optimization__warm_up=9))
    run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
    assert run._generator_adam.param_groups[0]["lr"] == pytest.approx(1e-4)
    assert run._discriminator_adam.param_groups[0]["lr"] == pytest.approx(1e-5)


def test_the_gradients_of_both_networks_are_clipped_where_that_is_asked_for(photos):
    run = trainer(asked(photos, optimization__clip=1e-3))
    run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
    for network in (run._generator, run._discriminator):
        norms = [p.grad.norm() for p in network.parameters() if p.grad is not None]
        assert torch.stack(norms).norm() == pytest.approx(1e-3, rel=1e-3)  # (clip_grad_norm_ adds 1e-6 to the norm)


def test_the_discriminator_learns_by_its_own_weight(photos):
    """λadv times the loss, or the loss as it is, which LaMa's code does: a tenth of the gradient."""
    norms = []
    for weight in ("null", 1):
        run = trainer(asked(photos, weights__discriminator=weight))
        run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
        norms.append(float(torch.stack([p.grad.norm() for p in run._discriminator.parameters()]).norm()))
    assert norms[0] == pytest.approx(10 * norms[1], rel=1e-3)  # float32 sums


def test_a_run_as_lama_trains_goes_on_exactly(photos, tmp_path):
    """With its masks, its augmentations and workers; without an average the checkpoint is the generator itself."""
    given = overrides(photos, optimization__steps=4, saving__every=2, data__workers=1, optimization__batch=2)
    settings = config.load("lama", given)
    straight = train(settings, tmp_path / "straight", device="cpu")
    assert (settings.data.masks, settings.data.distort) == ("lama", True)
    halves = [config.load("lama", [*given, f"optimization.steps={steps}"]) for steps in (2, 4)]
    train(halves[0], tmp_path / "halves", device="cpu")
    resumed = train(halves[1], tmp_path / "halves", resume=True, device="cpu")
    assert_equal(weights(resumed), weights(straight))
    state = checkpoints.read(resumed)
    assert_equal(state["state_dict"], state["training"]["generator"])


def test_a_run_of_another_version_is_not_resumed(photos, tmp_path):
    """Version 0.1 drew other masks by the same names."""
    last = train(asked(photos, optimization__steps=2), tmp_path / "run", device="cpu")
    state = checkpoints.read(last)
    del state["training"]["recipe"]
    torch.save(state, last)
    with pytest.raises(
        CheckpointError,
        match=r"the recipe 1 of another version of glama-deploy .*\(expected: recipe 2\).*this checkpoint as `weights`",
    ):
        train(asked(photos, optimization__steps=4), tmp_path / "run", resume=True, device="cpu")
    train(asked(photos, optimization__steps=1), tmp_path / "next", weights=last, device="cpu")


def test_frozen_norms_keep_their_statistics_from_their_step_on(photos):
    run = trainer(asked(photos, optimization__freeze_norms=2))
    there = run.read_batches(Squares(run.config.data.train, run.config.data, seed=0))
    statistics = []
    for _ in range(4):
        run.advance(there)
        statistics.append({n: v.clone() for n, v in run._generator.state_dict().items() if "running_" in n})
    assert all((statistics[1][name] != statistics[0][name]).any() for name in statistics[0])
    assert_equal(statistics[3], statistics[1])
    before = {name: value.clone() for name, value in run._generator.named_parameters()}
    run.advance(there)  # their weights go on learning
    assert all(not torch.equal(v, before[n]) for n, v in run._generator.named_parameters() if n.endswith("bn_l.weight"))


def test_parts_of_a_batch_add_up_to_its_gradient(photos):
    """Of everything but batch norm, which sees a part at a time: so the networks are taken in eval mode here."""
    settings = asked(photos, optimization__batch=4)
    whole, parted = trainer(settings), trainer(asked(photos, optimization__batch=4, optimization__accumulate=2))
    squares = Squares(settings.data.train, settings.data, seed=0)
    for each in (whole, parted):
        each._generator.eval()
        each._discriminator.eval()
        each.advance(each.read_batches(squares))
    for name, value in whole._generator.state_dict().items():
        # Adam's first step is the sign of the gradient times its rate: where that is near 0 it may turn over
        different = (value - parted._generator.state_dict()[name]).abs() > 1e-5
        assert different.float().mean() < 0.02, name


def test_a_step_moves_each_network_by_its_own_loss_alone(photos):
    run = trainer(asked(photos, weights__adversarial=0, weights__feature_matching=0))
    before = copy.deepcopy(run._discriminator.state_dict())
    squares = Squares(run.config.data.train, run.config.data, seed=0)
    scalars, broken = run.advance(run.read_batches(squares))
    assert_equal(run._discriminator.state_dict(), before)  # its loss weighs nothing
    assert scalars.keys() == {"l1", "total_variation", "focal_frequency", "total"}
    expected = 10 * scalars["l1"] + scalars["total_variation"] + scalars["focal_frequency"]
    assert scalars["total"] == pytest.approx(expected, rel=1e-5)
    assert not broken


def test_a_step_learns_from_the_perceptual_loss_of_efficientnet_lite0(photos):
    changes = {"perceptual_network": "efficientnet-lite0", "weights__perceptual": 30, "weights__l1": 0}
    none = dict.fromkeys(("weights__adversarial", "weights__feature_matching", "weights__total_variation"), 0)
    run = trainer(asked(photos, **changes, **none, weights__focal_frequency=0))
    before = copy.deepcopy(run._generator.state_dict())
    scalars, _ = run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
    assert 0 < scalars["perceptual"] < 2
    assert scalars["total"] == pytest.approx(30 * scalars["perceptual"], rel=1e-5)
    weights = [name for name in before if name.endswith("weight") and before[name].ndim == 4]
    assert all(not torch.equal(run._generator.state_dict()[name], before[name]) for name in weights)


def test_the_perceptual_loss_is_zero_where_no_hole_is_wide_enough(photos):
    changes = {"perceptual_network": "efficientnet-lite0", "weights__perceptual": 30}
    found = {}
    for distance in (0, 16):  # squares of one pixel, and squares of 33 pixels in images of 32
        run = trainer(asked(photos, **changes, weights__adversarial=0, weights__perceptual_distance=distance))
        scalars, _ = run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
        found[distance] = scalars["perceptual"]
    assert found[0] > 1e-6
    assert found[16] < 1e-9  # float32: PyTorch computes in another order where a gradient is asked for


def test_the_discriminator_sees_the_truth_where_no_hole_is_wide_enough(photos):
    changes = {"weights__feature_matching": 30, "optimization__batch": 4}
    found = {}
    for distance in (0, 16):  # squares of one pixel, and squares of 33 pixels in images of 32
        run = trainer(asked(photos, **changes, weights__adversarial_distance=distance))
        scalars, _ = run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
        found[distance] = scalars
    assert found[0]["feature_matching"] > 1e-6
    assert found[16]["feature_matching"] < 1e-9  # float32: PyTorch computes in another order for a gradient
    # no pixel is generated, so both halves of (3) are −log D of the same image, which is (4)
    assert found[16]["discriminator"] == pytest.approx(2 * found[16]["adversarial"], rel=1e-5)
    assert found[0]["discriminator"] != pytest.approx(2 * found[0]["adversarial"], rel=1e-3)


def test_a_run_learns_from_its_teacher(photos, tmp_path):
    changes: dict[str, object] = {"network__fill": "pull-push", "data__masks": "EveryNLines", "optimization__steps": 60}
    others = ("l1", "adversarial", "feature_matching", "total_variation", "focal_frequency")
    changes |= {f"weights__{name}": 0 for name in others}
    losses: list[float] = []
    settings = asked(photos, **changes, optimization__beta2=0.9, weights__teacher=1, teacher="default")
    train(settings, tmp_path / "run", device="cpu", on_step=partial(note, losses))
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 2  # dB; 3.7 were gained


def test_a_network_that_is_its_own_teacher_has_nothing_to_learn(photos, tmp_path):
    changes = {"weights__teacher": 1, "weights__adversarial": 0, "weights__feature_matching": 0}
    teacher = train(asked(photos, optimization__steps=1), tmp_path / "run", device="cpu")
    run = trainer(asked(photos, **changes, teacher=teacher))
    run.start_from(teacher)
    run._generator.eval()  # the teacher normalizes by running statistics
    scalars, _ = run.advance(run.read_batches(Squares(run.config.data.train, run.config.data, seed=0)))
    assert scalars["teacher"] == pytest.approx(-40, abs=0.01)  # 10·log10(1e-4): the mean square is 0


def test_training_brings_the_loss_down(photos, tmp_path):
    seen: list[float] = []
    # Half of the pixels of every sample are missing, so that the losses of two batches can be compared.
    steps = {"optimization__steps": 150, "optimization__batch": 4, "data__masks": "EveryNLines"}
    settings = asked(photos, **steps, weights__adversarial=0)
    settings = settings.model_copy(update={"weights": settings.weights.model_copy(update={"feature_matching": 0.0})})
    train(settings, tmp_path / "run", device="cpu", on_step=lambda step, scalars: seen.append(scalars["l1"]))
    assert np.mean(seen[-20:]) < 0.6 * np.mean(seen[:10])


def test_the_average_counts_batches_as_the_generator_does(photos):
    run = trainer(asked(photos))
    batches = run.read_batches(Squares(run.config.data.train, run.config.data, seed=0))
    for _ in range(3):
        run.advance(batches)
    counters = {name: value for name, value in run.average.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counters
    generator = run._generator.state_dict()
    assert all(torch.equal(value, generator[name]) for name, value in counters.items())


def test_the_average_follows_the_generator(photos):
    run = trainer(asked(photos))
    start = copy.deepcopy(run.average.state_dict())
    squares = Squares(run.config.data.train, run.config.data, seed=0)
    run.advance(run.read_batches(squares))
    now = run._generator.state_dict()
    for name, mean in run.average.state_dict().items():
        if mean.is_floating_point():  # at first its decay is 1/10
            torch.testing.assert_close(mean, start[name] * 0.1 + now[name] * 0.9)


def test_checkpoints_go_straight_into_an_export_and_only_some_stay(photos, tmp_path):
    settings = asked(photos, saving__every=5, saving__keep=2, saving__validate_every=20, optimization__steps=20)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"valid": (str(photos),)})})
    last = train(settings, tmp_path / "run", device="cpu")
    names = {path.name for path in (tmp_path / "run").glob("*.pt")}
    assert names == {"step-00000015.pt", "step-00000020.pt", "best.pt"}
    assert config.load(str(tmp_path / "run" / "config.yaml")) == settings
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert formats.read(last).config == settings.network
    export(Request(last, tmp_path / "bundle", ("onnx",)))
    assert (tmp_path / "bundle" / "model.onnx").is_file()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_is_saved_and_says_how_to_go_on(photos, tmp_path, ending, wait_until):
    code = "import sys; from glama_deploy.cli.train import main; main(sys.argv[1:])"
    command = ["--config", "glama-tiny", "--out", tmp_path / "run", "--device", "cpu"]
    given = overrides(photos, optimization__steps=100000, saving__every=3)
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, command), *given], stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: list((tmp_path / "run").glob("step-*.pt")))
    child.send_signal(ending)
    _, said = child.communicate(timeout=600)
    assert child.returncode == 130
    assert "which is saved in" in said.replace("\n", " ")
    assert "continue the run with --resume" in said.replace("\n", " ")
    latest = checkpoints.Checkpoints(tmp_path / "run", 3).find_latest()
    assert checkpoints.read(latest)["training"]["step"] == int(latest.stem.partition("-")[2])


def test_a_run_that_cannot_begin_is_refused_in_one_line(photos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for changes, says in (
        ({"data__train": f"[{tmp_path / 'empty'}]"}, "has no pictures"),
        ({"weights__perceptual": 100}, "the perceptual loss needs a file of weights: set perceptual_weights="),
        ({"optimization__accumulate": 3}, "is 2; a multiple of 3 (optimization.accumulate × 1 processes) is expected"),
        ({"teacher": "default"}, "config glama-tiny: teacher is set and weights.teacher is 0; set a weight such as 1"),
        (
            {"weights__teacher": 1},
            "config glama-tiny: weights.teacher is set and teacher is not; set teacher",
        ),
        ({"weights__teacher": 1, "teacher": tmp_path / "gone.pt"}, f"teacher: no checkpoint at {tmp_path / 'gone.pt'}"),
        ({"data__sides": 1}, "the config has no data.sides; did you mean 'side'"),
        ({"data__valid": f"[{tmp_path / 'gone'}]"}, "is neither a folder nor a tar file"),
    ):
        arguments = ["--config", "glama-tiny", "--out", str(tmp_path / "run"), "--device", "cpu"]
        assert main.run([*arguments, *overrides(photos, **changes)]) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    assert main.run(["--config", "glama-tiny", "--out", str(tmp_path / "\udcff"), *overrides(photos)]) == 2
    assert "is not UTF-8; choose another folder" in capsys.readouterr().err
    for device in ("999", "tpu"):
        arguments = ["--config", "glama-tiny", "--out", str(tmp_path / "run"), "--device", device]
        assert main.run([*arguments, *overrides(photos)]) == 2
        assert f"the device is {device}; auto, cpu, cuda are supported" in capsys.readouterr().err
    assert main.run(["--config", "glama-tiny", "--out", str(tmp_path / "run"), "--resume", *overrides(photos)]) == 2
    assert "has no checkpoint to resume from" in capsys.readouterr().err


def test_a_network_that_begins_with_a_picture_learns_from_decibels(photos, tmp_path):
    """From where it is the picture itself; the second decay is the config's, also after resuming."""
    ours = {"network__fill": "pull-push", "weights__psnr_missing": 1, "weights__l1": 0, "saving__every": 2}
    settings = asked(photos, **ours, optimization__steps=2, optimization__beta2=0.9)
    first = checkpoints.read(train(settings, tmp_path / "run", device="cpu"))
    assert first["training"]["generator_adam"]["param_groups"][0]["betas"] == (0.9, 0.9)
    head = f"model.{settings.network.head}.weight"
    assert first["training"]["generator"][head].abs().max() > 0
    later = asked(photos, **ours, optimization__steps=4, optimization__beta2=0.8)
    second = checkpoints.read(train(later, tmp_path / "run", device="cpu", resume=True))
    assert second["training"]["generator_adam"]["param_groups"][0]["betas"] == (0.9, 0.8)


def test_a_run_is_neither_overwritten_nor_resumed_with_another_config(photos, tmp_path):
    settings = asked(photos, optimization__steps=2, saving__every=1)
    train(settings, tmp_path / "run", device="cpu")
    with pytest.raises(GlamaError, match="contains a run; resume the run"):
        train(settings, tmp_path / "run", device="cpu")
    for changes, says in (
        ({"network__ngf": 16}, r"is of another network than the config's: ngf is 8, not 16; give the config"),
        ({"network__fill": "pull-push"}, r"another network than the config's: fill is None, not pull-push; give"),
        ({"discriminator__channels": 16}, "discriminator has another shape than the config's; give the config"),
    ):
        with pytest.raises(CheckpointError, match=says):
            train(asked(photos, **changes), tmp_path / "run", resume=True, device="cpu")
    with pytest.raises(CheckpointError, match=r"is of another network than the config's: ngf is 8, not 16"):
        train(asked(photos, network__ngf=16), tmp_path / "other", weights=tmp_path / "run" / "step-00000002.pt")
    with pytest.raises(GlamaError, match="leave one out"):
        train(settings, tmp_path / "run", resume=True, weights=tmp_path / "run" / "step-00000002.pt")
    damaged = tmp_path / "run" / "step-00000002.pt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"is damaged .*remove the file to resume from the checkpoint before"):
        train(settings, tmp_path / "run", resume=True, device="cpu")


def of_another_form(**changes: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, "training": {**state["training"], **changes}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: {**state, "training": [1]}, "training is a list; a dict is expected"),
        (lambda state: {**state, "config": None}, "config is None; a dict is expected"),
        (lambda state: {**state, "config": {"ngf": "many"}}, "the config is not valid"),
        (lambda state: {**state, "state_dict": {"a": 1}}, "state_dict is a dict; a dict of tensors is expected"),
        (of_another_form(step="a"), "training.step is 'a'; an integer from 0 is expected"),
        (of_another_form(step=-1), "training.step is -1; an integer from 0"),
        (of_another_form(step=True), "training.step is True; an integer from 0"),
        (of_another_form(recipe="x"), "training.recipe is 'x'; an integer from 0"),
        (of_another_form(recipe=1), "the recipe 1 of another version"),
        (of_another_form(best="x"), "training.best is 'x'; a number"),
        (of_another_form(best=math.nan), "training.best is nan; a number"),
        (of_another_form(best={"psnr": "x"}), "training.best is 'x'; a number"),
        (of_another_form(generator=None), "training.generator is None; a dict of tensors"),
        (of_another_form(discriminator={}), "discriminator has another shape"),
        (of_another_form(generator_adam=None), "training.generator_adam is None; an optimizer's state"),
        (of_another_form(generator_adam={"state": {0: {}}}), r"training.generator_adam.state\[0\] is a dict; Adam's"),
        (of_another_form(generator_adam={"state": {"x": 1}}), r"training.generator_adam.state\['x'\] is 1; Adam's"),
    ],
)
def test_a_checkpoint_with_parts_of_other_types_is_refused_with_its_path(one_step, photos, tmp_path, change, says):
    settings, last = one_step
    (tmp_path / "run").mkdir()
    torch.save(change(checkpoints.read(last)), tmp_path / "run" / last.name)
    with pytest.raises(CheckpointError, match=says) as caught:
        train(settings, tmp_path / "run", resume=True, device="cpu")
    assert str(caught.value).startswith(f"{tmp_path / 'run' / last.name}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def one_step(photos, tmp_path_factory) -> tuple[config.Config, Path]:
    settings = asked(photos, optimization__steps=1)
    return settings, train(settings, tmp_path_factory.mktemp("one") / "run", device="cpu")


@pytest.mark.parametrize("content", [b"", b"\x80\x02]q\x00q\x01h\x05.", b"\x80\x02}(Na.", b"\x80\x02ctorch\nQ\nR."])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "step-00000001.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"step-00000001\.pt is damaged \(.+\); remove the file") as caught:
        checkpoints.read(tmp_path / "step-00000001.pt")
    assert len(str(caught.value).splitlines()) == 1


#: Saves a small checkpoint, then tries to save one that is larger than files may be, at several limits. torch reports
#: such a failure as it reports a full disk.
FULL = """
import resource, signal, sys
import torch
from pathlib import Path
from typing import Any
from glama_deploy.cli.entry import Command
from glama_deploy.training.checkpoints import Checkpoints

kept = Checkpoints(Path(sys.argv[1]), 3)
kept.save(1, {"training": {}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    state = {"training": {}, "weights": [torch.zeros(10_000) for _ in range(5)]}
    print(Command("save", lambda: kept.save(2, state)).run([]))
"""


def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(tmp_path):
    limits = ["0", "100", "20000", "200500"]  # the first byte, a header, the weights, the table of contents
    code = [sys.executable, "-c", FULL, tmp_path, *limits]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2"] * len(limits), done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == len(limits)
    for line in lines:
        assert line.startswith(f"save: cannot write {tmp_path / 'step-00000002.pt'}: the file is larger than")
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001.pt"}
    assert checkpoints.read(tmp_path / "step-00000001.pt") == {"training": {}}


def test_the_average_lies_in_memory_as_the_network_does(photos):
    """Or PyTorch follows tensor by tensor on a GPU, a launch each."""
    run = trainer(asked(photos))
    for mean, value in zip(run.average.parameters(), run._generator.parameters(), strict=True):
        assert mean.stride() == value.stride()
