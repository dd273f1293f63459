"""Export a checkpoint to a bundle: write the graphs, build the engines, measure parity, write the manifest.

The bundle appears complete, or not at all.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast, get_args

from glama_deploy import bundle_folder, catalogue
from glama_deploy.bundle import (
    DEFAULT_PROFILE,
    DROP_IN_ENDS,
    MANIFEST,
    Asked,
    Bundle,
    Checkpoint,
    Engine,
    EngineName,
    Graph,
    Io,
    Lowering,
    Manifest,
    Parity,
    Precision,
    Size,
    SizeRange,
    find_any_size,
    manifest_text,
)
from glama_deploy.checkpoints import formats
from glama_deploy.checkpoints.published.references import locate
from glama_deploy.engines.base import BuildTask
from glama_deploy.engines.build import build as build_engine
from glama_deploy.engines.tensorrt import build_script
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.engines.tensorrt.profiles import fit_profile
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.io.files import PREFIX, check_overwrite
from glama_deploy.network import NetworkConfig
from glama_deploy.node_names import CARVE_OUTPUT, INPAINTED, MIGAN_OUTPUT, PREDICTED
from glama_deploy.runtime.base import installed, require
from glama_deploy.runtime.onnxruntime.providers import require_onnxruntime
from glama_deploy.system.packages import read_versions


@dataclass(frozen=True)
class Request:
    """What to export. Sizes are (height, width) in pixels.

    Attributes:
        checkpoint: The path of a checkpoint, `default`, or the name or address of a published checkpoint, as
            :func:`glama_deploy.load` takes it.
        out: The folder of the bundle.
        targets: The targets, such as `onnx`, `openvino`, `trt` and `trt-rtx`.
        precision: The precision: `fp32`, `fp16`, `bf16` or `int8`.
        size: The only size that the graph takes; None: any size.
        profile: The sizes that a TensorRT engine is built for, if the graph takes any size.
        fft: The lowering of the FFT: `matmul`, `split`, `dft` or `plugin`; `auto` takes the cheapest.
        io: The type of the graph's inputs and outputs: `float` (NCHW, 0…1), `uint8` (NHWC), or those of the models that
            other programs load, `carve` or `migan`.
        calibration: A folder of photos, to calibrate int8 on or to measure the ranges of fp16 and bf16 on. None: the
            sample photo of the package, for fp16 and bf16 only.
        calibration_images: The number of photos to calibrate int8 on; None: all, up to 16.
        parity_size: The largest size that parity is measured at; None: 512x512.
        tolerances: Bounds of parity that replace the catalogue's, by precision. The bound of int8 is also the aim of
            its calibration.
        options: The options of the TensorRT builders.
        weights_key: The generator of a checkpoint with several. None: the running average; of LaMa's trainer, the
            generator.
        predicted: Whether the graph has the output `predicted`, the network's own output.
        parity: Whether parity is measured.
        overwrite: Whether a bundle at `out` is replaced.
    """

    checkpoint: str | Path
    out: Path
    targets: tuple[str, ...] = ("onnx",)
    precision: Precision = "fp32"
    size: Size | None = None
    profile: SizeRange = DEFAULT_PROFILE
    fft: str = "auto"
    io: Io = "float"
    calibration: Path | None = None
    calibration_images: int | None = None
    parity_size: Size | None = None
    tolerances: Mapping[str, catalogue.Tolerance] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    weights_key: str | None = None
    predicted: bool = True
    parity: bool = True
    overwrite: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the graph's outputs."""
        if self.io in DROP_IN_ENDS:
            return (CARVE_OUTPUT if self.io == "carve" else MIGAN_OUTPUT,)
        return (INPAINTED, PREDICTED) if self.predicted else (INPAINTED,)

    def find_graph_sizes(self, network: NetworkConfig) -> SizeRange:
        """Return the sizes that the graph takes.

        Args:
            network: The checkpoint's network.

        Returns:
            The request's size, or any size from the network's least one on.
        """
        return SizeRange(min=self.size, opt=self.size, max=self.size) if self.size else find_any_size(network)

    @property
    def largest(self) -> Size:
        """The largest size that parity is measured at."""
        return self.parity_size or (512, 512)

    @property
    def engines(self) -> list[catalogue.EngineRecord]:
        """The engines of the targets. Raises GlamaError for an unknown target."""
        return [catalogue.find_target(target) for target in self.targets]

    @property
    def writes_half_graph(self) -> bool:
        """Whether the bundle gets a graph in fp16 or bf16. Engines that convert the weights do not need one."""

        def stores(record: catalogue.EngineRecord) -> bool:
            return not record.is_strongly_typed and record.precisions.get(self.precision) == self.precision

        return self.precision in ("fp16", "bf16") and not (self.engines and all(map(stores, self.engines)))


@dataclass(frozen=True)
class Outcome:
    """The outcome of an export.

    Attributes:
        bundle: The bundle.
        failures: The targets whose engines could not be built on this machine, each with the reason.
    """

    bundle: Bundle
    failures: dict[str, str]


def export(request: Request, step: Callable[[str], None] = lambda text: None) -> Outcome:
    """Export a checkpoint to a bundle.

    A target that cannot be built on this machine is a failure in the outcome. The other engines are still built.

    Args:
        request: What to export.
        step: A function that is called with the description of each step.

    Returns:
        The bundle and the failures.

    Raises:
        GlamaError: The request or the checkpoint cannot be used. Nothing is written.
    """
    check_request(request)
    request = replace(request, checkpoint=locate(request.checkpoint))
    step("reading the checkpoint")
    checkpoint = formats.read(request.checkpoint, request.weights_key)
    if request.size is None:
        request = replace(request, profile=fit_profile(request.find_graph_sizes(checkpoint.config), request.profile))
    fft = _choose_lowering(request, checkpoint.config)
    with bundle_folder.create(request.out, overwrite=request.overwrite) as folder:
        step("writing the ONNX graph")
        graphs = _write_graphs(checkpoint, request, fft, folder, step)
        engines: dict[EngineName, Engine] = {}
        failures: dict[str, str] = {}
        for record in _list_engines(request, fft):
            step(f"building {record.name}")
            wanted = _choose_precision(request, record)
            try:
                task = BuildTask(
                    record=record,
                    folder=folder,
                    precision=wanted,
                    graph_sizes=request.find_graph_sizes(checkpoint.config),
                    profile=request.profile,
                    fft=fft,
                    kept=tuple(graphs[wanted].kept) if wanted in graphs else (),
                    options=request.options if record.options else Options(),
                )
                engines[record.name] = build_engine(task)
            except EngineError as error:
                failures[record.target] = str(error)
                shutil.rmtree(folder / record.name, ignore_errors=True)
        manifest = _make_manifest(request, checkpoint, fft, graphs, engines)
        # trtexec does not support our plugin, and DFT only in new versions
        if catalogue.TENSORRT in request.engines and fft in ("matmul", "split"):
            script = folder / build_script.SCRIPT
            text = build_script.format_script(manifest, request.profile, request.options)
            script.write_text(text, encoding="utf-8", newline="\n")  # a shell does not support line ends of Windows
            # executable for whoever may read it
            script.chmod(script.stat().st_mode | (script.stat().st_mode & 0o444) >> 2)
        manifest = _measure_parity(Bundle(folder, manifest), checkpoint, request, step)
        (folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    return Outcome(Bundle(request.out, manifest), failures)


def _list_engines(request: Request, fft: str) -> list[catalogue.EngineRecord]:
    """List the bundle's engines: those of the targets, and the ONNX model itself if ONNX Runtime runs its FFTs."""
    always = [catalogue.ONNX] if fft in ("auto", *catalogue.ONNX.lowerings) else []
    return list({record.name: record for record in (*always, *request.engines)}.values())


def _choose_precision(request: Request, record: catalogue.EngineRecord) -> Precision:
    """Choose the precision that an engine is built in.

    If no target takes the int8 graph for CPUs, that graph is not written, and the ONNX model is fp32.
    """
    built = record.build_precision(request.precision)
    if catalogue.PRECISIONS[built].is_quantized and built not in _list_int8_graphs(request):
        return "fp32"
    return built


def _list_int8_graphs(request: Request) -> set[Precision]:
    """List the precisions of the int8 graphs that the targets take."""
    return {record.graph_for(record.build_precision("int8")) for record in request.engines}


def check_request(request: Request) -> None:
    """Check a request before any work.

    Args:
        request: What to export.

    Raises:
        GlamaError: The request is known to fail.
    """
    engines = request.engines
    if request.precision not in catalogue.export_precisions():
        offered = ", ".join(catalogue.export_precisions())
        raise GlamaError(f"precision {request.precision!r} is not offered; expected {offered}")
    for record in engines:
        record.build_precision(request.precision)
    if request.precision == "int8":
        _check_int8(request)
    _check_lowering(request)
    for record in [record for record in engines if record.options] or engines:
        request.options.check(record)
    _check_io(request)
    if request.calibration_images is not None and request.precision != "int8":
        raise GlamaError("`calibration_images` is for int8; give `precision=int8`, or leave it out")
    if request.calibration is not None:
        _check_calibration(request, request.calibration)
    if request.parity_size is not None and (request.size is not None or not request.parity):
        raise GlamaError(
            "`parity_size` is for graphs of any size and with parity; leave it out, or `size`, `parity=False`"
        )
    _check_tolerances(request)
    require("onnx", "the onnx package, which exporting needs,", "pip install onnx", "ModelProto")
    _check_out(request)


def _check_io(request: Request) -> None:
    """Raise GlamaError if `io` is unknown, or another program's model is asked for in a form that it does not have."""
    if request.io not in get_args(Io):
        raise GlamaError(f"`io` is {request.io!r}; expected {catalogue.join_names(get_args(Io))}")
    if request.io not in DROP_IN_ENDS:
        return
    if request.precision != "fp32" or request.fft not in ("auto", "matmul", "split"):
        raise GlamaError(f"`io={request.io}` is for fp32 and `fft=matmul` or split; leave `precision` and `fft` out")
    others = [record.target for record in request.engines if record is not catalogue.ONNX]
    if others:
        raise GlamaError(
            f"`io={request.io}` is for programs that load an ONNX model; leave out `targets={others[0]}`, or give "
            "`io=float` or `io=uint8`"
        )


def _check_tolerances(request: Request) -> None:
    """Raise GlamaError for a tolerance that cannot be used, or that has no effect."""
    if request.tolerances and not request.parity and request.precision != "int8":
        raise GlamaError("tolerances are for parity, which is not measured; leave them out")
    measured = [_choose_precision(request, record) for record in _list_engines(request, request.fft)]
    if request.writes_half_graph:  # its parity is emulated
        measured.append(request.precision)
    # ONNX Runtime does not run a plugin, so the fp32 graph is emulated
    catalogue.check_tolerances(request.tolerances, ["fp32", *measured] if request.fft == "plugin" else measured)


def _check_int8(request: Request) -> None:
    """Raise GlamaError if int8 cannot be calibrated."""
    if request.fft == "plugin":
        raise GlamaError("int8 is calibrated on a CPU, where `fft=plugin` does not run: use `fft=matmul`")
    if request.calibration is None:
        raise GlamaError("int8 is calibrated on photos like those that it will be used on: give `calibration=FOLDER`")
    if not installed("nncf"):
        raise GlamaError("int8 is calibrated with nncf; pip install nncf")
    require_onnxruntime()


def _check_calibration(request: Request, folder: Path) -> None:
    """Raise GlamaError if photos have no effect, or are not a folder."""
    if not request.writes_half_graph and request.precision != "int8":
        raise GlamaError(
            "`calibration` is for int8 and for the half types of TensorRT's graph; give `precision=int8`, or fp16 or "
            "bf16 with `targets=trt` or trt-rtx, or leave it out"
        )
    if not folder.is_dir():
        raise GlamaError(f"`calibration={folder}` is not a folder; give a folder of photos")


def _check_out(request: Request) -> None:
    """Raise GlamaError if the bundle cannot be written."""
    out = request.out
    check_overwrite(out, is_there=not bundle_folder.is_free(out), overwrite=request.overwrite)
    if out.exists() and not out.is_dir():
        raise GlamaError(f"{out} is a file; a folder is needed for the bundle")
    found = [] if not out.exists() else [path.name for path in out.iterdir() if not path.name.startswith(PREFIX)]
    if found and MANIFEST not in found:
        raise GlamaError(f"{out} exists and is not a bundle, so it is not overwritten; choose another folder")
    parent = request.out.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise GlamaError(f"cannot write into {parent}; choose a folder you may write to")


def _check_lowering(request: Request) -> None:
    """Raise GlamaError if a target does not support the lowering."""
    if request.fft not in ("auto", *get_args(Lowering)):
        raise GlamaError(f"`fft` is {request.fft!r}; expected auto, {', '.join(get_args(Lowering))}")
    if request.fft == "split" and request.size is None:
        raise GlamaError("`fft=split` is for one size: give `size=HxW`, or use `fft=matmul` for any size")
    for record in request.engines:
        if request.fft in ("dft", "plugin") and not {"dft", "plugin"} & set(record.lowerings):
            raise GlamaError(
                f"{record.title} has neither DFT nodes nor plugins, so no `fft={request.fft}`: use `fft=matmul`"
            )
    for record in request.engines:
        if request.fft == "plugin" and "plugin" not in record.lowerings:
            raise GlamaError(
                "`fft=plugin` is for TensorRT 10 alone: give `targets=trt` and no other, or use `fft=matmul`"
            )
        if request.fft != "auto" and request.fft not in record.lowerings:
            raise GlamaError(f"{record.title} does not support `fft={request.fft}`; use `fft={record.lowerings[0]}`")
    calibrated_by_dft = request.fft == "plugin" and request.precision != "fp32"
    if (request.fft == "dft" or calibrated_by_dft) and installed("onnx") and installed(catalogue.ONNX.package):
        from glama_deploy.export.graph.fft_library import check_onnxruntime

        check_onnxruntime()


def _choose_lowering(request: Request, network: NetworkConfig) -> Lowering:
    """Choose the lowering of the FFT: the request's, or the cheapest. Raises GlamaError for a network without FFTs."""
    if request.fft != "auto" and network.kind != "ffc":
        raise GlamaError(
            f"`fft` is {request.fft}, and {request.checkpoint} has no Fourier convolutions (kind {network.kind}); "
            "leave `fft` out"
        )
    if request.fft != "auto":
        return cast(Lowering, request.fft)
    from glama_deploy import cost

    return cost.choose_lowering(request.size, network.n_downsampling)


def _write_graphs(
    checkpoint: formats.Checkpoint, request: Request, fft: Lowering, folder: Path, step: Callable[[str], None]
) -> dict[Precision, Graph]:
    """Write `model.onnx` in fp32, and the graphs in fp16, bf16 or int8 that the request needs."""
    from glama_deploy.export import graph_files
    from glama_deploy.export.graph.network import build
    from glama_deploy.export.numerics import int8
    from glama_deploy.export.numerics.half import Half, convert_to_half

    model = build(checkpoint.config, checkpoint.weights, request.size, request.outputs, fft, request.io)
    graphs: dict[Precision, Graph] = {"fp32": graph_files.write(folder, model, "fp32", {})}
    if request.precision == "int8":
        return graphs | int8.write(checkpoint, request, fft, _list_int8_graphs(request), folder, step)
    if not request.writes_half_graph:
        return graphs
    require_onnxruntime()
    height, width = request.size or request.profile.max
    graph_files.check_memory(checkpoint.config, (height, width))
    step(f"calibrating at {height}x{width}")
    half: Half = "fp16" if request.precision == "fp16" else "bf16"
    kept = graph_files.calibrate(checkpoint, model, half, fft, (height, width), request.calibration)
    step(f"writing {half} into the graph")
    return graphs | {half: graph_files.write(folder, convert_to_half(model, half, kept), half, kept)}


def _make_manifest(
    request: Request,
    checkpoint: formats.Checkpoint,
    fft: Lowering,
    graphs: dict[Precision, Graph],
    engines: dict[EngineName, Engine],
) -> Manifest:
    """Make the manifest. It has no parity yet."""
    from glama_deploy.export import graph_files

    inputs, outputs = graph_files.describe_tensors(request.io, request.size, request.outputs)
    stored = {catalogue.PRECISIONS[name].stored for name in graphs}
    return Manifest(
        network=checkpoint.config,
        checkpoint=Checkpoint(
            file=checkpoint.path.name,
            kind=checkpoint.kind,
            sha256=checkpoint.sha256,
            weights_key=checkpoint.weights_key,
        ),
        fft=fft,
        io=request.io,
        inputs=inputs,
        outputs=outputs,
        tools=read_versions("glama-deploy", "onnx", "numpy", "torch"),
        graphs=graphs,
        engines=engines,
        asked=Asked(
            precision=request.precision if request.precision in stored else "fp32",
            sizes=request.profile,
            profiles=request.options.profiles,
            settings=request.options.settings,
        ),
    )


def _measure_parity(
    bundle: Bundle, checkpoint: formats.Checkpoint, request: Request, step: Callable[[str], None]
) -> Manifest:
    """Measure the parity of each engine, and of each graph that TensorRT builds from. Return the new manifest."""
    if not request.parity:
        return bundle.manifest
    from glama_deploy.export import graph_files, parity, samples

    step("running the PyTorch reference")
    graph_sizes = request.find_graph_sizes(checkpoint.config)
    expected = parity.run_reference(checkpoint, samples.parity_cases(graph_sizes, request.largest))
    manifest, graphs = bundle.manifest, dict(bundle.manifest.graphs)
    for precision, graph in manifest.graphs.items():
        if isinstance(expected, str) or precision == "int8" or (precision == "fp32" and manifest.fft != "plugin"):
            continue
        step(f"emulating {graph.file.path}")
        sizes = graph_sizes if request.size else request.profile
        twin = graph_files.load_with_predicted(bundle, precision)
        found = parity.emulate(twin, precision, sizes, expected, request.tolerances)
        graphs[precision] = graph.model_copy(update={"parity": found})
        _check_finite(graph.file.path, precision, graphs[precision].parity)
    bundle = Bundle(bundle.path, manifest.model_copy(update={"graphs": graphs}))
    engines = {}
    for name, engine in manifest.engines.items():
        step(f"measuring the parity of {name}")
        output = PREDICTED if request.predicted else INPAINTED
        measured = parity.measure(bundle, engine, expected, output, request.tolerances)
        _check_finite(name, engine.precision, measured)
        engines[name] = engine.model_copy(update={"parity": measured})
    return bundle.manifest.model_copy(update={"engines": engines})


def _check_finite(name: str, precision: Precision, measured: Parity | None) -> None:
    """Raise GlamaError if an engine or graph gives values that are not finite."""
    if measured is None or measured.max_abs_error is None or math.isfinite(measured.max_abs_error):
        return
    remedy = "" if precision == "fp32" else ", calibrate on images like yours (`calibration=FOLDER`) or use fp32"
    raise GlamaError(
        f"{name} in {precision} gives values that are not finite, or changes known pixels (at {measured.worst}); "
        f"nothing was written: check the checkpoint{remedy}"
    )
