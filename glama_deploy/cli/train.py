"""glama-train: train GLaMa or LaMa on the user's photographs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.output.console import Console
from glama_deploy.runtime.base import MAX_THREADS, require


def glama_train(
    source: Annotated[
        str, option("--config", help="Configuration: glama, glama-tiny, glama-2stage, lama, big-lama, or a YAML file.")
    ],
    out: Annotated[
        Path, option("--out", help="Folder of the run: checkpoints, TensorBoard events and the configuration.")
    ],
    overrides: Annotated[
        list[str] | None,
        argument(
            help="Values that replace those of the configuration, such as data.train=[photos] data.side=128.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    resume: Annotated[bool, option("--resume", help="Continue from the last checkpoint in the folder.")] = False,
    weights: Annotated[
        str | None,
        option("--weights", help="Checkpoint, or name of glama-models list, whose generator is fine-tuned."),
    ] = None,
    device: Annotated[str, option("--device", help="Device: auto, cpu or cuda.")] = "auto",
    processes: Annotated[
        int,
        option(
            "--processes",
            help="Number of processes that share each batch, with one device each (torchrun sets its own number).",
            min=1,
            max=MAX_THREADS,
        ),
    ] = 1,
) -> None:
    """Train a network. glama-export reads its checkpoints.

    Ctrl-C ends the training after the current step, and saves a checkpoint (exit code 130).
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
    # one of several processes shows the progress; torchrun sets RANK, and the processes of --processes have LOCAL_RANK
    is_first = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"
    progress = Progress(*columns, console=console, disable=not is_first)
    task = progress.add_task("", total=asked.optimization.steps)

    def show(step: int, scalars: dict[str, float]) -> None:
        progress.start()
        progress.update(task, completed=step, description=f"loss {scalars['total']:.3f}, L1 {scalars['l1']:.4f}")

    try:
        last = train(asked, out, resume=resume, weights=weights, device=device, processes=processes, on_step=show)
    finally:
        progress.stop()
    if is_first:
        console.print(str(last), soft_wrap=True)


main = Command("glama-train", glama_train)
