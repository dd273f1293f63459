"""What a user gives: paths that name videos, and options.

glama-inpaint imports this module for pictures, too, so the module imports nothing that takes time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glama_deploy.video.sequences import is_pattern

#: The suffixes of videos that are written, and FFmpeg's names of their containers.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "avi",
    ".ts": "mpegts",
    ".m2ts": "mpegts",
    ".mts": "mpegts",
    ".mpg": "mpeg",
    ".mpeg": "mpeg",
    ".flv": "flv",
    ".3gp": "3gp",
    ".nut": "nut",
}

#: The suffixes of videos that are only read.
READ_SUFFIXES = frozenset((".ogv", ".wmv", ".asf", ".mxf", ".vob", ".y4m", ".m2v", ".divx"))

#: Frames of a segment, unless the caller says another number: what a killed run repeats at most. x264 puts a key frame
#: at least as often, so segments hardly make the file larger.
USUAL_FRAMES = 250

#: Frames before and behind a frame that are looked at, unless the caller says another number.
USUAL_REACH = 30


@dataclass(frozen=True)
class VideoOptions:
    """How a video is filled and encoded.

    Attributes:
        codec: a codec or an encoder; None for the source's codec where it can be written.
        quality: 1 to 100, where 100 is lossless; None for a high quality.
        reach: frames before and behind a frame of which is taken what they show behind the mask; 0 for none.
        segment_frames: frames of a segment, which are repeated at most after a kill.
    """

    codec: str | None = None
    quality: int | None = None
    reach: int = 0
    segment_frames: int = USUAL_FRAMES


def is_video(path: Path) -> bool:
    """Return whether a path names a video, or a numbered sequence of pictures.

    Args:
        path: the path.

    Returns:
        True for the suffix of a video, and for a pattern such as frame_%05d.png.
    """
    suffix = path.suffix.lower()
    return ((suffix in CONTAINERS or suffix in READ_SUFFIXES) and not path.is_dir()) or is_pattern(path)
