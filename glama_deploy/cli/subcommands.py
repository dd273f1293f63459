"""The subcommands of `glama`, one a line. Each is also the command `glama-NAME` (`[project.scripts]`).

This module imports nothing that takes time: the help and the completion of `glama` read this table, and import the
module of a subcommand only when that subcommand runs.
"""

from __future__ import annotations

from typing import NamedTuple


class Subcommand(NamedTuple):
    """A subcommand.

    Attributes:
        module: the name of its module in `glama_deploy.cli`, whose `main` is the command.
        help: what it does, for the help of `glama`.
        has_script: whether it is also a command of its own, `glama-NAME`.
    """

    module: str
    help: str
    has_script: bool = True


#: By name, in the order of the help.
SUBCOMMANDS = {
    "inpaint": Subcommand("inpaint", "Fill the missing pixels of a picture, or of a folder of pictures."),
    "frames": Subcommand("frames", "Fill raw video frames from standard input."),
    "mask": Subcommand("mask", "Write the mask that options, annotations and mask files mean."),
    "masks": Subcommand("masks", "Draw a sheet of the masks of training and evaluation."),
    "export": Subcommand("export", "Export a checkpoint to a bundle, and measure each engine."),
    "build": Subcommand("build", "Build an engine into a bundle, on the device that runs it."),
    "package": Subcommand("package", "Write a bundle as the repository of Triton or OpenVINO Model Server."),
    "models": Subcommand("models", "List, download, find and remove published models."),
    "serve": Subcommand("serve", "Serve a page and interfaces that fill pictures."),
    "mcp": Subcommand("mcp", "Serve tools that fill pictures to assistants (MCP)."),
    "train": Subcommand("train", "Train a network on your photographs."),
    "eval": Subcommand("eval", "Measure the quality of networks side by side."),
    "bench": Subcommand("bench", "Measure the speed of engines on this machine."),
    "doctor": Subcommand("doctor", "Report what this machine has, and which engines run on it."),
    "demo": Subcommand("demo", "Export the embedded network, and fill the sample photo."),
    "start": Subcommand("serve", "As serve, for those who call `iopaint start`.", has_script=False),
    "run": Subcommand("inpaint", "As inpaint, for programs that call `iopaint run`.", has_script=False),
}
