"""glama-train: GLaMa or LaMa, on photographs of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.output.console import Console
from glama_deploy.runtime.base import MAX_THREADS, require


def glama_train(
    source: Annotated[str, option("--config", help="glama, glama-tiny, glama-2stage, lama, big-lama, or a YAML file.")],
    out: Annotated[Path, option("--out", help="Folder of the run: checkpoints, TensorBoard's events, the config.")],
    overrides: Annotated[
        list[str] | None,
        argument(help="key=value, such as data.train=[photos] data.side=128.", metavar="KEY=VALUE"),
    ] = None,
    resume: Annotated[bool, option("--resume", help="Go on from the folder's last checkpoint.")] = False,
    weights: Annotated[
        Path | None, option("--weights", help="Begin with the generator of this checkpoint (to fine-tune it).")
    ] = None,
    device: Annotated[str, option("--device", help="auto, cpu or cuda.")] = "auto",
    processes: Annotated[
        int,
        option(
            "--processes",
            help="How many share each batch, a device each (torchrun sets its own).",
            min=1,
            max=MAX_THREADS,
        ),
    ] = 1,
) -> None:
    """Train a network; its checkpoints go straight into glama-export.

    At Ctrl-C the step is finished and saved (exit code 130).
    """
    require("torch", "PyTorch", "pip install 'glama-deploy[train]'")
    require("lightning_fabric", "lightning-fabric", "pip install 'glama-deploy[train]'")
    require("cv2", "OpenCV", "pip install 'glama-deploy[train]'")
    from glama_deploy.training import config
    from glama_deploy.training.run import train

    asked = config.load(source, overrides or [])
    console = Console(stderr=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # of several processes one shows the progress
    progress = Progress(*columns, console=console, disable=not first)
    task = progress.add_task("", total=asked.optimization.steps)

    def show(step: int, scalars: dict[str, float]) -> None:
        progress.start()
        progress.update(task, completed=step, description=f"loss {scalars['total']:.3f}, L1 {scalars['l1']:.4f}")

    try:
        last = train(asked, out, resume=resume, weights=weights, device=device, processes=processes, on_step=show)
    finally:
        progress.stop()
    if first:
        console.print(str(last), soft_wrap=True)


main = Command("glama-train", glama_train)
