"""glama-inpaint: fill the missing pixels of one image, or of a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import glama_deploy
from glama_deploy.catalogue import EngineRecord, backends, join_names, requested_precisions
from glama_deploy.cli.entry import Command, ResumableInterrupt, argument, option
from glama_deploy.cli.options.completion import list_backends, list_models
from glama_deploy.cli.options.engine import DeviceName, ThreadCount
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.options.iopaint import IopaintOptions, pair_picture
from glama_deploy.cli.options.mask_sources import MaskOptions
from glama_deploy.cli.options.paths import take_paths
from glama_deploy.cli.options.picture_run import RunOptions
from glama_deploy.cli.options.ray import RayOptions
from glama_deploy.cli.options.server import ServerOptions
from glama_deploy.cli.options.video import VideoRunOptions
from glama_deploy.cli.output.console import Console
from glama_deploy.cli.output.run_report import RunReport
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import folder as batch
from glama_deploy.inpainting.in_place import InPlace, sign
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.inpainting.pairing import (
    BY_STEM,
    FolderRule,
    Job,
    OutputFormat,
    check_target,
    describe_left_out,
    pair_jobs,
)
from glama_deploy.inpainting.transparency import Fill
from glama_deploy.inpainting.watch import Watch, watch
from glama_deploy.io.files import check_path
from glama_deploy.io.images import FileRule
from glama_deploy.io.pipes import is_pipe
from glama_deploy.runtime.base import require
from glama_deploy.system.interrupts import stop_on_interrupt
from glama_deploy.video.options import is_video

if TYPE_CHECKING:
    from glama_deploy.inpainting.piped import PipedJob


def _describe_backend(record: EngineRecord) -> str:
    """Describe a backend in the help."""
    providers = ", ".join(f":{provider}" for provider in record.providers)
    return f"{record.backend} (with a provider: {record.backend}{providers})" if providers else record.backend


def glama_inpaint(
    masks: MaskOptions,
    run: RunOptions,
    video: VideoRunOptions,
    iopaint: IopaintOptions,
    server: ServerOptions,
    ray: RayOptions,
    paths: Annotated[
        list[Path] | None,
        argument(help="The paths of --image, --mask and --out, in this order.", metavar="IMAGE MASK OUT"),
    ] = None,
    image: Annotated[
        Path | None, option("--image", help="Image, folder of images, or video; - for standard input. [required]")
    ] = None,
    mask: Annotated[
        Path | None,
        option(
            "--mask",
            help="Mask (white = missing). For a folder of images or a video: the folder of masks, or one mask for all. "
            "For a video also a video. - for standard input. glama-mask shows the mask of these options.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("--out", help="Output file; for folders, the folder of the outputs; - for standard output."),
    ] = None,
    model: Annotated[
        str,
        option(
            "--model",
            list_values=list_models,
            help="Bundle, checkpoint, name of glama-models list, or 'default' for the embedded network.",
        ),
    ] = "default",
    backend: Annotated[
        str,
        option(
            "--backend",
            list_values=list_backends,
            help=f"Engine: {join_names(('auto', *map(_describe_backend, backends().values()), 'torch'))}.",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        option(
            "--precision",
            list_values=requested_precisions,
            help=f"{join_names(requested_precisions())}. Not every engine supports all of them. fastest: measured here "
            "once, at least 40 dB against fp32.",
        ),
    ] = "auto",
    threads: ThreadCount = None,
    region: Annotated[
        str,
        option(
            "--region",
            help="What the network sees. full: the whole image. crop: boxes around the holes. auto: crop if this is "
            "cheaper. With crop and auto, tiles fill holes that do not fit the engine or the memory.",
        ),
    ] = "auto",
    refine: Annotated[
        bool,
        option(
            "--refine",
            help="Optimize the network's features from small to large scales, for repeated structure in large images. "
            "Needs --backend torch, much memory and minutes.",
        ),
    ] = False,
    feather: Annotated[
        int,
        option("--feather", help="Pixels of the rim over which result and image are blended, at most --grow."),
    ] = 0,
    mask_name: Annotated[
        str,
        option(
            "--mask-name",
            help="For folders: the name of an image's mask, such as {stem}_mask.png; {stem}_mask{n} for any number "
            "and format.",
        ),
    ] = BY_STEM.mask_name,
    recursive: Annotated[
        bool, option("--recursive", help="For folders: fill the images of subfolders, too, and keep the subfolders.")
    ] = False,
    format: Annotated[
        str | None,
        option(
            "--format",
            help="For folders and standard output: png, jpg or webp; keep: the format of each image, and PNG where "
            "this format is not written. (Without: keep; with --output: png.)",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        option(
            "--quality",
            help="Quality of JPEG, WebP and video outputs, 1 to 100. (Without: a JPEG as fine as its input, or 95; a "
            "lossless WebP.)",
        ),
    ] = None,
    frame: Annotated[
        int | None, option("--frame", help="For animated and many-paged files: the frame, from 0.")
    ] = None,
    overwrite: Annotated[
        bool, option("--overwrite", help="Replace outputs that exist. Without --overwrite, a folder's are skipped.")
    ] = False,
    device: DeviceName = None,
    allow_engine_code: AllowEngineCode = False,
) -> int:
    """Fill the missing pixels of an image or a video. Known pixels stay bit-exact in lossless formats.

    With folders, the command continues after a bad file, and lists failed and skipped files at the end. Run it again to
    fill only the missing outputs. Exit codes: 0 success, also of --watch that Ctrl-C ended; 2 bad input, or a file of a
    folder failed.
    """
    check_region(region)
    iopaint.check(out)
    ray.check(refine=refine, server=server.server is not None)
    if refine:
        _check_refinement(backend, precision, region, run.jobs, device)
    server.check(
        backend=backend != "auto",
        precision=precision != "auto",
        threads=threads is not None,
        compile_sizes=run.compiles is not None,
        refine=refine,
        device=device is not None,
        model_dir=iopaint.model_dir is not None,
        allow_engine_code=allow_engine_code,
    )
    has_own_masks = ray.has_own_masks(image or next(iter(paths or []), None))
    image, mask, out = take_paths(
        paths or [],
        image,
        mask,
        out or iopaint.output,
        needs_mask=not (masks.has_marks or has_own_masks),
        needs_out=not run.in_place,
        takes_addresses=ray.ray,
    )
    check_path(image)
    region = iopaint.choose_region(region)
    model = model if server.server is not None else iopaint.choose_model(model)
    overwrite = overwrite or iopaint.output is not None
    made = masks.read(mask, feather, has_own=has_own_masks)
    made = replace(made, rule=iopaint.choose_rule(made.rule))
    if is_video(image):
        from glama_deploy.cli.video import check_options, inpaint_video  # pictures start without it

        check_options(
            {
                "in_place": run.in_place,
                "backup_folder": run.backup_folder is not None,
                "watch": run.watch,
                "jobs": run.jobs is not None,
                "fail_fast": run.fail_fast,
                "refine": refine,
                "mask_name": mask_name != BY_STEM.mask_name,
                "recursive": recursive,
                "format": format is not None,
                "frame": frame is not None,
                "output": iopaint.output is not None,
                "server": server.server is not None,
                "ray": ray.ray,
            }
        )
        if out is None:
            raise GlamaError("no output is given; give `out`")
        load_video = lambda streams, compiles: glama_deploy.load(  # noqa: E731
            model, backend, precision, threads, compiles, streams, allow_engine_code, device
        )
        return inpaint_video(
            image,
            mask,
            out,
            made,
            video.read(quality),
            load_video,
            model=model,
            region=region,
            threads=threads,
            compiles=run.compiles,
            overwrite=overwrite,
            as_json=run.json,
        )
    video.check_unused()
    rule = FolderRule(mask_name, recursive, cast(OutputFormat, format or iopaint.usual_format))
    if ray.ray:
        from glama_deploy.ray.picture_worker import PictureSettings  # pictures start without it

        engine = ray.choose_engine(model, backend, precision, threads, run.compiles, allow_engine_code, device)
        settings = PictureSettings(
            engine, masks=made, region=cast(Region, region), files=FileRule(frame, quality), overwrite=overwrite
        )
        return ray.run((image, mask, out), settings, rule, run, RunReport(Console(stderr=True), as_json=run.json))
    target = run.choose_target(image, out, overwrite=overwrite)
    files = FileRule(frame, quality)
    piped = _open_pipes(image, mask, target, format, files, run, overwrite=overwrite)
    is_single = piped is not None or not image.is_dir()
    if piped is not None or image.is_file():
        _check_single(image, rule, None if piped is not None else format)
    list_jobs = partial(_list_jobs, image, mask, target, rule, files, iopaint, run, overwrite=overwrite)
    jobs = [piped.job] if piped is not None else list_jobs()
    files.check_outputs(job.out for job in jobs)
    if run.watch:
        check_target(image, target)
    report = RunReport(Console(stderr=True), as_json=run.json, is_live=run.watch)
    single = _SingleJob(jobs[0], made, report, piped) if is_single else None  # bad input is told before the model opens
    inpaint: Fill
    if refine:
        inpaint, streams, description = _open_refiner(model, threads)
    elif server.server is not None:
        inpainter = server.connect(model, run.jobs, is_single=is_single)
        inpaint = partial(inpainter, region=cast(Region, region))
        streams, description = inpainter.streams, inpainter.description
    else:
        todo = [job for job in jobs if not job.lacks_mask and (overwrite or not job.is_done())]
        at_once = run.jobs or batch.count_streams(todo, threads)
        inpainter = glama_deploy.load(
            model, backend, precision, threads, run.compiles, at_once, allow_engine_code, device
        )
        inpaint = partial(inpainter, region=cast(Region, region))
        streams, description = inpainter.streams, inpainter.description
    report.console.print(description, style="dim")
    fill = made.edits.blend(inpaint)
    if single is not None:
        return single.fill(fill)
    run_jobs = partial(batch.run_jobs, fill, overwrite=overwrite, at_once=streams, masks=made)
    is_over = lambda: run.fail_fast and report.counts["failed"] > 0  # noqa: E731
    waiting: Sequence[Path] = ()
    not_begun = 0
    if run.watch:
        waiting = _watch_folder(Watch(list_jobs), run_jobs, is_over, report)
    else:
        not_begun = _run_folder(jobs, run_jobs, is_over, report)
    left_out = describe_left_out(image, mask, target, rule) if image.is_dir() else ()  # a watched drive may be gone
    return report.finish(not_begun=not_begun, waiting=waiting, left_out=left_out)


def _check_single(image: Path, rule: FolderRule, format: str | None) -> None:
    """Check that no option of folders is given for a single picture."""
    if (rule.mask_name, rule.recursive) != (BY_STEM.mask_name, BY_STEM.recursive) or format is not None:
        kind = "a file" if image.is_file() else "a pipe"
        raise GlamaError(f"`image` {image} is {kind}; `mask_name`, `recursive` and `format` are for folders")


def _list_jobs(
    image: Path,
    mask: Path | None,
    target: Path | InPlace,
    rule: FolderRule,
    files: FileRule,
    iopaint: IopaintOptions,
    run: RunOptions,
    *,
    overwrite: bool,
) -> list[Job]:
    """List the jobs of the paths, none of which is a pipe."""
    if iopaint.output is not None and image.is_file():
        found = [pair_picture(image, mask, iopaint.output)]
    else:
        found = pair_jobs(image, mask, target, overwrite=overwrite, rule=rule, may_be_empty=run.watch)
    return [replace(job, files=files) for job in found]


def _open_pipes(
    image: Path,
    mask: Path | None,
    target: Path | InPlace,
    format: str | None,
    files: FileRule,
    run: RunOptions,
    *,
    overwrite: bool,
) -> PipedJob | None:
    """Read the pipes among the inputs, and open the output's. Returns None where no path is a pipe."""
    if not any(isinstance(path, Path) and is_pipe(path) for path in (image, mask, target)):
        return None
    from glama_deploy.inpainting.piped import make_job

    piped = make_job(image, mask, run.choose_piped_target(target), format, overwrite=overwrite)
    return replace(piped, job=replace(piped.job, files=files))


class _SingleJob:
    """The job of a single picture. Reads the inputs.

    Args:
        job: the job.
        masks: how the mask is made.
        report: the report of the run.
        piped: the same job, if a path is a pipe.
    """

    def __init__(self, job: Job, masks: batch.Masks, report: RunReport, piped: PipedJob | None) -> None:
        self._job = job
        self._report = report
        self._piped = piped
        self._work = batch.Work()
        with self._report_failure(), self._work.measure():
            self._before = sign(job.image) if isinstance(job.image, Path) else None
            self._picture, self._mask = batch.read_job(job, masks)
        self._work.boxes = batch.find_boxes(self._mask)

    def fill(self, fill: Fill) -> int:
        """Fill the picture, and return the exit code."""
        piped = self._piped if self._piped is not None and self._piped.target is not None else None
        with self._report_failure(), self._work.measure():
            if piped is not None:
                piped.write(batch.fill_inputs(fill, self._job, self._picture, self._mask))
            else:
                batch.fill_job(fill, self._job, self._picture, self._mask, self._before)
        self._report.add(batch.Result(self._job, "written", work=self._work))
        if piped is None:
            self._report.console.print(str(self._job.out), soft_wrap=True)
        return 0

    @contextmanager
    def _report_failure(self) -> Iterator[None]:
        """Report an error of the block. The error itself is the command's line for people."""
        try:
            yield
        except GlamaError as error:
            self._report.add(batch.Result(self._job, "failed", str(error), self._work))
            raise


#: `run_jobs` with an inpainter and its settings.
_RunJobs = partial[Iterator[batch.Result]]


def _run_folder(jobs: Sequence[Job], run_jobs: _RunJobs, is_over: Callable[[], bool], report: RunReport) -> int:
    """Run the jobs of a folder, show the progress, and return the number of jobs that were not begun."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # takes 30 ms

    columns = (TextColumn("inpainting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=report.console) as progress:
            task = progress.add_task("inpainting", total=len(jobs))
            for result in run_jobs(jobs, is_over=is_over):
                report.add(result)
                progress.advance(task)
    except KeyboardInterrupt as error:
        raise ResumableInterrupt(
            "interrupted; pictures that are done are kept: the same command fills the rest"
        ) from error
    return len(jobs) - sum(report.counts.values())


def _watch_folder(folder: Watch, run_jobs: _RunJobs, is_over: Callable[[], bool], report: RunReport) -> Sequence[Path]:
    """Fill what appears in a folder until Ctrl-C, and return the pictures that wait for their masks."""
    report.console.print("watching; Ctrl-C ends after the pictures that are being filled", style="dim")
    with stop_on_interrupt() as stop:
        for result in watch(folder, run_jobs, lambda: stop.asked or is_over()):
            report.add(result)
    return folder.waiting


def _check_refinement(backend: str, precision: str, region: str, jobs: int | None, device: str | None) -> None:
    if device is not None:
        raise GlamaError("`refine` computes on the GPU if PyTorch has one, else on the CPU; leave `device` out")
    if backend != "torch" or precision not in ("auto", "fp32") or region == "crop" or jobs not in (None, 1):
        raise GlamaError(
            "`refine` is for PyTorch in fp32 and one whole image at once; give `backend=torch`, and leave out "
            "`precision`, `region` and `jobs`"
        )


def _open_refiner(model: str, threads: int | None) -> tuple[Fill, int, str]:
    """Return the refiner of a checkpoint, the number of pictures at once, and the refiner's description."""
    require("torch", "PyTorch", "pip install torch")
    from glama_deploy.checkpoints.published.references import locate
    from glama_deploy.reference.refinement import Refiner

    refiner = Refiner.open(locate(model), threads)
    return refiner, 1, refiner.description


main = Command("glama-inpaint", glama_inpaint)
