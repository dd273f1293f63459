"""Join segments to one video, with the sound, the subtitles and the metadata of the source."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.io.files import atomic_file
from glama_deploy.video.clip import Clip, find_stream, open_input
from glama_deploy.video.options import CONTAINERS
from glama_deploy.video.package import describe_error, import_av
from glama_deploy.video.segments import Segment
from glama_deploy.video.sequences import name_picture

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.format import VideoFormat

log = logging.getLogger("glama_deploy")

#: The tag of HEVC in MP4 that players of Apple ask for.
_APPLE_HEVC = "hvc1"

#: Tags of streams that a muxer writes by itself.
_OWN_TAGS = ("encoder", "duration", "handler_name", "vendor_id", "number_of_", "_statistics", "bps")


def check_streams(clip: Clip, out: Path) -> list[int]:
    """Find the streams of the source that are copied to an output.

    A subtitle or data stream that the container does not take is left out, with a note. Sound is not left out.

    Args:
        clip: the source.
        out: the output.

    Returns:
        The numbers of the streams.

    Raises:
        ImageError: the container does not take a stream of sound.
    """
    if not clip.has_other_streams:
        return []
    import io

    av = import_av()
    kept: list[int] = []
    with open_input(clip.path) as source:
        own = find_stream(source, clip.path).index
        for stream in source.streams:
            if stream.index == own:
                continue
            if stream.type not in ("audio", "subtitle"):
                log.warning("stream %d of %s (%s) is left out", stream.index, clip.path.name, stream.type)
                continue
            try:
                with av.open(io.BytesIO(), "w", format=CONTAINERS[out.suffix.lower()]) as trial:
                    _copy_stream(trial, stream)
                    trial.start_encoding()
            except (ValueError, av.FFmpegError) as error:
                name = stream.codec_context.name if stream.codec_context is not None else "unknown"
                if stream.type == "audio":
                    raise ImageError(
                        f"{out.suffix} does not take the sound of {clip.path} ({name}), which is copied; give `out` "
                        "another container such as .mkv"
                    ) from error
                log.warning(
                    "the subtitles in stream %d (%s) are left out: %s does not take them; .mkv does",
                    stream.index,
                    name,
                    out.suffix,
                )
                continue
            kept.append(stream.index)
    return kept


def _copy_stream(target: OutputContainer, stream: Stream) -> Stream:
    """Add a stream like another one to a container."""
    copy = target.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(_keep_tags(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def _keep_tags(tags: dict[str, str]) -> dict[str, str]:
    """Return the tags that describe the stream, and not how it was written."""
    return {name: value for name, value in tags.items() if not name.lower().startswith(_OWN_TAGS)}


def join_segments(
    segments: Sequence[Segment],
    clip: Clip,
    out: Path,
    copied: Sequence[int],
    format: str,
    *,
    last_duration: int | None = None,
    is_cut: bool = False,
) -> None:
    """Write the output from its segments. The output is whole or not there.

    Args:
        segments: all segments in order, at least one frame.
        clip: the source.
        out: the output.
        copied: numbers of the source's streams that are copied.
        format: the pixel format of the encoded frames.
        last_duration: duration of the last frame in ticks; None for that of a usual frame.
        is_cut: whether segments are missing at the end. Other streams then end with the last frame.

    Raises:
        GlamaError: the output cannot be written, or a segment is damaged.
    """
    av = import_av()
    if out.suffix.lower() not in CONTAINERS:
        _write_pictures(segments, clip, out)
        return
    try:
        with (
            atomic_file(out) as temporary,
            av.open(str(temporary), "w", format=CONTAINERS[out.suffix.lower()], options=_list_options(out)) as target,
        ):
            # AVI counts frames: a finer time base would be as many frames
            time_base = 1 / clip.rate if CONTAINERS[out.suffix.lower()] == "avi" else clip.time_base
            _join(segments, clip, target, copied, time_base, last_duration, is_cut=is_cut)
            target.close()
            _check_first_frame(temporary, clip, format)
    except (av.FFmpegError, ValueError) as error:
        raise GlamaError(
            f"{out} cannot be written ({describe_error(error)}); the segments are kept: give `out` another container"
        ) from error


def _check_first_frame(path: Path, clip: Clip, format: str) -> None:
    """Check that a video which was written can be read, because containers know some codecs by their tags alone."""
    av = import_av()
    with av.open(str(path)) as written:
        frame = next(iter(written.decode(video=0)), None)
    if frame is None or (frame.height, frame.width) != clip.size or not _is_same(frame.format, format):
        raise ValueError("its frames cannot be read back in this container")


def _is_same(found: VideoFormat, format: str) -> bool:
    """Return whether a format is the encoded one. Decoders may give RGB in another order of the channels."""
    expected = import_av().VideoFormat(format)
    if not (found.is_rgb and expected.is_rgb):
        return found.name.replace("yuvj", "yuv") == format.replace("yuvj", "yuv")
    sorts = [
        (max(each.bits for each in one.components), any(each.is_alpha for each in one.components))
        for one in (found, expected)
    ]
    return sorts[0] == sorts[1]


def _list_options(out: Path) -> dict[str, str]:
    """Return the options of a container."""
    return {"movflags": "+faststart"} if CONTAINERS[out.suffix.lower()] in ("mp4", "mov") else {}


def _join(
    segments: Sequence[Segment],
    clip: Clip,
    target: OutputContainer,
    copied: Sequence[int],
    time_base: Fraction,
    last_duration: int | None,
    *,
    is_cut: bool,
) -> None:
    """Write all packets into an open container."""
    av = import_av()
    with av.open(str(segments[0].path)) as first, open_input(clip.path) as source:
        video = target.add_stream_from_template(first.streams.video[0], opaque=True)
        video.time_base = time_base
        if first.streams.video[0].codec_context.name == "rawvideo":  # whose tag is its pixel format
            video.codec_context.codec_tag = first.streams.video[0].codec_context.codec_tag
        if clip.tag == _APPLE_HEVC and clip.codec == first.streams.video[0].codec_context.codec.canonical_name:
            video.codec_context.codec_tag = _APPLE_HEVC
        if clip.orientation.matrix is not None:
            video.set_display_matrix(clip.orientation.matrix)
        original = find_stream(source, clip.path)
        video.metadata.update(_keep_tags(original.metadata))
        video.disposition = original.disposition
        others = {number: _copy_stream(target, source.streams[number]) for number in copied}
        if clip.sequence is None:
            target.metadata.update(_keep_tags(source.metadata))
            if chapters := source.chapters():
                target.set_chapters(chapters)
        end = float(segments[-1].times[-1] * clip.time_base) if is_cut else None
        parts = (_read_video(segments, clip, video, last_duration), _read_others(source, others, end))
        for _, packet in heapq.merge(*parts, key=lambda part: part[0]):
            target.mux_one(packet)


def _read_video(
    segments: Sequence[Segment], clip: Clip, video: Stream, last_duration: int | None
) -> Iterator[tuple[float, Packet]]:
    """Read the packets of all segments, with the times of their frames.

    A packet's decoding time is the time of the frame that is as many frames before as the encoder reorders.

    Yields:
        The decoding time in seconds, and the packet.
    """
    shown = [time for segment in segments for time in segment.times]
    order = _find_order(segments)
    delay = max(place - rank for place, rank in enumerate(order))
    usual = max(1, round(1 / (clip.rate * clip.time_base)))
    gap = max(1, min(shown[1] - shown[0] if len(shown) > 1 else usual, usual))
    last = last_duration or usual
    place = 0
    for segment in segments:
        for packet in _read_packets(segment):
            rank = order[place]
            decoded = shown[place - delay] if place >= delay else shown[0] - (delay - place) * gap
            packet.time_base = clip.time_base
            packet.pts, packet.dts = shown[rank], decoded
            packet.duration = (shown[rank + 1] if rank + 1 < len(shown) else shown[rank] + last) - shown[rank]
            packet.stream = video
            place += 1
            yield float(decoded * clip.time_base), packet


def _find_order(segments: Sequence[Segment]) -> list[int]:
    """Return the number of the frame of each packet, in the order of the packets."""
    order: list[int] = []
    headers: set[bytes] = set()
    av = import_av()
    for segment in segments:
        with av.open(str(segment.path)) as container:
            headers.add(bytes(container.streams.video[0].codec_context.extradata or b""))
        packets = list(_read_packets(segment))
        times = [packet.pts for packet in packets if packet.pts is not None]
        if not len(times) == len(packets) == len(segment.times):
            raise GlamaError(
                f"{segment.path} is damaged: it has {len(packets)} frames, {len(segment.times)} are expected; remove "
                "the file and run again"
            )
        ranks = {time: rank for rank, time in enumerate(sorted(times))}
        start = len(order)
        order += [start + ranks[time] for time in times]
    if len(headers) > 1:
        raise GlamaError(
            f"the segments in {segments[0].path.parent} have different headers, and cannot be joined; remove the "
            "folder, and give another `codec`"
        )
    return order


def _read_packets(segment: Segment) -> Iterator[Packet]:
    """Read the packets of a segment."""
    with import_av().open(str(segment.path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                yield packet


def _read_others(
    source: InputContainer, streams: dict[int, Stream], end: float | None
) -> Iterator[tuple[float, Packet]]:
    """Read the packets of the streams that are copied.

    Yields:
        The decoding time in seconds, and the packet.
    """
    if not streams:
        return
    before = float("-inf")
    for packet in source.demux([source.streams[number] for number in streams]):
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:  # the mark of the end
            continue
        time = float(Fraction(ticks) * packet.time_base)
        if end is not None and time > end:
            continue
        packet.stream = streams[packet.stream_index]
        before = max(before, time)
        yield before, packet


def _write_pictures(segments: Sequence[Segment], clip: Clip, out: Path) -> None:
    """Write each frame as a file of a numbered sequence. The packets of such a codec are files.

    A frame of a numbered sequence keeps its number, also behind one that is damaged.
    """
    before = 0
    for segment in segments:
        for packet, time in zip(_read_packets(segment), segment.times, strict=True):
            number = before + 1 if clip.sequence is None else clip.sequence.first + clip.find_place(time)
            with atomic_file(name_picture(out, number)) as temporary:
                temporary.write_bytes(bytes(packet))
            before = number


def list_pictures(out: Path, clip: Clip, count: int) -> Iterable[Path]:
    """Return the paths of the pictures of a numbered sequence.

    Args:
        out: the pattern.
        clip: the source.
        count: number of pictures.

    Returns:
        The paths.
    """
    first = clip.sequence.first if clip.sequence is not None else 1
    return (name_picture(out, number) for number in range(first, first + count))
