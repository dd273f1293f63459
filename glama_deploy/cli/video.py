"""What glama-inpaint does with a video."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from glama_deploy.bundle import MANIFEST
from glama_deploy.cli.entry import ResumableInterrupt
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.option_names import show_options
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.folder import Masks, count_streams_of_size
from glama_deploy.inpainting.inpainter import Inpainter, Region
from glama_deploy.system.interrupts import stop_on_interrupt
from glama_deploy.video.options import VideoOptions
from glama_deploy.video.run import Outcome, VideoJob, describe_damage, fill_video, open_job

#: Frames with one mask that a GPU fills together.
_GPU_BATCH = 8

#: A model is compiled for the boxes of a fixed mask from this many frames on.
_FRAMES_BEFORE_COMPILE = 100

#: Opens the model for a number of streams, with the choice whether sizes are compiled.
OpenModel = Callable[[int, bool], Inpainter]


def inpaint_video(
    image: Path,
    mask: Path | None,
    out: Path,
    made: Masks,
    options: VideoOptions,
    open_model: OpenModel,
    *,
    model: str,
    region: str,
    threads: int | None,
    compiles: bool | None,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Fill a video, and show the progress.

    Args:
        image: the video, or the pattern of a numbered sequence.
        mask: the masks; None for rectangles.
        out: the output.
        made: how masks are made.
        options: how the video is encoded.
        open_model: opens the model.
        model: the model's name or path.
        region: what the network is shown.
        threads: CPU threads; None for all.
        compiles: whether sizes are compiled; None for the usual rule of videos.
        overwrite: whether the output is replaced.
        as_json: whether a line of JSON is printed.

    Returns:
        The exit code.

    Raises:
        ResumableInterrupt: Ctrl-C ended the run early.
    """
    start = time.perf_counter()
    job = open_job(image, mask, out, made, options, overwrite=overwrite)
    console = Console(stderr=True)
    height, width = job.clip.size
    is_fixed = job.masks.fixed is not None and not options.reach
    if compiles is None:  # by numbers, not by seconds: a run that goes on gives the same pixels
        compiles = is_fixed and job.clip.count >= _FRAMES_BEFORE_COMPILE
    inpainter = open_model(count_streams_of_size(height * width, threads), compiles)
    console.print(inpainter.description, style="dim")
    console.print(_describe(job), style="dim")
    identity = repr((_identify(model), inpainter.description, inpainter.precision, region, compiles))
    fill = partial(inpainter.fill_frames, region=cast(Region, region))
    run = partial(
        fill_video,
        job,
        fill,
        identity,
        batch=_GPU_BATCH if inpainter.device == "cuda" else 1,
        at_once=inpainter.streams,
        is_whole=region == "full",
        overwrite=overwrite,
    )
    try:
        with stop_on_interrupt() as stop:
            outcome = _show_progress(run, job.clip.count, console, lambda: stop.asked)
    except GlamaError as error:  # the error itself is the command's line for people
        if as_json:
            _print_json(job, Outcome(), time.perf_counter() - start, "failed", str(error))
        raise
    if outcome.is_cut:
        raise ResumableInterrupt(_describe_interrupt(outcome, options.segment_frames))
    kind = "lossless" if job.encoding.is_lossless else "lossy: known pixels change a little"
    console.print(f"{outcome.frames} frames, {job.encoding.encoder} ({kind})")
    console.print(str(out), soft_wrap=True)
    damage = describe_damage(image, outcome.damaged) if outcome.damaged else None
    if as_json:
        state = "damaged" if damage else "written"
        _print_json(job, outcome, time.perf_counter() - start, state, damage)
    if damage is None:
        return 0
    console.print_failure(damage)
    return 2


def _show_progress(run: Callable[..., Outcome], count: int, console: Console, is_over: Callable[[], bool]) -> Outcome:
    """Run, and show how many frames are finished and how long the rest takes."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # takes 30 ms

    columns = (TextColumn("inpainting"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("inpainting", total=count or None)
        return run(is_over=is_over, on_frames=lambda frames: progress.update(task, completed=frames))


def _describe(job: VideoJob) -> str:
    """Describe the video and its encoding."""
    clip = job.clip
    turned = "" if clip.orientation.matrix is None else f", shown as {clip.shown_size[1]}x{clip.shown_size[0]}"
    frames = f", {clip.count} frames" if clip.count else ""
    converted = f" {job.encoding.converted}" if job.encoding.converted is not None else ""
    source = f"{clip.size[1]}x{clip.size[0]} {clip.format.name} {clip.codec}{turned}{frames}"
    return f"{source} → {job.encoding.encoder}{converted}"


def _describe_interrupt(outcome: Outcome, segment_frames: int) -> str:
    """Describe what is there after Ctrl-C."""
    if outcome.kept:
        rest = f"the same command goes on from frame {outcome.kept + 1}"
    else:
        rest = (
            f"the same command begins again, because no segment of {segment_frames} frames is whole; smaller "
            "`segment_frames` are kept sooner"
        )
    if outcome.playable is not None:
        return f"interrupted; the first {outcome.frames} frames can be played: {outcome.playable}; {rest}"
    return f"interrupted; {rest}"


def _identify(model: str) -> str:
    """Return a text that is another one for another model."""
    path = Path(model)
    try:
        if (path / MANIFEST).is_file():
            return (path / MANIFEST).read_text(encoding="utf-8")
        found = path.stat()
    except OSError:
        return model
    return f"{path.absolute()} {found.st_size} {found.st_mtime_ns}"


def _print_json(job: VideoJob, outcome: Outcome, seconds: float, state: str, error: str | None) -> None:
    """Print a line of JSON about the video."""
    fields = {
        "type": "video",
        "image": str(job.clip.path),
        "out": str(job.out),
        "state": state,
        "frames": outcome.frames,
        "reused_frames": outcome.reused,
        "encoder": job.encoding.encoder,
        "lossless": job.encoding.is_lossless,
        "damaged_seconds": outcome.damaged,
        "seconds": round(seconds, 3),
        "error": show_options(error) if error is not None else None,
    }
    print(json.dumps(fields), flush=True)


def check_options(given: dict[str, bool]) -> None:
    """Check that no option is given that videos do not support.

    Args:
        given: whether each field was given.

    Raises:
        GlamaError: an option was given.
    """
    wrong = [f"`{name}`" for name, is_given in given.items() if is_given]
    if wrong:
        raise GlamaError(f"`image` is a video, which does not support {' and '.join(wrong)}; leave it out")
