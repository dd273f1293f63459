"""Do one job in a process of its own: read the files, open the subject, fill, write. Told and answered in JSON files.

    python -m glama_deploy.benchmarks.jobs.worker TASK.json REPORT.json

This project's subjects take the way of `glama-inpaint`: the same functions in the same order. The time of each step is
measured around these functions. Where two pictures are filled at once, the steps of both count.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np

from glama_deploy.cli.ending import end_at_once
from glama_deploy.errors import GlamaError
from glama_deploy.frozen import FrozenModel

#: Engines of this project's subjects.
OUR_ENGINES = ("openvino", "onnxruntime")

#: Pictures of a job whose filled pixels are kept, to compare them.
COMPARED_PICTURES = 3

#: Pixels of context around each hole of a picture that is too large to be shown whole, for the reference.
REFERENCE_MARGIN_PIXELS = 256


class Task(FrozenModel):
    """What a worker does.

    Attributes:
        subject: name of the subject, as `subjects.SUBJECTS` has it.
        images: folder of the pictures.
        masks: folder of the masks.
        out: folder of the results.
        out_suffix: suffix of the results' files.
        kept: NumPy file of the filled pixels of the first pictures.
        network: the file or folder from which the subject opens the network; empty for a subject without a network.
        threads: CPU threads; None for the subject's default.
        max_whole_pixels: a picture of more pixels is not shown whole for the reference.
        started: `time.time()` when the process was started.
    """

    subject: str
    images: Path
    masks: Path
    out: Path
    out_suffix: str
    kept: Path
    network: str
    threads: int | None
    max_whole_pixels: int
    started: float


class Report(FrozenModel):
    """What a worker measured.

    Attributes:
        description: engine, version and precision, for people.
        steps: seconds by step. `start` is from the start of the process until the network is open, without reading.
        pictures: number of pictures.
        cpu_seconds: CPU seconds of the process.
        peak_bytes: the most memory that the process held, in bytes.
    """

    description: str
    steps: dict[str, float]
    pictures: int
    cpu_seconds: float
    peak_bytes: int


class Steps:
    """Seconds by step, summed over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, step: str) -> Iterator[None]:
        """Measure the block as a step.

        Args:
            step: name of the step.

        Yields:
            Nothing.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start

    def measure(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that measures each call.

        Args:
            step: name of the step.
            function: the function that is called.

        Returns:
            The measuring function.
        """

        @wraps(function)
        def measured(*arguments: Any, **named: Any) -> Any:
            with self.time(step):
                return function(*arguments, **named)

        return measured


class Kept:
    """The filled pixels of the first pictures of a job."""

    def __init__(self, images: Path) -> None:
        """Keep no pixels yet.

        Args:
            images: folder of the pictures.
        """
        self._stems = {path.stem for path in sorted(images.iterdir())[:COMPARED_PICTURES]}
        self.pixels: dict[str, np.ndarray] = {}

    def keep(self, stem: str, filled: np.ndarray, missing: np.ndarray) -> None:
        """Keep the filled pixels of a picture, if it is one of the first.

        Args:
            stem: stem of the picture's file.
            filled: uint8 [H, W, 3].
            missing: bool [H, W].
        """
        if stem in self._stems:
            self.pixels[stem] = filled[missing]


def do_task(task: Task) -> Report:
    """Do the job of a task.

    Args:
        task: the task.

    Returns:
        What was measured.

    Raises:
        GlamaError: the subject cannot run.
    """
    steps, kept = Steps(), Kept(task.images)
    task.out.mkdir(parents=True, exist_ok=True)
    engine = task.subject.partition(":")[0]
    if engine == "reference":
        description = _run_reference(task, kept)
    elif engine in OUR_ENGINES:
        description = _run_ours(task, steps, kept)
    else:
        description = _run_peer(task, steps, kept)
    report = Report(
        description=description,
        steps=steps.seconds,
        pictures=sum(1 for _ in task.images.iterdir()),
        cpu_seconds=time.process_time(),
        peak_bytes=_read_peak_bytes(),
    )
    np.savez(task.kept, **kept.pixels)  # type: ignore[arg-type]
    return report


def _read_peak_bytes() -> int:
    from glama_deploy.benchmarks.bench.contenders import read_peak_bytes

    return read_peak_bytes()


def _run_ours(task: Task, steps: Steps, kept: Kept) -> str:
    """Fill the files as `glama-inpaint` does: a folder with several pictures at once, a single picture by itself."""
    import glama_deploy
    from glama_deploy.inpainting import folder, inpainter
    from glama_deploy.inpainting.pairing import FolderRule, pair_jobs

    masks: dict[str, np.ndarray] = {}
    read, write, plan, run = folder.read_job, folder.write_job, inpainter.plan_images, inpainter.Inpainter._run

    def read_and_note(job: folder.Job, *how: folder.Masks) -> Any:
        picture, mask = read(job, *how)
        masks[job.image.stem] = mask
        return picture, mask

    def write_and_keep(job: folder.Job, picture: Any) -> None:
        kept.keep(job.image.stem, picture.rgb, masks.pop(job.image.stem))
        with steps.time("write"):
            write(job, picture)

    folder.read_job = steps.measure("read", read_and_note)
    folder.write_job = write_and_keep
    inpainter.plan_images = steps.measure("plan", plan)
    inpainter.Inpainter._run = steps.measure("network", run)  # type: ignore[method-assign]
    backend, _, precision = task.subject.partition(":")
    images = sorted(task.images.iterdir())
    single = len(images) == 1
    if single:
        mask, out = task.masks / f"{images[0].stem}.png", task.out / f"{images[0].stem}{task.out_suffix}"
        jobs = pair_jobs(images[0], mask, out)
        inputs = folder.read_job(jobs[0])
    else:
        rule = FolderRule(format=task.out_suffix.removeprefix("."))  # type: ignore[arg-type]  # all write one format
        jobs = pair_jobs(task.images, task.masks, task.out, rule=rule)
    streams = folder.count_streams(jobs, task.threads)
    opened = glama_deploy.load(task.network, backend, precision, task.threads, streams=streams)
    steps.seconds["start"] = time.time() - task.started - steps.seconds.get("read", 0.0)
    if precision != opened.precision:
        raise GlamaError(f"this CPU has no {precision.rpartition('+')[2]}")
    if single:
        folder.fill_job(opened, jobs[0], *inputs)
        return opened.description
    for result in folder.run_jobs(opened, jobs, at_once=opened.streams):
        if result.state != "written":
            raise GlamaError(f"{result.job.image} was not filled: {result.reason}")
    return opened.description


def _run_peer(task: Task, steps: Steps, kept: Kept) -> str:
    """Fill the files one after the other with Pillow and a peer."""
    from PIL import Image

    description, fill = _open_peer(task)
    steps.seconds["start"] = time.time() - task.started
    for path in sorted(task.images.iterdir()):
        with steps.time("read"):
            image = np.array(Image.open(path).convert("RGB"))
            missing = np.array(Image.open(task.masks / f"{path.stem}.png").convert("L")) > 127
        with steps.time("network"):
            filled = fill(image, missing)
        with steps.time("write"):
            options = {"quality": 95, "subsampling": 0} if task.out_suffix == ".jpg" else {}
            Image.fromarray(filled).save(task.out / f"{path.stem}{task.out_suffix}", **options)  # type: ignore[arg-type]
        kept.keep(path.stem, filled, missing)
    return description


def _open_peer(task: Task) -> tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Open a peer. Return its description, and the fill for pictures of any size."""
    from glama_deploy.benchmarks.jobs import peers

    engine, _, way = task.subject.partition(":")
    if engine == "opencv":
        import cv2

        if task.threads is not None:
            cv2.setNumThreads(task.threads)
        return f"OpenCV {cv2.__version__} Telea", peers.fill_telea
    path = Path(task.network)
    if engine == "carve":
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, resized to 512×512", peers.open_resized(path, task.threads)
    import torch

    run = peers.open_torch(path, task.threads, script=engine == "torchscript")
    ways = {"whole": partial(peers.fill_whole, run), "crop": partial(peers.fill_crops, run)}
    name = "TorchScript" if engine == "torchscript" else "eager"
    said = {"whole": "whole picture", "crop": "crop strategy of IOPaint"}[way]
    return f"PyTorch {torch.__version__.split('+')[0]} {name}, {said}", ways[way]()


def _run_reference(task: Task, kept: Kept) -> str:
    """Fill the first pictures from the whole picture in fp32, or from much context around each hole."""
    import glama_deploy
    from glama_deploy.inpainting.boxes import Span, find_holes
    from glama_deploy.io.images import read_image
    from glama_deploy.io.mask_files import read_mask

    opened = glama_deploy.load(task.network, "openvino", "fp32", task.threads, compile_sizes=False)
    whole = True
    for path in sorted(task.images.iterdir())[:COMPARED_PICTURES]:
        image, missing = read_image(path).rgb, read_mask(task.masks / f"{path.stem}.png")
        high, wide = missing.shape
        frame = Span(0, 0, high, wide)
        spans = [(frame, frame)]
        if missing.size > task.max_whole_pixels:
            whole = False
            spans = [(hole, _clip(hole.grown(REFERENCE_MARGIN_PIXELS), frame)) for hole in find_holes(missing)]
        filled = image.copy()
        for hole, span in spans:
            crop, here = np.ascontiguousarray(image[span.slices]), missing[span.slices]
            filled[hole.slices] = opened(crop, here, region="full")[hole.within(span).slices]
        kept.keep(path.stem, filled, missing)
    return "the whole picture" if whole else f"{REFERENCE_MARGIN_PIXELS} pixels of context around each hole"


def _clip(span: Any, frame: Any) -> Any:
    return type(span)(
        max(span.top, frame.top),
        max(span.left, frame.left),
        min(span.bottom, frame.bottom),
        min(span.right, frame.right),
    )


def main() -> None:
    """Read the task, do the job, and write the report."""
    told, answer = map(Path, sys.argv[1:3])
    task = Task.model_validate_json(told.read_text(encoding="utf-8"))
    try:
        report = do_task(task)
    except GlamaError as error:
        raise SystemExit(str(error)) from error
    answer.write_text(report.model_dump_json(), encoding="utf-8")
    if task.subject.partition(":")[0] in OUR_ENGINES:
        with end_at_once():  # as the commands of this project end, and as peers do not
            sys.exit(0)


if __name__ == "__main__":
    main()
