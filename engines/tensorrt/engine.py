"""Build a bundle's TensorRT or TensorRT-RTX engine: choose the profiles, build, describe the engine in the manifest."""

from __future__ import annotations

from glama_deploy.bundle import Engine, SizeRange
from glama_deploy.catalogue import TENSORRT, EngineRecord
from glama_deploy.engines import base
from glama_deploy.engines.tensorrt import builder, profiles
from glama_deploy.engines.tensorrt.options import Options


def build(task: base.BuildTask) -> Engine:
    """Build the engine for `task.profile`, or for the graph's only size if the graph is static.

    Args:
        task: The engine to build.

    Returns:
        The engine's entry for the manifest.

    Raises:
        EngineError: See :func:`glama_deploy.engines.tensorrt.builder.build`.
    """
    options = task.options
    (path,) = task.files
    made = builder.Task(
        package=task.record.package,
        onnx=task.graph,
        engine=path,
        precision=task.precision,
        profiles=choose_profiles(task.record, task.graph_sizes, task.profile, options),
        fft=task.fft,
        kept=task.kept,
        settings=options.settings,
        capabilities=options.capabilities,
        timing_cache=options.timing_cache,
        inspect=task.report is not None,
    )
    built = builder.build(made)
    if task.report is not None:
        task.report(built.report)
    tuned = task.graph_sizes.opt if task.graph_sizes.static else task.profile.opt
    sizes = made.profiles[-1].model_copy(update={"opt": tuned})
    update = {"profiles": made.profiles, "settings": made.settings, "compute_capabilities": built.capabilities}
    return task.entry(built.versions, sizes).model_copy(update=update)


def choose_profiles(
    record: EngineRecord, graph: SizeRange, profile: SizeRange, options: Options
) -> tuple[SizeRange, ...]:
    """Choose the optimization profiles of an engine.

    TensorRT gets three profiles by default. TensorRT-RTX gets one, because it compiles on the device for the sizes that
    it meets. Each further profile would add a copy of the network's plan to the file.

    Args:
        record: The engine in the catalogue.
        graph: The sizes that the graph takes.
        profile: The sizes that the engine is built for, if the graph takes any size.
        options: The builder's options.

    Returns:
        The profiles, the smallest first. The last one covers all sizes of the engine.
    """
    if graph.static:
        return (graph.model_copy(update={"max_batch": profile.max_batch}),)
    several = options.profiles == "three" or (options.profiles == "auto" and record.name == TENSORRT.name)
    return profiles.nest_profiles(profile) if several else (profile,)
