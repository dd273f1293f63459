"""A folder of photographs through workers of a Ray cluster against `glama-inpaint`'s pipeline, images a second.

    python benchmarks/speed/ray_cluster.py --model BUNDLE [--workers 2] [--images 200] [--turns 3]

Each worker has one CPU. The pipeline has one process with as many threads as there are workers. Both run in turns over
two parts of a folder, a small and a large one. The difference of the two times, by the difference of the two counts, is
the time of an image without the start. The same for images without a hole, which no network sees, is the time of
reading, writing and handing over: the difference of both ways is Ray's overhead for an image.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import glama_deploy
from glama_deploy.benchmarks.speed.folder import check_results, make_folders
from glama_deploy.inpainting.folder import MAX_STREAMS, run_jobs
from glama_deploy.inpainting.pairing import pair_jobs
from glama_deploy.ray.connection import LOCAL, Resources, connect
from glama_deploy.ray.engine import EngineSettings
from glama_deploy.ray.picture_worker import PictureSettings
from glama_deploy.ray.run import Run, RunRequest

#: The share of the images in the small part.
SMALL_SHARE = 0.2


def fill_alone(model: str, backend: str, workers: int, images: Path, masks: Path, out: Path) -> None:
    """Fill a folder in one process.

    Args:
        model: the model.
        backend: the engine.
        workers: number of threads.
        images: the folder of images.
        masks: the folder of masks.
        out: the folder of outputs.
    """
    inpainter = glama_deploy.load(model, backend, threads=workers, compile_sizes=False, streams=MAX_STREAMS)
    with inpainter:
        check_results(run_jobs(inpainter, pair_jobs(images, masks, out), at_once=inpainter.streams))


def fill_on_ray(model: str, backend: str, workers: int, images: Path, masks: Path, out: Path) -> None:
    """Fill a folder with workers of the cluster that this program is connected to.

    Args:
        model: the model.
        backend: the engine.
        workers: number of workers.
        images: the folder of images.
        masks: the folder of masks.
        out: the folder of outputs.
    """
    engine = EngineSettings(model, backend, threads=1, compile_sizes=False, device="cpu")
    run = Run(RunRequest(str(images), str(masks), PictureSettings(engine, str(out))), Resources(workers))
    for outcome in run.fill(workers):
        assert outcome.state == "written", outcome.reason


def take_part(folder: Path, images: Path, masks: Path, count: int) -> tuple[Path, Path]:
    """Copy the first images and masks into folders of their own.

    Args:
        folder: gets the folders.
        images: the folder of images.
        masks: the folder of masks.
        count: number of images.

    Returns:
        The folders of images and masks.
    """
    parts = folder / f"images-{count}", folder / f"masks-{count}"
    for part, source in zip(parts, (images, masks), strict=True):
        part.mkdir()
        for path in sorted(source.iterdir())[:count]:
            shutil.copyfile(path, part / path.name)
    return parts


def close_holes(masks: Path, out: Path) -> Path:
    """Write masks without a hole.

    Args:
        masks: the folder of masks.
        out: the folder to make.

    Returns:
        The folder of the new masks.
    """
    out.mkdir()
    for path in masks.iterdir():
        with Image.open(path) as mask:
            Image.fromarray(np.zeros(mask.size[::-1], bool)).save(out / path.name)
    return out


def measure_image(
    fill: Callable[[Path, Path, Path], None], folder: Path, parts: tuple[tuple[Path, Path], tuple[Path, Path]]
) -> float:
    """Measure the time of an image without the start.

    Args:
        fill: fills a folder of images with masks into a folder of outputs.
        folder: gets the outputs, which are removed.
        parts: images and masks of the small and of the large part.

    Returns:
        Seconds.
    """
    times, counts = [], []
    for images, masks in parts:
        out = folder / "out"
        start = time.perf_counter()
        fill(images, masks, out)
        times.append(time.perf_counter() - start)
        counts.append(len(list(images.iterdir())))
        shutil.rmtree(out)
    return (times[1] - times[0]) / (counts[1] - counts[0])


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--mask", default="MediumStrokes")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    model = options.model if options.model == "default" else str(Path(options.model).absolute())
    ways: dict[str, Callable[[Path, Path, Path], None]] = {
        name: partial(way, model, options.backend, options.workers)
        for name, way in (("one process", fill_alone), ("Ray", fill_on_ray))
    }
    with tempfile.TemporaryDirectory() as folder, connect(LOCAL, Resources(options.workers)):
        place = Path(folder)
        images, masks = make_folders(place, options.images, options.size, options.mask)
        small = take_part(place, images, masks, round(SMALL_SHARE * options.images))
        closed = [close_holes(each, place / f"closed-{each.name}") for each in (small[1], masks)]
        kinds = {
            "with holes": (small, (images, masks)),
            "without holes": ((small[0], closed[0]), (images, closed[1])),
        }
        seconds: dict[tuple[str, str], list[float]] = {(kind, way): [] for kind in kinds for way in ways}
        for turn in range(options.turns):
            for kind, parts in kinds.items():
                for name in ways if turn % 2 else reversed(ways):
                    seconds[kind, name].append(measure_image(ways[name], place, parts))
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    print(f"{options.images} images of {options.size}×{options.size}, {options.workers} workers of one CPU")
    for (kind, name), value in medians.items():
        print(f"{kind}, {name}: {1 / value:.2f} images a second ({1000 * value:.1f} ms for an image)")
    ratio = medians["with holes", "one process"] / medians["with holes", "Ray"]
    overhead = medians["without holes", "Ray"] - medians["without holes", "one process"]
    print(
        f"Ray has {ratio:.2f} of the throughput of one process; its overhead is {1000 * overhead:.1f} ms for an image"
    )


if __name__ == "__main__":
    main()
