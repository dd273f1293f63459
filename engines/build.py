"""Build engines, and put them into bundles."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from glama_deploy import bundle_folder, catalogue
from glama_deploy.bundle import (
    MANIFEST,
    NOT_ASKED,
    Bundle,
    DeviceCheck,
    Engine,
    EngineName,
    Manifest,
    Parity,
    Precision,
    SizeRange,
    graph_name,
    manifest_text,
)
from glama_deploy.catalogue import ENGINES, EngineRecord, Tolerance, find_target, join_names
from glama_deploy.engines import base
from glama_deploy.engines.base import BuildTask
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.engines.tensorrt.profiles import fit_profile
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.io.files import link_or_copy, remove, write_error
from glama_deploy.runtime.tensorrt.kernel_cache import RUNTIME_CACHE

log = logging.getLogger("glama_deploy")

_FROM_BUNDLE = Parity(measured=False, reason="built from the bundle, without the reference")


def build(task: BuildTask) -> Engine:
    """Build an engine from the graphs of a bundle.

    Args:
        task: The engine to build. Its files come into the folder `task.folder/<engine's name>`, which is made.

    Returns:
        The engine's entry in the manifest. Its parity is not measured yet.

    Raises:
        EngineError: The engine cannot be built on this machine, or its builder does not support an option.
    """
    record = task.record
    if not record.builder:
        return base.describe_engine(task.folder, record.name, task.precision, task.graph_sizes, [task.graph], {})
    task.options.check(record)
    (task.folder / record.name).mkdir(parents=True, exist_ok=True)
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
    check: bool = True,
) -> Bundle:
    """Build an engine into a bundle that exists. The engine replaces one of the same kind.

    Call this function on the device that runs the engine. PyTorch is not needed.

    Args:
        bundle: The bundle.
        target: The target, such as `openvino`, `trt` or `trt-rtx`.
        profile: The sizes (height, width) that a TensorRT engine is built for, if the bundle's graph takes any size.
        precision: The precision that the engine is built in. None: for TensorRT, the precision of the export; for
            OpenVINO, the precision of the engine that is replaced, else int8 if the bundle has such a graph, else fp32.
        options: The builder's options; None: the defaults.
        report: A function that takes a report of the engine, if its builder makes reports.
        tolerances: Bounds, by precision, for the parity that was emulated at the export. Without them the export's
            bounds stay.
        check: Whether a TensorRT engine is run on this device, and refused where its output differs from that of ONNX
            Runtime. Without a GPU or ONNX Runtime the manifest says what is missing.

    Returns:
        The bundle with the engine.

    Raises:
        EngineError: The engine cannot be built on this machine, or computes wrong values here.
        GlamaError: An argument is not usable, or the bundle cannot be written. The bundle is as it was.
    """
    record = find_target(target)
    if not record.builder:
        built = join_names(each.target for each in ENGINES.values() if each.builder)
        raise GlamaError(f"an ONNX model is not built from a bundle, it is exported; expected {built}")
    bundle.check_ends()
    if bundle.manifest.fft not in record.lowerings:
        raise GlamaError(base.explain_lowering(record, bundle.manifest.fft))
    options = options or Options()
    options.check(record)
    profile = fit_profile(bundle.sizes, profile)
    precision = choose_precision(bundle, record, precision)
    graph = record.graph_for(precision)
    bundle.graph(graph)  # a missing graph is reported before waiting for another process

    def make(work: Path) -> Engine:
        link_or_copy(bundle.graph(graph), work / graph_name(graph))
        return build(
            BuildTask(
                record=record,
                folder=work,
                precision=precision,
                graph_sizes=bundle.sizes,
                profile=profile,
                fft=bundle.manifest.fft,
                kept=tuple(bundle.manifest.graphs[graph].kept),
                options=options,
                report=report,
            )
        )

    bound = find_bound(bundle, record, precision, tolerances)
    return install_engine(bundle, record.name, make, bound, make_check(bundle, record, tolerances, is_asked=check))


def make_check(
    bundle: Bundle, record: EngineRecord, tolerances: Mapping[str, Tolerance], *, is_asked: bool
) -> Callable[[Bundle], DeviceCheck] | None:
    """Make the check of an engine that was built on this device, for :func:`install_engine`.

    Args:
        bundle: The bundle that the engine was built from.
        record: The engine in the catalogue.
        tolerances: Bounds that replace the catalogue's, by precision.
        is_asked: Whether the user wants the check. Otherwise the result says that there was none.

    Returns:
        The check; None for an engine that is not TensorRT's.
    """
    if record.backend != catalogue.TENSORRT.backend:
        return None

    def check(built: Bundle) -> DeviceCheck:
        if not is_asked:
            return DeviceCheck(measured=False, reason=NOT_ASKED)
        from glama_deploy.engines.tensorrt.device_check import check_engine

        return check_engine(bundle, built, record.name, tolerances)

    return check


def choose_precision(bundle: Bundle, record: EngineRecord, asked: str | None) -> Precision:
    """Return the precision that an engine of the bundle is built in.

    Args:
        bundle: The bundle.
        record: The engine in the catalogue.
        asked: The precision that a user asks for; None: as :func:`add_engine` says.

    Returns:
        The precision, one of the values of `record.precisions`.

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
    """Return the builder's options that a bundle was exported with.

    Args:
        manifest: The bundle's manifest.
        record: The engine in the catalogue.

    Returns:
        The options. The defaults if the bundle has none, or if the engine's builder does not support them all. The
        second case is logged.
    """
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
    """Return the precision that a bundle was exported in, for a strongly typed engine.

    Args:
        manifest: The bundle's manifest.
        record: The engine in the catalogue.

    Returns:
        The precision. If the bundle has no graph in that precision, the precision of the last graph that the engine
        takes.
    """
    asked = None if manifest.asked is None else record.precisions.get(manifest.asked.precision)
    if asked in manifest.graphs:
        return asked
    takes = set(record.precisions.values())
    return [precision for precision in manifest.graphs if precision in takes][-1]  # the fp32 graph comes first


def find_bound(
    bundle: Bundle, record: EngineRecord, precision: Precision, tolerances: Mapping[str, Tolerance]
) -> Tolerance | None:
    """Find the bound that replaces the export's bound for an engine's emulated parity.

    Args:
        bundle: The bundle.
        record: The engine in the catalogue.
        precision: The precision that the engine is built in.
        tolerances: Bounds by precision.

    Returns:
        The bound; None if there are no `tolerances`.

    Raises:
        GlamaError: The bound cannot be used, or the export emulated no parity for this engine.
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
    bundle: Bundle,
    name: EngineName,
    make: Callable[[Path], Engine],
    bound: Tolerance | None = None,
    check: Callable[[Bundle], DeviceCheck] | None = None,
) -> Bundle:
    """Put an engine into a bundle that exists, in place of one of the same kind.

    If another process writes the bundle, this function waits for it. Engines that the other process added stay.

    Args:
        bundle: The bundle, as it was opened.
        name: The name of the engine in the catalogue.
        make: A function that takes an empty folder, writes the engine's files into its subfolder `name`, and returns
            the engine's entry for the manifest.
        bound: The bound for the parity that was emulated at the export; None: the export's own bound.
        check: A function that takes a bundle with the finished engine, which is not published yet, and checks the
            engine on this device; None: the engine is not run.

    Returns:
        The bundle with the engine.

    Raises:
        GlamaError: The engine cannot be made or written, fails the check, or another process exported the bundle again
            in the meantime. The bundle is as it was.
    """
    try:
        with bundle_folder.open_for_changes(bundle.path) as work:
            manifest = _read_unchanged_manifest(bundle)
            engine = make(work)
            if check is not None:
                candidate = manifest.model_copy(update={"engines": {**manifest.engines, name: engine}})
                engine = engine.model_copy(update={"device_check": check(Bundle(work, candidate))})
                remove(work / name / RUNTIME_CACHE)  # the kernels of the check's sizes
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
    """Read the manifest again. Raise BundleError if more than its engines differs from the opened bundle."""
    now = Bundle.open(bundle.path).manifest
    if now.model_copy(update={"engines": {}}) != bundle.manifest.model_copy(update={"engines": {}}):
        raise BundleError(f"{bundle.path} was changed by another process since it was opened; open it again")
    return now
