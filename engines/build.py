"""One engine of a bundle, out of the ONNX model that stands in its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from glama_deploy import bundle as bundles
from glama_deploy import bundle_folder
from glama_deploy.bundle import Bundle, Engine, EngineName, Lowering, Manifest, Parity, Precision, SizeRange
from glama_deploy.engines import openvino
from glama_deploy.engines.tensorrt import builder as tensorrt
from glama_deploy.engines.tensorrt import profiles
from glama_deploy.engines.tensorrt.inspection import Report
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.io.files import remove, write_error

log = logging.getLogger("glama_deploy")

#: What the commands call them, and the engine that comes out.
TARGETS: dict[str, EngineName] = {
    "onnx": "onnx",
    "openvino": "openvino",
    "trt": "tensorrt",
    "trt-rtx": "tensorrt-rtx",
}

_NO_PARITY = Parity(measured=False, reason=bundles.NOT_ASKED)
_FROM_BUNDLE = Parity(measured=False, reason="built from the bundle, without the reference")

#: What TensorRT computes in: the types that graphs have.
_TYPED = ("fp32", "fp16", "bf16", "int8+fp16")

#: The file of a TensorRT engine, in the folder of its kind.
ENGINE_FILE = "model.engine"


def target_of(name: str) -> str:
    """The target's own name; an engine's name is taken for it, too. Raises GlamaError for any other."""
    targets: dict[str, str] = {engine: target for target, engine in TARGETS.items()}
    if name not in TARGETS and name not in targets:
        raise GlamaError(f"unknown target {name!r}; expected {', '.join(TARGETS)}")
    return targets.get(name, name)


def typed(precision: Precision) -> Precision:
    """What TensorRT computes in where a precision is asked for: what is not int8 there is fp16."""
    return "int8+fp16" if precision == "int8" else precision


def build(
    folder: Path,
    target: str,
    graph: SizeRange,
    profile: SizeRange,
    precision: Precision,
    *,
    fft: Lowering = "matmul",
    kept: Iterable[str] = (),
    options: Options | None = None,
    report: Callable[[Report], None] | None = None,
) -> Engine:
    """Build the target's engine from the graphs in `folder` into `folder/<engine>`; its parity is not measured yet.

    `graph` is what the ONNX models take; a TensorRT engine takes `profile`, or the graph's one size where it is static.
    TensorRT builds from the graph that has `precision` written into it, but in the nodes called `kept`; ONNX Runtime
    and OpenVINO take the fp32 graph, or the int8 one, and OpenVINO stores weights in fp16 where asked. `fft` is how
    FFTs stand in the graphs. `options` are TensorRT's, and `report` hears what is in its engine. Raises EngineError
    where the engine cannot be built here.
    """
    name = TARGETS[target]
    source: Precision = "int8" if precision == "int8" else "fp32"
    onnx = folder / bundles.graph_name(source)
    if name == "onnx":
        return entry(folder, name, source, graph, [onnx], {})
    if name == "openvino":
        half = precision in ("fp16", "bf16")
        files, versions = openvino.build(onnx, folder / name, fp16_weights=half)
        return entry(folder, name, "fp16" if half else source, graph, files, versions)
    options = options or Options()
    options.check(target)
    task = tensorrt.Task(
        package="tensorrt" if name == "tensorrt" else "tensorrt_rtx",
        onnx=folder / bundles.graph_name(precision),
        engine=folder / name / ENGINE_FILE,
        precision=precision,
        profiles=engine_profiles(target, graph, profile, options),
        fft=fft,
        kept=tuple(kept),
        settings=options.settings,
        capabilities=options.capabilities,
        timing_cache=options.timing_cache,
        inspect=report is not None,
    )
    built = tensorrt.build(task)
    if report is not None:
        report(built.report)
    sizes = task.profiles[-1].model_copy(update={"opt": graph.opt if graph.static else profile.opt})
    update = {"profiles": task.profiles, "settings": task.settings, "compute_capabilities": built.capabilities}
    return entry(folder, name, precision, sizes, [task.engine], built.versions).model_copy(update=update)


def engine_profiles(target: str, graph: SizeRange, profile: SizeRange, options: Options) -> tuple[SizeRange, ...]:
    """The optimization profiles of a TensorRT engine, the smallest first; the last covers all that it takes.

    TensorRT has three by default. TensorRT-RTX has one: it compiles on the device for the sizes that it meets, and
    every further profile is a further copy of the network's plan in the file.
    """
    if graph.static:
        return (graph.model_copy(update={"max_batch": profile.max_batch}),)
    several = options.profiles == "three" or (options.profiles == "auto" and target == "trt")
    return profiles.nested(profile) if several else (profile,)


def entry(
    folder: Path,
    name: EngineName,
    precision: Precision,
    sizes: SizeRange,
    files: list[Path],
    versions: dict[str, str],
) -> Engine:
    """The manifest's entry for files that were just made."""
    artifacts = tuple(bundles.artifact(folder, file) for file in files)
    return Engine(name=name, precision=precision, sizes=sizes, files=artifacts, versions=versions, parity=_NO_PARITY)


def add(
    bundle: Bundle,
    target: str,
    profile: SizeRange,
    precision: Precision | None = None,
    *,
    options: Options | None = None,
    report: Callable[[Report], None] | None = None,
) -> Bundle:
    """Build an engine into a bundle that exists, replacing one of the same kind; on the device, without torch.

    Without a precision, it is for TensorRT what the bundle was exported in, and for OpenVINO that of the engine that is
    replaced, else int8 where the bundle has such a graph, else fp32. `options` and `report` are as in :func:`build`.
    Raises GlamaError.
    """
    target = target_of(target)
    if target == "onnx":
        raise GlamaError("an ONNX model is not built from a bundle, it is exported; expected openvino, trt or trt-rtx")
    if target == "openvino" and bundle.manifest.fft == "plugin":
        raise GlamaError("OpenVINO has no plugin nodes, which this bundle's graph needs; export it with --fft matmul")
    options = options or Options()
    options.check(target)
    precision = choose_precision(bundle, target, precision)
    graph: Precision = "fp32" if target == "openvino" and precision != "int8" else precision
    bundle.graph(graph)  # said before another process is waited for

    def make(work: Path) -> Engine:
        (work / bundles.graph_name(graph)).symlink_to(bundle.graph(graph).absolute())
        return build(
            work,
            target,
            bundle.sizes,
            profile,
            precision,
            fft=bundle.manifest.fft,
            kept=bundle.manifest.graphs[graph].kept,
            options=options,
            report=report,
        )

    return install(bundle, TARGETS[target], make)


def choose_precision(bundle: Bundle, target: str, asked: str | None) -> Precision:
    """What an engine of the bundle is built in: what is asked for, else as :func:`add` says. Raises GlamaError for one
    that the target has not."""
    name = TARGETS[target]
    if asked is None and name == "openvino":
        replaced = bundle.engine(name)
        asked = replaced.precision if replaced else ("int8" if "int8" in bundle.manifest.graphs else "fp32")
    elif asked is None:
        asked = typed_precision(bundle.manifest)
    if name != "openvino":
        asked = typed(cast(Precision, asked))
    if asked not in (("fp32", "fp16", "int8") if name == "openvino" else _TYPED):
        raise GlamaError(
            f"precision is {asked!r}, which {target} has not; expected fp32, fp16 or int8 (TensorRT: bf16, too)"
        )
    return cast(Precision, asked)


def asked_for(manifest: Manifest, target: str) -> Options:
    """The builder's options that the bundle was exported with; the defaults where it has none, or the target has not
    what was asked of another one, which is said."""
    if manifest.asked is None or not target.startswith("trt"):
        return Options()
    options = Options(manifest.asked.settings, manifest.asked.profiles)
    try:
        options.check(target)
    except GlamaError as error:
        log.warning("the bundle was exported with other builder options, which are left out: %s", error)
        return Options()
    return options


def typed_precision(manifest: Manifest) -> Precision:
    """What the bundle was exported in; where it has no graph of that for TensorRT, the last that it has."""
    if manifest.asked is not None and typed(manifest.asked.precision) in manifest.graphs:
        return typed(manifest.asked.precision)
    return [precision for precision in manifest.graphs if precision in _TYPED][-1]  # the fp32 graph comes first


def install(bundle: Bundle, name: EngineName, make: Callable[[Path], Engine]) -> Bundle:
    """Put an engine into a bundle that exists, in place of one of the same kind.

    Another process that writes the bundle is waited for. Engines that it added stay.

    Args:
        bundle: the bundle, as it was opened.
        name: the kind of the engine.
        make: writes the engine's files into `<folder>/<name>` of the empty folder that it is given.

    Returns:
        The bundle with the engine.

    Raises:
        GlamaError: the engine cannot be made or written, or another process exported the bundle anew while this one
            waited. The bundle is as it was.
    """
    try:
        with bundle_folder.open_for_changes(bundle.path) as work:
            manifest = _unchanged(bundle)
            engine = make(work)
            for beside in [path for path in work.iterdir() if path.name != name]:
                remove(beside)
            graph = manifest.graphs.get(engine.precision)
            emulated = graph.parity if graph and name.startswith("tensorrt") else None
            engine = engine.model_copy(update={"parity": emulated or _FROM_BUNDLE})
            manifest = manifest.model_copy(update={"engines": {**manifest.engines, name: engine}})
            (work / bundles.MANIFEST).write_text(bundles.manifest_text(manifest), encoding="utf-8")
            bundle_folder.publish(bundle.path, work, bundle_folder.list_engine_files(bundle.path, name))
    except OSError as error:
        raise write_error(bundle.path, error) from error
    return Bundle(bundle.path, manifest)


def _unchanged(bundle: Bundle) -> Manifest:
    """The manifest as it is now. Raises BundleError where more than engines differs from what was opened."""
    now = Bundle.open(bundle.path).manifest
    if now.model_copy(update={"engines": {}}) != bundle.manifest.model_copy(update={"engines": {}}):
        raise BundleError(f"{bundle.path} was changed by another process since it was opened; open it again")
    return now
