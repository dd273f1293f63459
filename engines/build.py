"""One engine of a bundle, out of the ONNX model that stands in its folder."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from glama_deploy import bundle_folder, catalogue
from glama_deploy.bundle import (
    MANIFEST,
    Bundle,
    Engine,
    EngineName,
    Lowering,
    Manifest,
    Parity,
    Precision,
    SizeRange,
    graph_name,
    manifest_text,
)
from glama_deploy.catalogue import ENGINES, EngineRecord, Tolerance, find_target, listed
from glama_deploy.engines import base
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.io.files import remove, write_error

log = logging.getLogger("glama_deploy")

_FROM_BUNDLE = Parity(measured=False, reason="built from the bundle, without the reference")


def build(
    folder: Path,
    record: EngineRecord,
    graph: SizeRange,
    profile: SizeRange,
    precision: Precision,
    *,
    fft: Lowering = "matmul",
    kept: Iterable[str] = (),
    options: Options | None = None,
    report: Callable[[Report], None] | None = None,
) -> Engine:
    """Build an engine from the graphs in `folder` into `folder/<engine>`; its parity is not measured yet.

    Args:
        folder: The folder of the bundle, with its graphs.
        record: The engine in the catalogue.
        graph: The sizes that the graphs take.
        profile: The sizes that an engine with optimization profiles is built for, where the graphs take any.
        precision: The precision that the engine is built in, one of the values of `record.precisions`.
        fft: The lowering of the FFT in the graphs.
        kept: The names of nodes that are not in the graph's precision.
        options: The builder's options.
        report: Called with a report of the engine, where its builder has one.

    Returns:
        The engine's entry in the manifest.

    Raises:
        EngineError: The engine cannot be built here.
    """
    if not record.builder:
        file = folder / graph_name(record.graph_for(precision))
        return base.describe_engine(folder, record.name, precision, graph, [file], {})
    options = options or Options()
    options.check(record)
    (folder / record.name).mkdir(parents=True, exist_ok=True)
    task = base.BuildTask(record, folder, precision, graph, profile, fft, tuple(kept), options, report)
    engine: Engine = importlib.import_module(record.builder).build(task)
    return engine


def add_engine(
    bundle: Bundle,
    target: str,
    profile: SizeRange,
    precision: Precision | None = None,
    *,
    options: Options | None = None,
    report: Callable[[Report], None] | None = None,
    tolerances: Mapping[str, Tolerance] = MappingProxyType({}),
) -> Bundle:
    """Build an engine into a bundle that exists, replacing one of the same kind; on the device, without torch.

    Without a precision, it is for TensorRT what the bundle was exported in, and for OpenVINO that of the engine that is
    replaced, else int8 where the bundle has such a graph, else fp32. `options` and `report` are as in :func:`build`,
    `tolerances` as in :func:`install_engine`. Raises GlamaError.
    """
    record = find_target(target)
    if not record.builder:
        built = listed(each.target for each in ENGINES.values() if each.builder)
        raise GlamaError(f"an ONNX model is not built from a bundle, it is exported; expected {built}")
    if bundle.manifest.fft not in record.lowerings:
        raise GlamaError(base.explain_lowering(record, bundle.manifest.fft))
    options = options or Options()
    options.check(record)
    precision = choose_precision(bundle, record, precision)
    graph = record.graph_for(precision)
    bundle.graph(graph)  # said before another process is waited for

    def make(work: Path) -> Engine:
        (work / graph_name(graph)).symlink_to(bundle.graph(graph).absolute())
        return build(
            work,
            record,
            bundle.sizes,
            profile,
            precision,
            fft=bundle.manifest.fft,
            kept=bundle.manifest.graphs[graph].kept,
            options=options,
            report=report,
        )

    return install_engine(bundle, record.name, make, find_bound(bundle, record, precision, tolerances))


def choose_precision(bundle: Bundle, record: EngineRecord, asked: str | None) -> Precision:
    """Return the precision that an engine of the bundle is built in.

    Args:
        bundle: The bundle.
        record: The engine in the catalogue.
        asked: The precision that a user asks for; None: as :func:`add_engine` says.

    Raises:
        GlamaError: The engine does not support the precision.
    """
    if asked is not None:
        return record.build_precision(asked)
    if record.is_strongly_typed:
        return find_exported_precision(bundle.manifest, record)
    replaced = bundle.engine(record.name)
    if replaced is not None:
        return replaced.precision
    quantized = record.precisions.get("int8")
    return quantized if quantized in bundle.manifest.graphs else "fp32"


def read_asked_options(manifest: Manifest, record: EngineRecord) -> Options:
    """The builder's options that the bundle was exported with; the defaults where it has none, or the engine's builder
    does not know what was asked of another one, which is said."""
    if manifest.asked is None or not record.options:
        return Options()
    options = Options(manifest.asked.settings, manifest.asked.profiles)
    try:
        options.check(record)
    except GlamaError as error:
        log.warning("the bundle was exported with other builder options, which are left out: %s", error)
        return Options()
    return options


def find_exported_precision(manifest: Manifest, record: EngineRecord) -> Precision:
    """The precision that the bundle was exported in, for a strongly typed engine; where the bundle has no graph of it,
    the last graph that the engine takes."""
    asked = None if manifest.asked is None else record.precisions.get(manifest.asked.precision)
    if asked in manifest.graphs:
        return asked
    takes = set(record.precisions.values())
    return [precision for precision in manifest.graphs if precision in takes][-1]  # the fp32 graph comes first


def find_bound(
    bundle: Bundle, record: EngineRecord, precision: Precision, tolerances: Mapping[str, Tolerance]
) -> Tolerance | None:
    """Return the bound that replaces the export's for an engine's emulated parity; None where the user gives none.

    Raises:
        GlamaError: The bound cannot be used, or the export emulated no parity that it could judge.
    """
    if not tolerances:
        return None
    catalogue.check_tolerances(tolerances, [precision])
    graph = bundle.manifest.graphs.get(precision)
    if not record.is_strongly_typed or graph is None or graph.parity is None or not graph.parity.measured:
        raise GlamaError(
            f"a tolerance judges the parity that was emulated at the export, and there is none for {record.name} in "
            f"{precision}; leave it out, or export again with a tolerance"
        )
    return catalogue.find_tolerance(precision, tolerances)


def install_engine(
    bundle: Bundle, name: EngineName, make: Callable[[Path], Engine], bound: Tolerance | None = None
) -> Bundle:
    """Put an engine into a bundle that exists, in place of one of the same kind.

    Another process that writes the bundle is waited for. Engines that it added stay.

    Args:
        bundle: the bundle, as it was opened.
        name: the kind of the engine.
        make: writes the engine's files into `<folder>/<name>` of the empty folder that it is given.
        bound: judges the parity that was emulated at the export; None: the export's own bound.

    Returns:
        The bundle with the engine.

    Raises:
        GlamaError: the engine cannot be made or written, or another process exported the bundle anew while this one
            waited. The bundle is as it was.
    """
    try:
        with bundle_folder.open_for_changes(bundle.path) as work:
            manifest = _read_unchanged_manifest(bundle)
            engine = make(work)
            for beside in [path for path in work.iterdir() if path.name != name]:
                remove(beside)
            graph = manifest.graphs.get(engine.precision)
            emulated = graph.parity if graph and ENGINES[name].is_strongly_typed else None
            if emulated and bound:
                update = {"tolerance": bound.max_abs_error, "least_psnr": bound.least_psnr}
                emulated = emulated.model_copy(update=update)
            engine = engine.model_copy(update={"parity": emulated or _FROM_BUNDLE})
            manifest = manifest.model_copy(update={"engines": {**manifest.engines, name: engine}})
            (work / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
            bundle_folder.publish(bundle.path, work, bundle_folder.list_engine_files(bundle.path, name))
    except OSError as error:
        raise write_error(bundle.path, error) from error
    return Bundle(bundle.path, manifest)


def _read_unchanged_manifest(bundle: Bundle) -> Manifest:
    """The manifest as it is now. Raises BundleError where more than engines differs from what was opened."""
    now = Bundle.open(bundle.path).manifest
    if now.model_copy(update={"engines": {}}) != bundle.manifest.model_copy(update={"engines": {}}):
        raise BundleError(f"{bundle.path} was changed by another process since it was opened; open it again")
    return now
