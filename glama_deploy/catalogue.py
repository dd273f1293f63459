"""The catalogue: one record for each precision, one for each engine, and the bounds that parity is judged by.

All other modules look names up here, at the time of use. Adding an engine takes its file in `runtime/`, its builder in
`engines/`, its record here and its extra in `pyproject.toml` (CONTRIBUTING.md, "Add an engine"). This module imports no
engine, no NumPy and nothing else that takes time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from glama_deploy.errors import GlamaError

#: The largest PSNR that can be asked for, in dB: beyond float32's digits.
MAX_PSNR_DB = 150.0


@dataclass(frozen=True)
class Tolerance:
    """How far an engine's output may be from the PyTorch reference's; one of the two bounds is set.

    Attributes:
        max_abs_error: Largest absolute error of a value, of outputs in [0, 1].
        least_psnr: Least PSNR over all values, in dB, peak 1.
    """

    max_abs_error: float | None = None
    least_psnr: float | None = None

    def __post_init__(self) -> None:
        """Refuse a bound that no engine can reach or miss.

        Raises:
            GlamaError: A bound is out of range, or not one of the two is set.
        """
        if (self.max_abs_error is None) == (self.least_psnr is None):
            raise GlamaError("a tolerance is either a largest error or a least PSNR")
        if self.max_abs_error is not None and not 0 < self.max_abs_error <= 1:
            raise GlamaError(
                f"the largest error is {self.max_abs_error:g}; a number above 0, up to 1, is expected, because outputs "
                "are in 0…1 (a PSNR ends in dB)"
            )
        if self.least_psnr is not None and not 0 < self.least_psnr <= MAX_PSNR_DB:
            raise GlamaError(
                f"the least PSNR is {self.least_psnr:g} dB; a number above 0, up to {MAX_PSNR_DB:g}, is expected"
            )

    def __str__(self) -> str:
        return f"{self.max_abs_error:g}" if self.least_psnr is None else f"{self.least_psnr:g}dB"


@dataclass(frozen=True)
class PrecisionRecord:
    """A precision.

    Attributes:
        name: The name in manifests, options and messages.
        stored: The type that weights are stored in; the precision that a user asks an export for.
        computed: The type that every operation computes in; of a quantized precision, every operation that is not int8.
        tolerance: The bound of parity, where the user gives no other.
        is_quantized: Whether convolutions compute in int8.
        is_in_bundles: Whether a bundle has graphs or engines of this precision. Otherwise an engine only computes in
            it when it opens a graph of another precision.
    """

    name: str
    stored: str
    computed: str
    tolerance: Tolerance
    is_quantized: bool = False
    is_in_bundles: bool = True

    @property
    def value_bytes(self) -> int:
        """Bytes of a value between two operations."""
        return 4 if self.computed == "fp32" else 2


#: Bounds of parity. In fp32, sums are rounded in another order, through 9 to 18 blocks. In fp16, the worst pixel of all
#: may be about 5/255 off. bf16 has an eighth of fp16's digits.
_FP32_TOLERANCE, _FP16_TOLERANCE, _BF16_TOLERANCE = Tolerance(2e-5), Tolerance(2e-2), Tolerance(1e-1)

#: Single pixels on edges may be far off in int8 and are not seen, so int8 is judged as a whole.
INT8_LEAST_PSNR_DB = 40.0
_INT8_TOLERANCE = Tolerance(least_psnr=INT8_LEAST_PSNR_DB)

#: Margins in dB beyond the bound, which the search for int8 layers must reach. The first is for the missing pixels of
#: the calibration photos, because other photos are a little further off. The second is for the parity cases: engines
#: differ by this much among themselves.
INT8_PHOTOS_MARGIN_DB = 1.0
INT8_PARITY_MARGIN_DB = 0.2

#: All precisions by name, in the order that messages list them.
PRECISIONS: Mapping[str, PrecisionRecord] = MappingProxyType(
    {
        record.name: record
        for record in (
            PrecisionRecord("fp32", stored="fp32", computed="fp32", tolerance=_FP32_TOLERANCE),
            PrecisionRecord("bf16", stored="bf16", computed="bf16", tolerance=_BF16_TOLERANCE),
            PrecisionRecord("fp16", stored="fp16", computed="fp16", tolerance=_FP16_TOLERANCE),
            PrecisionRecord("int8", stored="int8", computed="fp32", tolerance=_INT8_TOLERANCE, is_quantized=True),
            PrecisionRecord(
                "int8+bf16",
                stored="int8",
                computed="bf16",
                tolerance=_INT8_TOLERANCE,
                is_quantized=True,
                is_in_bundles=False,
            ),
            PrecisionRecord("int8+fp16", stored="int8", computed="fp16", tolerance=_INT8_TOLERANCE, is_quantized=True),
        )
    }
)


#: The name of the precision that is measured on each machine (:mod:`glama_deploy.fastest`).
FASTEST = "fastest"


def requested_precisions() -> tuple[str, ...]:
    """Return the names of precisions that a user can ask for when a network is loaded.

    Returns:
        `auto` and `fastest`, then the names of the catalogue.
    """
    return ("auto", FASTEST, *PRECISIONS)


def export_precisions() -> list[str]:
    """Return the precisions that an export can be asked for.

    Returns:
        The names, in the catalogue's order.
    """
    return [record.name for record in PRECISIONS.values() if record.name == record.stored]


def bundle_precisions() -> list[str]:
    """Return the precisions that a bundle's graphs and engines can have.

    Returns:
        The names, in the catalogue's order.
    """
    return [record.name for record in PRECISIONS.values() if record.is_in_bundles]


def find_tolerance(precision: str, overrides: Mapping[str, Tolerance]) -> Tolerance:
    """Return the bound that parity is judged by in a precision.

    Args:
        precision: The precision of an engine or graph.
        overrides: Bounds that replace the catalogue's, by the precision that a user asks for; `int8` is for both int8
            and int8+fp16.

    Returns:
        The bound.
    """
    record = PRECISIONS[precision]
    return overrides.get(record.stored, record.tolerance)


def check_tolerances(overrides: Mapping[str, Tolerance], measured: Iterable[str]) -> None:
    """Refuse bounds that cannot be used.

    Args:
        overrides: Bounds by precision.
        measured: The precisions whose parity is judged.

    Raises:
        GlamaError: A precision is unknown or is not judged here, or the bound of int8 is not a PSNR.
    """
    names = list(dict.fromkeys(PRECISIONS[name].stored for name in measured))
    for name, bound in overrides.items():
        if name not in export_precisions():
            raise GlamaError(f"a tolerance is for {name!r}; expected {join_names(export_precisions())}")
        if name not in names:
            raise GlamaError(
                f"a tolerance is for {name}, which is not measured here (but {join_names(names, 'and')} is)"
            )
        if bound.least_psnr is None and PRECISIONS[name].is_quantized:
            raise GlamaError(f"the tolerance of {name} is {bound}; {name} is judged as a whole, by a least PSNR in dB")


def quantized_precision(computed: str) -> str:
    """Return the quantized precision with a type of its other operations.

    Args:
        computed: The type of every operation that is not int8: `fp32`, `bf16` or `fp16`.

    Returns:
        The precision's name.
    """
    return next(r.name for r in PRECISIONS.values() if r.is_quantized and r.computed == computed)


@dataclass(frozen=True)
class EngineRecord:
    """An engine: one way to run a bundle's network.

    Attributes:
        name: The name in manifests, and of the engine's folder in a bundle.
        target: The name that `--target` takes.
        title: The name for people.
        backend: The name that `glama_deploy.load` takes. Several engines may share a backend.
        runtime: The module with `open` and `absent` (:mod:`glama_deploy.runtime.base`).
        builder: The module with `build` (:mod:`glama_deploy.engines.base`); empty: the engine runs the graph itself.
        package: The Python package that runs the engine.
        extra: The extra in `pyproject.toml` that installs the package.
        files: The names of the engine's files, in the engine's folder.
        precisions: The precisions that a user can ask for, each with the precision that the engine is built in.
        remedies: What to do for a precision that the engine does not support, where there is more to say than to take
            another one.
        lowerings: The lowerings of the FFT (:data:`glama_deploy.bundle.Lowering`) that the engine runs.
        is_strongly_typed: Whether the engine is built from the graph that has the precision written into it, computes
            in the types of that graph, and can be emulated. Otherwise it is built from the fp32 or int8 graph.
        options: The builder's options that the engine knows, by the fields of
            :class:`glama_deploy.engines.tensorrt.options.Options` and its settings; `sizes` for a range of sizes,
            `report` for a report of what is in the engine.
        devices: The kinds of devices that the engine computes on (:data:`glama_deploy.runtime.devices.Kind`), the
            preferred one first.
        providers: What the user can write behind the backend's name and a colon.
        aliases: Other names that people have for the backend, for the question in messages.
        auto_ranks: The devices that the backend `auto` tries this engine on, each with a rank; it tries lower ranks
            first. An engine without ranks is opened only by name.
    """

    name: str
    target: str
    title: str
    backend: str
    runtime: str
    builder: str
    package: str
    extra: str
    files: tuple[str, ...]
    precisions: Mapping[str, str]
    lowerings: tuple[str, ...]
    devices: tuple[str, ...]
    remedies: Mapping[str, str] = field(default_factory=dict)
    is_strongly_typed: bool = False
    options: frozenset[str] = frozenset()
    providers: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    auto_ranks: Mapping[str, int] = field(default_factory=dict)

    def graph_for(self, precision: str) -> str:
        """Return the precision of the graph that the engine is made from.

        Args:
            precision: The precision that the engine is built in.

        Returns:
            The precision of the graph.
        """
        if self.is_strongly_typed:
            return precision
        return "int8" if PRECISIONS[precision].is_quantized else "fp32"

    def build_precision(self, asked: str) -> str:
        """Return the precision that the engine is built in where a user asks for one.

        Args:
            asked: The precision that the user asks for.

        Returns:
            The precision for the manifest.

        Raises:
            GlamaError: The engine does not support the precision.
        """
        if asked in self.precisions:
            return self.precisions[asked]
        supported = [name for name in self.precisions if name in export_precisions()]
        remedy = self.remedies.get(asked, f"use {join_names(supported)}")
        raise GlamaError(f"{self.target} does not support precision {asked!r}; {remedy}")


#: The bundle's ONNX model itself, which every bundle has but those whose FFTs are a TensorRT plugin's nodes.
ONNX = EngineRecord(
    name="onnx",
    target="onnx",
    title="ONNX Runtime",
    backend="onnxruntime",
    runtime="glama_deploy.runtime.onnxruntime.runner",
    builder="",
    package="onnxruntime",
    extra="onnxruntime",
    files=("model.onnx",),
    precisions={"fp32": "fp32", "fp16": "fp32", "bf16": "fp32", "int8": "int8"},
    lowerings=("matmul", "split", "dft"),
    devices=("cuda", "cpu"),
    providers=("cpu", "cuda", "tensorrt", "tensorrt-rtx", "webgpu", "directml", "coreml", "openvino"),
    aliases=("ort",),
    auto_ranks={"cuda": 20, "cpu": 40},
)

#: OpenVINO chooses at load what it computes in; a bundle stores fp32, fp16 or int8 weights.
OPENVINO = EngineRecord(
    name="openvino",
    target="openvino",
    title="OpenVINO",
    backend="openvino",
    runtime="glama_deploy.runtime.openvino.runner",
    builder="glama_deploy.engines.openvino",
    package="openvino",
    extra="openvino",
    files=("model.xml", "model.bin"),
    precisions={"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
    remedies={"bf16": "OpenVINO stores no bf16: use fp32, and load it with precision bf16"},
    lowerings=("matmul", "split", "dft"),
    devices=("cpu", "gpu", "npu", "auto"),
    auto_ranks={"cpu": 30},
)

_TENSORRT_PRECISIONS = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "int8+fp16", "int8+fp16": "int8+fp16"}

TENSORRT = EngineRecord(
    name="tensorrt",
    target="trt",
    title="TensorRT",
    backend="tensorrt",
    runtime="glama_deploy.runtime.tensorrt.runner",
    builder="glama_deploy.engines.tensorrt.engine",
    package="tensorrt",
    extra="tensorrt",
    files=("model.engine",),
    precisions=_TENSORRT_PRECISIONS,
    lowerings=("matmul", "split", "dft", "plugin"),
    devices=("cuda",),
    is_strongly_typed=True,
    options=frozenset(
        {
            "sizes",
            "profiles",
            "timing_cache",
            "optimization_level",
            "workspace_mib",
            "version_compatible",
            "hardware_compatible",
            "refittable",
            "stripped",
            "report",
        }
    ),
    auto_ranks={"cuda": 10},
)

TENSORRT_RTX = EngineRecord(
    name="tensorrt-rtx",
    target="trt-rtx",
    title="TensorRT-RTX",
    backend="tensorrt",
    runtime="glama_deploy.runtime.tensorrt.runner",
    builder="glama_deploy.engines.tensorrt.engine",
    package="tensorrt_rtx",
    extra="tensorrt-rtx",
    files=("model.engine",),
    precisions=_TENSORRT_PRECISIONS,
    lowerings=("matmul", "split"),
    devices=("cuda",),
    is_strongly_typed=True,
    options=frozenset(
        {
            "sizes",
            "profiles",
            "gpus",
            "optimization_level",
            "workspace_mib",
            "refittable",
            "stripped",
            "report",
        }
    ),
    auto_ranks={"cuda": 10},
)

#: The kinds of devices that PyTorch, which runs checkpoints instead of bundles, computes on.
TORCH_DEVICES = ("cuda", "cpu")

#: All engines by their names in manifests, in the order that messages list them.
ENGINES: dict[str, EngineRecord] = {record.name: record for record in (ONNX, OPENVINO, TENSORRT, TENSORRT_RTX)}


@dataclass(frozen=True)
class SiteRecord:
    """A target that is a static site instead of an engine in a bundle. The site runs the network in a browser.

    Attributes:
        target: The name that `--target` takes.
        precisions: The types in which the site can store weights.
        lowerings: The lowerings of the FFT that browsers run.
    """

    target: str
    precisions: tuple[str, ...]
    lowerings: tuple[str, ...]


#: ONNX Runtime Web on the page of glama-serve (:mod:`glama_deploy.export.web`).
WEB = SiteRecord(target="web", precisions=("fp32", "fp16"), lowerings=("matmul",))


def find_target(name: str) -> EngineRecord:
    """Return the engine of a target's name, or of the engine's own name.

    Args:
        name: The name.

    Returns:
        The engine's record.

    Raises:
        GlamaError: No engine has the name.
    """
    if name == WEB.target:
        raise GlamaError(f"{name} makes a site instead of a bundle; give `target={name}` to glama-export, alone")
    for record in ENGINES.values():
        if name in (record.target, record.name):
            return record
    known = ", ".join([*(record.target for record in ENGINES.values()), WEB.target])
    raise GlamaError(f"unknown target {name!r}; expected {known}")


def backends() -> dict[str, EngineRecord]:
    """Return the backends that `glama_deploy.load` takes for bundles.

    Returns:
        The backends' names, each with the first engine that the backend opens.
    """
    found: dict[str, EngineRecord] = {}
    for record in ENGINES.values():
        found.setdefault(record.backend, record)
    return found


def find_meant_backend(name: str) -> str:
    """Find the backend that people mean by the name of an engine, a target, a package or a provider.

    Args:
        name: A name that no backend has, in small letters.

    Returns:
        The backend, with the provider where the name is a provider's; empty where nothing has such a name.
    """
    for record in ENGINES.values():
        if name in (record.name, record.target, record.package, record.extra, record.title.lower(), *record.aliases):
            return record.backend
    found = (f"{record.backend}:{name}" for record in ENGINES.values() if name in record.providers)
    return next(found, "")


def auto_order(kind: str | None = None) -> list[tuple[EngineRecord, str]]:
    """Return the order in which the backend `auto` tries engines.

    Args:
        kind: The kind of the device that the user named; None: the user named no device.

    Returns:
        The first engine of each backend, with the kind of the device that the backend is asked for. Where the user
        named a device, these are the engines that compute there, also those without a rank for its kind.
    """
    ranked = set()
    for record in ENGINES.values():
        ranks = record.auto_ranks
        if kind is not None:
            ranks = {kind: ranks.get(kind, max(ranks.values()))} if ranks and kind in record.devices else {}
        ranked |= {(rank, record.backend, device) for device, rank in ranks.items()}
    return [(backends()[backend], device) for _, backend, device in sorted(ranked)]


def engines_with(option: str) -> list[EngineRecord]:
    """Return the engines whose builders know an option.

    Args:
        option: The option, by a name in :attr:`EngineRecord.options`.

    Returns:
        The engines' records.
    """
    return [record for record in ENGINES.values() if option in record.options]


def join_names(names: Iterable[str], word: str = "or") -> str:
    """Return names as a sentence lists them.

    Args:
        names: The names, at least one.
        word: The word before the last name.

    Returns:
        The text, such as `fp32, fp16 or int8`.
    """
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last
