"""The worker of a run: opens the engine once, and fills the pictures that Ray gives to it."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import folder
from glama_deploy.inpainting.inpainter import Inpainter, Region
from glama_deploy.inpainting.pairing import Job, OutputFormat
from glama_deploy.inpainting.piped import find_suffix
from glama_deploy.inpainting.transparency import Fill
from glama_deploy.io.images import AS_THE_INPUT, ENCODERS, FileRule, Picture, check_format, encode_image
from glama_deploy.io.pipes import PipedFile
from glama_deploy.ray.engine import EngineSettings
from glama_deploy.ray.journal import MAX_ATTEMPTS
from glama_deploy.ray.storage import open_storage, read_file
from glama_deploy.ray.tasks import Task

#: The column in which a worker returns its results, each as JSON.
RESULT = "result"

#: Pictures of a worker that are read, filled or written at once. The engine fills one after the other.
_PICTURES_AT_ONCE = 2

#: The digits behind the point of seconds in a result.
_SECOND_DIGITS = 3


@dataclass(frozen=True)
class PictureSettings:
    """How a worker fills pictures.

    Attributes:
        engine: how the engine is opened.
        out: the address of the folder of outputs.
        masks: how masks are made.
        mask: the address of one mask for all pictures; None if each has its own.
        region: what the network is shown.
        format: the format of the outputs of pictures whose bytes are in the dataset.
        files: how files are read and written.
        overwrite: whether outputs are replaced that existed before the run.
        batch: pictures of one size that the network is shown at once.
    """

    engine: EngineSettings
    out: str = ""
    masks: folder.Masks = folder.AS_THEY_ARE
    mask: str | None = None
    region: Region = "auto"
    format: OutputFormat = "keep"
    files: FileRule = AS_THE_INPUT
    overwrite: bool = False
    batch: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        state: written, skipped or failed; refused where the worker cannot open its engine.
        image: the address of the picture, or its key.
        mask: the address of the mask; empty if the picture has none.
        out: the address of the output; empty if there is none.
        reason: one line that explains a failure.
        seconds: time of reading, filling and writing.
        boxes: left, top, width and height in pixels of rectangles that contain the missing pixels.
        notes: what the worker logged meanwhile.
    """

    state: str
    image: str = ""
    mask: str = ""
    out: str = ""
    reason: str = ""
    seconds: float = 0.0
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    notes: tuple[str, ...] = ()


class _Notes(logging.Handler):
    """Keeps what is logged, so that the driver can show it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record.

        Args:
            record: the record.
        """
        self._kept.append(record.getMessage())

    def take(self) -> tuple[str, ...]:
        """Return the messages since the last call.

        Returns:
            The messages, which the next call does not return again.
        """
        taken, self._kept = self._kept, []
        return tuple(taken)


@dataclass
class _Opened:
    """A picture that was read.

    Attributes:
        task: the task.
        job: the job, whose output only has the suffix of the format.
        picture: the picture.
        mask: bool H×W, True where a pixel is missing.
        work: what was done.
    """

    task: Task
    job: Job
    picture: Picture
    mask: np.ndarray
    work: folder.Work = field(default_factory=folder.Work)


class PictureWorker:
    """A worker. Ray calls it with a table of rows, and gets a result for each row.

    Args:
        settings: how pictures are filled.
        ask: calls a method of the journal by its name, and returns the answer.
    """

    def __init__(self, settings: PictureSettings, ask: Callable[..., Any]) -> None:
        self._settings = settings
        self._ask = ask
        self._notes = _Notes()
        logging.getLogger("glama_deploy").addHandler(self._notes)
        self._refusal = ""
        self._shared_mask: PipedFile | None = None
        self._inpainter: Inpainter | None = None
        try:
            self._inpainter = settings.engine.open()
            if settings.mask is not None:
                self._shared_mask = PipedFile(settings.mask, read_file(settings.mask))
        except GlamaError as error:
            self._refusal = str(error)
        self._pool = ThreadPoolExecutor(_PICTURES_AT_ONCE, "glama-picture")

    def __call__(self, table: Any) -> Iterator[dict[str, list[str]]]:
        """Fill the pictures of a table.

        Args:
            table: a table of pyarrow.

        Yields:
            The results, in the column RESULT.
        """
        rows = table.to_pylist()
        if self._refusal:
            yield {RESULT: [_encode(Outcome("refused", reason=self._refusal))]}
            return
        tasks, results = self._read_rows(rows)
        suspects = self._ask("find_suspects", [task.key for task in tasks])
        alone = [task for task, is_suspect in zip(tasks, suspects, strict=True) if is_suspect]
        others = [task for task, is_suspect in zip(tasks, suspects, strict=True) if not is_suspect]
        results += [self._run([task])[0] for task in alone]  # a worker that ends names one of them
        step = self._settings.batch
        if step > 1:
            results += [result for start in range(0, len(others), step) for result in self._run(others[start:][:step])]
        else:
            results += [result for (result,) in self._pool.map(lambda task: self._run([task]), others)]
        yield {RESULT: results}

    def _read_rows(self, rows: Iterable[dict[str, Any]]) -> tuple[list[Task], list[str]]:
        """Return the tasks of rows, and the results of tasks that cannot be done."""
        tasks, results = [], []
        for row in rows:
            task = Task(**row)
            try:
                task.check()
            except GlamaError as error:
                results.append(_encode(Outcome("failed", task.image, reason=str(error))))
                continue
            tasks.append(task)
        return tasks, results

    def _run(self, tasks: Sequence[Task]) -> list[str]:
        """Return the results of tasks, whose pictures the network may be shown at once."""
        results: list[str] = []
        begun: list[tuple[Task, bool]] = []
        for task in tasks:
            verdict, answer = self._ask("begin", task.key, task.origin)
            if verdict == "fill":
                begun.append((task, bool(answer)))
            elif verdict == "done":
                results.append(answer)
            else:
                other = f" ({answer})" if task.image_data is None else ""  # the answer is a digest of bytes
                reason = f"{task.image}: the key is that of another picture{other}; rename one of them"
                if verdict == "give up":
                    reason = f"{task.image}: a worker ended {MAX_ATTEMPTS} times with this picture; fill it by itself"
                results.append(_encode(self._fail(task, reason)))
        outcomes: list[tuple[Task, Outcome]] = []
        opened: list[_Opened] = []
        for task, is_again in begun:
            found = self._open(task, is_again=is_again)
            if isinstance(found, _Opened):
                opened.append(found)
            else:
                outcomes.append((task, found))
        for group in _group_by_size(opened):
            outcomes += self._fill(group)
        for task, outcome in outcomes:
            result = _encode(replace(outcome, notes=self._notes.take()))
            self._ask("end", task.key, result)
            results.append(result)
        return results

    def _open(self, task: Task, *, is_again: bool) -> _Opened | Outcome:
        """Read a picture and its mask. Returns the outcome if the output exists, or the picture cannot be read.

        The output of a picture that was begun before in this run may be the work of the worker that ended.
        """
        work = folder.Work()
        try:
            with work.measure():
                data = b"" if task.lacks_mask else task.read_image()
                image = PipedFile(task.image, data)
                out = self._name_output(task, image)
                if not self._settings.overwrite and open_storage(self._settings.out).is_file(out):
                    return self._describe(task, "written" if is_again else "skipped", out)
                job = Job(image, self._read_mask(task), Path(out), task.expected_mask, files=self._settings.files)
                picture, mask = folder.read_job(job, self._settings.masks)
                work.boxes = folder.find_boxes(mask)
        except folder.FAILURES as error:
            return self._fail(task, _explain(task, error))
        return _Opened(task, job, picture, mask, work)

    def _name_output(self, task: Task, image: PipedFile) -> str:
        """Return the output's name below the folder of outputs."""
        if task.image_data is None:
            return task.key
        suffix = find_suffix(image) if self._settings.format == "keep" else f".{self._settings.format}"
        return f"{task.key}{suffix}"

    def _read_mask(self, task: Task) -> PipedFile | None:
        if self._shared_mask is not None:
            return self._shared_mask
        data = task.read_mask()
        return None if data is None else PipedFile(task.mask or f"the mask of {task.image}", data)

    def _fill(self, group: Sequence[_Opened]) -> list[tuple[Task, Outcome]]:
        """Fill pictures of one size, and write them."""
        assert self._inpainter is not None
        plain: Fill = partial(self._inpainter, region=self._settings.region)
        fills = [plain] * len(group)
        if len(group) > 1:
            try:
                with group[0].work.measure():
                    filled = self._inpainter.batch(
                        np.stack([each.picture.rgb for each in group]), np.stack([each.mask for each in group])
                    )
            except folder.FAILURES as error:
                return [(each.task, self._fail(each.task, _explain(each.task, error))) for each in group]
            fills = [partial(_give, done) for done in filled]
        return [(each.task, self._finish(each, fill)) for each, fill in zip(group, fills, strict=True)]

    def _finish(self, opened: _Opened, fill: Fill) -> Outcome:
        """Fill a picture, and write the output."""
        task, job, work = opened.task, opened.job, opened.work
        out = str(job.out)
        try:
            with work.measure():
                picture = folder.fill_inputs(self._settings.masks.edits.blend(fill), job, opened.picture, opened.mask)
                encoder = ENCODERS[job.out.suffix.lower()]
                check_format(job.out, picture)
                data = encode_image(picture, encoder, job.out, job.files.quality)
                open_storage(self._settings.out).write(out, data)
        except folder.FAILURES as error:
            return self._fail(task, _explain(task, error))
        boxes = tuple((box.left, box.top, box.width, box.height) for box in work.boxes)
        return replace(self._describe(task, "written", out), seconds=round(work.seconds, _SECOND_DIGITS), boxes=boxes)

    def _fail(self, task: Task, reason: str) -> Outcome:
        return replace(self._describe(task, "failed"), reason=reason)

    def _describe(self, task: Task, state: str, out: str = "") -> Outcome:
        address = f"{self._settings.out.rstrip('/')}/{out}" if out else ""
        return Outcome(state, task.image, task.mask or self._settings.mask or "", address)


def _give(filled: np.ndarray, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a picture that was filled with others, in place of filling it."""
    return filled


def _explain(task: Task, error: BaseException) -> str:
    """Return the reason of a failure in one line, with the picture's name."""
    if not isinstance(error, GlamaError):
        return f"{task.image}: {str(error) or 'not enough memory'}"
    return str(error)


def _group_by_size(opened: Iterable[_Opened]) -> list[list[_Opened]]:
    """Group pictures that can be shown to the network at once: of one size and type, without transparency."""
    groups: dict[object, list[_Opened]] = defaultdict(list)
    for each in opened:
        key: object = id(each)
        if each.picture.alpha is None and each.mask.any():
            key = (each.picture.rgb.shape, each.picture.rgb.dtype)
        groups[key].append(each)
    return list(groups.values())


def _encode(outcome: Outcome) -> str:
    return json.dumps(vars(outcome))


def decode_outcome(result: str) -> Outcome:
    """Read a result.

    Args:
        result: the JSON of a worker.

    Returns:
        The outcome.
    """
    fields = json.loads(result)
    return Outcome(**{**fields, "boxes": tuple(map(tuple, fields["boxes"])), "notes": tuple(fields["notes"])})
