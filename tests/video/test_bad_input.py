"""What is refused, in one line and before anything is written, and what is told of damaged videos."""

from __future__ import annotations

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes.clips import make_clip, read_planes, read_times
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.video.run import describe_damage
from glama_deploy.video.segments import WorkFolder

av = pytest.importorskip("av", reason="PyAV (the extra 'video') is not installed")


def refuse(fill, match: str, image: Path, mask: Path | None, out: Path, **settings) -> None:
    """Check that a clip is refused, and that nothing is written."""
    with pytest.raises(GlamaError, match=match) as refusal:
        fill(image, mask, out, **settings)
    assert "\n" not in str(refusal.value)
    assert not out.exists()
    assert not WorkFolder(out).path.exists()


def test_what_is_not_a_video_is_refused(tmp_path, mask_file, fill):
    text = tmp_path / "text.mp4"
    text.write_text("no video", encoding="utf-8")
    refuse(fill, r"cannot be read as a video: .*; check the file", text, mask_file, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refuse(fill, "has no video stream, only audio", tmp_path / "sound.mp4", mask_file, tmp_path / "out.mp4")
    refuse(fill, "no video at .*none.mp4; check the path", tmp_path / "none.mp4", mask_file, tmp_path / "out.mp4")
    source = make_clip(tmp_path / "in.mp4", 2)
    refuse(fill, "no mask at .*none.png; check the path", source, tmp_path / "none.png", tmp_path / "out.mp4")


def test_a_mask_without_missing_pixels_is_refused(tmp_path, fill):
    source, mask = make_clip(tmp_path / "in.mp4", 2), tmp_path / "black.png"
    Image.new("L", (96, 64)).save(mask)
    refuse(fill, "black.png: no pixel is marked as missing, so no frame changes", source, mask, tmp_path / "out.mp4")


def test_masks_of_another_size_or_number_are_refused(tmp_path, mask_file, fill):
    source, out = make_clip(tmp_path / "in.mp4", 6), tmp_path / "out.mp4"
    small = make_clip(tmp_path / "small.mp4", 6, size=(48, 96))
    refuse(fill, r"small.mp4 is 96x48, and the frames are 96x64", source, small, out)
    short = make_clip(tmp_path / "short.mp4", 5)
    refuse(fill, r"short.mp4 has 5 masks, and .*in.mp4 has 6 frames", source, short, out)
    folder = tmp_path / "masks"
    folder.mkdir()
    refuse(fill, "has no masks", source, folder, out)
    for number in range(7):
        shutil.copy(mask_file, folder / f"{number}.png")
    refuse(fill, "masks has 7 masks, and .*in.mp4 has 6 frames", source, folder, out)
    Image.new("L", (90, 20)).save(tmp_path / "flat.png")
    refuse(fill, "flat.png is 20x90, and the frames are 64x96", source, tmp_path / "flat.png", out)


def test_frames_of_avi_are_counted_and_not_the_ticks_of_its_header(tmp_path, fill):
    source, masks = make_clip(tmp_path / "in.avi", 6, codec="mpeg4"), make_clip(tmp_path / "masks.mp4", 6)
    assert av.open(str(source)).streams.video[0].frames > 6  # ticks, of which some have no frame
    assert fill(source, masks, tmp_path / "out.avi").frames == 6


def test_a_codec_that_the_build_lacks_names_near_ones(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 2)
    refuse(fill, r"`codec` is 'libx26', .* near are .*libx264", source, mask_file, tmp_path / "a.mp4", codec="libx26")
    refuse(
        fill,
        r"\.webm does not hold h264; give `out` a suffix of \.mp4",
        source,
        mask_file,
        tmp_path / "a.webm",
        codec="h264",
    )
    refuse(fill, "`codec` is 'h265', .* near are hevc, libx265", source, mask_file, tmp_path / "a.mp4", codec="h265")
    rgb = make_clip(tmp_path / "rgb.mov", 2, codec="png", format="rgb24")
    with pytest.raises(GlamaError, match=r"\.mkv does not hold png; give `out` a suffix of") as refusal:
        fill(rgb, mask_file, tmp_path / "a.mkv", codec="png")
    assert ".avi" in str(refusal.value)
    assert ".mkv" not in str(refusal.value).split("suffix of")[1]
    deep = make_clip(tmp_path / "deep.mkv", 2, codec="ffv1", format="yuv420p10le")
    refuse(
        fill,
        r"`codec` mpeg4 does not take yuv420p10le.* it takes yuv420p\. Give .*libx264",
        deep,
        mask_file,
        tmp_path / "a.mkv",
        codec="mpeg4",
    )
    refuse(
        fill, "ffv1 is lossless; leave `quality` out", source, mask_file, tmp_path / "a.mkv", codec="ffv1", quality=50
    )
    refuse(fill, "`quality` is 101; 1 to 100", source, mask_file, tmp_path / "a.mp4", quality=101)
    refuse(fill, r"has the suffix .txt; a video is written as \.", source, mask_file, tmp_path / "a.txt")


def test_sound_that_the_container_does_not_take_is_refused(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mkv", 3, sound="aac")
    refuse(fill, r"\.webm does not take the sound of .* \(aac\)", source, mask_file, tmp_path / "out.webm", codec="vp9")


def test_an_interlaced_video_is_refused(tmp_path, mask_file, fill):
    options = {"x264-params": "tff=1"}
    source = make_clip(tmp_path / "in.mp4", 2, options=options, flags=av.codec.context.Flags.interlaced_dct)
    refuse(fill, "is interlaced: .* deinterlace the video first", source, mask_file, tmp_path / "out.mp4")


def test_an_output_that_exists_stays(tmp_path, mask_file, fill):
    source, out = make_clip(tmp_path / "in.mp4", 2), tmp_path / "out.mp4"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(GlamaError, match=r"out.mp4 exists already; choose another file or pass `overwrite=True`"):
        fill(source, mask_file, out)
    assert out.read_text(encoding="utf-8") == "mine"
    with pytest.raises(GlamaError, match="is the video itself"):
        fill(source, mask_file, source, overwrite=True)
    masks = make_clip(tmp_path / "masks.mp4", 2)
    with pytest.raises(GlamaError, match="is the mask itself"):
        fill(source, masks, masks, overwrite=True)


def test_numbered_pictures_do_not_replace_their_inputs(tmp_path, hole, mask_file, fill):
    for number in range(2):
        Image.new("RGB", (96, 64), (50, 60, 70)).save(tmp_path / f"f_{number:03}.png")
        Image.fromarray(hole).convert("RGB").save(tmp_path / f"m_{number:03}.png")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    frames, masks = tmp_path / "f_%03d.png", tmp_path / "m_%03d.png"
    for mask, out in ((mask_file, frames), (masks, masks)):
        with pytest.raises(GlamaError, match=r"would replace .*[fm]_000.png, which is an input; give another folder"):
            fill(frames, mask, out, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pictures_that_png_does_not_hold_are_refused(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 2)
    refuse(
        fill,
        r"png does not hold yuv420p, .* split the video into pictures first",
        source,
        mask_file,
        tmp_path / "o_%d.png",
    )


def test_a_missing_folder_is_told_before_the_work(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 2)
    refuse(fill, "its folder does not exist; create the folder first", source, mask_file, tmp_path / "no" / "out.mp4")


def test_frames_that_change_their_size_end_the_run_and_keep_what_is_before(tmp_path, mask_file, fill):
    first, second = make_clip(tmp_path / "1.ts", 6), make_clip(tmp_path / "2.ts", 6, size=(48, 64))
    source, out = tmp_path / "in.ts", tmp_path / "out.mp4"
    source.write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(
        ImageError, match=r"at 0:00:0\d\.\d+ the frames change from 96x64 to 64x48; cut the video there"
    ):
        fill(source, mask_file, out)
    assert not out.exists()
    assert len(read_times(WorkFolder(out).playable(".mp4"))) == 6


def test_a_run_that_fails_is_a_line_of_json(tmp_path, mask_file, capsys):
    first, second = make_clip(tmp_path / "1.ts", 3), make_clip(tmp_path / "2.ts", 3, size=(48, 64))
    source, out = tmp_path / "in.ts", tmp_path / "out.mp4"
    source.write_bytes(first.read_bytes() + second.read_bytes())
    assert glama_inpaint.run([str(source), str(mask_file), str(out), "--threads", "1", "--json"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    fields = json.loads(line)
    assert fields["state"] == "failed"
    assert "the frames change from 96x64 to 64x48" in fields["error"]


def damage(path: Path, out: Path, number: int) -> Path:
    """Copy a clip, with the data of one frame destroyed."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for place, packet in enumerate(source.demux(video=0)):
            if not packet.size:
                continue
            if place == number:
                data = bytearray(bytes(packet))
                data[12:] = np.random.default_rng(0).integers(0, 256, len(data) - 12, np.uint8).tobytes()
                copy = av.Packet(bytes(data))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                packet = copy
            packet.stream = stream
            target.mux(packet)
    return out


def test_a_damaged_frame_is_told_with_its_time_and_the_rest_is_filled(tmp_path, mask_file, capsys):
    whole = make_clip(tmp_path / "whole.mp4", 12, options={"bf": "0", "g": "4"})
    source, out = damage(whole, tmp_path / "in.mp4", 5), tmp_path / "out.mp4"
    with pytest.raises(SystemExit) as end:
        glama_inpaint([str(source), str(mask_file), str(out), "--threads", "1"])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert "in.mp4 is damaged at 0:00:00.200" in said
    assert read_times(out)[-1] == Fraction(11, 25)
    # the frames before the damage are those of the whole clip
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(read_planes(source)[:5], read_planes(whole)[:5], strict=True))


def test_many_damaged_places_are_listed_shortly():
    said = describe_damage(Path("a.mp4"), [float(second) for second in range(3598, 3608)])
    assert said.startswith("a.mp4 is damaged at 0:59:58.000, 0:59:59.000, 1:00:00.000, ")
    assert "and 5 more; the output has" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--watch"], "--image is a video, which does not support --watch"),
        (["--format", "png", "--frame", "1"], "does not support --format and --frame"),
        (["--backup-folder", "kept"], "does not support --backup-folder"),
        (["--temporal-frames", "5"], "--temporal-frames is given without --temporal"),
        (["--compile-sizes", "sometimes"], "--compile-sizes is 'sometimes'; expected auto, always, never"),
        (["--color", "red"], "--color and --annotations are for pictures"),
    ],
)
def test_options_of_pictures_are_refused_for_a_video(options, said, tmp_path, mask_file, capsys):
    source = make_clip(tmp_path / "in.mp4", 2)
    with pytest.raises(SystemExit) as end:
        glama_inpaint([str(source), str(mask_file), str(tmp_path / "out.mp4"), *options])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_a_forgotten_output_is_told(tmp_path, mask_file, capsys):
    source = make_clip(tmp_path / "in.mp4", 2)
    assert glama_inpaint.run([str(source), str(mask_file)]) == 2
    assert capsys.readouterr().err.splitlines() == ["glama-inpaint: no output is given; give --out"]


def test_options_of_videos_are_refused_for_a_picture(tmp_path, mask_file, capsys):
    with pytest.raises(SystemExit) as end:
        glama_inpaint([str(mask_file), str(mask_file), str(tmp_path / "out.png"), "--temporal"])
    assert end.value.code == 2
    assert "are for videos; leave them out" in capsys.readouterr().err


def test_more_frames_than_the_memory_holds_are_refused(tmp_path, mask_file, fill, monkeypatch):
    source = make_clip(tmp_path / "in.mp4", 2)
    monkeypatch.setattr("glama_deploy.memory.available", lambda: 2_000_000)
    refuse(
        fill, "`temporal_frames` is 30, which takes 0.0 GB for 96x64", source, mask_file, tmp_path / "a.mp4", reach=30
    )


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "ffv1"), (".avi", "ffv1"), (".avi", "mpeg4")])
def test_a_file_that_was_cut_off_is_told(tmp_path, mask_file, fill, suffix, codec):
    whole = make_clip(tmp_path / f"whole{suffix}", 24, codec=codec)
    assert not fill(whole, mask_file, tmp_path / "whole-out.mkv").damaged
    source, data = tmp_path / f"in{suffix}", whole.read_bytes().split(b"idx1")[0]  # without AVI's index at the end
    source.write_bytes(data[: len(data) * 7 // 10])
    outcome = fill(source, mask_file, tmp_path / "out.mkv")
    assert outcome.frames < 20
    # the frame that was cut may be told, too; AVI does not say how long a frame is
    assert outcome.damaged[-1] == pytest.approx(outcome.frames / 25, abs=1 / 25)


def test_an_mp4_that_was_cut_off_between_its_frames_is_told(tmp_path, mask_file, fill):
    whole = tmp_path / "whole.mp4"
    with (
        av.open(str(make_clip(tmp_path / "plain.mp4", 24))) as plain,
        av.open(str(whole), "w", options={"movflags": "faststart"}) as output,  # with the index before the frames
    ):
        stream = output.add_stream_from_template(plain.streams.video[0])
        for packet in plain.demux(plain.streams.video[0]):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    assert not fill(whole, mask_file, tmp_path / "whole-out.mkv").damaged
    with av.open(str(whole)) as container:
        entry = list(container.streams.video[0].index_entries)[15]
    source = tmp_path / "in.mp4"
    source.write_bytes(whole.read_bytes()[: entry.pos + entry.size])
    outcome = fill(source, mask_file, tmp_path / "out.mkv")
    assert outcome.frames < 20
    assert outcome.damaged


def test_masks_behind_a_frame_that_the_decoder_lost_are_refused(tmp_path, mask_file, fill):
    whole, masks = make_clip(tmp_path / "whole.mp4", 6, codec="mjpeg", format="yuvj420p"), tmp_path / "masks"
    masks.mkdir()
    for number in range(6):
        shutil.copy(mask_file, masks / f"{number}.png")
    with av.open(str(whole)) as container:
        entry = list(container.streams.video[0].index_entries)[2]
    data = bytearray(whole.read_bytes())
    data[entry.pos : entry.pos + entry.size] = bytes(entry.size)
    source = tmp_path / "in.mp4"
    source.write_bytes(data)
    assert fill(source, mask_file, tmp_path / "one.mkv").frames == 5
    with pytest.raises(ImageError, match=r"in.mp4 is damaged at 0:00:00\.\d+ and gives 5 frames, so the masks behind"):
        fill(source, masks, tmp_path / "out.mkv")


def test_numbered_pictures_keep_their_numbers_behind_a_damaged_one(tmp_path, mask_file, fill):
    frames, masks = tmp_path / "frames", tmp_path / "masks"
    for folder in (frames, masks):
        folder.mkdir()
    for number in range(3, 9):
        Image.fromarray(np.full((64, 96, 3), 20 * number, np.uint8)).save(frames / f"{number:03}.png")
        mask = np.zeros((64, 96), np.uint8)
        mask[10:20, 8 * number : 8 * number + 8] = 255
        Image.fromarray(mask).save(masks / f"{number:03}.png")
    (frames / "005.png").write_bytes((frames / "005.png").read_bytes()[:60])
    outcome = fill(frames / "%03d.png", masks, tmp_path / "out" / "%03d.png")
    assert outcome.damaged == [2 / 25]
    numbers = (3, 4, 6, 7, 8)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{number:03}.png" for number in numbers]
    for number in numbers:
        filled = np.asarray(Image.open(tmp_path / "out" / f"{number:03}.png"))
        known = np.asarray(Image.open(masks / f"{number:03}.png")) == 0
        assert (filled[known] == 20 * number).all()
        assert (filled[~known] != 20 * number).any()
