"""A training run in a folder: steps, logs, validation, checkpoints, and resuming."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from glama_deploy.checkpoints import torch_zip
from glama_deploy.checkpoints.published.references import locate
from glama_deploy.errors import GlamaError
from glama_deploy.io.files import atomic_file
from glama_deploy.text.excerpts import excerpt
from glama_deploy.training import checkpoints, config
from glama_deploy.training.config import Config
from glama_deploy.training.data import Squares
from glama_deploy.training.trainer import Scalars, Trainer
from glama_deploy.training.validation import validate

log = logging.getLogger("glama_deploy")

#: Name of the config in the run's folder.
CONFIG = "config.yaml"

#: Supported devices.
DEVICES = ("auto", "cpu", "cuda")


class Stopped(GlamaError):
    """The run was interrupted, after its checkpoint was written."""

    exit_code = 130


def train(
    asked: Config,
    out: Path,
    *,
    resume: bool = False,
    weights: str | Path | None = None,
    device: str = "auto",
    processes: int = 1,
    on_step: Callable[[int, Scalars], None] = lambda step, scalars: None,
) -> Path:
    """Train to the config's last step.

    Args:
        asked: The config.
        out: The run's folder.
        resume: Continue from the last checkpoint in the folder.
        weights: A checkpoint with whose generator a new run begins, or the name or address of a published checkpoint.
        device: `auto`, `cpu` or `cuda`.
        processes: Number of processes that share each batch. Under torchrun, torchrun's number is used. The first
            process writes.
        on_step: Called after each step with the number of the step and the losses.

    Returns:
        The last checkpoint.

    Raises:
        GlamaError: The folder has a run and `resume` is false, or has no run and `resume` is true. There are no
            photographs, or a file cannot be written.
        Stopped: The process received SIGINT or SIGTERM. The current step is completed and saved.
    """
    _check_name(out)
    kept = checkpoints.Checkpoints(out, asked.saving.keep)
    latest = kept.find_latest()
    if latest is not None and not resume:
        raise GlamaError(f"{out} contains a run; resume the run with `resume=True`, or choose another folder as `out`")
    if latest is None and resume:
        raise GlamaError(
            f"{out} has no checkpoint to resume from; leave out `resume=True`, or choose the folder of a run"
        )
    if weights is not None and resume:
        raise GlamaError("`weights` is set beside `resume=True`, but a resumed run has its own weights; leave one out")
    source = None if weights is None else Path(locate(weights))
    trainer = Trainer(asked, _launch(asked, device, processes))
    if source is not None:
        trainer.start_from(source)
    squares = Squares(asked.data.train, asked.data, asked.optimization.seed)
    if asked.data.valid:
        Squares(asked.data.valid, asked.data, seed=0)  # checks the photographs before training begins
    if latest is not None:
        state = checkpoints.read(latest)
        with torch_zip.name_in_errors(latest):
            trainer.restore(state)
    if not trainer.fabric.is_global_zero:
        with _stop_requested() as stop:
            return _loop(trainer, squares, kept, None, stop, on_step)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / CONFIG) as temporary:
        temporary.write_text(config.to_yaml(asked), encoding="utf-8")
    with SummaryWriter(str(out), purge_step=trainer.step) as writer, _stop_requested() as stop:
        return _loop(trainer, squares, kept, writer, stop, on_step)


def _check_name(out: Path) -> None:
    """Raise GlamaError for a folder whose name is not UTF-8, into which TensorBoard cannot write."""
    try:
        str(out).encode("utf-8")
    except UnicodeEncodeError as error:
        raise GlamaError(f"the name of the folder {out} is not UTF-8; choose another folder") from error


def _check_device(device: str, processes: int) -> None:
    """Raise GlamaError for a device that training does not support, or that this machine does not have."""
    if device not in DEVICES:
        raise GlamaError(f"the device is {excerpt(device)}; {', '.join(DEVICES)} are supported")
    found = torch.cuda.device_count()
    if device == "cuda" and found < processes:
        raise GlamaError(
            f"{processes} processes need one CUDA device each, and PyTorch finds {found}; use the device cpu"
        )


def _launch(asked: Config, device: str, processes: int) -> Fabric:
    """Start the processes of the run."""
    _check_device(device, processes)
    precision = "bf16-mixed" if asked.optimization.precision == "bf16" else "32-true"
    elastic = "TORCHELASTIC_RUN_ID" in os.environ
    count = int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else processes
    nodes = int(os.environ["GROUP_WORLD_SIZE"]) if elastic else 1
    strategy = "ddp" if count * nodes > 1 else "auto"
    fabric = Fabric(accelerator=device, devices=count, num_nodes=nodes, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def _loop(
    trainer: Trainer,
    squares: Squares,
    kept: checkpoints.Checkpoints,
    writer: SummaryWriter | None,
    stop: threading.Event,
    on_step: Callable[[int, Scalars], None],
) -> Path:
    """Train to the last step, and return the last checkpoint. A process without a writer does not write."""
    saving, last = trainer.config.saving, trainer.config.optimization.steps
    samples, broken = trainer.read_batches(squares), set[str]()
    while trainer.step < last:
        scalars, unreadable = trainer.advance(samples)
        for name in set(unreadable) - broken:
            log.warning("%s cannot be read and is left out", name)
        broken |= set(unreadable)
        ending = _is_set_anywhere(trainer.fabric, stop.is_set())
        if writer is None:
            if ending and trainer.step < last:
                raise Stopped("stopped")
            continue
        on_step(trainer.step, scalars)
        if trainer.step % saving.log_every == 0:
            for name, value in {**scalars, "broken": float(len(broken))}.items():
                writer.add_scalar(f"train/{name}", value, trainer.step)
        if trainer.config.data.valid and trainer.step % saving.validate_every == 0:
            _validate(trainer, kept, writer)
        if trainer.step % saving.every == 0 or trainer.step == last or ending:
            path = kept.save(trainer.step, trainer.state())
        if ending and trainer.step < last:
            raise Stopped(
                f"stopped at step {trainer.step}, which is saved in {path}; continue the run with `resume=True`"
            )
    trainer.fabric.barrier()
    latest = kept.find_latest()
    if latest is None:
        raise GlamaError("the run has no steps left; raise optimization.steps")
    return latest


def _is_set_anywhere(fabric: Fabric, flag: bool) -> bool:
    """Tell whether the flag is set in any process, so that all processes end at the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(cast(Tensor, fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum")) > 0)


def _validate(trainer: Trainer, kept: checkpoints.Checkpoints, writer: SummaryWriter) -> None:
    """Score the averaged generator, log the scores, and save the checkpoint if its mean PSNR is the best so far."""
    scores, strips = validate(trainer.average, trainer.config, trainer.fabric.device)
    for name, found in scores.items():
        writer.add_scalar(f"psnr/{name}", found.psnr, trainer.step)
        writer.add_scalar(f"ssim/{name}", found.ssim, trainer.step)
    writer.add_images("validation", strips, trainer.step)
    mean = sum(found.psnr for found in scores.values()) / len(scores)
    if mean > trainer.best:
        trainer.best = mean
        kept.save_best(trainer.state())


@contextmanager
def _stop_requested() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set, so that the current step is completed and saved."""
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
