"""A TensorRT or TensorRT-RTX engine of a bundle: its profiles, its build, its entry in the manifest."""

from __future__ import annotations

from glama_deploy.bundle import Engine, SizeRange
from glama_deploy.catalogue import TENSORRT, EngineRecord
from glama_deploy.engines import base
from glama_deploy.engines.tensorrt import builder, profiles
from glama_deploy.engines.tensorrt.options import Options


def build(task: base.BuildTask) -> Engine:
    """Build the engine for `task.profile`, or for the graph's one size where the graph is static.

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
    """Return the optimization profiles of an engine, the smallest first; the last covers all that the engine takes.

    TensorRT has three by default. TensorRT-RTX has one: it compiles on the device for the sizes that it meets, and
    every further profile is a further copy of the network's plan in the file.
    """
    if graph.static:
        return (graph.model_copy(update={"max_batch": profile.max_batch}),)
    several = options.profiles == "three" or (options.profiles == "auto" and record.name == TENSORRT.name)
    return profiles.nest_profiles(profile) if several else (profile,)
