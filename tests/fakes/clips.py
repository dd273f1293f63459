"""Small videos that tests make, and what PyAV reads of a video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

#: Ticks of a second in made clips, and of a frame at 25 frames a second.
SECOND, FRAME = 12_800, 512


def make_clip(
    path: Path,
    count: int = 12,
    size: tuple[int, int] = (64, 96),
    codec: str = "libx264",
    format: str = "yuv420p",
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, SECOND),
    options: dict[str, str] | None = None,
    rotation: float | None = None,
    sound: str | None = None,
    subtitles: bool = False,
    **context: object,
) -> Path:
    """Write a clip whose picture moves to the left."""
    import av

    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = height, width, format
        stream.time_base = stream.codec_context.time_base = time_base
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        audio = container.add_stream(sound, rate=44_100, layout="mono") if sound else None
        text = container.add_mux_stream("subrip") if subtitles else None
        if text is not None:
            text.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(draw(number, size), "rgb24").reformat(format=format)
            for name in ("colorspace", "color_range"):
                if name in context:
                    setattr(frame, name, context[name])
            frame.pts = times[number] if times is not None else number * FRAME
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            for number in range(count * 44_100 // 25 // 1024):
                wave = np.sin(np.arange(1024, dtype=np.float32) * 0.05 + number)[None]
                sample_format = audio.codec_context.format.name
                values = wave if sample_format == "fltp" else (wave * 20_000).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(values, sample_format, "mono")
                frame.sample_rate, frame.pts, frame.time_base = 44_100, number * 1024, Fraction(1, 44_100)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
        if text is not None:
            for number, words in enumerate((b"one", b"two")):
                packet = av.Packet(words)
                packet.stream, packet.time_base = text, Fraction(1, 1000)
                packet.pts = packet.dts = number * 200
                packet.duration = 100
                container.mux_one(packet)
    return path


def draw(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return a frame (uint8 H×W×3) of a clip."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    x = x + 3 * number
    waves = (np.sin(x / 5) * 40 + 128, np.cos(y / 7) * 60 + 120, np.sin((x + y) / 9) * 50 + 110)
    return np.stack(waves, axis=2).astype(np.uint8)


def read_times(path: Path) -> list[Fraction]:
    """Return the times in seconds at which the frames are shown."""
    import av

    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def read_planes(path: Path) -> list[list[np.ndarray]]:
    """Return the samples of each plane of each frame."""
    import av

    with av.open(str(path)) as container:
        return [[read_plane(frame, index) for index in range(len(frame.planes))] for frame in container.decode(video=0)]


def read_plane(frame: object, index: int) -> np.ndarray:
    """Return the samples of a plane: H×W, or H×W×C bytes for a packed format."""
    plane = frame.planes[index]  # type: ignore[attr-defined]
    bits = max(component.bits for component in frame.format.components)  # type: ignore[attr-defined]
    dtype = np.dtype(np.uint8 if bits == 8 else "<u2")
    rows = np.frombuffer(bytes(plane), dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    packed = sum(component.plane == index for component in frame.format.components)  # type: ignore[attr-defined]
    return rows[:, : plane.width * packed].copy()


def read_packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Return the time in seconds and the bytes of each packet of a kind of stream."""
    import av

    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]
