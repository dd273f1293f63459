"""Choose the encoder of a filled video, and its settings.

The output has the pixel format of the source, because a conversion would change known pixels. An encoder that does not
take the format, or a container that does not take the codec, is refused. Only numbered pictures, which are RGB or gray,
are converted (:mod:`glama_deploy.video.conversion`), because few players show a video in RGB.
"""

from __future__ import annotations

import difflib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.video.clip import Clip
from glama_deploy.video.conversion import EXACT_FORMATS, PLAYED_FORMATS, choose_colours, drops_alpha, is_exact
from glama_deploy.video.options import CONTAINERS
from glama_deploy.video.package import describe_error, import_av

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

log = logging.getLogger("glama_deploy")

#: The unit of the quantizer of MPEG's older codecs (FF_QP2LAMBDA).
_QUANTIZER_UNIT = 118

#: The value of `quality` that asks for an exact copy of the filled frames.
LOSSLESS_QUALITY = 100


@dataclass(frozen=True)
class _Encoder:
    """An encoder whose settings are known.

    Attributes:
        name: FFmpeg's name of the encoder.
        option: the option of constant quality; None for the quantizer of MPEG's older codecs.
        worst: the worst value of the option.
        usual: the value without `quality`.
        lossless: the options of an exact copy; None if the encoder cannot.
        options: further options.
        is_fixed_rate: whether the encoder takes a fixed frame rate only.
        is_full_range: whether the encoder takes YUV in full range only.
        unread: formats that the encoder takes, and that decoders give back as another one.
    """

    name: str
    option: str | None = None
    worst: int = 0
    usual: int = 0
    lossless: dict[str, str] | None = None
    options: dict[str, str] = field(default_factory=dict)
    is_fixed_rate: bool = False
    is_full_range: bool = False
    unread: tuple[str, ...] = ()


#: The option with further options of x265.
_X265_PARAMETERS = "x265-params"

#: Keeps x265 from printing its settings.
_X265_QUIET = "log-level=none"

#: The encoders by codec. The first of a codec that is in the build is taken.
_ENCODERS = {
    "h264": (
        _Encoder("libx264", "crf", 51, 18, {"qp": "0"}, unread=("gray", "gray10le")),
        _Encoder("libx264rgb", "crf", 51, 18, {"qp": "0"}),
    ),
    "hevc": (
        _Encoder(
            "libx265", "crf", 51, 20, {_X265_PARAMETERS: f"{_X265_QUIET}:lossless=1"}, {_X265_PARAMETERS: _X265_QUIET}
        ),
    ),
    "av1": (_Encoder("libsvtav1", "crf", 63, 24, None, {"preset": "8"}), _Encoder("libaom-av1", "crf", 63, 22)),
    "vp9": (_Encoder("libvpx-vp9", "crf", 63, 24, {"lossless": "1"}, {"row-mt": "1"}),),
    "vp8": (_Encoder("libvpx", "crf", 63, 10),),
    "mpeg4": (_Encoder("mpeg4", None, 31, 3),),
    "mpeg2video": (_Encoder("mpeg2video", None, 31, 3, is_fixed_rate=True),),
    "mpeg1video": (_Encoder("mpeg1video", None, 31, 3, is_fixed_rate=True),),
    "mjpeg": (_Encoder("mjpeg", None, 31, 2, is_full_range=True),),
    "prores": (_Encoder("prores_ks"),),
    "ffv1": (_Encoder("ffv1", lossless={}, options={"level": "3"}),),
    "png": (_Encoder("png", lossless={}),),
    "huffyuv": (_Encoder("huffyuv", lossless={}),),
    "ffvhuff": (_Encoder("ffvhuff", lossless={}),),
    "rawvideo": (_Encoder("rawvideo", lossless={}),),
}

#: Usual names of codecs that FFmpeg calls by others.
_OTHER_NAMES = {
    "h265": ("hevc", "libx265"),
    "h.265": ("hevc", "libx265"),
    "x265": ("libx265", "hevc"),
    "h.264": ("h264", "libx264"),
    "x264": ("libx264", "h264"),
    "avc": ("h264", "libx264"),
}

#: Containers that do not store when a frame is shown, but only the order of the packets.
_WITHOUT_ORDER = ("avi",)

#: The suffixes of containers that hold most codecs.
_WIDE = (".mkv", ".mov")

#: The codec of numbered pictures.
_PICTURES = "png"

#: Codecs that are tried where the source's own cannot be written.
_SUBSTITUTES = ("h264", "vp9", "av1", "mpeg4", "ffv1", "png")


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        options: options of the encoder.
        quantizer: the quantizer of MPEG's older codecs; None for other encoders.
        is_lossless: whether decoded frames equal the encoded ones.
        is_fixed_rate: whether the encoder takes a fixed frame rate only. It then counts frames; their times are those
            that are written beside them.
        keeps_order: whether frames are encoded in the order in which they are shown.
        converted: the pixel format to which filled frames are converted; None if they keep their own.
    """

    encoder: str
    options: dict[str, str]
    quantizer: int | None = None
    is_lossless: bool = False
    is_fixed_rate: bool = False
    keeps_order: bool = False
    converted: str | None = None

    @property
    def container(self) -> str:
        """The container of segments. NUT holds nearly all codecs."""
        return "nut" if _holds("nut", self.encoder) else "mov"

    def name_format(self, clip: Clip) -> str:
        """Return the pixel format of the encoded frames.

        Args:
            clip: the source.

        Returns:
            FFmpeg's name of the format.
        """
        return self.converted or clip.format.name

    def time_base(self, clip: Clip) -> Fraction:
        """Return the time base of the encoder.

        Args:
            clip: the source.

        Returns:
            Seconds of a tick.
        """
        return 1 / clip.rate if self.is_fixed_rate else clip.time_base

    def add_stream(self, container: OutputContainer, clip: Clip) -> VideoStream:
        """Add the stream to a container, with the size, times and colours of a clip.

        Args:
            container: the container, open for writing.
            clip: the clip.

        Returns:
            The stream, which encodes frames.
        """
        options = dict(self.options)
        if _X265_PARAMETERS in options:
            options[_X265_PARAMETERS] = ":".join([options[_X265_PARAMETERS], *clip.hdr.x265_options])
        stream = cast("VideoStream", container.add_stream(self.encoder, rate=clip.rate, options=options))
        context = stream.codec_context
        stream.height, stream.width = clip.size
        stream.pix_fmt = self.name_format(clip)
        stream.time_base = context.time_base = self.time_base(clip)
        if self.keeps_order:
            context.max_b_frames = 0
        colours = choose_colours(self.name_format(clip), clip)
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colours
        if clip.aspect is not None:
            context.sample_aspect_ratio = clip.aspect
        if self.quantizer is not None:
            context.qscale, context.global_quality = True, self.quantizer * _QUANTIZER_UNIT
        return stream


def choose_encoding(clip: Clip, out: Path, codec: str | None, quality: int | None) -> Encoding:
    """Choose the encoder.

    Args:
        clip: the source.
        out: the output, whose suffix names the container.
        codec: a codec or an encoder; None for the codec of the source, or another one where it cannot be written.
        quality: 1 to 100, where 100 is lossless; None for a high quality.

    Returns:
        How frames are encoded.

    Raises:
        GlamaError: the codec is unknown, or cannot write the format of the frames into the container.
    """
    keeps_order = CONTAINERS.get(out.suffix.lower()) in _WITHOUT_ORDER
    if codec is not None:
        return replace(_encode(_find_named(clip, out, codec, quality), clip, quality), keeps_order=keeps_order)
    names = [clip.codec, *(name for name in _SUBSTITUTES if name != clip.codec)]
    if clip.sequence is not None:
        names = ["h264", *names]
    for name in names:
        for encoder in _ENCODERS.get(name, ()):
            if _refuse(encoder, clip, out, quality) is None:
                if name != clip.codec and clip.sequence is None:
                    log.warning("the video is encoded as %s: %s cannot be written to %s", name, clip.codec, out.name)
                return replace(_encode(encoder, clip, quality), keeps_order=keeps_order)
    able, wide = ", ".join(_list_able(clip)), next(each for each in _WIDE if each != out.suffix.lower())
    raise GlamaError(
        f"{out}: no usual codec writes {clip.format.name} into {out.suffix}; give another container such as {wide}, or "
        f"a `codec` that takes {clip.format.name}: {able or 'this build has none'}"
    )


def choose_pictures(clip: Clip, out: Path, codec: str | None, quality: int | None) -> Encoding:
    """Choose the encoder of numbered pictures, which are PNG files.

    Args:
        clip: the source.
        out: the pattern of the pictures.
        codec: None, or png.
        quality: None, or 100.

    Returns:
        How frames are encoded.

    Raises:
        GlamaError: another codec is asked for, or PNG does not hold the format of the frames.
    """
    if codec not in (None, _PICTURES):
        raise GlamaError(f"`codec` is {codec}, and numbered pictures are {_PICTURES}; leave `codec` out")
    (encoder,) = _ENCODERS[_PICTURES]
    if _refuse(encoder, clip, out, quality) is not None:
        raise GlamaError(
            f"{out}: {_PICTURES} does not hold {clip.format.name}, the pixel format of {clip.path}; give a video as "
            "`out`, or split the video into pictures first, for example with ffmpeg"
        )
    return choose_encoding(clip, out, _PICTURES, quality)


def _find_named(clip: Clip, out: Path, codec: str, quality: int | None) -> _Encoder:
    """Return the encoder of a name."""
    av = import_av()
    known = [*_ENCODERS.get(codec, ()), *(each for group in _ENCODERS.values() for each in group if each.name == codec)]
    candidates = known or [_Encoder(codec)]
    reasons = []
    for encoder in candidates:
        try:
            found = av.Codec(encoder.name, "w")
        except ValueError:
            continue
        if found.type != "video":
            continue
        reason = _refuse(encoder, clip, out, quality)
        if reason is None:
            return encoder
        reasons.append(reason)
    if reasons:
        raise GlamaError(reasons[0])
    names = sorted({*_ENCODERS, *_list_video_encoders()})
    near = _OTHER_NAMES.get(codec.lower()) or difflib.get_close_matches(codec, names, 5, 0.4) or list(_ENCODERS)[:5]
    raise GlamaError(f"`codec` is {codec!r}, which this build of FFmpeg does not encode; near are {', '.join(near)}")


def _refuse(encoder: _Encoder, clip: Clip, out: Path, quality: int | None) -> str | None:
    """Return why an encoder cannot write the clip's frames to the output; None if it can."""
    try:
        codec = import_av().Codec(encoder.name, "w")
    except ValueError:
        return f"this build of FFmpeg does not have the encoder {encoder.name}"
    if _choose_format(encoder, clip, quality) is None:
        name, formats = clip.format.name, _list_formats(encoder.name)
        able = ", ".join(_list_able(clip))
        return (
            f"`codec` {encoder.name} does not take {name}, the pixel format of {clip.path}, in which known pixels stay "
            f"as they are; it takes {', '.join(formats[:6])}. Give a `codec` that takes {name}: "
            f"{able or 'none is here'}"
        )
    if out.suffix.lower() in CONTAINERS and not _holds(CONTAINERS[out.suffix.lower()], encoder.name):
        able = ", ".join(suffix for suffix, name in CONTAINERS.items() if _holds(name, encoder.name))
        return f"{out.suffix} does not hold {codec.canonical_name}; give `out` a suffix of {able}, or another `codec`"
    return None


def _choose_format(encoder: _Encoder, clip: Clip, quality: int | None) -> str | None:
    """Return the pixel format in which an encoder gets the frames; None if it takes none of them."""
    own = clip.format.name
    formats = _list_formats(encoder.name)
    wanted = [own]
    if clip.sequence is not None and clip.format.kind != "yuv":
        exact = [own, *(name for name in EXACT_FORMATS if is_exact(clip.format, name))]
        keeps = encoder.lossless is not None and (not encoder.worst or quality == LOSSLESS_QUALITY)
        is_even = not any(side % 2 for side in clip.size)
        played = [
            name
            for name in PLAYED_FORMATS
            if (is_even or "444" in name) and (name.startswith("yuvj") or not encoder.is_full_range)
        ]
        wanted = exact if keeps else [*played, *exact]
    return next((name for name in wanted if (not formats or name in formats) and name not in encoder.unread), None)


def _list_formats(encoder: str) -> list[str]:
    """Return the pixel formats that an encoder of this build takes; empty if it takes all."""
    return [each.name for each in import_av().Codec(encoder, "w").video_formats or ()]


def _holds(container: str, encoder: str) -> bool:
    """Return whether a container holds what an encoder writes."""
    av = import_av()
    with av.open(io.BytesIO(), "w", format=container) as trial:
        try:
            trial.add_stream(encoder)
        except ValueError:
            return False
    return True


def _list_able(clip: Clip) -> list[str]:
    """Return the usual encoders that take the clip's pixel format."""
    av = import_av()
    able = []
    for encoder in (each for group in _ENCODERS.values() for each in group):
        try:
            formats = av.Codec(encoder.name, "w").video_formats
        except ValueError:
            continue
        if formats is None or clip.format.name in [each.name for each in formats]:
            able.append(encoder.name)
    return able


def _list_video_encoders() -> Iterator[str]:
    """Return the names of the encoders of this build."""
    av = import_av()
    for name in av.codecs_available:
        try:
            if av.Codec(name, "w").type == "video":
                yield name
        except ValueError:
            continue


def _encode(encoder: _Encoder, clip: Clip, quality: int | None) -> Encoding:
    """Return the encoding of an encoder for a clip."""
    format = _choose_format(encoder, clip, quality)
    return replace(_set_quality(encoder, quality), converted=None if format == clip.format.name else format)


def _set_quality(encoder: _Encoder, quality: int | None) -> Encoding:
    """Return the encoding of an encoder in a quality."""
    if quality is not None and not 1 <= quality <= LOSSLESS_QUALITY:
        raise GlamaError(f"`quality` is {quality}; 1 to {LOSSLESS_QUALITY} is expected")
    options = dict(encoder.options)
    if not encoder.worst:
        is_lossless = encoder.lossless is not None
        if quality is not None and not (is_lossless and quality == LOSSLESS_QUALITY):
            kind = "is lossless" if is_lossless else "has no `quality` here"
            raise GlamaError(f"{encoder.name} {kind}; leave `quality` out")
        return Encoding(encoder.name, options, is_lossless=is_lossless)
    if quality == LOSSLESS_QUALITY:
        if encoder.lossless is None:
            raise GlamaError(f"{encoder.name} has no lossless mode; give `quality` below 100, or `codec` ffv1")
        return Encoding(encoder.name, {**options, **encoder.lossless}, is_lossless=True)
    value = encoder.usual if quality is None else max(1, round(encoder.worst * (1 - quality / LOSSLESS_QUALITY)))
    if encoder.option is None:
        return Encoding(encoder.name, options, quantizer=max(1, value), is_fixed_rate=encoder.is_fixed_rate)
    return Encoding(encoder.name, {**options, encoder.option: str(value)})


def check_encoding(encoding: Encoding, clip: Clip) -> None:
    """Open the encoder once, so that an encoder that cannot be opened is told before the work begins.

    Args:
        encoding: how frames are encoded.
        clip: the source.

    Raises:
        ImageError: the encoder cannot be opened with these frames.
    """
    av = import_av()
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 prints its settings otherwise
    if encoding.converted is not None and drops_alpha(clip, encoding.converted):
        log.warning("the transparency of %s is left out: %s does not hold it", clip.path, encoding.encoder)
    if clip.hdr and _X265_PARAMETERS not in encoding.options:
        log.warning("the brightness of the mastering display is left out: only libx265 writes it here")
    try:
        with av.open(io.BytesIO(), "w", format=encoding.container) as trial:
            encoding.add_stream(trial, clip)
            trial.start_encoding()
    except (av.FFmpegError, ValueError) as error:
        size = f"{clip.size[1]}x{clip.size[0]}"
        raise ImageError(
            f"the encoder {encoding.encoder} cannot be opened for {size} {encoding.name_format(clip)} "
            f"({describe_error(error)}); give another `codec`"
        ) from error
