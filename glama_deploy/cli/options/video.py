"""The options of glama-inpaint for videos."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError
from glama_deploy.video.options import USUAL_FRAMES, USUAL_REACH, VideoOptions

#: An option that stands under its own heading in the help.
video_option = partial(option, rich_help_panel="Videos")


@dataclass(frozen=True)
class VideoRunOptions:
    """The options of a video, as the command line has them."""

    codec: Annotated[
        str | None,
        video_option(
            "--codec",
            help="Codec or encoder, such as h264, ffv1 or libx265. (Without: the video's own, or h264.) --quality is 1 "
            "to 100, where 100 is lossless.",
        ),
    ] = None
    temporal: Annotated[
        bool,
        video_option(
            "--temporal",
            help="Take what other frames show behind the mask, where the camera stands still or pans. The network "
            "fills the rest.",
        ),
    ] = False
    temporal_frames: Annotated[
        int | None,
        video_option(
            "--temporal-frames",
            help=f"With --temporal: frames before and behind. (Without: {USUAL_REACH}.)",
            min=1,
            max=1000,
        ),
    ] = None
    segment_frames: Annotated[
        int,
        video_option("--segment-frames", help="Frames that a killed run repeats at most.", min=1, max=100_000),
    ] = USUAL_FRAMES

    def check_unused(self) -> None:
        """Check that no option of videos is given for a picture.

        Raises:
            GlamaError: an option is given.
        """
        if self != VideoRunOptions():
            raise GlamaError(
                "`codec`, `temporal`, `temporal_frames` and `segment_frames` are for videos; leave them out, or give a "
                "video as `image`"
            )

    def read(self, quality: int | None) -> VideoOptions:
        """Return the options for the library.

        Args:
            quality: the option `--quality`.

        Returns:
            The options.

        Raises:
            GlamaError: an option is given without the one that it belongs to.
        """
        if self.temporal_frames is not None and not self.temporal:
            raise GlamaError("`temporal_frames` is given without `temporal`; give both, or leave it out")
        reach = (self.temporal_frames or USUAL_REACH) if self.temporal else 0
        return VideoOptions(self.codec, quality, reach, self.segment_frames)
