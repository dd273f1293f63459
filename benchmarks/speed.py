"""An Inpainter against TorchScript, the way the popular inpainting apps run LaMa: ratios, measured in turns.

    python benchmarks/speed.py [--network lama] [--size 512] [--threads 2] [--runs 7]

TorchScript gets float tensors that are ready to run and gives one back; the Inpainter gets a uint8 image and a mask
and gives a uint8 image, with all that stands between.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import glama_deploy
from glama_deploy.export.pipeline import Request, export
from glama_deploy.inpainter import Inpainter
from glama_deploy.masks import by_name
from glama_deploy.network import NAMED
from glama_deploy.reference import checkpoint
from glama_deploy.reference.generator import inpaint
from glama_deploy.reference.untrained import untrained


class Composed(torch.nn.Module):
    """Masking, network, compositing: what `big-lama.pt` holds."""

    def __init__(self, generator: torch.nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return inpaint(self.generator, image, mask)


class Clocked:
    """A runner that adds up the seconds spent in it."""

    def __init__(self, inpainter: Inpainter) -> None:
        self.runner, self.seconds = inpainter._runner, 0.0
        inpainter._runner = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> object:
        return getattr(self.runner, name)

    def run(self, image: np.ndarray, mask: np.ndarray, output: str = "inpainted") -> np.ndarray:
        start = time.perf_counter()
        try:
            return self.runner.run(image, mask, output)
        finally:
            self.seconds += time.perf_counter() - start


def torchscript(generator: torch.nn.Module, image: torch.Tensor, mask: torch.Tensor) -> torch.jit.ScriptModule:
    """The network traced, saved and loaded again."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        torch.jit.save(torch.jit.trace(Composed(generator), (image, mask)), file)
        return torch.jit.load(io.BytesIO(file.getvalue()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="lama", choices=NAMED)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (options.size, options.size, 3), np.uint8)
    hole = by_name("MediumStrokes")(options.size, options.size, rng)
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    mask = torch.from_numpy(hole)[None, None].float()

    with tempfile.TemporaryDirectory() as folder:
        source, bundle = Path(folder) / "network.safetensors", Path(folder) / "bundle"
        config = NAMED[options.network]
        checkpoint.save(source, config, untrained(config))
        export(Request(source, bundle, ("openvino",), parity=False))
        script = torchscript(checkpoint.load(source), image, mask)

        def run_script() -> None:
            with torch.inference_mode():
                script(image, mask)

        sides: dict[str, Callable[[], object]] = {"TorchScript fp32": run_script}
        clocks: dict[str, Clocked] = {}
        missing = []
        for backend, precision in (("onnxruntime", "auto"), ("openvino", "fp32"), ("openvino", "bf16")):
            inpainter = glama_deploy.load(bundle, backend, precision, options.threads)
            if precision == "bf16" and inpainter.precision != "bf16":
                missing.append("OpenVINO bf16: not measured, this CPU has no bf16")
                continue
            clocks[inpainter.description] = Clocked(inpainter)
            sides[inpainter.description] = lambda run=inpainter: run(picture, hole)
        times = in_turns(sides, options.runs, clocks)

    base = times["TorchScript fp32"]
    title = f"{options.network}, {options.size}x{options.size}, {options.threads} threads, {options.runs} runs in turns"
    table = Table("way", "median", "min…max", "against TorchScript", "pre- and post-processing", title=title)
    for name, seconds in times.items():
        ratios = [b / s for b, s in zip(base, seconds, strict=True)]
        around = ""
        if name in clocks:
            share = 1 - clocks[name].seconds / sum(seconds)
            around = f"{100 * share:.1f} %"
        table.add_row(
            name,
            f"{1000 * statistics.median(seconds):.0f} ms",
            f"{1000 * min(seconds):.0f}…{1000 * max(seconds):.0f}",
            f"{statistics.median(ratios):.2f}×",
            around,
        )
    Console(width=120).print(table, *missing)


def in_turns(sides: dict[str, Callable[[], object]], runs: int, clocks: dict[str, Clocked]) -> dict[str, list[float]]:
    """Seconds of each run: A B C, A B C, …, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(runs + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            if turn:
                times[name].append(time.perf_counter() - start)
            elif name in clocks:
                clocks[name].seconds = 0.0
    return times


if __name__ == "__main__":
    main()
