"""The ways to write an FFT, side by side: there and back for 192 channels (LaMa's Fourier unit), fp32, a size a row.

python benchmarks/speed/fourier.py [--runs 6] [--size 64x64 …]

Sizes are of the bottleneck, an eighth of the image's. This is what the constant in glama_deploy/fourier/split.py was
fitted on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx

from glama_deploy import cost
from glama_deploy.export.graph.builder import GraphBuilder, Value
from glama_deploy.export.graph.fft_library import DftFFT
from glama_deploy.export.graph.fft_matmul import MatmulFFT
from glama_deploy.export.graph.fft_split import SplitFFT
from glama_deploy.node_names import IRFFT, RFFT
from glama_deploy.runtime.onnxruntime.providers import open_cpu_session
from glama_deploy.runtime.openvino.core import core

CHANNELS = 192
KINDS = ("matmul", "split", "dft")


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--size", nargs="+", default=["32x32", "64x64", "128x128", "135x240", "256x256"])
    options = parser.parse_args()
    for text in options.size:
        height, width = map(int, text.split("x"))
        models = {kind: make_model(kind, height, width) for kind in KINDS}
        for engine, opened in (("OpenVINO", compile_openvino), ("ONNX Runtime", open_onnxruntime)):
            runs = {kind: opened(made) for kind, made in models.items()}
            x = np.random.default_rng(0).random((1, CHANNELS, height, width), np.float32)
            times = time_in_turns(runs, x, options.runs)
            shown = ", ".join(f"{kind} {1e3 * seconds:.1f} ms" for kind, seconds in times.items())
            ratio = times["split"] / times["matmul"]
            chosen = cost.choose_lowering((8 * height, 8 * width))
            print(f"{text} {engine}: {shown}; split/matmul {ratio:.2f} (auto takes {chosen})", flush=True)


def time_in_turns(runs: dict[str, Callable[[np.ndarray], object]], x: np.ndarray, count: int) -> dict[str, float]:
    """Time functions in turns; the first turn does not count.

    Args:
        runs: the functions by name.
        x: their input.
        count: number of turns that count.

    Returns:
        The median seconds by name.
    """
    times: dict[str, list[float]] = {kind: [] for kind in runs}
    for turn in range(count + 1):
        for kind, run in runs.items():
            start = time.perf_counter()
            run(x)
            if turn:
                times[kind].append(time.perf_counter() - start)
    return {kind: statistics.median(found) for kind, found in times.items()}


def make_model(kind: str, height: int, width: int) -> onnx.ModelProto:
    """Build a graph of a forward FFT, a ReLU and an inverse FFT.

    Args:
        kind: the lowering: `matmul`, `split` or `dft`.
        height: height of the input.
        width: width of the input.

    Returns:
        The graph, of float32 [1, 192, H, W].
    """
    graph, size = GraphBuilder(), (height, width)
    fft: MatmulFFT | SplitFFT | DftFFT
    if kind == "split":
        fft = SplitFFT(graph, size)
    else:
        fft = (MatmulFFT if kind == "matmul" else DftFFT)(graph, size, like="x")
    spectrum = graph.add("Relu", [fft.forward("x", CHANNELS, f"unit/{RFFT}")], "relu")
    graph.add("Identity", [fft.inverse(spectrum, CHANNELS, f"unit/{IRFFT}", like="x")], "y")
    shape = (1, CHANNELS, height, width)
    return graph.model([Value("x", "float32", shape)], [Value("y", "float32", shape)], {})


def compile_openvino(model: onnx.ModelProto) -> Callable[[np.ndarray], object]:
    """Compile a graph with OpenVINO.

    Args:
        model: the graph.

    Returns:
        A function that runs the graph on an array.
    """
    engine = core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = engine.compile_model(engine.read_model(model.SerializeToString()), "CPU", settings)
    return lambda x: compiled({"x": x})


def open_onnxruntime(model: onnx.ModelProto) -> Callable[[np.ndarray], object]:
    """Open a graph with ONNX Runtime.

    Args:
        model: the graph.

    Returns:
        A function that runs the graph on an array.
    """
    session = open_cpu_session(model.SerializeToString())
    return lambda x: session.run(None, {"x": x})


if __name__ == "__main__":
    main()
