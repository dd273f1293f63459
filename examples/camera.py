"""Fill the same pixels of each frame of a camera or a video, such as a logo or a stain on the lens.

    python examples/camera.py [SOURCE] [--mask mask.png] [--model default] [--out filled.avi] [--show] [--gpu]

SOURCE is the number of a camera (V4L2), a video file, a GStreamer pipeline that ends in `appsink`, or `test` for drawn
frames. Frames of a Jetson's camera come through a pipeline, and `nvvidconv` copies them out of NVMM memory:

    nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280,height=720 ! nvvidconv ! video/x-raw,format=BGRx !
    videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1

OpenCV from pip has no GStreamer; JetPack's has. With `--gpu`, a TensorRT engine of `--io uint8` fills the frames in GPU
memory (CuPy). Cameras, pipelines and `--gpu` are unmeasured: they were not run yet. Files and drawn frames were.
Each frame is filled by itself, so fillings may flicker. Ctrl-C ends, and keeps what was written.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import glama_deploy
from glama_deploy.errors import EngineError, GlamaError, ImageError
from glama_deploy.io.mask_files import read_mask

#: Fills one frame: uint8 H×W×3, RGB.
Fill = Callable[[np.ndarray], np.ndarray]

#: The size and the number of drawn frames.
TEST_SIZE, TEST_FRAMES = (120, 160), 8


def draw_frames() -> Iterator[np.ndarray]:
    """Draw a square that crosses a picture, with a text over it that the mask marks."""
    height, width = TEST_SIZE
    rows, columns = np.mgrid[:height, :width]
    background = np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], 2).astype(np.uint8)
    for number in range(TEST_FRAMES):
        frame = background.copy()
        frame[40:70, 12 * number : 12 * number + 30] = 230
        frame[mark_corner(TEST_SIZE)] = 0
        yield frame


def mark_corner(size: tuple[int, int]) -> np.ndarray:
    """Return a mask of the lower right corner, where channels put their logo."""
    missing = np.zeros(size, bool)
    missing[-size[0] // 4 : -size[0] // 12, -size[1] // 4 : -size[1] // 12] = True
    return missing


def read_frames(source: str) -> Iterator[np.ndarray]:
    """Read the frames of a camera, a file or a pipeline as RGB."""
    cv2 = import_opencv()
    if source.isdigit():
        opened = cv2.VideoCapture(int(source))
    elif "appsink" in source:
        opened = cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    else:
        opened = cv2.VideoCapture(source)
    if not opened.isOpened():
        raise ImageError(
            f"{source} cannot be opened; give a camera's number, a video, or 'test', or a GStreamer pipeline if this "
            "OpenCV has GStreamer"
        )
    try:
        while True:
            is_read, frame = opened.read()
            if not is_read:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        opened.release()


def fill_on_gpu(inpainter: glama_deploy.Inpainter, missing: np.ndarray) -> Fill:
    """Return what fills frames in GPU memory. All work is in one stream, and the host waits for the result alone."""
    cupy = import_package("cupy", "CuPy", "pip install cupy-cuda12x, or cupy-cuda13x")
    stream = cupy.cuda.Stream(non_blocking=True)
    image, mask = cupy.empty((*missing.shape, 3), cupy.uint8), cupy.asarray(missing)
    out = cupy.empty_like(image)  # fixed arrays: TensorRT's run is replayed as a CUDA graph
    cupy.cuda.Device().synchronize()  # the mask was copied in another stream

    def fill(frame: np.ndarray) -> np.ndarray:
        image.set(np.ascontiguousarray(frame), stream=stream)
        inpainter.run_on_gpu(image, mask, out=out, stream=stream)
        filled: np.ndarray = out.get(stream=stream)
        stream.synchronize()
        return filled

    return fill


def open_writer(path: Path, size: tuple[int, int]) -> Any:
    """Open a video of 25 frames a second."""
    cv2 = import_opencv()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, size[::-1])
    if not writer.isOpened():
        raise ImageError(f"{path} cannot be written; give a path that ends in .avi, in a folder that exists")
    return writer


def show(frame: np.ndarray) -> bool:
    """Show a frame in a window, and return whether the user wants more."""
    cv2 = import_opencv()
    try:
        cv2.imshow("glama-deploy (q ends)", np.ascontiguousarray(frame[..., ::-1]))
        return bool(cv2.waitKey(1) != ord("q"))
    except cv2.error as error:
        raise EngineError("this OpenCV opens no windows here; leave out --show, or install opencv-python") from error


def import_opencv() -> Any:
    """Import OpenCV."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what fails is said by this script, in one line
    return import_package("cv2", "OpenCV", "pip install opencv-python")


def import_package(module: str, name: str, remedy: str) -> Any:
    """Import a package that this example needs beside glama-deploy."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EngineError(f"{name} is not installed; {remedy}") from error


def run(arguments: argparse.Namespace) -> None:
    """Fill the frames, and write or show them."""
    frames = draw_frames() if arguments.source == "test" else read_frames(arguments.source)
    first = next(frames, None)
    if first is None:
        raise ImageError(f"{arguments.source} has no frame; give another source")
    missing = read_mask(arguments.mask) if arguments.mask else mark_corner(first.shape[:2])
    if missing.shape != first.shape[:2]:
        found, expected = (f"{height}x{width}" for height, width in (missing.shape, first.shape[:2]))
        raise ImageError(f"the mask is {found}, the frames are {expected}; give a mask of the frames' size")
    inpainter = glama_deploy.load(arguments.model, arguments.backend)
    fill = fill_on_gpu(inpainter, missing) if arguments.gpu else lambda frame: inpainter(frame, missing)
    writer = open_writer(arguments.out, missing.shape) if arguments.out else None
    count, frame, begun = 0, first, time.perf_counter()
    try:
        while frame is not None and count != arguments.frames:
            filled = fill(frame)
            count += 1
            if writer is not None:
                writer.write(np.ascontiguousarray(filled[..., ::-1]))
            if arguments.show and not show(filled):
                break
            frame = next(frames, None)
    except KeyboardInterrupt:  # Ctrl-C ends a camera, and the video is kept
        pass
    finally:
        if writer is not None:
            writer.release()
    seconds = time.perf_counter() - begun
    print(f"{count} frames in {seconds:.1f} s with {inpainter.description}")


def read_count(text: str) -> int:
    """Read a number of frames."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of frames; give 1 or more")
    return int(text)


def main() -> None:
    """Parse the arguments, and end with exit code 2 where an input is wrong."""
    parser = argparse.ArgumentParser(description="Fill the same pixels of each frame of a camera or a video.")
    parser.add_argument("source", nargs="?", default="test", help="camera number, file, pipeline, or 'test'")
    parser.add_argument("--mask", type=Path, help="white pixels are missing; the lower right corner if left out")
    parser.add_argument("--model", default="default", help="a bundle, a checkpoint, or 'default'")
    parser.add_argument("--backend", default="auto", help="an engine, such as 'openvino' or 'tensorrt'")
    parser.add_argument("--frames", type=read_count, help="number of frames; all if left out")
    parser.add_argument("--out", type=Path, help="write a video (.avi, Motion JPEG)")
    parser.add_argument("--show", action="store_true", help="show the frames in a window")
    parser.add_argument("--gpu", action="store_true", help="fill in GPU memory, with TensorRT and CuPy")
    try:
        run(parser.parse_args())
    except GlamaError as error:  # what is wrong with the input, in one line
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
