"""Run every method on every image with every mask, in one process or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from glama_deploy import memory
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation import methods, protocol, result_files
from glama_deploy.evaluation.methods import Method, Spec
from glama_deploy.evaluation.metrics.registry import METRICS
from glama_deploy.evaluation.metrics.scores import Judge, Score
from glama_deploy.evaluation.protocol import Item, Protocol
from glama_deploy.evaluation.records import KNOWN, MASK, TRUTH, Folder, Record, Result
from glama_deploy.inpainting.inpainter import check
from glama_deploy.io.images import read_bytes
from glama_deploy.runtime.torch import threads
from glama_deploy.system.processors import count_processors
from glama_deploy.system.workers import work_in_processes
from glama_deploy.text.escapes import escape_controls

#: What a process takes beside what its images need: PyTorch, an engine and their weights.
_PROCESS_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Setting:
    """What a process needs to evaluate an image.

    Attributes:
        protocol: what is evaluated.
        specs: the protocol's methods.
        weights: files of weights by the metric's name.
        out: the folder of the run, for pictures and features.
        save: the folder that all results are saved in; None to save none.
    """

    protocol: Protocol
    specs: tuple[Spec, ...]
    weights: dict[str, Path]
    out: Path
    save: Path | None = None


@dataclass(frozen=True)
class _Inputs:
    """An image that was read.

    Attributes:
        item: the image's place.
        digest: the SHA-256 of its files.
        truth: uint8 H×W×3.
        masks: the missing pixels, bool H×W, by the name of the mask.
    """

    item: Item
    digest: str
    truth: np.ndarray
    masks: dict[str, np.ndarray]


class Evaluator:
    """Evaluates images one after the other with open methods and metrics."""

    def __init__(self, setting: Setting, opened: Sequence[Method] | None = None, judge: Judge | None = None) -> None:
        """Open the methods and metrics that are not given.

        Args:
            setting: what is evaluated.
            opened: the methods, if they are open.
            judge: the metrics, if they are open.

        Raises:
            GlamaError: a method or a metric cannot be opened.
        """
        asked = setting.protocol
        self._setting, self._folder = setting, Folder(setting.out)
        self._judge = judge or Judge(asked.metrics, setting.weights, asked.device)
        self._methods = opened or [methods.open_method(spec, asked.threads, asked.region) for spec in setting.specs]

    def read(self, item: Item) -> _Inputs | Record:
        """Read an image, and read or draw its masks.

        Args:
            item: the image.

        Returns:
            The image; a record where the image or its mask cannot be read, or the image is too small.
        """
        asked = self._setting.protocol
        try:
            digest = item.digest()
            truth = protocol.read_truth(item.path, asked.size)
            height, width = truth.shape[:2]
            check(truth, np.zeros((height, width), bool))
            masks = {name: protocol.read_missing(item, name, height, width, asked.seed) for name in asked.masks}
        except (ImageError, MemoryError) as error:
            reason = str(error) or "the memory that is free does not hold it"
            paths = [escape_controls(str(path)) for path in item.files]  # as the error has them
            named = reason if any(path in reason for path in paths) else f"{paths[0]}: {reason}"
            return Record(dataset=item.dataset, image=item.name, broken=named)
        return _Inputs(item, digest, truth, masks)

    def evaluate(self, inputs: _Inputs | Record) -> Record:
        """Run and score every method with every mask, and write features and pictures.

        Args:
            inputs: what :meth:`read` returned.

        Returns:
            The results of the image.
        """
        if isinstance(inputs, Record):
            return inputs
        with threads(self._setting.protocol.threads):
            return self._evaluate(inputs)

    def _evaluate(self, inputs: _Inputs) -> Record:
        item, truth = inputs.item, inputs.truth
        results: dict[str, dict[str, Result]] = {}
        self._folder.remove_pictures_of(item)
        try:
            features = self._extract_features(truth, inputs.masks)
        except (RuntimeError, MemoryError) as error:  # PyTorch's for a lack of memory
            failed = Result(error=_describe_metric_failure(error))
            results = {mask: {m.spec.label: failed for m in self._methods} for mask in inputs.masks}
            return self._make_record(inputs, results)
        for mask, missing in inputs.masks.items():
            results[mask] = {}
            if item.shown == mask:
                hole = missing[..., None]
                self._folder.save_picture(item, TRUTH, truth)
                self._folder.save_picture(item, KNOWN, np.where(hole, np.uint8(128), truth))
                self._folder.save_picture(item, MASK, np.where(hole, np.uint8(255), np.zeros_like(truth)))
            for column, method in enumerate(self._methods):
                result, score = self._evaluate_method(method, truth, missing, item, column, mask)
                results[mask][method.spec.label] = result
                if score is not None and score.features is not None:
                    features[mask][1 + column] = score.features
        if features:
            self._folder.save_features(item, features)
        return self._make_record(inputs, results)

    def _make_record(self, inputs: _Inputs, results: dict[str, dict[str, Result]]) -> Record:
        height, width = inputs.truth.shape[:2]
        place = {"dataset": inputs.item.dataset, "image": inputs.item.name, "digest": inputs.digest}
        saved = "" if self._setting.save is None else str(self._setting.save)
        return Record(**place, height=height, width=width, results=results, saved=saved)

    def _extract_features(self, truth: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return features of the truth by mask, with room for those of each method's result.

        See :meth:`Folder.save_features`. Without a metric of a set the dictionary is empty.
        """
        seen = self._judge.extract_features(truth, list(masks.values()))
        if seen is None:
            return {}
        room = np.full((len(self._methods), *seen.shape[1:]), np.nan, np.float32)
        return {mask: np.concatenate([of_truth[None], room]) for mask, of_truth in zip(masks, seen, strict=True)}

    def _evaluate_method(
        self, method: Method, truth: np.ndarray, missing: np.ndarray, item: Item, number: int, mask: str
    ) -> tuple[Result, Score | None]:
        """Return a method's result with one mask, with the reason where the method or a metric fails."""
        if not missing.any():
            return Result(error="the mask misses no pixel of an image this small"), None
        given = np.where(missing[..., None], np.uint8(0), truth)  # what is missing is not there to be seen
        try:
            found = (
                read_bytes(item.results[method.spec.label][mask])
                if method.fill is None
                else method.fill(given, missing)
            )
            if found.shape != truth.shape:
                raise ImageError(f"{item.results[method.spec.label][mask]} has another size than {item.path}")
            score = self._judge.score(found, truth, missing)
        except GlamaError as error:
            return Result(error=str(error)), None
        except (RuntimeError, MemoryError) as error:
            return Result(error=_describe_metric_failure(error)), None
        if item.shown == mask:
            self._folder.save_picture(item, str(number), found)
        if self._setting.save is not None:
            result_files.save_result(
                result_files.place_result(self._setting.save, method.spec.label, item, mask), found
            )
        return Result(values=score.values, rings=score.rings, **_measure_changes(found, truth, ~missing)), score

    def evaluate_all(self, items: Iterable[Item]) -> Iterator[Record]:
        """Evaluate images. A thread reads the next two meanwhile.

        Args:
            items: the images.

        Yields:
            The images' records, in order.
        """
        todo, reading = iter(items), deque[Future[_Inputs | Record]]()
        with ThreadPoolExecutor(1, "glama-eval-read") as reader:
            while True:
                while len(reading) < 2 and (item := next(todo, None)) is not None:
                    reading.append(reader.submit(self.read, item))
                if not reading:
                    return
                yield self.evaluate(reading.popleft().result())


class _Changes(TypedDict):
    changed: float
    largest_change: int


def _measure_changes(found: np.ndarray, truth: np.ndarray, known: np.ndarray) -> _Changes:
    """Measure by how much known pixels (bool H×W) were changed, as a Result has it."""
    changes = np.abs(found[known].astype(np.int16) - truth[known]).max(axis=1, initial=0)
    return {
        "changed": float(np.count_nonzero(changes) / max(changes.size, 1)),
        "largest_change": int(changes.max(initial=0)),
    }


def _describe_metric_failure(error: Exception) -> str:
    return f"the metrics failed: {str(error).strip()[:200] or type(error).__name__}"


def evaluate_items(
    setting: Setting, items: Sequence[Item], processes: int, opened: Sequence[Method], judge: Judge
) -> Generator[Record, None, None]:
    """Evaluate images in one process or several. Other processes end with the iterator.

    Args:
        setting: what is evaluated.
        items: the images.
        processes: the number of processes; with 1, this process evaluates the images itself.
        opened: the methods of this process.
        judge: the metrics of this process.

    Yields:
        The records of the images, in order.

    Raises:
        GlamaError: a process ends on its own, mostly for lack of memory.
    """
    if processes == 1:
        yield from Evaluator(setting, opened, judge).evaluate_all(items)
        return
    yield from work_in_processes(_evaluate_in_worker, items, processes, _start_worker, (setting,))


#: In a worker process: its evaluator, or the reason why there is none.
_worker_evaluator: list[Evaluator | GlamaError] = []


def _start_worker(setting: Setting) -> None:
    try:
        _worker_evaluator.append(Evaluator(setting))
    except GlamaError as error:  # which an initializer cannot tell
        _worker_evaluator.append(error)


def _evaluate_in_worker(item: Item) -> Record:
    (evaluator,) = _worker_evaluator
    if isinstance(evaluator, GlamaError):
        raise evaluator
    return evaluator.evaluate(evaluator.read(item))


def count_processes(items: Sequence[Item], asked: Protocol, opened: Sequence[Method]) -> int:
    """Return how many processes this machine has room for.

    Args:
        items: the images.
        asked: what is evaluated.
        opened: the methods.

    Returns:
        The number of processors, as far as memory allows; 1 where a GPU computes.
    """
    if asked.device != "cpu" or any(method.on_gpu for method in opened):
        return 1
    cores, free = count_processors(), memory.available()
    networks = [method.network for method in opened if method.network is not None]
    if free is not None:
        sizes = {_read_size(item.path) if asked.size is None else asked.size for item in items}
        needs = [memory.estimate(*size, network) for size in sizes for network in networks]
        seen = max((height * width for height, width in sizes), default=0)
        metrics = [METRICS[name] for name in asked.metrics]
        kept = seen * sum(metric.kept_bytes for metric in metrics)
        seen *= max((metric.pixel_bytes for metric in metrics), default=0)  # one metric runs after the other
        opening = max((metric.open_bytes for metric in metrics), default=0)
        cores = min(cores, free // (_PROCESS_BYTES + kept + max(opening, seen, *needs)))
    return max(1, min(cores, len(items)))


def _read_size(path: Path) -> tuple[int, int]:
    """Return height and width from the file's header, or (0, 0) for a file without one."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0, 0
