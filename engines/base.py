"""What a builder is to the rest. A new builder is one new file with a function `build(task: BuildTask) -> Engine`.

The function writes the engine's files at `task.files`, from the ONNX model `task.graph`, and returns `task.entry(...)`.
It raises EngineError where the engine cannot be built here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glama_deploy.bundle import NOT_ASKED, Engine, Lowering, Parity, Precision, SizeRange, artifact, graph_name
from glama_deploy.catalogue import EngineRecord
from glama_deploy.engines.tensorrt.options import Options

if TYPE_CHECKING:
    from glama_deploy.engines.tensorrt.inspection import Report

NO_PARITY = Parity(measured=False, reason=NOT_ASKED)


@dataclass(frozen=True)
class BuildTask:
    """One engine to build.

    Attributes:
        record: The engine in the catalogue.
        folder: The folder of the bundle that is being written. It holds the graphs.
        precision: The precision that the engine is built in, one of the values of `record.precisions`.
        graph_sizes: The sizes that the graph takes.
        profile: The sizes that an engine with optimization profiles is built for, where the graph takes any.
        fft: The lowering of the FFT in the graph.
        kept: The names of the graph's nodes that are not in its precision.
        options: The builder's options; only those in `record.options` differ from their defaults.
        report: Called with a report of the engine, where the user asks for one.
    """

    record: EngineRecord
    folder: Path
    precision: Precision
    graph_sizes: SizeRange
    profile: SizeRange
    fft: Lowering = "matmul"
    kept: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    report: Callable[[Report], None] | None = None

    @property
    def graph(self) -> Path:
        """The ONNX model to build from."""
        return self.folder / graph_name(self.record.graph_for(self.precision))

    @property
    def files(self) -> list[Path]:
        """The places of the engine's files. Their folder is there."""
        return [self.folder / self.record.name / name for name in self.record.files]

    def entry(self, versions: dict[str, str], sizes: SizeRange | None = None) -> Engine:
        """Describe the finished files for the manifest.

        Args:
            versions: The version of each package that built the engine.
            sizes: The sizes that the engine takes; None: those of the graph.
        """
        return describe_engine(
            self.folder, self.record.name, self.precision, sizes or self.graph_sizes, self.files, versions
        )


def explain_lowering(record: EngineRecord, fft: Lowering) -> str:
    """Say why an engine cannot be built from a bundle whose FFTs have a lowering that the engine does not run."""
    lacks = {"dft": "DFT operator", "plugin": "plugins"}.get(fft, f"{fft} lowering")
    return f"{record.title} has no {lacks}, which this bundle's graph needs; export it again with `fft=matmul`"


def describe_engine(
    folder: Path, name: str, precision: Precision, sizes: SizeRange, files: list[Path], versions: dict[str, str]
) -> Engine:
    """Return the manifest's entry for files that were just made; its parity is not measured yet."""
    artifacts = tuple(artifact(folder, file) for file in files)
    return Engine(name=name, precision=precision, sizes=sizes, files=artifacts, versions=versions, parity=NO_PARITY)
