"""Two processes over gloo do what one does with the same batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glama_deploy.training import checkpoints
from training.tiny_run import list_overrides

PROGRAM = "import sys; from glama_deploy.cli.train import main; main(sys.argv[1:])"


def settings(photos: Path, steps: int) -> list[str]:
    return list_overrides(
        photos,
        optimization__batch=4,
        optimization__generator_rate=1e-4,
        optimization__steps=steps,
        saving__every=1,
        saving__keep=10,
        saving__log_every=1,
    )


def scalars(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for n in range(6):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((80, 60), Image.Resampling.BICUBIC).save(folder / f"{n}.png")
    return folder


def train(out: Path, given: list[str], launcher: list[str], *more: str) -> None:
    command = ["--config", "glama-tiny", "--out", str(out), "--device", "cpu", *more, *given]
    done = subprocess.run(
        [*launcher, *command], capture_output=True, text=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]


def train_on_two_machines(first: Path, second: Path, given: list[str], program: Path) -> None:
    """Run the command of docs/training.md for two machines, each with a folder of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--nnodes=2", "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}"]
    machines = []
    for rank, out in enumerate((first, second)):
        torchrun = [sys.executable, "-m", "torch.distributed.run", *options, f"--node-rank={rank}", str(program)]
        machines.append(
            subprocess.Popen(
                [*torchrun, "--config", "glama-tiny", "--out", str(out), "--device", "cpu", *given],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    said = [machine.communicate(timeout=900)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert not second.exists()  # only the first process writes
    assert [f"{out}/step-" in text for out, text in zip((first, second), said, strict=True)] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fabric", "machines"])
def test_two_processes_have_the_losses_of_one_with_the_same_batch(photos, tmp_path, kind):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    train(tmp_path / "one", settings(photos, 4), [sys.executable, str(program)])
    if kind == "fabric":
        train(tmp_path / "two", settings(photos, 4), [sys.executable, str(program)], "--processes", "2")
    else:
        train_on_two_machines(tmp_path / "two", tmp_path / "other", settings(photos, 4), program)
    one, two = scalars(tmp_path / "one"), scalars(tmp_path / "two")
    assert one.keys() == two.keys() >= {"train/total", "train/discriminator", "train/gradient_penalty"}
    for name, values in one.items():
        # the first step before any update; later ones after updates whose Adam turns rounding into whole steps where a
        # gradient is near 0, at a rate of 1e-4
        assert two[name][0] == pytest.approx(values[0], rel=1e-4, abs=1e-6), name
        assert two[name] == pytest.approx(values, rel=2e-2, abs=1e-3), name
    first = [checkpoints.read(tmp_path / run / "step-00000001.pt")["training"] for run in ("one", "two")]
    for network in ("generator", "discriminator"):
        for name, value in first[0][network].items():
            if "running" in name:  # statistics over the whole batch, not over a half of it
                torch.testing.assert_close(first[1][network][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_do_without_a_discriminator(photos, tmp_path):
    """It has no gradients to average then."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    without = [*settings(photos, 2), "weights.adversarial=0", "weights.feature_matching=0"]
    train(tmp_path / "two", without, [sys.executable, str(program)], "--processes", "2")
    assert (tmp_path / "two" / "step-00000002.pt").is_file()
    assert "train/discriminator" not in scalars(tmp_path / "two")
