"""A video file: what its header and its first frame say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glama_deploy.errors import ImageError
from glama_deploy.inpainting.inpainter import check_sides
from glama_deploy.io.decoding import readable
from glama_deploy.video.hdr import NO_HDR, Hdr
from glama_deploy.video.orientation import Orientation
from glama_deploy.video.package import describe_error, import_av
from glama_deploy.video.planes import PixelFormat
from glama_deploy.video.sequences import Sequence, find_sequence, is_pattern, name_picture

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: The rate of a numbered sequence of pictures, and of a video that does not state one.
USUAL_RATE = Fraction(25)


@dataclass(frozen=True)
class Clip:
    """A video.

    Attributes:
        path: the file, or the pattern of a numbered sequence.
        size: height and width of the frames as they are stored.
        format: the pixel format.
        time_base: seconds of a tick of the timestamps.
        rate: frames a second, on average.
        count: number of frames; 0 if the file does not say.
        codec: FFmpeg's name of the codec.
        colours: numbers of the colour space, range, primaries and transfer characteristics.
        aspect: width of a pixel divided by its height; None for square pixels.
        orientation: how frames are turned when they are shown.
        has_other_streams: whether the file has sound, subtitles or other streams.
        sequence: the numbered pictures, if the path is a pattern.
        hdr: metadata of high dynamic range.
        tag: the four letters by which the container names the codec.
        end: seconds at which the video ends as its header says, which Matroska and AVI write; None if unknown.
    """

    path: Path
    size: tuple[int, int]
    format: PixelFormat
    time_base: Fraction
    rate: Fraction
    count: int
    codec: str
    colours: tuple[int, int, int, int]
    aspect: Fraction | None
    orientation: Orientation
    has_other_streams: bool
    sequence: Sequence | None = None
    hdr: Hdr = NO_HDR
    tag: str = ""
    end: float | None = None

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width of the frames as they are shown."""
        return self.orientation.turn_size(self.size)

    @property
    def files(self) -> list[Path]:
        """The file, or the pictures of a numbered sequence."""
        if self.sequence is None:
            return [self.path]
        return [name_picture(self.path, number) for number in self.sequence.numbers]

    def find_place(self, pts: int) -> int:
        """Return the place of a picture in a numbered sequence, of which one is shown in each period of the rate.

        Args:
            pts: the time at which the picture is shown, in ticks of the time base.

        Returns:
            The place, from 0.
        """
        return round(pts * self.time_base * self.rate)


@contextmanager
def open_input(path: Path) -> Iterator[InputContainer]:
    """Open a video, or a numbered sequence of pictures, for reading.

    Args:
        path: the file or the pattern.

    Yields:
        The container.

    Raises:
        ImageError: the file cannot be read, or is not a video.
    """
    av = import_av()
    options: dict[str, str] = {}
    format = None
    if is_pattern(path):
        format, options = "image2", {"start_number": str(find_sequence(path).first), "framerate": str(USUAL_RATE)}
    else:
        if not path.exists():
            raise ImageError(f"no video at {path}; check the path")
        with readable(path):
            pass
    try:
        container = av.open(str(path), "r", format=format, options=options, metadata_errors="replace")
    except av.FFmpegError as error:
        raise ImageError(f"{path} cannot be read as a video: {describe_error(error)}; check the file") from error
    with container:
        yield container


def find_stream(container: InputContainer, path: Path) -> VideoStream:
    """Find the stream that is filled: the first video stream that is not a cover picture.

    Args:
        container: the open video.
        path: the file, for the message.

    Returns:
        The stream.

    Raises:
        ImageError: the file does not have one.
    """
    av = import_av()
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    kinds = sorted({stream.type for stream in container.streams})
    found = f"only {' and '.join(kinds)}" if kinds else "no stream at all"
    raise ImageError(f"{path} has no video stream, {found}; give a file with a video")


def read_clip(path: Path) -> Clip:
    """Read the header and the first frame of a video, and check that it can be filled.

    Args:
        path: the file, or the pattern of a numbered sequence.

    Returns:
        The clip.

    Raises:
        ImageError: the file cannot be read, has no video stream or no frame, or is of a kind that is not supported.
    """
    av = import_av()
    with open_input(path) as container:
        stream = find_stream(container, path)
        if stream.codec_context is None:
            raise ImageError(f"{path}: this build of FFmpeg does not have the codec of the video; convert it first")
        try:
            frame = next(iter(container.decode(stream)), None)
        except av.FFmpegError as error:
            raise ImageError(f"{path}: the first frame is damaged ({describe_error(error)}); cut it off") from error
        if frame is None:
            raise ImageError(f"{path} has no frame that can be decoded; check the file")
        others = [each for each in container.streams if each.index != stream.index]
        clip = _describe(path, stream, frame, has_other_streams=bool(others))
        if clip.sequence is not None or clip.count:
            return clip
    return _with_count(clip)


def _describe(path: Path, stream: VideoStream, frame: VideoFrame, *, has_other_streams: bool) -> Clip:
    """Return the clip of a stream and its first frame."""
    sequence = find_sequence(path) if is_pattern(path) else None
    try:
        check_sides(frame.height, frame.width)
        format = PixelFormat.read(frame.format)
        format.check_space(frame.colorspace)
        orientation = Orientation.read(frame)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    if frame.interlaced_frame:
        raise ImageError(
            f"{path} is interlaced: each frame has lines of two times, which are not filled as one picture; "
            "deinterlace the video first, for example with ffmpeg -vf bwdif"
        )
    aspect = stream.sample_aspect_ratio
    return Clip(
        path,
        (frame.height, frame.width),
        format,
        stream.time_base or 1 / USUAL_RATE,
        stream.average_rate or stream.guessed_rate or USUAL_RATE,
        len(sequence.numbers) if sequence is not None else 0 if _counts_ticks(stream) else stream.frames,
        stream.codec_context.codec.canonical_name,
        (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc),
        Fraction(aspect) if aspect and aspect != 1 else None,
        orientation,
        has_other_streams,
        sequence,
        Hdr.read(frame),
        stream.codec_context.codec_tag,
        _read_end(stream),
    )


def _counts_ticks(stream: VideoStream) -> bool:
    """Return whether the header counts ticks in place of frames. AVI does, where a tick may have no frame."""
    return stream.container.format.name == "avi"


def _read_end(stream: VideoStream) -> float | None:
    """Return the seconds at which a stream ends as its header says; None if the header does not say so.

    Matroska has a tag such as 00:01:02.500000000. AVI has a number of ticks. MP4's duration is left aside: a player may
    leave out frames at its ends.
    """
    if _counts_ticks(stream) and stream.frames and stream.time_base:
        return float(((stream.start_time or 0) + stream.frames) * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else None


def _with_count(clip: Clip) -> Clip:
    """Return a clip with the number of frames, counted by their packets."""
    from dataclasses import replace

    av = import_av()
    count = 0
    with open_input(clip.path) as container:
        try:
            for packet in container.demux(find_stream(container, clip.path)):
                count += packet.size > 0
        except av.FFmpegError:  # the reading of the frames tells the place
            count = 0
    return replace(clip, count=count)


def check_same_kind(clip: Clip, frame: VideoFrame, time: str) -> None:
    """Check that a frame has the size and the format of the first one.

    Args:
        clip: the clip.
        frame: the frame.
        time: the frame's time, for the message.

    Raises:
        ImageError: the frame is another kind.
    """
    size = frame.height, frame.width
    if size != clip.size:
        raise ImageError(
            f"{clip.path}: at {time} the frames change from {clip.size[1]}x{clip.size[0]} to {size[1]}x{size[0]}; "
            "cut the video there, or scale it to one size first"
        )
    if frame.format.name != clip.format.name:
        raise ImageError(
            f"{clip.path}: at {time} the pixel format changes from {clip.format.name} to {frame.format.name}; convert "
            "the video to one format first"
        )
    if frame.colorspace != clip.colours[0] or frame.color_range != clip.colours[1]:
        raise ImageError(
            f"{clip.path}: at {time} the colour space or range changes; convert the video to one colour space first"
        )
    if frame.interlaced_frame:
        raise ImageError(f"{clip.path}: at {time} the frames become interlaced; deinterlace the video first")


def turn_mask(mask: np.ndarray, clip: Clip) -> np.ndarray:
    """Turn a mask of the shown frames into the orientation of the stored frames.

    Args:
        mask: bool H×W as frames are shown.
        clip: the clip.

    Returns:
        bool H×W as frames are stored.
    """
    return clip.orientation.store(mask)
