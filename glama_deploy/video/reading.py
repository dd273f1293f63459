"""Read the frames of a video, one after the other, and note which of them are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from glama_deploy.errors import ImageError
from glama_deploy.video.clip import Clip, check_same_kind, find_stream, open_input
from glama_deploy.video.package import import_av, show_time

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer


#: Frames that may be missing at the end before a file counts as cut off: players round durations.
_MISSING_FRAMES = 3


@dataclass(frozen=True)
class Decoded:
    """A frame.

    Attributes:
        number: the frame's number, from 0.
        frame: the frame.
        pts: the time at which the frame is shown, in ticks of the clip's time base.
    """

    number: int
    frame: VideoFrame
    pts: int


class FrameReader:
    """Reads the frames of a clip in the order in which they are shown.

    Attributes:
        damaged: times in seconds at which the file is damaged, so far.
        last_duration: duration of the last frame in ticks; None if the file does not say.

    Args:
        clip: the clip.
    """

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self.damaged: list[float] = []
        self.last_duration: int | None = None
        self._lacks_samples = False

    def __iter__(self) -> Iterator[Decoded]:
        """Read all frames from the start.

        Yields:
            The frames. Their times grow strictly.

        Raises:
            ImageError: a frame is of another kind than the first.
        """
        clip = self._clip
        step = max(1, round(1 / (clip.rate * clip.time_base)))
        before: int | None = None
        gap = step
        for number, frame in enumerate(self._decode()):
            pts = frame.pts
            if pts is None or (before is not None and pts <= before):
                pts = 0 if before is None else before + (step if frame.pts is None else 1)
            time = float(pts * clip.time_base)
            check_same_kind(clip, frame, show_time(time))
            if frame.is_corrupt:
                self._note(time)
            gap = step if before is None else max(step, pts - before)
            if clip.sequence is not None:
                self._note_lost(0 if before is None else clip.find_place(before) + 1, clip.find_place(pts))
            before, self.last_duration = pts, frame.duration or None
            yield Decoded(number, frame, pts)
        if before is None:
            raise ImageError(f"{clip.path} has no frame that can be decoded; check the file")
        end = float((before + (self.last_duration or step)) * clip.time_base)
        missing = _MISSING_FRAMES * float(gap * clip.time_base)
        if self._lacks_samples or (clip.end is not None and clip.end - end > missing):  # the file was cut off
            self._note(end)
        if clip.sequence is not None:
            self._note_lost(clip.find_place(before) + 1, clip.count)

    def _decode(self) -> Iterator[VideoFrame]:
        """Decode all packets. A packet that cannot be decoded is noted, and left out."""
        av = import_av()
        with open_input(self._clip.path) as container:
            stream = find_stream(container, self._clip.path)
            stream.thread_type = "AUTO"
            self._lacks_samples = _lacks_samples(container, stream)
            packets = container.demux(stream)
            time = 0.0
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError:
                    self._note(time)
                    break
                if packet is None:
                    break
                ticks = packet.pts if packet.pts is not None else packet.dts
                if ticks is not None:
                    time = float(Fraction(ticks) * packet.time_base)
                if packet.is_corrupt:
                    self._note(time)
                try:
                    frames = packet.decode()
                except av.EOFError:
                    break
                except av.FFmpegError:
                    if self._clip.sequence is None:  # else the gap tells the place: the error is that of an earlier one
                        self._note(time)
                    continue
                yield from frames

    def _note_lost(self, start: int, stop: int) -> None:
        """Note the pictures of a sequence that the decoder did not give."""
        for place in range(start, stop):
            self._note(float(place / self._clip.rate))

    def _note(self, time: float) -> None:
        """Note a time at which the file is damaged."""
        if time not in self.damaged:
            self.damaged.append(time)


def _lacks_samples(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether an MP4 file ends before a frame that its index has."""
    if "mp4" not in container.format.name:
        return False
    return any(entry.pos + entry.size > container.size for entry in stream.index_entries)
