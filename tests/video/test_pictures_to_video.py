"""Numbered pictures become a video: converted to YUV for lossy codecs, exact in lossless ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes.clips import make_clip
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.boxes import Span
from glama_deploy.video.planes import PixelFormat

av = pytest.importorskip("av", reason="PyAV (the extra 'video') is not installed")

SIZE = (64, 96)

#: All of a frame.
WHOLE = Span(0, 0, *SIZE)


def draw(number: int, size: tuple[int, int]) -> np.ndarray:
    """Return a picture (uint8 H×W×3) without edges, which codecs would blur."""
    across, down = np.meshgrid(np.linspace(20, 220, size[1]), np.linspace(200, 40, size[0]))
    return np.stack((across, down, np.full(size, 60 + 10 * number)), axis=2).astype(np.uint8)


def draw_pictures(folder: Path, size: tuple[int, int] = SIZE, mode: str = "RGB", count: int = 3) -> Path:
    """Write numbered pictures, and return their pattern."""
    for number in range(count):
        Image.fromarray(draw(number, size)).convert(mode).save(folder / f"f_{number:03}.png")
    return folder / "f_%03d.png"


def read_rgb(path: Path) -> tuple[str, list[np.ndarray]]:
    """Return the pixel format of a video, and its frames as FFmpeg's own converter shows them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return frames[0].format.name, [frame.to_ndarray(format="rgb24").astype(int) for frame in frames]


@pytest.mark.parametrize(
    ("suffix", "settings", "format"),
    [
        (".mp4", {}, "yuv420p"),
        (".mkv", {}, "yuv420p"),
        (".mov", {"codec": "h264"}, "yuv420p"),
        (".webm", {}, "yuv420p"),
        (".avi", {}, "yuv420p"),
        (".mkv", {"codec": "mjpeg"}, "yuvj420p"),
        (".mov", {"codec": "prores"}, "yuv422p10le"),
        (".mp4", {"codec": "hevc"}, "yuv420p"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_converted_for_codecs_that_lose(suffix, settings, format, mode, tmp_path, hole, mask_file, fill):
    pattern, out = draw_pictures(tmp_path, mode=mode), tmp_path / f"out{suffix}"
    assert fill(pattern, mask_file, out, **settings).frames == 3
    with av.open(str(out)) as container:
        decoded = list(container.decode(video=0))
    found, frames = decoded[0].format.name, [PixelFormat.read(each.format).show(each, WHOLE) for each in decoded]
    assert found.replace("yuvj", "yuv") == format.replace("yuvj", "yuv")
    for number, frame in enumerate(frames):
        with Image.open(tmp_path / f"f_{number:03}.png") as picture:
            expected = np.asarray(picture.convert("RGB")).astype(float)
        values = frame if frame.dtype == np.uint8 else frame / 257
        error = np.abs(values - expected)[~hole].mean()
        assert error < 3  # rounded chroma and the codec; another matrix or range differs more


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        (".mkv", {"codec": "libx264rgb", "quality": 100}),
        (".mp4", {"quality": 100}),
        (".mkv", {"codec": "ffv1"}),
        (".avi", {"codec": "huffyuv"}),
        (".mov", {"codec": "png"}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_exact_in_lossless_codecs(suffix, settings, mode, tmp_path, hole, mask_file, fill):
    pattern, out = draw_pictures(tmp_path, mode=mode), tmp_path / f"out{suffix}"
    if mode == "L" and settings.get("codec") in ("libx264rgb", "huffyuv"):
        with pytest.raises(GlamaError, match="does not take gray"):
            fill(pattern, mask_file, out, **settings)
        return
    fill(pattern, mask_file, out, **settings)
    for number, frame in enumerate(read_rgb(out)[1]):
        with Image.open(tmp_path / f"f_{number:03}.png") as picture:
            np.testing.assert_array_equal(frame[~hole], np.asarray(picture.convert("RGB"))[~hole])


def test_pictures_of_16_bits_are_exact_in_ffv1(tmp_path, hole, mask_file, fill):
    values = draw(0, SIZE).astype(np.uint16) * 257 + np.uint16(3)
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt, context.time_base = SIZE[1], SIZE[0], "rgb48be", Fraction(1, 25)
    (packet,) = context.encode(av.VideoFrame.from_ndarray(values, "rgb48le").reformat(format="rgb48be"))
    (tmp_path / "f_0.png").write_bytes(bytes(packet))
    fill(tmp_path / "f_%d.png", mask_file, tmp_path / "out.mkv", codec="ffv1")
    with av.open(str(tmp_path / "out.mkv")) as container:
        (frame,) = container.decode(video=0)
    np.testing.assert_array_equal(PixelFormat.read(frame.format).show(frame, WHOLE)[~hole], values[~hole])


@pytest.mark.parametrize(("codec", "format"), [("ffv1", "gray"), ("ffv1", "gray10le"), ("png", "gray")])
@pytest.mark.parametrize("settings", [{}, {"codec": "hevc"}])
def test_gray_videos_keep_their_format_or_are_refused(codec, format, settings, tmp_path, mask_file, fill):
    source, out = make_clip(tmp_path / "in.avi", 2, codec=codec, format=format), tmp_path / "out.mkv"
    fill(source, mask_file, out, **settings)
    assert read_rgb(out)[0] == format
    with pytest.raises(GlamaError, match=f"libx264 does not take {format}"):  # players would read it as YUV
        fill(source, mask_file, tmp_path / "h264.mkv", codec="h264")


def test_pictures_with_an_odd_side_have_a_format_that_holds_it(tmp_path, fill):
    mask = Image.new("L", (95, 63))
    mask.paste(255, (10, 10, 30, 30))
    mask.save(tmp_path / "mask.png")
    fill(draw_pictures(tmp_path, (63, 95)), tmp_path / "mask.png", tmp_path / "out.mp4")
    assert read_rgb(tmp_path / "out.mp4")[0] == "yuv444p"


def test_transparency_that_a_video_does_not_hold_is_told(tmp_path, mask_file, fill, caplog):
    fill(draw_pictures(tmp_path, mode="RGBA"), mask_file, tmp_path / "out.mp4")
    assert "the transparency of" in caplog.text
    assert "libx264 does not hold it" in caplog.text
