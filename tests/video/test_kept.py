"""What of a video stays as it was: samples, times, colours, turn, sound, subtitles, metadata."""

from __future__ import annotations

import json
import shutil
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from fakes.clips import make_clip, read_packets, read_planes, read_times
from glama_deploy.video.planes import PixelFormat

av = pytest.importorskip("av", reason="PyAV (the extra 'video') is not installed")


def block_mask(hole: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The samples of a plane whose block of pixels has a missing one, by an independent formula."""
    high, wide = (-(-whole // part) for whole, part in zip(hole.shape, shape, strict=True))
    rows, columns = np.nonzero(hole)
    mask = np.zeros(shape, bool)
    mask[rows // high, columns // wide] = True
    return mask


@pytest.mark.parametrize(
    ("format", "codec", "suffix"),
    [
        ("yuv420p", "ffv1", ".mkv"),
        ("yuv422p", "ffv1", ".mkv"),
        ("yuv444p", "ffv1", ".avi"),
        ("yuv420p10le", "ffv1", ".mkv"),
        ("gbrp10le", "ffv1", ".mkv"),
        ("yuv420p", "rawvideo", ".nut"),
        ("yuv422p", "rawvideo", ".avi"),
        ("rgb24", "png", ".mov"),
    ],
)
def test_known_samples_are_exact_in_a_lossless_codec(format, codec, suffix, tmp_path, hole, mask_file, fill):
    source = make_clip(tmp_path / f"in{suffix}", 4, codec=codec, format=format)
    out = tmp_path / f"out{suffix}"
    fill(source, mask_file, out, codec=codec)
    before, after = read_planes(source), read_planes(out)
    assert len(before) == len(after) == 4
    for planes, filled in zip(before, after, strict=True):
        for place, (old, new) in enumerate(zip(planes, filled, strict=True)):
            shape = (old.shape[0], -1, 3) if format == "rgb24" else old.shape
            changed = hole if place == 0 or format == "gbrp10le" else block_mask(hole, old.shape)
            np.testing.assert_array_equal(new.reshape(shape)[~changed], old.reshape(shape)[~changed])
            assert len(np.unique(new.reshape(shape)[changed])) == 1  # of the gray that the inpainter paints


def test_known_samples_are_exact_in_lossless_h264(tmp_path, hole, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 4)
    out = tmp_path / "out.mp4"
    fill(source, mask_file, out, quality=100)
    for planes, filled in zip(read_planes(source), read_planes(out), strict=True):
        np.testing.assert_array_equal(filled[0][~hole], planes[0][~hole])
        assert not np.array_equal(filled[0][hole], planes[0][hole])


@pytest.mark.parametrize(("suffix", "base"), [(".mkv", Fraction(1, 1000)), (".mp4", Fraction(1, 90_000))])
def test_times_of_a_variable_frame_rate_are_kept(suffix, base, tmp_path, mask_file, fill):
    times = [0, 40, 100, 120, 200, 233, 300, 340, 400, 410, 500, 520]
    ticks = [int(Fraction(time, 1000) / base) for time in times]
    source = make_clip(tmp_path / f"in{suffix}", times=ticks, time_base=base)
    out = tmp_path / f"out{suffix}"
    fill(source, mask_file, out, segment_frames=5)  # B frames end at the segments' edges
    assert read_times(out) == read_times(source) == [Fraction(time, 1000) for time in times]


def test_colours_aspect_and_metadata_are_kept(tmp_path, mask_file, fill):
    colours = {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1}
    source = make_clip(tmp_path / "in.mp4", 3, **colours, sample_aspect_ratio=Fraction(4, 3))
    out = tmp_path / "out.mp4"
    fill(source, mask_file, out)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert [getattr(context, name) for name in colours] == [*colours.values()]
        assert stream.sample_aspect_ratio == Fraction(4, 3)
        assert stream.average_rate == 25
        assert context.name == "h264"


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_clip_stays_turned_and_its_mask_is_upright(degrees, tmp_path, hole, fill):
    source = make_clip(tmp_path / "in.mp4", 2, rotation=degrees)
    upright = hole if degrees == 180 else np.rot90(hole)
    mask = tmp_path / "mask.png"
    shown = np.zeros_like(upright)
    shown[5:20, 8:31] = True
    Image.fromarray(shown).save(mask)
    out = tmp_path / "out.mp4"
    fill(source, mask, out, quality=100)
    with av.open(str(source)) as before, av.open(str(out)) as after:
        first, filled = next(before.decode(video=0)), next(after.decode(video=0))
        assert filled.rotation == first.rotation != 0
        changed = filled.to_ndarray(format="gray") != first.to_ndarray(format="gray")
    # FFmpeg's rotation is the counterclockwise turn from the stored to the shown frame
    turned = np.rot90(changed, first.rotation // 90)
    rows, columns = np.nonzero(turned)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 19, 8, 30)


def test_sound_and_subtitles_are_copied_byte_for_byte(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mkv", sound="aac", subtitles=True)
    out = tmp_path / "out.mkv"
    fill(source, mask_file, out, segment_frames=4)
    for kind in ("audio", "subtitle"):
        assert read_packets(out, kind) == read_packets(source, kind)
        assert read_packets(out, kind)


def test_sound_of_mp4_keeps_its_times(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", sound="aac")
    out = tmp_path / "out.mp4"
    fill(source, mask_file, out)
    assert read_packets(out, "audio") == read_packets(source, "audio")


def test_subtitles_that_the_container_does_not_take_are_told(tmp_path, mask_file, fill, caplog):
    source = make_clip(tmp_path / "in.mkv", 3, subtitles=True)
    fill(source, mask_file, tmp_path / "out.mp4")
    assert "(srt) are left out: .mp4 does not take them; .mkv does" in caplog.text
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.subtitles


def test_frames_of_10_bits_stay_at_10_bits(tmp_path, hole, mask_file, fill):
    source = make_clip(tmp_path / "in.mkv", 3, codec="ffv1", format="yuv420p10le")
    out = tmp_path / "out.mkv"
    seen = []

    def note(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen.append((images.dtype, int((images % 257 != 0).sum())))
        return images

    fill(source, mask_file, out, fill_frames=note)
    assert all(dtype == np.uint16 and odd for dtype, odd in seen)
    for planes, filled in zip(read_planes(source), read_planes(out), strict=True):
        # an inpainter that changes nothing gives every luma sample back; chroma, too, as a block's mean is its value
        for old, new in zip(planes, filled, strict=True):
            # chroma of a saturated colour is clipped in RGB: 2 of 1023
            assert np.abs(old.astype(int) - new).max() <= 2


@pytest.mark.parametrize("space", [1, 5, 6, 7, 9])
@pytest.mark.parametrize("color_range", [1, 2])
def test_rgb_follows_the_matrix_of_the_colour_space(space, color_range):
    red_weight, blue_weight = {1: (0.2126, 0.0722), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}.get(space, (0.299, 0.114))
    from glama_deploy.inpainting.boxes import Span

    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace, frame.color_range = space, color_range
    for plane, value in zip(frame.planes, (120, 100, 150), strict=True):
        np.frombuffer(plane, np.uint8)[:] = value
    shown = PixelFormat.read(frame.format).show(frame, Span(0, 0, 16, 16))
    black, luma_steps, chroma_steps = (16, 219, 224) if color_range == 1 else (0, 255, 255)
    luma, blue, red = (120 - black) / luma_steps, (100 - 128) / chroma_steps, (150 - 128) / chroma_steps
    # ITU-R BT.709, 3.3: E'CB = (E'B - E'Y) / (2 - 2 KB), solved for E'B
    expected_red, expected_blue = luma + 2 * (1 - red_weight) * red, luma + 2 * (1 - blue_weight) * blue
    green = (luma - red_weight * expected_red - blue_weight * expected_blue) / (1 - red_weight - blue_weight)
    assert np.abs(shown - 255 * np.array([expected_red, green, expected_blue])).max() <= 0.5001  # rounding


@pytest.mark.parametrize("format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p12le", "gray", "gbrp10le"])
def test_what_the_network_does_not_change_comes_back_as_it_was(format):
    from glama_deploy.inpainting.boxes import Span

    rng = np.random.default_rng(0)
    frame = av.VideoFrame(30, 22, format)
    frame.colorspace, frame.color_range = (0 if format.startswith("gb") else 1), 1
    found = PixelFormat.read(frame.format)
    views = found._view_planes(frame)
    for place, view in enumerate(views):
        scale = 1 << (found.bits - 8)
        # colours that lie in RGB's range
        view[:] = (
            rng.integers(100 * scale, 140 * scale, view.shape)
            if place
            else rng.integers(90 * scale, 150 * scale, view.shape)
        )
    before = [view.copy() for view in views]
    span = Span(0, 0, 22, 30)
    found.write(frame, span, found.show(frame, span), np.ones((22, 30), bool))
    for old, new in zip(before, views, strict=True):
        # 8 bits of RGB round a sample by half a step, and chroma has up to 1.13 steps in one of blue
        assert np.abs(old.astype(int) - new).max() <= (1 if found.bits == 8 else 0)


def test_ffprobe_reads_the_same_of_the_output(tmp_path, mask_file, fill):
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    source = make_clip(tmp_path / "in.mp4", rotation=90, sound="aac", colorspace=1, color_range=1)
    out = tmp_path / "out.mp4"
    Image.fromarray(np.rot90(np.asarray(Image.open(mask_file)))).save(mask_file)
    fill(source, mask_file, out)
    found = []
    for path in (source, out):
        command = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-show_frames", "-of", "json", str(path)]
        printed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        streams = [
            {name: stream.get(name) for name in ("codec_name", "pix_fmt", "color_space", "color_range", "time_base")}
            for stream in printed["streams"]
        ]
        times = sorted((frame["media_type"], frame["pts_time"]) for frame in printed["frames"])
        turns = [stream.get("side_data_list") for stream in printed["streams"]]
        found.append((streams, times, turns))
    assert found[0] == found[1]


def test_metadata_of_hdr_and_the_tag_for_apple_are_kept(tmp_path, mask_file, fill):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    options = {"x265-params": f"log-level=none:master-display={display}:max-cll=1000,400"}
    colours = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    source = make_clip(
        tmp_path / "in.mp4", 3, codec="libx265", format="yuv420p10le", options=options, codec_tag="hvc1", **colours
    )
    out = tmp_path / "out.mp4"
    fill(source, mask_file, out)
    found = []
    for path in (source, out):
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            data = next(container.decode(video=0)).side_data
            hdr = [bytes(data.get(name)) for name in ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")]
            found.append(
                (hdr, context.codec_tag, context.name, context.pix_fmt, [getattr(context, name) for name in colours])
            )
    assert found[0] == found[1]
    assert found[1][1] == "hvc1"


@pytest.mark.parametrize(
    ("codec", "format", "suffix"),
    [("mpeg2video", "yuv420p", ".mkv"), ("prores", "yuv422p10le", ".mov"), ("vp9", "yuv420p", ".webm")],
)
def test_other_codecs_keep_the_times_and_the_known_pixels_nearly(
    codec, format, suffix, tmp_path, hole, mask_file, fill
):
    source, out = make_clip(tmp_path / "in.mkv", 8, codec="ffv1", format=format), tmp_path / f"out{suffix}"
    fill(source, mask_file, out, codec=codec, segment_frames=3)
    assert read_times(out) == read_times(source)
    with av.open(str(out)) as container:
        assert container.streams.video[0].codec_context.name == codec
    most = 1 << (10 if "10" in format else 8)
    for planes, filled in zip(read_planes(source), read_planes(out), strict=True):
        error = np.abs(planes[0].astype(int) - filled[0])[~hole].mean() / most
        assert error < 0.02  # lossy codecs at their usual quality; another frame differs by 0.1


def test_a_video_of_another_container_keeps_its_codec_where_it_can(tmp_path, mask_file, fill, caplog):
    source = make_clip(tmp_path / "in.mkv", 3, codec="libx264")
    fill(source, mask_file, tmp_path / "out.mov")
    assert not caplog.text
    fill(source, mask_file, tmp_path / "out.webm")
    assert "the video is encoded as vp9: h264 cannot be written to out.webm" in caplog.text
