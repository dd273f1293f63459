"""What `glama-eval` costs beside inference and metrics, and how long 200 photographs with seven masks take.

    python benchmarks/speed/evaluation.py [--model default] [--images 40] [--size 256] [--all 200]

The same images and masks in turns, now the one first and now the other, in one thread: through the network and the
metrics alone, everything in memory; and through the evaluation in one process, which also reads and decodes, draws the
masks, keeps pictures of 14 images and writes each record to the disk. Then the whole command on `--all` images, with as
many processes as it takes by itself.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from glama_deploy.benchmarks.speed.folder import make_folders
from glama_deploy.evaluation import methods, protocol
from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.protocol import Dataset, Identity, Item, Protocol
from glama_deploy.evaluation.records import Folder
from glama_deploy.evaluation.run import Evaluator, Setting
from glama_deploy.masks import TYPES
from glama_deploy.runtime.torch import threads

METRICS = ("psnr", "ssim", "spectrum")

IMAGES_PER_TURN = 8


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="as glama-eval takes it")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--all", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        images, _ = make_folders(Path(name), max(options.images, options.all), options.size, "ThinStrokes")
        compare_costs(options.model, images, options.images, Path(name) / "beside")
        start = time.perf_counter()
        request = Request([f"a={images}"], [options.model], Path(name) / "all", metrics=METRICS, limit=options.all)
        evaluate(request)
        print(f"{options.all} images × 7 masks, the whole command: {time.perf_counter() - start:.0f} s")


def compare_costs(model: str, images: Path, count: int, out: Path) -> None:
    """Print the ratio of the evaluation's time to the time of inference and metrics, turn by turn.

    Args:
        model: the model, as `glama-eval` takes it.
        images: the folder of images.
        count: number of images.
        out: the folder for the evaluation.
    """
    (spec,) = methods.parse_methods([model], ["auto"], ["auto"])
    method = methods.open_method(spec, 1)
    asked = Protocol(
        datasets=(Dataset(name="a", folder=images),),
        methods=(Identity(label=spec.label, description=method.description),),
        masks=tuple(TYPES),
        metrics=METRICS,
        limit=count,
    )
    judge = Judge(METRICS, {})
    evaluator = Evaluator(Setting(asked, (spec,), {}, out), [method], judge)
    with Folder(out).hold(asked):
        ratios = []
        items = protocol.list_items(asked)
        time_inference(judge, method, items[:1])
        for first in range(0, len(items), IMAGES_PER_TURN):
            turn = items[first : first + IMAGES_PER_TURN]
            ways = [
                lambda turn=turn: time_inference(judge, method, turn),
                lambda turn=turn: time_evaluation(evaluator, turn, out),
            ]
            order = (0, 1) if first // IMAGES_PER_TURN % 2 else (1, 0)
            seconds = {way: ways[way]() for way in order}
            ratios.append(seconds[1] / seconds[0])
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    ratio = f"{statistics.median(ratios):.3f} ({spread}, turns of {IMAGES_PER_TURN})"
    print(f"evaluation against inference and metrics alone: {ratio}")


def time_evaluation(evaluator: Evaluator, items: list[Item], out: Path) -> float:
    """Time the whole evaluation of images.

    Args:
        evaluator: evaluates the images.
        items: the images.
        out: the folder for the records.

    Returns:
        The seconds.
    """
    start = time.perf_counter()
    for record in evaluator.evaluate_all(items):
        Folder(out).append(record)
    return time.perf_counter() - start


def time_inference(judge: Judge, method: methods.Method, items: list[Item]) -> float:
    """Time the network and the metrics on images and masks in memory.

    Args:
        judge: computes the metrics.
        method: the network.
        items: the images.

    Returns:
        The seconds.
    """
    truths = [protocol.read_truth(item.path, None) for item in items]
    masks = [
        {name: protocol.draw_missing(name, item.image, truth.shape[0], truth.shape[1], 0) for name in TYPES}
        for item, truth in zip(items, truths, strict=True)
    ]
    assert method.fill is not None  # only results of other programs have none
    start = time.perf_counter()
    with threads(1):  # as the evaluation
        for truth, missing in ((t, m) for t, each in zip(truths, masks, strict=True) for m in each.values()):
            judge.score(method.fill(truth, missing), truth, missing)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
