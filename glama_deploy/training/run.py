"""A training run in a folder: steps, logs, validation, checkpoints, and resuming."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from glama_deploy.training.criteria import Criterion, name_files
from glama_deploy.training.data import Squares
from glama_deploy.training.score_log import ScoreLog
from glama_deploy.training.trainer import Scalars, Trainer
from glama_deploy.training.validation import Validator, choose_criteria

log = logging.getLogger("glama_deploy")

#: Name of the config in the run's folder.
CONFIG = "config.yaml"

#: Supported devices.
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class _Writers:
    """What the process that writes needs: TensorBoard's events and, for a run with validations, their scores."""

    events: SummaryWriter
    validator: Validator | None
    criteria: tuple[Criterion, ...]
    scores: ScoreLog


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
            photographs, a metric of `saving.best` lacks its weights, or a file cannot be written.
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
    # photographs and criteria are checked before training begins
    criteria = choose_criteria(asked, len(Squares(asked.data.valid, asked.data, seed=0)) if asked.data.valid else 0)
    if latest is not None:
        state = checkpoints.read(latest)
        with torch_zip.name_in_errors(latest):
            trainer.restore(state)
        _check_best(out, criteria, trainer.best)
        if asked.data.valid and trainer.fabric.is_global_zero:
            _note_validation(out, asked, state["training"].get("config"))
    trainer.best = {c.name: trainer.best.get(c.name, c.worst) for c in criteria}
    if not trainer.fabric.is_global_zero:
        with _stop_requested() as stop:
            return _loop(trainer, squares, kept, None, stop, on_step)
    validator = Validator(asked, criteria, trainer.fabric.device) if asked.data.valid else None
    scores = ScoreLog(out, trainer.step)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / CONFIG) as temporary:
        temporary.write_text(config.to_yaml(asked), encoding="utf-8")
    with SummaryWriter(str(out), purge_step=trainer.step) as events, _stop_requested() as stop:
        return _loop(trainer, squares, kept, _Writers(events, validator, criteria, scores), stop, on_step)


def _check_best(out: Path, criteria: Sequence[Criterion], best: dict[str, float]) -> None:
    """Raise GlamaError where a resumed run would replace a best checkpoint that another criterion chose."""
    before = name_files(list(best))
    for file, name in name_files([criterion.name for criterion in criteria]).items():
        if before.get(file) != name and (out / file).exists():
            there = f"has the best {before[file]}" if file in before else "was not chosen by this run"
            raise GlamaError(
                f"{out / file} {there}, and the config now chooses the file by {name}; move the file away, or set "
                f"saving.best to the scores before ({', '.join(best) or 'none'})"
            )


def _note_validation(out: Path, asked: Config, before: object) -> None:
    """Note where a resumed run compares its scores with those of another validation."""
    if not isinstance(before, dict):
        return
    now = asked.model_dump(mode="json")
    keys = (("data", "valid"), ("data", "side"), ("data", "fit"), ("data", "zoom"), ("saving", "validate_images"))
    for section, key in keys:
        was = before.get(section, {}).get(key)
        if was is not None and was != now[section][key]:
            log.warning(
                "%s.%s is %s and was %s: scores before and after may not compare, and both choose the best "
                "checkpoints in %s",
                section,
                key,
                now[section][key],
                excerpt(str(was)),
                out,
            )


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
    writers: _Writers | None,
    stop: threading.Event,
    on_step: Callable[[int, Scalars], None],
) -> Path:
    """Train to the last step, and return the last checkpoint. A process without writers does not write."""
    saving, last = trainer.config.saving, trainer.config.optimization.steps
    samples, broken = trainer.read_batches(squares), set[str]()
    while trainer.step < last:
        scalars, unreadable = trainer.advance(samples)
        for name in set(unreadable) - broken:
            log.warning("%s cannot be read and is left out", name)
        broken |= set(unreadable)
        ending = _is_set_anywhere(trainer.fabric, stop.is_set())
        if writers is None:
            if ending and trainer.step < last:
                raise Stopped("stopped")
            continue
        on_step(trainer.step, scalars)
        if trainer.step % saving.log_every == 0:
            for name, value in {**scalars, "broken": float(len(broken))}.items():
                writers.events.add_scalar(f"train/{name}", value, trainer.step)
        if writers.validator is not None and trainer.step % saving.validate_every == 0:
            _validate(trainer, kept, writers, writers.validator)
        if trainer.step % saving.every == 0 or trainer.step == last or ending:
            path = kept.save(trainer.step, trainer.state())
        if ending and trainer.step < last:
            raise Stopped(
                f"stopped at step {trainer.step}, which is saved in {path}; continue the run with `resume=True`"
            )
    trainer.fabric.barrier()
    return kept.find_latest() or kept.name_path(last)  # the folder may lie on the first machine alone


def _is_set_anywhere(fabric: Fabric, flag: bool) -> bool:
    """Tell whether the flag is set in any process, so that all processes end at the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(cast(Tensor, fabric.all_reduce(torch.tensor(float(flag)), reduce_op="sum")) > 0)


def _validate(trainer: Trainer, kept: checkpoints.Checkpoints, writers: _Writers, validator: Validator) -> None:
    """Score the averaged generator, write the scores, and save a checkpoint for each criterion that improves."""
    scores, strips = validator.validate(trainer.average)
    for mask, values in scores.items():
        for name, value in values.items():
            writers.events.add_scalar(f"{name}/{mask}", value, trainer.step)
    writers.events.add_images("validation", strips, trainer.step)
    writers.scores.add(trainer.step, scores)
    found = {each.name: scores[each.mask][each.score] for each in writers.criteria}
    for name in (each.name for each in writers.criteria if each.counts_fid and not found[each.name]):
        log.warning("%s is 0, because FID is 100 or more; raise saving.validate_images, or change saving.best", name)
    improved = {each.name for each in writers.criteria if each.is_better(found[each.name], trainer.best[each.name])}
    trainer.best |= {name: found[name] for name in improved}
    for file, name in name_files(list(found)).items():
        if name in improved:
            kept.save_best(file, trainer.state())


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
