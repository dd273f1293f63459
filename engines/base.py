"""The interface of a builder. A new builder is one new file with a function `build(task: BuildTask) -> Engine`.

The function reads the ONNX model `task.graph`, writes the engine's files at `task.files`, and returns
`task.entry(...)`. The function raises EngineError if the engine cannot be built on this machine.
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
        graph_sizes: The sizes (height, width) that the graph takes.
        profile: The sizes that an engine with optimization profiles is built for, if the graph takes any size.
        fft: The lowering of the FFT in the graph.
        kept: The names of the graph's nodes that do not have its precision.
        options: The builder's options; only those in `record.options` differ from their defaults.
        report: A function that takes a report of the engine; None: the builder makes no report.
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
        """The paths of the engine's files. Their folder exists."""
        return [self.folder / self.record.name / name for name in self.record.files]

    def entry(self, versions: dict[str, str], sizes: SizeRange | None = None) -> Engine:
        """Describe the finished files for the manifest.

        Args:
            versions: The version of each package that built the engine.
            sizes: The sizes that the engine takes; None: the sizes of the graph.

        Returns:
            The engine's entry, without parity.
        """
        return describe_engine(
            self.folder, self.record.name, self.precision, sizes or self.graph_sizes, self.files, versions
        )


def explain_lowering(record: EngineRecord, fft: Lowering) -> str:
    """Say why an engine cannot be built from a bundle whose FFTs have a lowering that the engine does not run.

    Args:
        record: The engine in the catalogue.
        fft: The lowering of the FFT in the bundle's graph.

    Returns:
        The message, one line.
    """
    lacks = {"dft": "DFT operator", "plugin": "plugins"}.get(fft, f"{fft} lowering")
    return f"{record.title} has no {lacks}, which this bundle's graph needs; export it again with `fft=matmul`"


def describe_engine(
    folder: Path, name: str, precision: Precision, sizes: SizeRange, files: list[Path], versions: dict[str, str]
) -> Engine:
    """Describe files of an engine for the manifest.

    Args:
        folder: The folder of the bundle.
        name: The name of the engine in the catalogue.
        precision: The precision that the engine was built in.
        sizes: The sizes that the engine takes.
        files: The engine's files, in `folder`.
        versions: The version of each package that built the engine.

    Returns:
        The entry. Its parity is not measured yet.
    """
    artifacts = tuple(artifact(folder, file) for file in files)
    return Engine(name=name, precision=precision, sizes=sizes, files=artifacts, versions=versions, parity=NO_PARITY)
