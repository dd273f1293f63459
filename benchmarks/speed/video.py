"""Frames a second of a clip with one mask: by single frames, in batches, and with two streams.

    python -m glama_deploy.benchmarks.speed.video [--model default] [--backend auto] [--frames 48]

The clip is 640x360 with a logo in a corner. Decoding and encoding (H.264) are part of the time; opening the model and
the first frames, in which sizes are compiled, are not. Ways run in turns, and the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import glama_deploy
from glama_deploy.inpainting.folder import Masks
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.video.options import VideoOptions
from glama_deploy.video.package import import_av
from glama_deploy.video.run import fill_video, open_job

#: Height and width of the clip, and the logo: first row, first column, rows, columns.
SIZE, LOGO = (360, 640), (20, 500, 50, 110)

#: The ways: frames in a batch, and streams.
WAYS = ((1, 1), (4, 1), (8, 1), (1, 2), (4, 2))


def _write_clip(path: Path, count: int) -> None:
    """Write a clip that pans over a photograph."""
    av = import_av()
    with Image.open(Path(__file__).parents[1] / "photos" / "machu-picchu.jpg") as file:
        photo = np.asarray(file.convert("RGB").resize((960, 960)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(count):
            left = 2 * number
            part = np.ascontiguousarray(photo[300 : 300 + SIZE[0], left : left + SIZE[1]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(part, "rgb24")))
        container.mux(stream.encode())


def _measure(inpainter: Inpainter, source: Path, mask: Path, batch: int, streams: int) -> float:
    """Fill the clip, and return the frames a second."""
    out = source.with_name("out.mp4")
    out.unlink(missing_ok=True)
    job = open_job(source, mask, out, Masks(), VideoOptions(), overwrite=False)
    start = time.perf_counter()
    outcome = fill_video(job, partial(inpainter.fill_frames), "speed", batch=batch, at_once=streams)
    return outcome.frames / (time.perf_counter() - start)


def main() -> None:
    """Parse the options, measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    opened = {
        streams: glama_deploy.load(given.model, given.backend, compile_sizes=True, streams=streams)
        for streams in (1, 2)
    }
    print(opened[1].description)
    with tempfile.TemporaryDirectory() as name:
        source, mask = Path(name) / "in.mp4", Path(name) / "mask.png"
        _write_clip(source, given.frames)
        missing = np.zeros(SIZE, np.uint8)
        top, left, rows, columns = LOGO
        missing[top : top + rows, left : left + columns] = 255
        Image.fromarray(missing).save(mask)
        found: dict[tuple[int, int], list[float]] = {way: [] for way in WAYS}
        for number in range(given.rounds + 1):  # the first round compiles
            for way, rates in found.items():
                rate = _measure(opened[way[1]], source, mask, *way)
                if number:
                    rates.append(rate)
    print("| frames in a batch | streams | frames a second |\n|---:|---:|---:|")
    for (batch, streams), rates in found.items():
        print(f"| {batch} | {streams} | {statistics.median(rates):.2f} |")


if __name__ == "__main__":
    main()
