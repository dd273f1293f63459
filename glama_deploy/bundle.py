"""A bundle on disk: a folder with `manifest.json`, `model.onnx` and a folder for each engine.

The manifest describes the network, the inputs and outputs, the tools that wrote the bundle, and the difference of each
engine from the PyTorch reference. It has the SHA-256 of each file, which is checked before the file is used.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from glama_deploy import catalogue
from glama_deploy.errors import BundleError, GlamaError
from glama_deploy.frozen import FrozenModel
from glama_deploy.io.files import check_path, sha256
from glama_deploy.network import MAX_SIDE, MIN_SIDE, SIZE_MULTIPLE, NetworkConfig, next_side
from glama_deploy.node_names import BATCH, HEIGHT, WIDTH
from glama_deploy.text.excerpts import excerpt, quoted

#: Schema 2 added optimization profiles, build settings and compute capabilities; uint8 tensors; FFT lowerings.
SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
ONNX = "model.onnx"

#: The folder, in a bundle's folder, of new files that a writer has not moved to their places yet (see
#: :mod:`glama_deploy.bundle_folder`).
NEXT = ".glama-next"


def graph_name(precision: str) -> str:
    """Return the file name of a bundle's graph.

    Args:
        precision: the precision that the graph is written in.

    Returns:
        `model.onnx` for fp32, else a name with the precision, such as `model.fp16.onnx`.
    """
    return ONNX if precision == "fp32" else f"model.{precision}.onnx"


#: The greatest number of characters of an artifact's path. Some file systems do not support longer names.
MAX_ARTIFACT_PATH = 200

#: The reason of a parity that was not requested.
NOT_ASKED = "not asked for"


def _check_engine(name: str) -> str:
    if name not in catalogue.ENGINES:
        raise ValueError(f"unknown engine {name!r}; expected {catalogue.join_names(catalogue.ENGINES)}")
    return name


def _check_precision(name: str) -> str:
    expected = catalogue.bundle_precisions()
    if name not in expected:
        raise ValueError(f"unknown precision {name!r}; expected {catalogue.join_names(expected)}")
    return name


#: The name of an engine of the catalogue.
EngineName = Annotated[str, AfterValidator(_check_engine)]
#: The name of a precision that the catalogue has for bundles. int8 is a graph for CPUs. int8+fp16 is TensorRT's int8:
#: convolutions in int8, the rest in fp16.
Precision = Annotated[str, AfterValidator(_check_precision)]
#: How FFTs are written in the graph: as two matrix products for each direction, as four smaller products, as ONNX DFT
#: nodes, or as our own nodes that a TensorRT plugin runs.
Lowering = Literal["matmul", "split", "dft", "plugin"]
#: The types of the graph's inputs and outputs: float32 NCHW from 0 to 1 in multiples of 8, uint8 NHWC of any size, or
#: those of another program's model.
Io = Literal["float", "uint8", "carve", "migan"]
#: The programs' models whose inputs and outputs a graph may have, by `io`. Only those programs run such a graph.
DROP_IN_ENDS: dict[Io, str] = {
    "carve": "the ONNX model of Carve (image, mask, output of 0…255)",
    "migan": "the ONNX pipeline of MI-GAN (uint8 image, mask with 255 = known, result)",
}
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE, multiple_of=SIZE_MULTIPLE)]
Size = tuple[Side, Side]


#: Characters with which a path would lead elsewhere on Windows.
_NOT_IN_PATHS = frozenset("\\:")


class Artifact(FrozenModel):
    """A file of the bundle: its path relative to the bundle, with its hash and length."""

    path: str
    sha256: str
    bytes: int

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path)
        if len(path) > MAX_ARTIFACT_PATH:
            raise ValueError(f"an artifact path has {len(path)} characters; at most {MAX_ARTIFACT_PATH} are supported")
        if not path.isprintable():
            raise ValueError(f"artifact path {path!r} has characters that cannot be printed")
        if not _NOT_IN_PATHS.isdisjoint(path):
            raise ValueError(f"artifact path {path!r} has a backslash or a colon; folders are separated by / only")
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise ValueError(f"artifact path {path!r} leads out of the bundle")
        return path


#: The symbol of each axis of a layout whose length may be free.
_FREE_AXES = {"N": BATCH, "H": HEIGHT, "W": WIDTH}


class Tensor(FrozenModel):
    """An input or output of the graph."""

    name: str
    dtype: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC", "NHW"]
    shape: tuple[int | str, ...]
    range: tuple[float, float]
    meaning: str

    @model_validator(mode="after")
    def _complete(self) -> Tensor:
        if len(self.shape) != len(self.layout):
            raise ValueError(f"{self.name} has {len(self.shape)} dimensions and the layout {self.layout}")
        for axis, side in zip(self.layout, self.shape, strict=True):
            if isinstance(side, str) and side != _FREE_AXES.get(axis):
                expected = f"a number or {_FREE_AXES[axis]!r}" if axis in _FREE_AXES else "a number"
                raise ValueError(f"axis {axis} of {excerpt(self.name)} is {quoted(side)}; {expected} is expected")
        return self

    def shape_for(self, batch: int, height: int, width: int) -> tuple[int, ...]:
        """Return the tensor's shape for images of one size.

        Args:
            batch: number of images.
            height: the images' height in pixels.
            width: the images' width in pixels.

        Returns:
            The shape, with numbers in place of the free axes.
        """
        free = {BATCH: batch, HEIGHT: height, WIDTH: width}
        return tuple(free[side] if isinstance(side, str) else side for side in self.shape)


class SizeRange(FrozenModel):
    """The (height, width) in pixels that an engine takes, multiples of 8, and the batch. `opt` is the tuned size."""

    min: Size
    opt: Size
    max: Size
    max_batch: int | None = Field(default=None, ge=1, description="None: any")

    @model_validator(mode="after")
    def _ordered(self) -> SizeRange:
        for low, high, names in ((self.min, self.opt, "min and opt"), (self.opt, self.max, "opt and max")):
            if low[0] > high[0] or low[1] > high[1]:
                raise ValueError(
                    f"sizes {names} are {low[0]}x{low[1]} and {high[0]}x{high[1]}; min ≤ opt ≤ max is needed"
                )
        return self

    @property
    def static(self) -> bool:
        """Whether the engine takes one size only."""
        return self.min == self.max

    def covers(self, height: int, width: int) -> bool:
        """Return whether a padded image fits.

        Args:
            height: the image's height in pixels.
            width: the image's width in pixels.

        Returns:
            True if the size lies in the range.
        """
        return self.min[0] <= height <= self.max[0] and self.min[1] <= width <= self.max[1]

    def __str__(self) -> str:
        if self.max == (MAX_SIDE, MAX_SIDE) and not self.static:
            return f"≥ {self.min[0]}x{self.min[1]}"
        low, high = (f"{s[0]}x{s[1]}" for s in (self.min, self.max))
        return low if self.static else f"{low}…{high}"


#: The default sizes of a dynamic TensorRT engine.
DEFAULT_PROFILE = SizeRange(min=(64, 64), opt=(512, 512), max=(2048, 2048), max_batch=1)

#: The sizes that a dynamic graph takes.
ANY_SIZE = SizeRange(min=(MIN_SIDE, MIN_SIDE), opt=(512, 512), max=(MAX_SIDE, MAX_SIDE))


def find_any_size(network: NetworkConfig) -> SizeRange:
    """Return the sizes that a dynamic graph of a network takes.

    Args:
        network: the network.

    Returns:
        The sizes, from the least side on that the network's dilations allow.
    """
    return ANY_SIZE.model_copy(update={"min": (network.min_side, network.min_side)})


class Parity(FrozenModel):
    """How far an engine is from the PyTorch reference in fp32, or why that was not measured."""

    measured: bool
    emulated: bool = Field(default=False, description="the engine's arithmetic was emulated on a CPU")
    reason: str = ""
    output: str = ""
    max_abs_error: float | None = None
    psnr: float | None = Field(default=None, description="dB, peak 1; None where the two are identical")
    tolerance: float | None = None
    least_psnr: float | None = Field(default=None, description="dB; of int8, whose error is judged as a whole")
    cases: tuple[str, ...] = ()
    worst: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error was measured and is within the tolerance."""
        if not self.measured:
            return False
        if self.least_psnr is not None:
            return self.psnr is None or self.psnr >= self.least_psnr
        return self.max_abs_error is not None and self.max_abs_error <= (self.tolerance or 0.0)


class DeviceCheck(Parity):
    """How far an engine is from ONNX Runtime on the machine that built it, or why that was not measured."""

    gpu: str = Field(default="", description="the GPU that ran the engine")
    not_checked: tuple[str, ...] = Field(default=(), description="sizes that did not fit into memory, with the reason")


class BuildSettings(FrozenModel):
    """What a TensorRT builder was asked for beside precision and sizes; the defaults are TensorRT's own."""

    gpus: tuple[str, ...] = Field(default=(), description="GPUs by name that a TensorRT-RTX engine is for; (): any")
    optimization_level: int | None = Field(default=None, ge=0, le=5)
    workspace_mib: int | None = Field(default=None, ge=1)
    version_compatible: bool = False
    hardware_compatible: bool = False
    refittable: bool = False
    stripped: bool = Field(default=False, description="without weights: they are put in from the graph at load")


class Asked(FrozenModel):
    """What the TensorRT engines of a bundle were asked to be at the export; a later build takes the same by default."""

    precision: Precision
    sizes: SizeRange
    profiles: Literal["auto", "one", "three"] = "auto"
    settings: BuildSettings = BuildSettings()


class Engine(FrozenModel):
    """One way to run the bundle's network."""

    name: EngineName
    precision: Precision
    sizes: SizeRange
    profiles: tuple[SizeRange, ...] = Field(
        default=(), description="TensorRT's optimization profiles, in the engine's order; (): one, which is `sizes`"
    )
    files: tuple[Artifact, ...] = Field(min_length=1)
    versions: dict[str, str]
    settings: BuildSettings | None = Field(default=None, description="of a TensorRT engine")
    compute_capabilities: tuple[str, ...] = Field(
        default=(), description="GPUs that a TensorRT engine runs on: 8.9 (that one), 8.0+ (from there up); (): any"
    )
    parity: Parity
    device_check: DeviceCheck | None = Field(default=None, description="of a TensorRT engine that glama-build made")


class Graph(FrozenModel):
    """An ONNX model of the bundle, from which engines of its precision are built."""

    file: Artifact
    opset: int
    kept: dict[str, str] = Field(
        default_factory=dict, description="nodes that are not in the graph's first type, each with its reason"
    )
    parity: Parity | None = Field(default=None, description="of its arithmetic, emulated on a CPU (TensorRT's graphs)")


class Checkpoint(FrozenModel):
    """Where the parameters came from."""

    file: str
    kind: str
    sha256: str
    weights_key: str | None = Field(default=None, description="which generator of a file with several")

    @model_serializer(mode="wrap")
    def _leave_out_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write the record without the field that old versions did not have, unless it is set."""
        return {name: value for name, value in dump(self).items() if name != "weights_key" or value is not None}


class Manifest(FrozenModel):
    """`manifest.json`."""

    schema_version: int = SCHEMA_VERSION
    network: NetworkConfig
    checkpoint: Checkpoint
    fft: Lowering
    io: Io
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tools: dict[str, str]
    graphs: dict[Precision, Graph]
    engines: dict[EngineName, Engine]
    asked: Asked | None = None

    @property
    def sizes(self) -> SizeRange:
        """The sizes that the graphs take."""
        image = self.inputs[0]
        height, width = (image.shape[image.layout.index(axis)] for axis in "HW")
        if isinstance(height, int) and isinstance(width, int):
            return SizeRange(min=(height, width), opt=(height, width), max=(height, width))
        return find_any_size(self.network)

    @model_validator(mode="after")
    def _whole(self) -> Manifest:
        if "fp32" not in self.graphs or ("onnx" not in self.engines and self.fft != "plugin"):
            raise ValueError("every bundle has an fp32 graph and the engine onnx; this one lacks one of them")
        for name, engine in self.engines.items():
            files, needed = len(engine.files), len(catalogue.ENGINES[name].files)
            if engine.name != name or files != needed:
                raise ValueError(f"engine {name} is called {engine.name} and has {files} files, not {needed}")
        return self


class Bundle:
    """A bundle that was opened: its folder and its manifest."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Take a folder and its manifest as they are.

        Args:
            path: the bundle's folder.
            manifest: the manifest that was read from the folder.
        """
        self.path = path
        self.manifest = manifest
        self._state = _read_state(path)

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read and check the manifest.

        Args:
            path: the bundle's folder.

        Returns:
            The bundle. Its files are verified when they are used.

        Raises:
            BundleError: the bundle is missing, of a newer schema, or damaged, or the folder is not a bundle.
            GlamaError: no file can have the path.
        """
        path = Path(path)
        check_path(path)
        file, state = path / MANIFEST, _read_state(path)
        if not path.exists():
            raise BundleError(f"no bundle at {path}; make one with `export(checkpoint=CHECKPOINT, out={path})`")
        if not file.is_file():
            raise BundleError(f"{path} is no bundle: it has no {MANIFEST}; make one with `export()`")
        try:
            tree = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{file} is damaged ({str(error)[:100]}); export the bundle again") from error
        except OSError as error:
            raise BundleError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
        version = tree.get("schema_version") if isinstance(tree, dict) else None
        if type(version) is not int or version < 1:
            raise BundleError(f"{file} has no schema_version; export the bundle again")
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has bundle schema {version}, this glama-deploy reads up to {SCHEMA_VERSION}; "
                "upgrade it: pip install -U glama-deploy"
            )
        try:
            bundle = cls(path, Manifest.model_validate(tree))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            advice = "upgrade glama-deploy or " if first["type"] == "extra_forbidden" else ""
            raise BundleError(
                f"{file} is not valid: {where}: {first['msg']}; {advice}export the bundle again"
            ) from error
        bundle._state = state  # as it was before the manifest was read
        return bundle

    @property
    def sizes(self) -> SizeRange:
        """The sizes that the graphs take."""
        return self.manifest.sizes

    def engine(self, name: EngineName) -> Engine | None:
        """Return an engine's entry in the manifest.

        Args:
            name: the engine's name.

        Returns:
            The entry, or None if the bundle does not have the engine.
        """
        return self.manifest.engines.get(name)

    def graph(self, precision: Precision) -> Path:
        """Return the ONNX model of a precision, verified against its SHA-256.

        Args:
            precision: the precision that the graph is written in.

        Returns:
            The file's path.

        Raises:
            BundleError: the bundle does not have the graph, or the file is missing or was changed.
        """
        graph = self.manifest.graphs.get(precision)
        if graph is None:
            there = ", ".join(self.manifest.graphs)
            raise BundleError(
                f"{self.path} has no {precision} graph (it has: {there}); export it with {_describe_export(precision)}"
            )
        return self._verified(graph.file)

    def files(self, name: EngineName) -> list[Path]:
        """Return an engine's files, verified against their SHA-256.

        Args:
            name: the engine's name.

        Returns:
            The files' paths, in the manifest's order.

        Raises:
            BundleError: the bundle does not have the engine, or a file is missing or was changed.
        """
        engine = self.engine(name)
        if engine is None:
            there = ", ".join(self.manifest.engines)
            raise BundleError(f"{self.path} has no {name} engine (it has: {there}); add it with `build()`")
        return [self._verified(artifact) for artifact in engine.files]

    def check_ends(self) -> None:
        """Check that the graph has inputs and outputs that this software feeds.

        Raises:
            BundleError: the graph has those of another program's model.
        """
        if (model := DROP_IN_ENDS.get(self.manifest.io)) is not None:
            raise BundleError(
                f"{self.path} is for programs that load {model}: give them its model.onnx; export with `io=float` or "
                "`io=uint8` to run the network here"
            )

    def verify(self) -> None:
        """Verify every file that the manifest names.

        Raises:
            BundleError: a file is missing or was changed.
        """
        for graph in self.manifest.graphs.values():
            self._verified(graph.file)
        for name in self.manifest.engines:
            self.files(name)

    def is_current(self) -> bool:
        """Return whether the folder is in the state in which it was opened.

        Returns:
            False if another process has changed the bundle since.
        """
        return _read_state(self.path) == self._state

    def _verified(self, artifact: Artifact) -> Path:
        path = self.path / artifact.path
        # A writer may move the file from the second place to the first while the second one is looked at.
        for place in (path, self.path / NEXT / artifact.path, path):
            if _is_intact(place, artifact):
                return place
        if not self.is_current():
            raise BundleError(f"{self.path} was changed by another process since it was opened; open it again")
        if not path.is_file():
            raise BundleError(f"{path} is missing; export the bundle again")
        raise BundleError(f"{path} was changed since the export (its SHA-256 differs); export the bundle again")


def _describe_export(graph: Precision) -> str:
    """Say how to export a graph of a precision."""
    builders = [record for record in catalogue.ENGINES.values() if record.builder]
    targets = [record.target for record in builders if graph in record.precisions.values()]
    if not targets or not catalogue.PRECISIONS[graph].is_quantized:
        return "that precision"
    return f"`precision=int8` `calibration=FOLDER` `targets={targets[0]}`"


def _is_intact(path: Path, artifact: Artifact) -> bool:
    """Return whether the file is the one that the manifest means. Raises BundleError where it cannot be read."""
    try:
        return path.stat().st_size == artifact.bytes and sha256(path) == artifact.sha256
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a loop of links, no permission
        raise BundleError(f"{path} cannot be read: {error.strerror}; check the file and its permissions") from error


def _read_state(path: Path) -> tuple[int, int, int, bool]:
    """Return numbers that tell one state of a bundle's folder from another; all 0 where the manifest is missing."""
    try:
        manifest = (path / MANIFEST).stat()
    except OSError:
        return 0, 0, 0, False
    return manifest.st_ino, manifest.st_mtime_ns, manifest.st_size, (path / NEXT).is_dir()


def artifact(folder: Path, path: Path) -> Artifact:
    """Describe a file of a bundle for the manifest.

    Args:
        folder: the bundle's folder.
        path: the file, in the folder.

    Returns:
        The file's entry.
    """
    return Artifact(path=path.relative_to(folder).as_posix(), sha256=sha256(path), bytes=path.stat().st_size)


def manifest_text(manifest: Manifest) -> str:
    """Return the contents of `manifest.json`, in the schema of this version.

    Args:
        manifest: the manifest.

    Returns:
        JSON text.
    """
    return manifest.model_copy(update={"schema_version": SCHEMA_VERSION}).model_dump_json(indent=2) + "\n"


#: The greatest number of digits of a side that is read.
_MAX_DIGITS = 18


def parse_size(text: str, option: str = "size") -> Size:
    """Read a size from text.

    Args:
        text: height and width in pixels, such as `512x768`.
        option: what an error calls the size.

    Returns:
        (height, width).

    Raises:
        GlamaError: the text is not a size, or a side is not a multiple of 8 from 16 to 16384.
    """
    height, cross, width = text.lower().partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal():
        raise GlamaError(f"{option} is {text!r}; HEIGHTxWIDTH is expected, such as 512x768")
    if max(len(height), len(width)) > _MAX_DIGITS:  # Python refuses to read a number of some thousand digits
        raise GlamaError(f"{option} has sides of {len(height)} and {len(width)} digits; the largest side is {MAX_SIDE}")
    size = int(height), int(width)
    if any(side % SIZE_MULTIPLE or not MIN_SIDE <= side <= MAX_SIDE for side in size):
        near = "x".join(str(min(MAX_SIDE, next_side(side))) for side in size)
        raise GlamaError(
            f"{option} is {text}; both sides must be multiples of {SIZE_MULTIPLE} from {MIN_SIDE} to {MAX_SIDE}: "
            f"the next that works is {near} (images of any size are padded to it)"
        )
    return size
