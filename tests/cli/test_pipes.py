"""Pictures and frames through pipes, as shells make them."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import glama_deploy

BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path, photo, hole):
    Image.fromarray(photo).save(tmp_path / "image.png")
    Image.fromarray(photo).save(tmp_path / "image.jpg", quality=95)
    Image.fromarray(hole).save(tmp_path / "mask.png")
    return tmp_path


def shell(folder: Path, bundle, line: str, **settings) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in the folder; $M is the bundle."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "M": str(bundle.path)}
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, env=environment, **settings)


def fill(folder: Path, bundle) -> np.ndarray:
    """What the library makes of the files."""
    image, mask = (np.asarray(Image.open(folder / name)) for name in ("image.png", "mask.png"))
    return glama_deploy.load(bundle.path)(image, mask)


@pytest.mark.parametrize(
    "line",
    [
        "glama inpaint --model $M --image - --mask mask.png --out - < image.png",
        "cat mask.png | glama inpaint --model $M --image image.png --mask - --out -",
        "glama inpaint --model $M --image <(cat image.png) --mask <(cat mask.png) --out -",
        "glama-inpaint --model $M - mask.png - < image.png | cat",
        "glama inpaint --model $M image.png mask.png >(cat); wait",
        "glama inpaint --model $M image.png mask.png out.png && cat out.png",
        "cat image.png | glama inpaint --model $M - mask.png out.png && cat out.png",
    ],
)
def test_pictures_pass_through_pipes_as_through_files(folder, tiny_bundle, line):
    child = shell(folder, tiny_bundle, line)
    assert child.returncode == 0, child.stderr
    with Image.open(io.BytesIO(child.stdout)) as out:
        assert out.format == "PNG"
        np.testing.assert_array_equal(np.asarray(out), fill(folder, tiny_bundle))


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [("image.jpg", "", "JPEG"), ("image.jpg", "--format png", "PNG"), ("image.png", "--format webp", "WEBP")],
)
def test_standard_output_has_the_format_of_the_image_or_the_one_asked_for(
    folder, tiny_bundle, image, options, expected
):
    line = f"glama inpaint --model $M --image {image} --mask mask.png --out - {options}"
    child = shell(folder, tiny_bundle, line)
    with Image.open(io.BytesIO(child.stdout)) as out:
        assert out.format == expected


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inpaint - - out.png < image.png", "--image and --mask are both -, and standard input has one picture"),
        ("inpaint https://example.org/a.png mask.png out.png", "--image is the address https://example.org/a.png"),
        ("inpaint image.png mask.png s3://bucket/a.png", "--out is the address s3://bucket/a.png"),
        (
            "inpaint - mask.png out.png < /dev/null",
            "standard input is not a supported image, or is damaged (the file is",
        ),
        ("inpaint - mask.png out.png <&-", "standard input is closed"),
        ("inpaint - mask.png . < image.png", "--out . is a folder"),
        ("inpaint . - out.png < mask.png", "--image . is a folder; a pipe goes with one picture"),
        ("inpaint - mask.png out.png --format jpg < image.png", "whose suffix tells the format"),
        ("inpaint - mask.png - --format gif < image.png", "--format is 'gif'; expected keep, png, jpg, webp"),
        ("inpaint - mask.png image.png < image.jpg", "image.png exists already"),
        ("inpaint - mask.png - --format jpg < clear.png", "JPEG does not support the input's transparency"),
        ("inpaint image.png mask.png out.png more.png", "more.png is one path too many"),
        ("inpaint image.png", "no pixel is marked as missing; give --mask, --box, --color or --annotations"),
        ("inpaint image.png mask.png", "no output is given; give --out, or --in-place"),
        ("inpaint image.png out.png mask.png --box 1,1,9,9 --in-place", "--out and --in-place are both given"),
        ("inpaint - --box 1,1,9,9 --in-place < image.png", "--in-place does not support pipes"),
        ("inpaint - - --box 1,1,9,9 --json < image.png", "--json and the picture of --out - both go to standard"),
        ("inpaint - - --box 1,1,9,9 --watch < image.png", "--image - is a pipe, and --watch needs a folder"),
        ("frames 120 96 --mask mask.png < /dev/null", "standard input has no frame"),
        ("frames 90 96 --mask mask.png < /dev/null", "mask.png is 96x120, and the frames are 96x90"),
        ("frames 8 96 --mask mask.png < /dev/null", "both sides must be from 16"),
    ],
)
def test_what_does_not_go_through_a_pipe_is_one_line_and_writes_nothing(folder, tiny_bundle, line, says):
    Image.fromarray(np.zeros((96, 120, 4), np.uint8)).save(folder / "clear.png")
    before = sorted(folder.iterdir())
    command, _, rest = line.partition(" ")
    child = shell(folder, tiny_bundle, f"glama {command} -q --model $M {rest}")
    errors = child.stderr.decode().splitlines()
    assert child.returncode == 2, errors
    assert len(errors) == 1
    assert errors[0].startswith(f"glama {command}: ")
    assert says in errors[0]
    assert child.stdout == b""
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", ["inpaint image.png mask.png -", "frames 120 96 --mask mask.png"])
def test_a_terminal_gets_no_bytes(folder, tiny_bundle, command):
    ours, terminal = pty.openpty()
    line = f"glama {command} --model $M"
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "M": str(tiny_bundle.path)}
    child = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=environment,
    )
    os.close(terminal)
    os.close(ours)
    assert child.returncode == 2
    assert b"is a terminal; " in child.stderr


def test_standard_input_that_is_a_terminal_is_refused_at_once(folder, tiny_bundle):
    ours, terminal = pty.openpty()
    child = shell(folder, tiny_bundle, "glama inpaint --model $M - mask.png out.png", stdin=terminal)
    os.close(terminal)
    os.close(ours)
    assert child.returncode == 2
    assert b"--image is -, and standard input is a terminal" in child.stderr


def make_frames(photo: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.roll(photo, 7 * number, axis=1) for number in range(count)])


def test_raw_frames_come_back_filled_in_their_order(folder, tiny_bundle, photo, hole):
    frames = make_frames(photo, 5)
    line = "glama frames 120 96 --mask mask.png --model $M"
    child = shell(folder, tiny_bundle, line, input=frames.tobytes())
    assert child.returncode == 0, child.stderr
    filled = np.frombuffer(child.stdout, np.uint8).reshape(frames.shape)
    np.testing.assert_array_equal(filled[:, ~hole], frames[:, ~hole])
    inpainter = glama_deploy.load(tiny_bundle.path)
    for frame, result in zip(frames, filled, strict=True):
        difference = np.abs(result.astype(int) - inpainter(frame, hole))
        assert difference.max() <= 1  # frames filled at once may sum in another order, next to a rounding
    assert b"5 frames filled" in child.stderr


def test_a_truncated_frame_is_an_error_behind_the_whole_ones(folder, tiny_bundle, photo):
    frames = make_frames(photo, 3).tobytes()
    line = "glama frames 120 96 --mask mask.png --model $M -q"
    child = shell(folder, tiny_bundle, line, input=frames[:-1000])
    assert child.returncode == 2
    assert len(child.stdout) == 2 * 120 * 96 * 3
    error = child.stderr.decode()
    assert "standard input ends in frame 3, which has 33560 of 34560 bytes; 2 whole frames were written" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "glama frames 120 96 --mask mask.png --model $M < frames.raw | head -c 10; exit ${PIPESTATUS[0]}",
        "glama inpaint image.png mask.png - --model $M | true; exit ${PIPESTATUS[0]}",
    ],
)
def test_a_reader_that_ends_early_ends_the_command_without_a_traceback(folder, tiny_bundle, photo, line):
    (folder / "frames.raw").write_bytes(make_frames(photo, 40).tobytes())
    child = shell(folder, tiny_bundle, line)
    assert child.returncode == 141, child.stderr
    assert b"Traceback" not in child.stderr
    assert b"Exception" not in child.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            "glama inpaint --model $M - mask.png - --mask-name {stem}_m < image.png",
            "is a pipe; --mask-name, --recursive",
        ),
        ("glama inpaint --model $M - mask.png out.png --recursive < image.png", "is a pipe; --mask-name, --recursive"),
        ("glama inpaint --model $M - mask.png mask.png --overwrite < image.png", "mask.png is an input itself"),
    ],
)
def test_options_of_folders_and_outputs_over_inputs_are_refused(folder, tiny_bundle, hole, line, says):
    child = shell(folder, tiny_bundle, line)
    assert (child.returncode, child.stdout) == (2, b"")
    assert says in child.stderr.decode()
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "mask.png")) > 0, hole)
    assert not (folder / "out.png").exists()
