"""glama-frames: fill raw video frames from standard input, and write them to standard output."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, cast

import glama_deploy
from glama_deploy.cli.entry import Command, argument, option
from glama_deploy.cli.options.completion import list_models
from glama_deploy.cli.options.engine import DeviceName, EngineName, PrecisionName, ThreadCount
from glama_deploy.cli.options.engine_code import AllowEngineCode
from glama_deploy.cli.output.console import Console
from glama_deploy.inpainting import folder
from glama_deploy.inpainting.frames import fill_frames
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.inpainting.mask_edits import MaskEdits
from glama_deploy.io.pipes import check_no_address, open_standard_input, open_standard_output


def glama_frames(
    width: Annotated[int, argument(help="Width of the frames in pixels.", metavar="WIDTH")],
    height: Annotated[int, argument(help="Height of the frames in pixels.", metavar="HEIGHT")],
    mask: Annotated[Path, option("--mask", help="Mask of all frames (white = missing).")],
    model: Annotated[
        str, option("--model", list_values=list_models, help="Network, as glama-inpaint takes it.")
    ] = "default",
    backend: EngineName = "auto",
    precision: PrecisionName = "auto",
    threads: ThreadCount = None,
    region: Annotated[str, option("--region", help="What the network sees: full, crop or auto.")] = "auto",
    grow: Annotated[int, option("--grow", help="Pixels by which holes grow.")] = 0,
    feather: Annotated[
        int, option("--feather", help="Pixels of the rim over which result and frame are blended, at most --grow.")
    ] = 0,
    device: DeviceName = None,
    allow_engine_code: AllowEngineCode = False,
) -> None:
    """Fill the missing pixels of each frame: raw RGB frames in, raw RGB frames out.

    Frames are those of ffmpeg -f rawvideo -pix_fmt rgb24. Each frame is filled by itself. Messages go to standard
    error.
    """
    check_region(region)
    check_no_address(mask, "mask")
    source, target = (
        open_stream("raw frames are bytes") for open_stream in (open_standard_input, open_standard_output)
    )
    masks = folder.Masks(edits=MaskEdits(grow, feather=feather))
    missing = folder.read_frame_mask(mask, (height, width), masks)
    streams = folder.count_streams_of_size(height * width, threads)
    inpainter = glama_deploy.load(model, backend, precision, threads, None, streams, allow_engine_code, device)
    console = Console(stderr=True)
    console.print(inpainter.description, style="dim")
    fill = masks.edits.blend(partial(inpainter, region=cast(Region, region)))
    count = fill_frames(fill, source, target, missing, at_once=inpainter.streams)
    console.print(f"{count} {'frame' if count == 1 else 'frames'} filled")


main = Command("glama-frames", glama_frames)
