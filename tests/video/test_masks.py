"""Where missing pixels come from: rectangles, a mask for each frame; numbered pictures; and the command itself."""

from __future__ import annotations

import json
import logging
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from fakes.clips import draw, make_clip, read_planes, read_times
from glama_deploy.cli.inpaint import main as glama_inpaint
from glama_deploy.errors import ImageError
from glama_deploy.inpainting.folder import Masks
from glama_deploy.inpainting.mask_edits import MaskEdits
from glama_deploy.marking.marks import Marks
from glama_deploy.marking.rectangles import Rectangle

av = pytest.importorskip("av", reason="PyAV (the extra 'video') is not installed")

SIZE = (64, 96)


def move_mask(place: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[20:40, 4 * place : 4 * place + 20] = True
    return mask


def list_changed(source, out) -> list[np.ndarray]:
    """The luma samples of each frame that are not those of the source."""
    return [filled[0] != planes[0] for planes, filled in zip(read_planes(source), read_planes(out), strict=True)]


def test_each_frame_has_the_mask_of_its_place_in_a_mask_video(tmp_path, fill):
    source = make_clip(tmp_path / "in.mkv", 8, codec="ffv1")
    masks = tmp_path / "masks.mp4"
    with av.open(str(masks), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for place in range(8):
            values = np.repeat(move_mask(place)[..., None] * np.uint8(255), 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        container.mux(stream.encode())
    out = tmp_path / "out.mkv"
    black = lambda images, mask: np.where(mask[..., None], np.uint8(0), images)  # noqa: E731
    fill(source, masks, out, fill_frames=black)
    for place, changed in enumerate(list_changed(source, out)):
        np.testing.assert_array_equal(changed, move_mask(place))


def test_a_folder_of_masks_is_taken_in_the_order_of_its_numbers(tmp_path, fill):
    source = make_clip(tmp_path / "in.mkv", 11, codec="ffv1")
    folder = tmp_path / "masks"
    folder.mkdir()
    for place in range(11):  # 10 comes after 9, and not after 1
        Image.fromarray(move_mask(place)).save(folder / f"mask{place}.png")
    out = tmp_path / "out.mkv"
    black = lambda images, mask: np.where(mask[..., None], np.uint8(0), images)  # noqa: E731
    fill(source, folder, out, fill_frames=black)
    for place, changed in enumerate(list_changed(source, out)):
        np.testing.assert_array_equal(changed, move_mask(place))


def test_rectangles_grow_like_those_of_pictures(tmp_path, fill):
    source = make_clip(tmp_path / "in.mkv", 2, codec="ffv1")
    masks = Masks(edits=MaskEdits(grow=3), marks=Marks((Rectangle(20, 10, 30, 21),)))
    black = lambda images, mask: np.where(mask[..., None], np.uint8(0), images)  # noqa: E731
    out = tmp_path / "out.mkv"
    fill(source, None, out, masks=masks, fill_frames=black)
    rows, columns = np.nonzero(list_changed(source, out)[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 33, 17, 52)


def test_a_mask_video_that_ends_too_early_is_told_where_numbers_are_not_known(tmp_path, mask_file, fill, monkeypatch):
    from dataclasses import replace

    from glama_deploy.video import missing, run

    source, masks = make_clip(tmp_path / "in.mp4", 6), make_clip(tmp_path / "masks.mp4", 4)
    for module in (missing, run):
        read = module.read_clip
        monkeypatch.setattr(module, "read_clip", lambda path, read=read: replace(read(path), count=0))
    with pytest.raises(ImageError, match=r"have different numbers of frames: one ends after 4"):
        fill(source, masks, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_frames_without_missing_pixels_are_not_shown_to_the_network(tmp_path, fill, caplog):
    source = make_clip(tmp_path / "in.mkv", 3, codec="ffv1")
    (tmp_path / "none").mkdir()
    for number in range(3):
        Image.new("L", (96, 64)).save(tmp_path / "none" / f"{number}.png")
    out = tmp_path / "out.mkv"

    def refuse(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing is missing")

    with caplog.at_level(logging.WARNING):
        fill(source, tmp_path / "none", out, fill_frames=refuse)
    assert "marks no pixel as missing" in caplog.text
    assert not np.any(list_changed(source, out))


@pytest.mark.parametrize("depth", [8, 16])
def test_numbered_pictures_are_read_and_written(depth, tmp_path, hole, mask_file, fill):
    folder, filled = tmp_path / "frames", tmp_path / "filled"
    folder.mkdir()
    filled.mkdir()
    for place in range(7, 11):
        values = draw(place, SIZE)
        if depth == 16:
            stored = av.VideoFrame.from_ndarray(values.astype(np.uint16) * 257 + np.uint16(3), "rgb48le")
            context = av.CodecContext.create("png", "w")
            context.width, context.height, context.pix_fmt = SIZE[1], SIZE[0], "rgb48be"
            context.time_base = Fraction(1, 25)
            (packet,) = context.encode(stored.reformat(format="rgb48be"))
            (folder / f"frame_{place:05}.png").write_bytes(bytes(packet))
        else:
            Image.fromarray(values).save(folder / f"frame_{place:05}.png")
    outcome = fill(folder / "frame_%05d.png", mask_file, filled / "out_%03d.png")
    assert outcome.frames == 4
    assert sorted(path.name for path in filled.iterdir()) == [f"out_{place:03}.png" for place in range(7, 11)]
    before = read_planes(folder / "frame_00008.png")[0][0]
    after = read_planes(filled / "out_008.png")[0][0]
    assert before.dtype == after.dtype == (np.uint8 if depth == 8 else np.uint16)
    before, after = (values.reshape(*SIZE, 3) for values in (before, after))
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).any()


def test_a_gap_between_numbered_pictures_is_refused(tmp_path, mask_file, fill):
    for place in (1, 2, 4):
        Image.fromarray(draw(place, SIZE)).save(tmp_path / f"{place}.png")
    with pytest.raises(ImageError, match=r"3\.png is missing between pictures that are there"):
        fill(tmp_path / "%d.png", mask_file, tmp_path / "out.mp4")
    with pytest.raises(ImageError, match=r"no file is named as .*none_%d\.png says"):
        fill(tmp_path / "none_%d.png", mask_file, tmp_path / "out.mp4")


def test_the_command_fills_a_rectangle_and_describes_the_run(tmp_path, capsys):
    source, out = make_clip(tmp_path / "in.mp4", 4), tmp_path / "out.mkv"
    options = ["--box", "30,20,20,16", "--codec", "ffv1", "--temporal", "--json", "--threads", "1"]
    with pytest.raises(SystemExit) as end:
        glama_inpaint([str(source), str(out), *options])
    printed = capsys.readouterr()
    assert end.value.code == 0, printed.err
    fields = json.loads(printed.out)
    assert (fields["type"], fields["state"], fields["frames"]) == ("video", "written", 4)
    assert (fields["encoder"], fields["lossless"], fields["error"]) == ("ffv1", True, None)
    assert "96x64 yuv420p h264, 4 frames → ffv1" in printed.err
    assert read_times(out) == read_times(source)
    for changed in list_changed(source, out):
        rows, columns = np.nonzero(changed)
        assert rows.min() >= 20
        assert rows.max() < 36
        assert columns.min() >= 30
        assert columns.max() < 50
        assert changed[20:36, 30:50].mean() > 0.5  # the network gives another value nearly everywhere


def test_batches_give_what_single_frames_give(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mkv", 7, codec="ffv1")
    seen: list[int] = []

    def count(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return 255 - images

    fill(source, mask_file, tmp_path / "one.mkv", fill_frames=count)
    fill(source, mask_file, tmp_path / "many.mkv", fill_frames=count, batch=3, at_once=2)
    assert seen[:7] == [1] * 7
    assert sorted(seen[7:]) == [1, 3, 3]
    for one, many in zip(read_planes(tmp_path / "one.mkv"), read_planes(tmp_path / "many.mkv"), strict=True):
        for first, second in zip(one, many, strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_temporal_run_that_goes_on_gives_the_same_frames(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mkv", 30, codec="ffv1")
    settings = {"reach": 4, "segment_frames": 5}
    fill(source, mask_file, tmp_path / "whole.mkv", **settings)
    finished: list[int] = []
    out = tmp_path / "out.mkv"
    assert fill(
        source, mask_file, out, on_frames=finished.append, is_over=lambda: len(finished) >= 6, **settings
    ).is_cut
    assert fill(source, mask_file, out, **settings).reused >= 5
    for one, other in zip(read_planes(tmp_path / "whole.mkv"), read_planes(out), strict=True):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)
