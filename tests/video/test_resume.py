"""A run that was killed or interrupted goes on from its finished segments."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes.clips import make_clip, read_planes, read_times
from glama_deploy.cli.video import _describe_interrupt
from glama_deploy.errors import EngineError, GlamaError, ImageError
from glama_deploy.inpainting.folder import AS_THEY_ARE
from glama_deploy.video.options import VideoOptions
from glama_deploy.video.run import Outcome, fill_video, open_job
from glama_deploy.video.segments import WorkFolder

av = pytest.importorskip("av", reason="PyAV (the extra 'video') is not installed")

#: Frames of a clip whose filling takes some seconds, and of its segments.
COUNT, SEGMENT = 30, 4


def start(source: Path, mask: Path, out: Path) -> subprocess.Popen[str]:
    """Start glama-inpaint on a clip."""
    command = [sys.executable, "-m", "glama_deploy", "inpaint", str(source), str(mask), str(out)]
    # lossless: x264's rate control does not give the same bytes in every run with every set of instructions
    options = ["--segment-frames", str(SEGMENT), "--threads", "1", "--region", "full", "--quality", "100"]
    return subprocess.Popen(
        command + options, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def equal(one: Path, other: Path) -> bool:
    """Whether two videos show the same frames at the same times."""
    planes = zip(read_planes(one), read_planes(other), strict=True)
    return read_times(one) == read_times(other) and all(
        np.array_equal(a, b) for first, second in planes for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", COUNT, sound="aac")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_goes_on_and_gives_the_same_frames(source, tmp_path, mask_file, wait_until):
    out, whole = tmp_path / "out.mp4", tmp_path / "whole.mp4"
    folder = WorkFolder(out).path
    killed = start(source, mask_file, out)
    wait_until(lambda: (folder / "00001.json").exists() or killed.poll() is not None)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not out.exists()
    assert (folder / "00001.segment").exists()
    resumed = start(source, mask_file, out)
    said = resumed.communicate()[1]
    assert resumed.returncode == 0, said
    assert "frames of an earlier run are taken" in said
    assert not folder.exists()
    assert start(source, mask_file, whole).wait() == 0
    assert equal(out, whole)
    assert len(read_times(out)) == COUNT


@pytest.mark.slow
def test_ctrl_c_leaves_a_file_that_plays(source, tmp_path, mask_file, wait_until):
    out = tmp_path / "out.mp4"
    folder = WorkFolder(out).path
    run = start(source, mask_file, out)
    wait_until(lambda: (folder / "00000.json").exists() or run.poll() is not None)
    run.send_signal(signal.SIGINT)
    said = run.communicate()[1]
    assert run.returncode == 130, said
    assert not out.exists()
    playable = folder / "so-far.mp4"
    assert f"frames can be played: {playable}; the same command goes on from frame " in said.replace("\n", " ")
    times = read_times(playable)
    assert SEGMENT <= len(times) < COUNT
    assert times == read_times(source)[: len(times)]
    with av.open(str(playable)) as container:
        assert container.streams.audio


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            Outcome(frames=7, kept=4, playable=Path("a.mp4")),
            "first 7 frames can be played: a.mp4; the same command goes",
        ),
        (Outcome(frames=7, kept=4, playable=Path("a.mp4")), "goes on from frame 5"),
        (Outcome(frames=2, playable=Path("a.mp4")), "begins again, because no segment of 4 frames is whole"),
        (Outcome(), "interrupted; the same command begins again, .* smaller `segment_frames` are kept sooner"),
        (Outcome(frames=4, kept=4), "interrupted; the same command goes on from frame 5"),
    ],
)
def test_an_interrupted_run_says_where_the_next_one_begins(outcome, said):
    assert re.search(said, _describe_interrupt(outcome, SEGMENT))


def test_a_run_without_a_whole_segment_may_have_other_options(tmp_path, mask_file, fill):
    source, out = make_clip(tmp_path / "in.mp4", 40), tmp_path / "out.mp4"
    finished: list[int] = []
    outcome = fill(source, mask_file, out, on_frames=finished.append, is_over=lambda: len(finished) >= 2)
    assert outcome.playable is not None
    assert outcome.kept == 0
    assert fill(source, mask_file, out, segment_frames=4).frames == 40


def test_an_ended_run_goes_on_from_whole_segments(tmp_path, mask_file, fill, caplog):
    source = make_clip(tmp_path / "in.mp4", 40)
    out, whole = tmp_path / "out.mp4", tmp_path / "whole.mp4"
    fill(source, mask_file, whole, segment_frames=4, quality=100)
    finished: list[int] = []
    outcome = fill(
        source,
        mask_file,
        out,
        segment_frames=4,
        quality=100,
        on_frames=finished.append,
        is_over=lambda: len(finished) >= 6,
    )
    assert outcome.playable == tmp_path / ".out.mp4.glama" / "so-far.mp4"
    assert len(read_times(outcome.playable)) == outcome.frames >= 6
    assert not out.exists()
    kept = outcome.kept
    outcome = fill(source, mask_file, out, segment_frames=4, quality=100)
    assert f"{kept} frames of an earlier run are taken" in caplog.text
    assert outcome.reused == kept
    assert outcome.reused % 4 == 0
    assert 4 <= outcome.reused < 40
    assert outcome.frames == 40
    assert equal(out, whole)
    assert outcome.playable is None


def test_segments_of_another_job_are_not_mixed(tmp_path, hole, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 40)
    out = tmp_path / "out.mp4"
    finished: list[int] = []
    over = {"on_frames": finished.append, "is_over": lambda: len(finished) >= 6}
    fill(source, mask_file, out, segment_frames=4, **over)
    said = r"finished segments of another run to out.mp4, with another {}; repeat that run to go on, or pass"
    with pytest.raises(GlamaError, match=said.format("codec, quality or other option")):
        open_job(source, mask_file, out, AS_THEY_ARE, VideoOptions(segment_frames=4, quality=30), overwrite=False)
    mask = tmp_path / "other.png"
    Image.fromarray(~hole).save(mask)
    job = open_job(source, mask_file, out, AS_THEY_ARE, VideoOptions(segment_frames=4), overwrite=False)
    with pytest.raises(GlamaError, match=said.format("mask")):
        open_job(source, mask, out, AS_THEY_ARE, VideoOptions(segment_frames=4), overwrite=False)
    with pytest.raises(GlamaError, match=said.format("model, engine or region")):
        fill_video(job, lambda images, mask: images, "another")
    assert fill(source, mask_file, out, segment_frames=4, quality=30, overwrite=True).reused == 0


def test_segments_whose_job_is_not_known_are_not_taken(tmp_path, mask_file, fill):
    source, out = make_clip(tmp_path / "in.mp4", 40), tmp_path / "out.mp4"
    finished: list[int] = []
    over = {"on_frames": finished.append, "is_over": lambda: len(finished) >= 6}
    assert fill(source, mask_file, out, segment_frames=4, **over).kept
    (WorkFolder(out).path / "job.json").write_text("{", encoding="utf-8")
    assert fill(source, mask_file, out, segment_frames=4).reused == 0


def test_two_runs_to_one_output_do_not_mix(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 3)
    out = tmp_path / "out.mp4"
    with (
        WorkFolder(out).open({"source": "another"}, overwrite=False),
        pytest.raises(GlamaError, match="another process is filling"),
    ):
        fill(source, mask_file, out)


def test_a_segment_that_was_cut_is_made_again(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 40)
    out = tmp_path / "out.mp4"
    finished: list[int] = []
    fill(source, mask_file, out, segment_frames=3, on_frames=finished.append, is_over=lambda: len(finished) >= 8)
    segment = WorkFolder(out).path / "00001.segment"
    segment.write_bytes(segment.read_bytes()[:-1])
    assert fill(source, mask_file, out, segment_frames=3).reused == 3
    assert len(read_times(out)) == 40


def test_nothing_is_encoded_after_a_run_has_failed(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 40, size=(480, 640))
    Image.new("L", (640, 480)).save(mask_file)
    with Image.open(mask_file) as mask:
        mask.paste(255, (100, 100, 140, 140))
        mask.save(mask_file)
    calls: list[int] = []

    def fail_later(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) > 20:
            raise EngineError("the driver is gone")
        return images

    with pytest.raises(EngineError, match="the driver is gone"):
        fill(source, mask_file, tmp_path / "out.mp4", fill_frames=fail_later)
    assert "glama-encode" not in [thread.name for thread in threading.enumerate()]


def test_an_engine_that_fails_keeps_what_is_finished(tmp_path, mask_file, fill):
    source = make_clip(tmp_path / "in.mp4", 40)
    out = tmp_path / "out.mp4"
    calls: list[int] = []

    def fail_later(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        calls.append(1)
        if len(calls) > 9:
            raise ImageError("the memory is full")
        return images

    with pytest.raises(ImageError, match=r"the memory is full; the frames before can be played: .*so-far\.mp4"):
        fill(source, mask_file, out, segment_frames=4, fill_frames=fail_later)
    assert not out.exists()
    assert len(read_times(WorkFolder(out).playable(".mp4"))) == 9
    assert fill(source, mask_file, out, segment_frames=4).reused == 8
