"""Fill the pictures of folders, object stores, WebDataset shards or Parquet files with the workers of a cluster.

Outputs are written completely or not at all, under the names of their pictures. A run skips outputs that exist, so the
same run again goes on where an earlier one ended. The manifest in the folder of outputs says what failed and why.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.inpainting.pairing import BY_STEM, FolderRule
from glama_deploy.ray.connection import Resources
from glama_deploy.ray.journal import Journal
from glama_deploy.ray.picture_worker import RESULT, Outcome, PictureSettings, PictureWorker, decode_outcome
from glama_deploy.ray.samples import check_columns, open_samples
from glama_deploy.ray.sources import find_pictures, find_sample_kind, list_sample_files
from glama_deploy.ray.storage import Storage, join
from glama_deploy.ray.tasks import BY_NAME, Columns, Task

log = logging.getLogger("glama_deploy")

#: The name of the manifest in the folder of outputs.
MANIFEST = "glama-run.json"

#: The most pictures of a task. A task is what a worker gets at once, and what is repeated if the worker ends.
_MAX_PICTURES_PER_TASK = 16

#: Bytes of the rows of a task at most, for each picture of the network's batch. Ray's own 128 MiB may be 1000 pictures.
#: Such a task shows no progress before its last picture is done, and the other workers wait for the last task.
_BYTES_PER_TASK = 8 << 20

#: Tasks for each worker at least, so that workers end at about the same time.
_TASKS_PER_WORKER = 8


@dataclass(frozen=True)
class RunRequest:
    """A run.

    Attributes:
        image: the address of a folder of pictures, of WebDataset shards (`.tar`) or Parquet files (`.parquet`).
        mask: the address of the folder of masks, or of one mask for all; None if the pictures' rows have the masks, or
            other marks say which pixels are missing.
        settings: how pictures are filled, with the address of the folder of outputs.
        rule: how the pictures of a folder find their masks.
        columns: the columns of the shards or Parquet files.
    """

    image: str
    mask: str | None
    settings: PictureSettings
    rule: FolderRule = BY_STEM
    columns: Columns = BY_NAME


class Run:
    """A run over pictures.

    Args:
        request: the run.
        resources: what a worker takes of the cluster.

    Raises:
        GlamaError: the pictures cannot be found, or the outputs cannot be written.
    """

    def __init__(self, request: RunRequest, resources: Resources) -> None:
        self._settings = replace(request.settings, format=request.rule.format)
        self._resources = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
        self._columns = request.columns
        self._samples: list[str] = []
        self._done: tuple[Task, ...] = ()
        self._todo: tuple[Task, ...] | None = None
        self._manifest = _Manifest(Storage(self._settings.out))
        if find_sample_kind(request.image) is not None:
            if request.rule != replace(BY_STEM, format=request.rule.format):
                raise GlamaError("`mask_name` and `recursive` are for folders of pictures; leave them out")
            if request.mask is not None and not Storage(request.mask).is_file():
                raise GlamaError(f"no mask at {request.mask}; give the file of one mask for all pictures")
            if self._settings.format != "keep":
                self._settings.files.check_outputs([Path(f"picture.{self._settings.format}")])
            self._samples = list_sample_files(request.image)
            if find_sample_kind(request.image) == "parquet":
                check_columns(self._samples, request.columns)
            self._settings = replace(self._settings, mask=request.mask)
        else:
            if request.columns != BY_NAME:
                raise GlamaError(
                    f"`image` {request.image} is a folder; `key_column`, `image_column` and `mask_column` are for .tar "
                    "and .parquet files"
                )
            found = find_pictures(
                request.image,
                request.mask,
                self._settings.out,
                request.rule,
                overwrite=self._settings.overwrite,
            )
            self._todo, self._done = found.todo, found.done
            self._settings.files.check_outputs(_paths(found.todo))

    @property
    def total(self) -> int | None:
        """The number of pictures; None if the files of a dataset must be read to know it."""
        return None if self._todo is None else len(self._todo) + len(self._done)

    @property
    def needs_workers(self) -> bool:
        """Whether a picture may have no output yet."""
        return self._todo is None or bool(self._todo)

    def fill(self, workers: int) -> Iterator[Outcome]:
        """Fill the pictures. The program is connected to a cluster if the run needs workers.

        Args:
            workers: number of workers.

        Yields:
            What became of each picture, in the order in which they end.

        Raises:
            EngineError: a worker cannot open the engine.
            GlamaError: the cluster fails. Outputs that are done are kept.
        """
        self._manifest.begin()
        for task in self._done:
            yield self._manifest.add(
                Outcome("skipped", task.image, task.mask or "", join(self._settings.out, task.key))
            )
        if self.needs_workers:
            for outcome in self._run(workers):
                for note in outcome.notes:
                    log.warning("%s", note)
                yield self._manifest.add(outcome)
        self._manifest.end()

    def close(self) -> None:
        """Write the manifest of a run that ended before its end."""
        self._manifest.close()

    def _run(self, workers: int) -> Iterator[Outcome]:
        """Run the workers, and yield the outcomes."""
        import ray
        from ray.exceptions import RayError

        journal = ray.remote(Journal).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        try:
            for batch in self._start(ray, journal, workers).iter_batches(batch_size=None, batch_format="pyarrow"):
                for result in batch.column(RESULT).to_pylist():
                    outcome = decode_outcome(result)
                    if outcome.state == "refused":
                        raise EngineError(f"a worker cannot begin: {outcome.reason}")
                    yield outcome
        except RayError as error:
            log.info("%s", error)
            raise GlamaError(
                f"the run on Ray ended: {_find_reason(error)}; outputs that are done are kept: the same command fills "
                "the rest"
            ) from error
        finally:
            ray.kill(journal)

    def _start(self, ray: Any, journal: Any, workers: int) -> Any:
        """Return the dataset of the results, which is computed as it is read."""
        if self._todo is None:
            block_bytes = _BYTES_PER_TASK * self._settings.batch
            dataset = open_samples(self._samples, self._columns, workers * _TASKS_PER_WORKER, block_bytes, workers)
            per_task = max(self._settings.batch, _MAX_PICTURES_PER_TASK)
        else:
            per_task = self._count_per_task(len(self._todo), workers)
            blocks = math.ceil(len(self._todo) / per_task)
            dataset = ray.data.from_items([vars(task) for task in self._todo], override_num_blocks=blocks)
            workers = min(workers, blocks)
        return dataset.map_batches(
            PictureWorker,
            fn_constructor_kwargs={"settings": self._settings, "ask": _Ask(journal)},
            compute=ray.data.ActorPoolStrategy(size=workers),
            batch_size=per_task,
            batch_format="pyarrow",
            zero_copy_batch=True,
            **self._resources,
        )

    def _count_per_task(self, count: int, workers: int) -> int:
        """Return the number of pictures of a task: a multiple of the network's batch."""
        wanted = math.ceil(count / (workers * _TASKS_PER_WORKER))
        batch = self._settings.batch
        return math.ceil(min(wanted, max(_MAX_PICTURES_PER_TASK, batch)) / batch) * batch


class _Ask:
    """Calls the methods of an actor from a worker, and waits for the answer.

    Args:
        actor: the actor's handle.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __call__(self, method: str, *arguments: Any) -> Any:
        import ray

        return ray.get(getattr(self._actor, method).remote(*arguments))


def _paths(tasks: tuple[Task, ...]) -> Iterator[Path]:
    return (Path(task.key) for task in tasks)


def _find_reason(error: BaseException) -> str:
    """Return the cause that an error of Ray has, or the last line, which has the cause behind a traceback.

    Ray adds lines of advice behind the first line of a cause.
    """
    cause = [line.strip() for line in str(getattr(error, "cause", None) or "").splitlines() if line.strip()]
    lines = cause[:1] or [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Manifest:
    """The file that says what a run did, and what failed and why.

    Args:
        out: the folder of outputs.
    """

    def __init__(self, out: Storage) -> None:
        self._out = out
        self._counts = {"written": 0, "skipped": 0, "failed": 0}
        self._failed: list[dict[str, str]] = []
        self._is_open = False

    def begin(self) -> None:
        """Write the file, which also shows that outputs can be written."""
        self._is_open = True
        self._write("running")

    def add(self, outcome: Outcome) -> Outcome:
        """Count an outcome.

        Args:
            outcome: what became of a picture.

        Returns:
            The same outcome.
        """
        self._counts[outcome.state] += 1
        if outcome.state == "failed":
            self._failed.append({"image": outcome.image, "mask": outcome.mask, "reason": outcome.reason})
        return outcome

    def end(self) -> None:
        """Write the file of a run that reached its end."""
        self._is_open = False
        self._write("ended")

    def close(self) -> None:
        """Write the file of a run that was cut short."""
        if self._is_open:
            self._is_open = False
            self._write("interrupted")

    def _write(self, state: str) -> None:
        fields = {"state": state, **self._counts, "failures": self._failed}
        self._out.write(MANIFEST, json.dumps(fields, ensure_ascii=False, indent=1).encode(errors="backslashreplace"))
