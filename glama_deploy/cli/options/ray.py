"""The options of a run on a Ray cluster, and the run itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from glama_deploy.cli.entry import ResumableInterrupt, option
from glama_deploy.cli.options.picture_run import RunOptions
from glama_deploy.cli.output.option_names import show_options
from glama_deploy.cli.output.run_report import RunReport
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.pairing import FolderRule, describe_left_out
from glama_deploy.io.pipes import is_pipe, restore_address

if TYPE_CHECKING:  # pictures start without the package of clusters
    from glama_deploy.ray.engine import EngineSettings
    from glama_deploy.ray.picture_worker import Outcome, PictureSettings
    from glama_deploy.ray.run import Run

#: An option that stands under its own heading in the help.
ray_option = partial(option, rich_help_panel="A Ray cluster")

#: The beginning of an address of this machine, which names a path from the root folder on.
_LOCAL_ADDRESS = re.compile(r"(?:file|local)://(?P<path>.*)", re.IGNORECASE)

#: The beginning of a path of Windows.
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class RayOptions:
    """The options of a run on a Ray cluster, as the command line has them."""

    ray: Annotated[
        bool,
        ray_option(
            "--ray",
            help="Fill the pictures with the workers of a Ray cluster. --image, --mask and --out may be addresses "
            "such as s3://bucket/folder, and --image also WebDataset shards (.tar) or Parquet files (.parquet), with "
            "* and braces.",
        ),
    ] = False
    ray_address: Annotated[
        str | None,
        ray_option(
            "--ray-address",
            help="HOST:PORT; auto: the cluster of this machine; local: a cluster for this run alone. (Without: "
            "RAY_ADDRESS, or local.)",
        ),
    ] = None
    workers: Annotated[
        int | None, ray_option("--workers", help="Number of workers (default: as many as there is room for).", min=1)
    ] = None
    cpus_per_worker: Annotated[
        int, ray_option("--cpus-per-worker", help="CPUs of a worker, and threads of its engine.", min=1)
    ] = 1
    gpus_per_worker: Annotated[
        float, ray_option("--gpus-per-worker", help="GPUs of a worker, such as 1, or 0.5 for two workers of a GPU.")
    ] = 0.0
    batch: Annotated[
        int,
        ray_option(
            "--batch", help="Pictures of one size that the network is shown at once. Needs --region full.", min=1
        ),
    ] = 1
    key_column: Annotated[
        str, ray_option("--key-column", help="Of .tar and .parquet files: the names of outputs (__key__, or key).")
    ] = ""
    image_column: Annotated[
        str, ray_option("--image-column", help="Of .tar and .parquet files: the pictures (image, or such as jpg).")
    ] = ""
    mask_column: Annotated[
        str, ray_option("--mask-column", help="Of .tar and .parquet files: the masks (mask, or such as mask.png).")
    ] = ""

    def check(self, *, refine: bool, server: bool) -> None:
        """Check the options among each other.

        Args:
            refine: the option `--refine`.
            server: whether the option `--server` is given.

        Raises:
            GlamaError: an option of a cluster is given without `--ray`, or an option does not go with a cluster.
        """
        others = {name: value for name, value in vars(self).items() if name != "ray"}
        given = [f"`{name}`" for name, value in others.items() if value != getattr(RayOptions, name)]
        if given and not self.ray:
            raise GlamaError(f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for clusters; add `ray=True`")
        for name, is_given in (("refine", refine), ("server", server)):
            if self.ray and is_given:
                raise GlamaError(f"a run on Ray does not support `{name}`; leave it out")

    def has_own_masks(self, image: Path | None) -> bool:
        """Return whether the pictures may bring masks with them.

        Args:
            image: the path or address of the pictures; None if it is missing.

        Returns:
            True for WebDataset shards and Parquet files.
        """
        if not self.ray or image is None:
            return False
        from glama_deploy.ray.sources import find_sample_kind

        return find_sample_kind(str(image)) is not None

    def choose_engine(
        self,
        model: str,
        backend: str,
        precision: str,
        threads: int | None,
        compile_sizes: bool | None,
        allow_engine_code: bool,
        device: str | None,
    ) -> EngineSettings:
        """Choose how workers open their engines.

        Args:
            model: the option `--model`.
            backend: the option `--backend`.
            precision: the option `--precision`.
            threads: the option `--threads`; None: a thread for each CPU of a worker.
            compile_sizes: the option `--compile-sizes`, as `load` takes it.
            allow_engine_code: the option `--allow-engine-code`.
            device: the option `--device`; None: the GPU of a worker that has one, else the CPU.

        Returns:
            The settings. A model that is a path here is an absolute path.
        """
        from glama_deploy.ray.engine import EngineSettings, choose_device, name_model

        return EngineSettings(
            name_model(model),
            backend,
            precision,
            threads or self.cpus_per_worker,
            compile_sizes,
            allow_engine_code,
            device or choose_device(self.gpus_per_worker),
        )

    def run(
        self,
        paths: tuple[Path, Path | None, Path | None],
        settings: PictureSettings,
        rule: FolderRule,
        run: RunOptions,
        report: RunReport,
    ) -> int:
        """Fill the pictures with the workers of a cluster.

        Args:
            paths: the paths or addresses of the pictures, the masks and the outputs.
            settings: how pictures are filled, without the options of this group.
            rule: how the pictures of a folder find their masks.
            run: the options of a run over pictures.
            report: the report.

        Returns:
            The exit code.

        Raises:
            GlamaError: an option is not for clusters, or the run fails.
        """
        from glama_deploy.ray.connection import LOCAL, Resources, connect, find_address
        from glama_deploy.ray.engine import check_batch
        from glama_deploy.ray.run import Run, RunRequest
        from glama_deploy.ray.tasks import Columns

        image, mask, out = self._check_run(paths, run)
        check_batch(self.batch, settings.region)
        columns = Columns(self.key_column, self.image_column, self.mask_column)
        request = RunRequest(image, mask, replace(settings, out=out, batch=self.batch), rule, columns)
        resources = Resources(self.workers, self.cpus_per_worker, self.gpus_per_worker)
        filling = Run(request, resources)  # bad input is told before a cluster is asked
        if filling.needs_workers:
            settings.engine.check(is_here=find_address(self.ray_address) == LOCAL)
        with connect(self.ray_address, resources) if filling.needs_workers else nullcontext(0) as workers:
            if workers:
                report.console.print(f"Ray, {workers} {'worker' if workers == 1 else 'workers'}", style="dim")
            not_begun = _report_run(filling, workers, run, report)
        return report.finish(not_begun=not_begun, left_out=_describe_left_out(paths, rule))

    def _check_run(self, paths: tuple[Path, Path | None, Path | None], run: RunOptions) -> tuple[str, str | None, str]:
        """Check that the options of the command go with a cluster, and return the addresses of the paths."""
        image, mask, out = paths
        wrong = {
            "in_place": run.in_place,
            "backup_folder": run.backup_folder is not None,
            "watch": run.watch,
            "jobs": run.jobs is not None,
        }
        if given := [f"`{name}`" for name, is_given in wrong.items() if is_given]:
            raise GlamaError(f"a run on Ray does not support {' and '.join(given)}; leave it out")
        if out is None:
            raise GlamaError("no output is given; give `out`, the folder of the outputs")
        for name, path in zip(("image", "mask", "out"), paths, strict=True):
            if path is not None and is_pipe(path):
                raise GlamaError(f"`{name}` {path} is a pipe; a run on Ray needs a folder, or an address")
        if image.is_file() and image.suffix.lower() not in (".tar", ".parquet"):
            raise GlamaError(f"`image` {image} is a file; a run on Ray needs a folder, .tar or .parquet files")
        return _show_address(image), None if mask is None else _show_address(mask), _show_address(out)


def _show_address(path: Path) -> str:
    """Return an address, or the absolute path, which a worker finds whatever its current folder is."""
    address = restore_address(path)
    if address is None:
        return str(path.absolute())
    if (local := _LOCAL_ADDRESS.fullmatch(address)) is None:
        return address
    return local["path"] if _DRIVE.match(local["path"]) else f"/{local['path']}"


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise ResumableInterrupt(
            "interrupted; pictures that are done are kept: the same command fills the rest"
        ) from error


def _report_run(filling: Run, workers: int, options: RunOptions, report: RunReport) -> int:
    """Report the outcomes of a run, show the progress, and return the number of pictures that were not begun."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # takes 30 ms

    columns = (TextColumn("inpainting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    count = 0
    with _resumable(), closing(filling), Progress(*columns, console=report.console) as progress:
        task = progress.add_task("inpainting", total=filling.total)
        for outcome in filling.fill(workers):
            count += 1
            report.add_fields(outcome.state, outcome.reason, outcome.out, _describe(outcome))
            progress.advance(task)
            if options.fail_fast and outcome.state == "failed":
                break
    return max(0, (filling.total or count) - count)


def _describe_left_out(paths: tuple[Path, Path | None, Path | None], rule: FolderRule) -> list[str]:
    """Describe the files of a local folder that the run does not read."""
    image, mask, out = paths
    if out is None or not image.is_dir() or (mask is not None and not mask.exists()):
        return []
    return describe_left_out(image, mask, out, rule)


def _describe(outcome: Outcome) -> dict[str, object]:
    """Return the fields of a picture for JSON, as those of other runs."""
    return {
        "type": "picture",
        "image": outcome.image,
        "mask": outcome.mask or None,
        "out": outcome.out or None,
        "backup": None,
        "state": outcome.state,
        "seconds": outcome.seconds,
        "boxes": [list(box) for box in outcome.boxes],
        "error": show_options(outcome.reason) or None,
    }
