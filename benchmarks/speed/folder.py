"""A folder of photographs through `glama-inpaint`'s pipeline against one after the other, images a second.

    python benchmarks/speed/folder.py --model BUNDLE [--backend openvino] [--precision bf16] [--images 200]

One after the other reads, fills, writes, each image with all threads; the pipeline reads the next images and writes the
last ones while two are filled, with half of the threads each. Both run in turns over parts of the same folder: squares
of `benchmarks/photos`, a mask of strokes for each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import glama_deploy
from glama_deploy.benchmarks.quality.photos import PHOTOS
from glama_deploy.evaluation.protocol import read_truth
from glama_deploy.inpainting.folder import MAX_STREAMS, Job, Result, fill_job, read_job, run_jobs
from glama_deploy.inpainting.pairing import pair_jobs
from glama_deploy.inpainting.transparency import Fill
from glama_deploy.masks import by_name


def make_folders(folder: Path, count: int, size: int, kind: str) -> tuple[Path, Path]:
    """Make folders of images and masks. Photographs are mirrored and shifted, and no two are equal.

    Args:
        folder: gets the two folders.
        count: number of images.
        size: side of each image, in pixels.
        kind: name of the masks.

    Returns:
        The folders of images and masks.
    """
    images, masks = folder / "images", folder / "masks"
    images.mkdir()
    masks.mkdir()
    sources = sorted(PHOTOS.glob("*.jpg"))
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = np.roll(read_truth(sources[number % len(sources)], (size, size)), rng.integers(size), axis=1)
        Image.fromarray(pixels[:, :: rng.choice((-1, 1))]).save(images / f"{number:04}.png")
        Image.fromarray(by_name(kind)(size, size, rng)).save(masks / f"{number:04}.png")
    return images, masks


def fill_one_by_one(fill: Fill, jobs: Iterable[Job]) -> Iterator[Result]:
    """Read, fill and write one image after the other.

    Args:
        fill: fills an image.
        jobs: the images.

    Yields:
        The result of each job.
    """
    for job in jobs:
        fill_job(fill, job, *read_job(job))
        yield Result(job, "written")


def check_results(results: Iterable[Result]) -> None:
    """Assert that every image was written.

    Args:
        results: the results of the jobs.
    """
    for result in results:
        assert result.state == "written", result.reason


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--region", default="auto")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--mask", default="MediumStrokes")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    one, several = (
        glama_deploy.load(options.model, options.backend, options.precision, compile_sizes=True, streams=streams)
        for streams in (1, MAX_STREAMS)
    )
    with tempfile.TemporaryDirectory() as folder:
        images, masks = make_folders(Path(folder), options.images, options.size, options.mask)
        jobs = pair_jobs(images, masks, Path(folder) / "out")
        alone: list[float] = []
        together: list[float] = []
        ways: list[tuple[list[float], Callable[[list[Job]], Iterator[Result]]]] = [
            (alone, partial(fill_one_by_one, partial(one, region=options.region))),
            (
                together,
                partial(run_jobs, partial(several, region=options.region), overwrite=True, at_once=several.streams),
            ),
        ]
        for _, way in ways:
            check_results(way(jobs[: len(jobs) // 5]))  # most sizes of theirs are compiled then
        for turn in range(options.turns):
            part = jobs[turn :: options.turns]
            for rates, way in ways if turn % 2 else ways[::-1]:
                start = time.perf_counter()
                check_results(way(part))
                rates.append(len(part) / (time.perf_counter() - start))
    ratios = [theirs / ours for ours, theirs in zip(alone, together, strict=True)]
    print(f"{one.description}, region {options.region}, {options.images} images of {options.size}×{options.size}")
    print(f"one after the other {statistics.median(alone):.2f} images a second, the pipeline", end=" ")
    print(f"{statistics.median(together):.2f}: {statistics.median(ratios):.2f}× (median of {options.turns} turns)")


if __name__ == "__main__":
    main()
