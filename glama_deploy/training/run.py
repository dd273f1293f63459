"""A training run in a folder: steps, scalars, pictures, checkpoints, and going on where it stopped."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

from glama_deploy.errors import GlamaError
from glama_deploy.training import checkpoints, config
from glama_deploy.training.config import Config
from glama_deploy.training.data import Squares
from glama_deploy.training.trainer import Scalars, Trainer
from glama_deploy.training.validation import validate

log = logging.getLogger("glama_deploy")

CONFIG = "config.yaml"


class Stopped(GlamaError):
    """A run that was asked to end: its checkpoint is written."""

    exit_code = 130


def train(
    asked: Config,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    heard: Callable[[int, Scalars], None] = lambda step, scalars: None,
) -> Path:
    """Train to the config's last step, in the folder `out`; `heard` gets each step's losses. Gives the last checkpoint.

    With `resume` it goes on from the folder's last checkpoint. Raises GlamaError: a folder that has a run already (or,
    with resume, none), no photographs, a full disk; Stopped at a SIGINT, once the step is done and saved.
    """
    kept = checkpoints.Checkpoints(out, asked.saving.keep)
    latest = kept.latest()
    if latest is not None and not resume:
        raise GlamaError(f"{out} has a run already; go on with it with --resume, or choose another folder")
    if latest is None and resume:
        raise GlamaError(f"{out} has no checkpoint to go on from; leave out --resume, or give the run's folder")
    precision = "bf16-mixed" if asked.optimization.precision == "bf16" else "32-true"
    trainer = Trainer(asked, Fabric(accelerator=device, devices=1, precision=precision))
    squares = Squares(asked.data.train, asked.data, asked.optimization.seed)
    if asked.data.valid:
        Squares(asked.data.valid, asked.data, seed=0)  # what is wrong with them is said now, not after hours
    if latest is not None:
        trainer.restore(checkpoints.read(latest))
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(config.text(asked))
    with SummaryWriter(str(out), purge_step=trainer.step) as writer, _stop_requested() as stop:
        return _loop(trainer, squares, kept, writer, stop, heard)


def _loop(
    trainer: Trainer,
    squares: Squares,
    kept: checkpoints.Checkpoints,
    writer: SummaryWriter,
    stop: threading.Event,
    heard: Callable[[int, Scalars], None],
) -> Path:
    saving, last = trainer.config.saving, trainer.config.optimization.steps
    there, broken, best = trainer.batches(squares), set[str](), float("-inf")
    while trainer.step < last:
        scalars, unreadable = trainer.advance(there)
        for name in set(unreadable) - broken:
            log.warning("%s cannot be read and is left out", name)
        broken |= set(unreadable)
        heard(trainer.step, scalars)
        if trainer.step % saving.log_every == 0:
            for name, value in {**scalars, "broken": float(len(broken))}.items():
                writer.add_scalar(f"train/{name}", value, trainer.step)
        if trainer.config.data.valid and trainer.step % saving.validate_every == 0:
            best = _validate(trainer, kept, writer, best)
        if trainer.step % saving.every == 0 or trainer.step == last or stop.is_set():
            path = kept.save(trainer.step, trainer.state())
        if stop.is_set() and trainer.step < last:
            raise Stopped(
                f"stopped at step {trainer.step}, which is saved in {path}; go on with the same command and --resume"
            )
    latest = kept.latest()
    if latest is None:
        raise GlamaError("the run had no step to do; raise optimization.steps")
    return latest


def _validate(trainer: Trainer, kept: checkpoints.Checkpoints, writer: SummaryWriter, best: float) -> float:
    """Score the average, log it, and keep it where it is the best yet; the best mean PSNR."""
    scores, strips = validate(trainer.average, trainer.config, trainer.fabric.device)
    for name, found in scores.items():
        writer.add_scalar(f"psnr/{name}", found.psnr, trainer.step)
        writer.add_scalar(f"ssim/{name}", found.ssim, trainer.step)
    writer.add_images("validation", strips, trainer.step)
    mean = sum(found.psnr for found in scores.values()) / len(scores)
    if mean > best:
        kept.save_best(trainer.state())
    return max(mean, best)


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """An event that a SIGINT or SIGTERM sets, so that the step under way is finished and saved."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
