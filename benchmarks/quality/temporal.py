"""Measure what `--temporal` gives on clips whose truth is known.

The clips are windows that move over photographs, with noise. A logo covers a part of each frame, or an object moves
over a scene that stands still. The clips are written with a lossless codec and filled like any other video. PSNR and
flicker are of the missing pixels: flicker is the mean change of the error from frame to frame, so a truth that moves
does not count.

    python -m glama_deploy.benchmarks.quality.temporal
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import glama_deploy
from glama_deploy.inpainting.boxes import Span
from glama_deploy.psnr import compute_psnr
from glama_deploy.video.options import USUAL_REACH, VideoOptions
from glama_deploy.video.package import import_av
from glama_deploy.video.registration import sample
from glama_deploy.video.run import fill_video, open_job

#: Photographs, frames of a clip, and their height and width in pixels.
PHOTOGRAPHS = ("citrus-fruits", "machu-picchu")
FRAMES, SIZE = 40, (160, 240)

#: Standard deviation of the noise, of 255.
NOISE = 2.0

_FOLDER = Path(__file__).parents[1] / "photos"


@dataclass(frozen=True)
class Scene:
    """A kind of clip.

    Attributes:
        name: what moves.
        speed: rows and columns of a frame by which the camera moves.
        object_speed: columns of a frame by which the missing part moves.
    """

    name: str
    speed: tuple[float, float]
    object_speed: float = 0.0


SCENES = (
    Scene("pan, 0.7 pixels a frame", (0.1, 0.7)),
    Scene("pan, 2.3 pixels a frame", (0.35, 2.3)),
    Scene("pan, 6 pixels a frame", (0.0, 6.0)),
    Scene("still camera, an object moves", (0.0, 0.0), 3.0),
    Scene("still camera, a logo", (0.0, 0.0)),
)


def _make_frames(scene: Scene, photograph: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Make the true frames (uint8 H×W×3) of a clip, and the missing pixels (bool H×W) of each."""
    with Image.open(_FOLDER / f"{photograph}.jpg") as file:
        photo = np.asarray(file.convert("RGB"))
    rng = np.random.default_rng(0)
    height, width = SIZE
    for number in range(FRAMES):
        moved = scene.speed[0] * number, scene.speed[1] * number
        clean = sample(photo, Span(120, 10, 120 + height, 10 + width), moved)
        frame = (clean + rng.normal(0, NOISE, clean.shape)).clip(0, 255).round().astype(np.uint8)
        missing = np.zeros(SIZE, bool)
        left = round(60 + scene.object_speed * number)
        missing[60:110, left : left + 60] = True
        yield frame, missing


def _write_clip(path: Path, frames: list[np.ndarray]) -> None:
    """Write frames as a lossless clip of RGB."""
    av = import_av()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def _read_clip(path: Path) -> np.ndarray:
    """Read the frames of a clip as float32 N×H×W×3."""
    av = import_av()
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.float32)


def _measure(filled: np.ndarray, truth: np.ndarray, missing: np.ndarray) -> tuple[float, float]:
    """Return PSNR in dB, and flicker in steps of 255, in the missing pixels."""
    error = filled - truth
    both = missing[1:] & missing[:-1]
    flicker = np.abs(error[1:] - error[:-1])[both].mean()
    return compute_psnr(float(np.mean((error[missing] / 255) ** 2))), float(flicker)


def main() -> None:
    """Print the table."""
    from glama_deploy.inpainting.folder import Masks

    inpainter = glama_deploy.load("default", compile_sizes=False)
    print("| scene | way | PSNR, dB | flicker, of 255 | ms a frame |\n|---|---|---:|---:|---:|")
    for scene in SCENES:
        found: dict[int, list[tuple[float, float, float]]] = {0: [], USUAL_REACH: []}
        for photograph in PHOTOGRAPHS:
            frames, masks = zip(*_make_frames(scene, photograph), strict=True)
            truth, missing = np.stack(frames).astype(np.float32), np.stack(masks)
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                covered = [
                    np.where(mask[..., None], np.uint8(255), frame) for frame, mask in zip(frames, masks, strict=True)
                ]
                _write_clip(folder / "in.mov", covered)
                _write_clip(folder / "mask.mov", [np.repeat(mask[..., None] * np.uint8(255), 3, 2) for mask in masks])
                for reach, results in found.items():
                    out = folder / f"{reach}.mov"
                    job = open_job(
                        folder / "in.mov", folder / "mask.mov", out, Masks(), VideoOptions(reach=reach), overwrite=False
                    )
                    start = time.perf_counter()
                    fill_video(job, inpainter.fill_frames, "default")
                    seconds = time.perf_counter() - start
                    results.append((*_measure(_read_clip(out), truth, missing), 1000 * seconds / FRAMES))
        for reach, results in found.items():
            psnr, flicker, milliseconds = np.mean(results, axis=0)
            way = "--temporal" if reach else "each frame by itself"
            print(f"| {scene.name} | {way} | {psnr:.2f} | {flicker:.2f} | {milliseconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
