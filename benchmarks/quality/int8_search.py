"""Compare two searches for the convolutions that stay out of int8: ours, and NNCF's accuracy control.

    python benchmarks/quality/int8_search.py [--network default lama] [--channels 64] [--least 41 51] [--size 256]
        [--calibration 6] [--checks 3] [--held-out 6] [--photos benchmarks/photos] [--rounds 0]

Both searches get the same fp32 graph (any size, equalized) and the same layers to ignore. They calibrate and measure on
the same photographs. Their target is a least PSNR (dB, peak 1) of the missing pixels against fp32. `lama` has random
weights. The table has one row for each result: the PSNR on the measured photographs and on others (held out), the
convolutions and multiply-adds in int8, the graphs that the search measured, and its CPU time. `--rounds N` also runs
the results in turns on OpenVINO, N times each, and prints ratios of medians to fp32.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from glama_deploy.benchmarks.quality.photos import PHOTOS, list_photos
from glama_deploy.catalogue import INT8_LEAST_PSNR_DB, INT8_PHOTOS_MARGIN_DB
from glama_deploy.checkpoints import formats
from glama_deploy.evaluation import protocol
from glama_deploy.export.graph import network
from glama_deploy.export.numerics import equalize, half, quantize, symmetric
from glama_deploy.export.numerics.quantize import Sample
from glama_deploy.export.samples import Case
from glama_deploy.masks import by_name
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import IMAGE, MASK, SPECTRUM
from glama_deploy.psnr import compute_psnr
from glama_deploy.reference.random_weights import untrained
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session

#: NNCF ranks quantizers on this many photographs: as many as our search does.
RANKED_ON = 3


@dataclass(frozen=True)
class Problem:
    """What both searches are given, and the photographs that neither sees."""

    model: onnx.ModelProto
    ignored: list[str]
    calibration: list[Sample]
    checks: list[Sample]
    held_out: list[Sample]
    work: dict[str, int]


@dataclass(frozen=True)
class Found:
    """What a search ends with: the graph, how many graphs it measured on the way, CPU seconds."""

    model: onnx.ModelProto
    measured: int
    seconds: float


def read_network(name: str, channels: int) -> tuple[NetworkConfig, dict[str, np.ndarray]]:
    """Read a checkpoint, or make LaMa (9 blocks) with random weights.

    Args:
        name: `lama`, `default` or a checkpoint.
        channels: channels behind the stem of `lama`.

    Returns:
        The configuration and the weights by name.
    """
    if name == "lama":
        config = NetworkConfig(n_blocks=9, ngf=channels)
        return config, untrained(config)
    checkpoint = formats.read(name)
    return checkpoint.config, dict(checkpoint.weights)


def make_samples(paths: Sequence[Path], side: int, seed: int) -> list[Sample]:
    """Cut each photograph's middle square, with a mask as in training.

    Args:
        paths: the photographs.
        side: side of the square, in pixels.
        seed: seed of the masks.

    Returns:
        The samples; their missing pixels are measured.
    """
    samples = []
    for number, path in enumerate(paths):
        missing = by_name("general")(side, side, np.random.default_rng([seed, number]))[None]
        image, mask = Case(path.name, protocol.read_truth(path, (side, side))[None], missing).tensors()
        samples.append(Sample({IMAGE: image, MASK: mask}, missing))
    return samples


def make_problem(name: str, options: argparse.Namespace) -> Problem:
    """Build the fp32 graph as the exporter does for int8, and choose the photographs.

    Args:
        name: `lama`, `default` or a checkpoint.
        options: the options of the command.

    Returns:
        What both searches are given.
    """
    paths = list_photos(options.photos)
    seen = options.calibration
    if len(paths) < seen + options.held_out:
        raise SystemExit(f"{options.photos} has {len(paths)} photographs; {seen + options.held_out} are needed")
    calibration = make_samples(paths[:seen], options.size, 0)
    config, weights = read_network(name, options.channels)
    plain = network.build(config, weights)
    weights = equalize.equalize_channels(
        config, weights, lambda names: quantize.measure_channel_ranges(plain, names, calibration)
    )
    model = network.build(config, weights)
    ignored = [
        node.name for node in model.graph.node if half.is_always_fp32(node) or node.name.endswith(f"/{SPECTRUM}")
    ]
    return Problem(
        model,
        ignored,
        calibration,
        make_samples(paths[: options.checks], options.size, 1),
        make_samples(paths[seen : seen + options.held_out], options.size, 2),
        count_multiply_adds(network.build(config, weights, (options.size, options.size))),
    )


def count_multiply_adds(static: onnx.ModelProto) -> dict[str, int]:
    """Count the multiply-adds of each convolution.

    Args:
        static: a graph of fixed size.

    Returns:
        The counts by the convolution's name.
    """
    inferred = onnx.shape_inference.infer_shapes(static).graph
    shapes = {info.name: [side.dim_value for side in info.type.tensor_type.shape.dim] for info in inferred.value_info}
    weights = {tensor.name: math.prod(tensor.dims) for tensor in inferred.initializer}
    counts = {}
    for node in inferred.node:
        if node.op_type in quantize.CONVOLUTIONS:
            tensor = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
            counts[node.name] = weights[node.input[1]] * math.prod(shapes[tensor][2:])
    return counts


def predict(model: onnx.ModelProto, samples: Iterable[Sample]) -> list[np.ndarray]:
    """Run a graph on samples.

    Args:
        model: the graph.
        samples: the samples.

    Returns:
        The measured pixels of each sample, float64 [pixels, 3] in 0…1.
    """
    session = open_cpu_session(model.SerializeToString(), multiplies_bytes=False)  # on every CPU the same
    return [
        session.run([sample.output], sample.inputs)[0].transpose(0, 2, 3, 1)[sample.measured].astype(np.float64)
        for sample in samples
    ]


def measure_squares(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> tuple[float, list[float]]:
    """Measure the squared difference of two predictions.

    Args:
        found: a prediction for each sample.
        expected: the prediction to compare with.

    Returns:
        The mean over all pixels, and the mean of each sample.
    """
    squares = [(one - other) ** 2 for one, other in zip(found, expected, strict=True)]
    return float(np.concatenate(squares).mean()), [float(values.mean()) for values in squares]


def measure_psnr(problem: Problem, model: onnx.ModelProto, samples: list[Sample]) -> float:
    """Measure the PSNR of the missing pixels against the fp32 graph, of all samples together.

    Args:
        problem: has the fp32 graph.
        model: the graph to compare.
        samples: the samples.

    Returns:
        The PSNR in dB, peak 1.
    """
    mean, _ = measure_squares(predict(model, samples), predict(problem.model, samples))
    return compute_psnr(mean)


def search_own(problem: Problem, least: float) -> Found:
    """Run this project's search.

    Args:
        problem: the graph and the samples.
        least: least PSNR in dB.

    Returns:
        The result of the search.
    """
    steps: list[str] = []
    start = time.process_time()
    found = quantize.quantize(
        problem.model, problem.calibration, problem.checks, ignore=problem.ignored, least=least, step=steps.append
    )
    return Found(found.model, len(steps), time.process_time() - start)


def search_nncf(problem: Problem, least: float) -> Found:
    """Run NNCF's accuracy control with 1 − MSE as its metric.

    PSNR cannot be the metric: fp32 has an infinite one. Nor can −MSE: NNCF 3.4 divides by the metric of fp32.

    Args:
        problem: the graph and the samples.
        least: least PSNR in dB.

    Returns:
        The result of the search.
    """
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    start = time.process_time()
    expected = predict(problem.model, problem.checks)
    untouched = {node.name for node in problem.model.graph.node if node.op_type in quantize.UNTOUCHED}
    measured = 0

    def validate(model: onnx.ModelProto, items: Iterable[int]) -> tuple[float, list[float]]:
        nonlocal measured
        measured += 1
        numbers = list(items)
        found = predict(model, [problem.checks[number] for number in numbers])
        mean, each = measure_squares(found, [expected[number] for number in numbers])
        return 1 - mean, [1 - value for value in each]

    copy = onnx.ModelProto()
    copy.CopyFrom(problem.model)
    model = nncf.quantize_with_accuracy_control(
        copy,
        nncf.Dataset([sample.inputs for sample in problem.calibration]),
        nncf.Dataset(list(range(len(problem.checks)))),
        validate,
        max_drop=10 ** (-least / 10),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(problem.calibration),
        ignored_scope=nncf.IgnoredScope(names=sorted(untouched | set(problem.ignored))),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=RANKED_ON, num_ranking_workers=1
        ),
    )
    return Found(model, measured, time.process_time() - start)


SEARCHES: dict[str, Callable[[Problem, float], Found]] = {"ours": search_own, "NNCF": search_nncf}


def has_tensorrt_graph(problem: Problem, model: onnx.ModelProto) -> bool:
    """Check whether the exporter could write a result with zero points of 0, as TensorRT needs.

    Args:
        problem: has the fp32 graph.
        model: the result of a search.

    Returns:
        True where TensorRT's graph can be written.
    """
    transposed = [node.name for node in problem.model.graph.node if node.op_type == "ConvTranspose"]
    try:
        symmetric.make_symmetric(quantize.restore_fp32(model, problem.model, transposed))
    except (ValueError, KeyError, IndexError) as error:
        logging.warning("no graph for TensorRT: %s", error)
        return False
    return True


def describe(problem: Problem, found: Found) -> list[str]:
    """Describe a result: accuracy, the share in int8, and the cost of the search.

    Args:
        problem: has the fp32 graph and the samples.
        found: the result of a search.

    Returns:
        The cells of the result's row.
    """
    in_bytes = quantize.find_int8_convolutions(found.model) & problem.work.keys()
    work = sum(problem.work[name] for name in in_bytes) / sum(problem.work.values())
    return [
        f"{measure_psnr(problem, found.model, problem.checks):.2f} dB",
        f"{measure_psnr(problem, found.model, problem.held_out):.2f} dB",
        f"{len(in_bytes)} of {len(problem.work)}",
        f"{work:.1%}",
        "yes" if has_tensorrt_graph(problem, found.model) else "no",
        str(found.measured),
        f"{found.seconds:.0f}",
    ]


def time_in_turns(models: dict[str, onnx.ModelProto], sample: Sample, rounds: int) -> dict[str, float]:
    """Time graphs in turns on OpenVINO.

    Args:
        models: the graphs by name, fp32 first.
        sample: the input.
        rounds: number of runs that count.

    Returns:
        The median time of each graph as a share of the first graph's.
    """
    import openvino

    core = openvino.Core()
    compiled = {name: core.compile_model(core.read_model(model.SerializeToString())) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, engine in compiled.items():
            start = time.perf_counter()
            engine(sample.inputs)
            if turn:  # the first is warm-up
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first = next(iter(medians.values()))
    return {name: median / first for name, median in medians.items()}


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["default"], help="default, lama or a checkpoint")
    parser.add_argument("--channels", type=int, default=64, help="of lama, behind the stem")
    parser.add_argument(
        "--least", type=float, nargs="+", default=[INT8_LEAST_PSNR_DB + INT8_PHOTOS_MARGIN_DB, 51.0], help="dB"
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--calibration", type=int, default=6, help="photographs to calibrate on")
    parser.add_argument("--checks", type=int, default=3, help="of them, photographs to measure on")
    parser.add_argument("--held-out", type=int, default=6, help="other photographs, for the table alone")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--rounds", type=int, default=0, help="timed runs of each result on OpenVINO")
    options = parser.parse_args()
    console = Console(width=140)
    headers = ("network", "least", "search", "PSNR", "held out", "int8", "multiply-adds", "TensorRT", "graphs", "CPU s")
    table = Table(*headers)
    for name in options.network:
        problem = make_problem(name, options)
        for least in options.least:
            found = {}
            for way, search in SEARCHES.items():
                found[way] = search(problem, least)
                cells = [name, f"{least:g}", way, *describe(problem, found[way])]
                table.add_row(*cells)
                print("| " + " | ".join(cells) + " |", flush=True)
            if options.rounds:
                models = {"fp32": problem.model, **{way: result.model for way, result in found.items()}}
                for way, share in time_in_turns(models, problem.checks[0], options.rounds).items():
                    print(f"{name}, {least:g} dB, OpenVINO: {way} takes {share:.2f} of fp32's time", flush=True)
    console.print(table)


if __name__ == "__main__":
    main()
