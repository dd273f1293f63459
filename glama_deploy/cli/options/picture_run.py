"""The options of a run over pictures: where outputs go, how long the run lasts, and what is reported."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.in_place import InPlace
from glama_deploy.io.pipes import STANDARD, is_pipe
from glama_deploy.runtime.base import MAX_THREADS

#: An option that stands under its own heading in the help.
run_option = partial(option, rich_help_panel="The run")

#: The values of `--compile-sizes`, as `load` takes them.
_COMPILE_SIZES = {"auto": None, "always": True, "never": False}


@dataclass(frozen=True)
class RunOptions:
    """The options of a run, as the command line has them."""

    in_place: Annotated[
        bool,
        run_option(
            "--in-place", help="Replace the pictures. Each original is kept as NAME.orig.EXT beside its picture."
        ),
    ] = False
    backup_folder: Annotated[
        Path | None, run_option("--backup-folder", help="With --in-place: the folder in which originals are kept.")
    ] = None
    watch: Annotated[
        bool, run_option("--watch", help="For folders: also fill the pictures that appear, until Ctrl-C.")
    ] = False
    jobs: Annotated[
        int | None,
        run_option(
            "--jobs",
            help="For folders: pictures that are filled at once (default: two, if memory and threads allow).",
            min=1,
            max=MAX_THREADS,
        ),
    ] = None
    fail_fast: Annotated[
        bool, run_option("--fail-fast", help="For folders: begin no other picture after one failed.")
    ] = False
    json: Annotated[
        bool, run_option("--json", help="Print a line of JSON on standard output for each picture, and a summary.")
    ] = False
    compile_sizes: Annotated[
        str,
        run_option(
            "--compile-sizes",
            help="Whether OpenVINO compiles a model for a size. auto: after some seconds of runs. always: before the "
            "first run. never: results do not depend on earlier pictures.",
        ),
    ] = "auto"

    @property
    def compiles(self) -> bool | None:
        """The value of `compile_sizes` for `load`. Raises GlamaError for a value that is not known."""
        if self.compile_sizes not in _COMPILE_SIZES:
            raise GlamaError(f"`compile_sizes` is {self.compile_sizes!r}; expected {', '.join(_COMPILE_SIZES)}")
        return _COMPILE_SIZES[self.compile_sizes]

    def choose_target(self, image: Path, out: Path | None, *, overwrite: bool) -> Path | InPlace:
        """Check the options, and choose where the outputs go.

        Args:
            image: the option `--image`.
            out: the option `--out`.
            overwrite: the option `--overwrite`.

        Returns:
            The path of the outputs, or how they replace the pictures.

        Raises:
            GlamaError: two options contradict each other, or an option is for folders.
        """
        _ = self.compiles
        if self.in_place and out is not None:
            raise GlamaError("`out` and `in_place` are both given; give one of them")
        if self.backup_folder is not None and not self.in_place:
            raise GlamaError("`backup_folder` is given without `in_place`; give both, or `out`")
        if self.in_place and self.watch and overwrite:
            raise GlamaError(
                "`watch` with `in_place` does not support `overwrite=True`, which would replace newer pictures by "
                "their filled originals; leave `overwrite=True` out"
            )
        for_folders = {"watch": self.watch, "jobs": self.jobs is not None, "fail_fast": self.fail_fast}
        wrong = [f"`{name}`" for name, is_given in for_folders.items() if is_given]
        if wrong and (image.is_file() or is_pipe(image)):
            kind = "a pipe" if is_pipe(image) else "a file"
            raise GlamaError(f"`image` {image} is {kind}, and {' and '.join(wrong)} needs a folder; leave it out")
        if self.in_place:
            return InPlace(self.backup_folder)
        if out is None:
            raise GlamaError("no output is given; give `out`, or `in_place`")
        return out

    def choose_piped_target(self, target: Path | InPlace) -> Path:
        """Check the options of a run in which a path is a pipe.

        Args:
            target: the result of `choose_target`.

        Returns:
            The path of the output.

        Raises:
            GlamaError: an option does not go with pipes.
        """
        if isinstance(target, InPlace):
            raise GlamaError("`in_place` does not support pipes; give files, or `out`")
        if self.json and target == STANDARD:
            raise GlamaError("`json` and the picture of `out` - both go to standard output; give `out` a file")
        return target
