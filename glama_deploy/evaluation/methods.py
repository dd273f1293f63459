"""The methods that are evaluated, networks and classical inpainting, each as a function of an image and a mask.

A network is written `[NAME=]MODEL[@BACKEND[/PRECISION]]`: `default`, `old=runs/a/best.pt`, `bundle@openvino/bf16`,
`bundle@emulated/fp16` (a bundle's half graph for TensorRT, its arithmetic emulated on a CPU). Pictures that another
program made are a method, too: `[NAME=]FOLDER`.

SciPy and OpenCV are imported where they compute: arguments are checked before, and their import takes seconds.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

import glama_deploy
from glama_deploy import catalogue
from glama_deploy.bundle import MANIFEST, Bundle
from glama_deploy.checkpoints import embedded
from glama_deploy.checkpoints.published.model_list import find_near_name
from glama_deploy.checkpoints.published.references import find_reference, is_address, locate, split_name
from glama_deploy.errors import CheckpointError, DownloadError, EngineError, GlamaError
from glama_deploy.evaluation.records import KNOWN, MASK, TRUTH
from glama_deploy.inpainting.inpainter import Inpainter, Region
from glama_deploy.io.files import check_path, sha256
from glama_deploy.loading import read_digests
from glama_deploy.network import NetworkConfig
from glama_deploy.runtime.base import Request, require
from glama_deploy.runtime.choice import check_request
from glama_deploy.runtime.devices import parse_device
from glama_deploy.runtime.onnxruntime.providers import require_onnxruntime
from glama_deploy.text.excerpts import describe_error

#: Image uint8 H×W×3 and missing bool H×W → image uint8 H×W×3.
Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: The backend that emulates a bundle's half-precision graph.
EMULATED = "emulated"


@dataclass(frozen=True)
class Spec:
    """A method as it was asked for. A baseline has neither backend nor precision.

    Attributes:
        label: the name in tables.
        model: a bundle, a checkpoint, the name or address of a published checkpoint, `default`, or the name of a
            baseline.
        backend: the backend, `auto` or EMULATED.
        precision: the precision, or `auto`.
        allow_engine_code: see :func:`glama_deploy.load`.
        device: where the engine computes, as `load` takes it.
        pictures: the folder of the results, if another program made them. `model` is then the folder's path, too.
    """

    label: str
    model: str
    backend: str = "auto"
    precision: str = "auto"
    allow_engine_code: bool = False
    device: str | None = None
    pictures: Path | None = None

    @property
    def baseline(self) -> bool:
        """Whether the method is classical inpainting."""
        return self.pictures is None and self.model in BASELINES

    @property
    def has_weights(self) -> bool:
        """Whether the method is a network."""
        return self.pictures is None and not self.baseline


@dataclass(frozen=True)
class Method:
    """A method that is open.

    Attributes:
        spec: the method as it was asked for.
        fill: the function that inpaints; None if another program made the results.
        description: engine, version, device and precision, for people.
        network: the network's configuration; None of a baseline.
        on_gpu: whether a GPU computes.
    """

    spec: Spec
    fill: Fill | None
    description: str
    network: NetworkConfig | None = None
    on_gpu: bool = False


def parse_methods(
    models: Sequence[str],
    backends: Sequence[str],
    precisions: Sequence[str],
    results: Sequence[str] = (),
    *,
    allow_engine_code: bool = False,
    device: str | None = None,
) -> list[Spec]:
    """Return the methods of texts, each on every backend in every precision.

    Args:
        models: `[NAME=]MODEL[@BACKEND[/PRECISION]]` each. A model that names a backend runs on that alone.
        backends: backends of the models that name none.
        precisions: precisions of the models that name none.
        results: folders of results that other programs made, `[NAME=]FOLDER` each.
        allow_engine_code: see :func:`glama_deploy.load`.
        device: where the engines compute, as `load` takes it.

    Returns:
        A method for each model, backend and precision, and for each folder of results, with labels that differ.

    Raises:
        GlamaError: a model or folder is not there, a backend, precision or device does not exist, a backend does not
            compute on the device, or two methods have one name.
    """
    specs: list[Spec] = []
    for text in models:
        name, model, how = _split_text(text)
        check_path(Path(model))
        _check_model(text, model)
        label = name or _derive_label(model)
        if model in BASELINES and how:
            raise GlamaError(f"`models` {text}: {model} runs on no engine; leave out @{how}")
        if model in BASELINES:
            specs.append(Spec(label, model))
            continue
        backend, _, precision = how.partition("/")
        ways = [(backend, precision or "auto")] if how else list(product(backends, precisions))
        for backend, precision in ways:
            place = None if backend == EMULATED else parse_device(device)
            check_request("torch" if backend == EMULATED else backend, Request(precision, device=place))
            if (backend, precision) == (EMULATED, catalogue.FASTEST):
                raise GlamaError(
                    f"`models` {text}: emulation has no speed; name a precision, as in BUNDLE@emulated/fp16"
                )
            asked = [part for part in (backend, precision) if part != "auto"]
            told = asked if (how and not name) or len(ways) > 1 else []
            specs.append(Spec(" ".join((label, *told)), model, backend, precision, allow_engine_code, device))
    specs += map(_parse_results, results)
    taken = [spec.label for spec in specs if spec.label in (KNOWN, MASK, TRUTH)]
    if taken:
        raise GlamaError(f"a method is called {taken[0]!r}, as a picture on the sheets; name it, as in `models=A=PATH`")
    twice = [label for label, count in Counter(spec.label for spec in specs).items() if count > 1]
    if twice:
        raise GlamaError(f"two methods are called {twice[0]!r}; name them, as in `models=A=PATH` `models=B=PATH`")
    return specs


def _parse_results(text: str) -> Spec:
    """Return the method of a folder of results. Raises GlamaError where there is no such folder."""
    name, folder = split_name(text)
    name = Path(text).resolve().name if name is None else name
    check_path(Path(folder))
    if not name or not Path(folder).is_dir():
        raise GlamaError(
            f"`results` {text} is no folder; give the folder of the pictures that a program made, or NAME=FOLDER"
        )
    return Spec(name, folder, pictures=Path(folder).resolve())


def _check_model(text: str, model: str) -> None:
    """Raise GlamaError where a model is neither a baseline, a path that exists, nor a model with a name."""
    if model in BASELINES or embedded.is_embedded(model) or Path(model).exists():
        return
    try:
        if find_reference(model) is not None:
            return
    except DownloadError as error:
        raise GlamaError(f"`models` {text}: {error}") from error
    except CheckpointError:  # an unknown name, for which more is expected here
        pass
    near = find_near_name(Path(model).name)
    hint = f"is {near} meant? " if near else ""
    raise GlamaError(
        f"`models` {text}: no bundle or checkpoint at {model}; {hint}a path, 'default', a name that glama-models list "
        f"shows, {', '.join(BASELINES)}: one of these is expected"
    )


def _split_text(text: str) -> tuple[str, str, str]:
    """Split a text into the name, the model and how it is run. A path that exists is not split.

    An address has `=` and `@` of its own: `https://HOST/FILE#sha256=HASH`, `hf://OWNER/REPO@REVISION/FILE`.

    Raises:
        GlamaError: a part of the text is empty.
    """
    name, rest = split_name(text)
    model, at, how = rest.rpartition("@") if "@" in rest and not os.path.exists(rest) else (rest, "", "")
    if is_address(rest) and re.split("[:/]", how)[0] not in ("auto", "torch", EMULATED, *catalogue.backends()):
        model, at, how = rest, "", ""
    if not model or name == "" or (at and not how):
        raise GlamaError(f"`models` is {text!r}; [NAME=]MODEL[@BACKEND[/PRECISION]] is expected, no part empty")
    return name or "", model, how


def _derive_label(model: str) -> str:
    """Return a name for tables: the run's for a checkpoint of a training run, else the file's or folder's."""
    path = Path(model)
    if re.fullmatch(r"best|step-\d+", path.stem) and path.parent.name:
        return path.parent.name
    return path.name if path.is_dir() else path.stem


def compute_digest(spec: Spec) -> str:
    """Return what tells the model from another.

    Args:
        spec: the method.

    Returns:
        A SHA-256 of a bundle's manifest or of all files of a checkpoint; empty for other methods. Records have the
        digests of results that other programs made.
    """
    if not spec.has_weights:
        return ""
    manifest = Path(spec.model) / MANIFEST
    return sha256(manifest) if manifest.is_file() else read_digests(locate(spec.model)).combined


def open_method(spec: Spec, threads: int, region: Region = "full") -> Method:
    """Open a method.

    Args:
        spec: the method.
        threads: the number of threads.
        region: what a network sees of an image.

    Returns:
        The method, ready to run.

    Raises:
        GlamaError: the method does not run here, or not in the precision that is asked for.
    """
    if spec.pictures is not None:
        return Method(spec, None, f"the pictures of {spec.pictures}")
    if spec.baseline:
        return Method(spec, _report_failures(BASELINES[spec.model]), _describe_baseline(spec.model))
    if spec.backend == EMULATED:
        inpainter = _open_emulated(spec, threads)
    else:
        how = (spec.backend, spec.precision, threads)
        inpainter = glama_deploy.load(
            spec.model, *how, compile_sizes=False, allow_engine_code=spec.allow_engine_code, device=spec.device
        )
    if spec.precision not in ("auto", catalogue.FASTEST, inpainter.precision):
        raise EngineError(f"{spec.label} would run as {inpainter.description}, not in {spec.precision}")
    fill = _report_failures(partial(inpainter, region=region))
    return Method(spec, fill, inpainter.description, inpainter.network, inpainter.device != "cpu")


def _report_failures(fill: Fill) -> Fill:
    """Return a function that turns a library's exceptions into an EngineError.

    A lack of memory, or an image that the library does not take, then is a failure of this method on this image alone.
    """
    import cv2

    def fill_or_report(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        try:
            return fill(image, missing)
        except (RuntimeError, MemoryError, cv2.error) as error:
            raise EngineError(describe_error(error)) from error

    return fill_or_report


def _open_emulated(spec: Spec, threads: int) -> Inpainter:
    if not (Path(spec.model) / MANIFEST).is_file():
        raise GlamaError(
            f"{spec.label}: a checkpoint has no graph to emulate; `export(precision=fp16)` makes a bundle of it"
        )
    require("onnx", "onnx", "pip install onnx", "ModelProto")
    require_onnxruntime()
    import onnx

    from glama_deploy.export.numerics.emulate import EmulatedRunner

    bundle = Bundle.open(spec.model)
    half = [name for name in bundle.manifest.graphs if catalogue.PRECISIONS[name].computed != "fp32"]
    precision = spec.precision if spec.precision != "auto" else (half or ["fp16"])[0]
    graph = onnx.load(str(bundle.graph(precision)))
    network = bundle.manifest.network
    return Inpainter(EmulatedRunner(graph, precision, bundle.sizes, threads, network), network)


def _describe_baseline(baseline: str) -> str:
    import cv2
    import scipy

    return f"SciPy {scipy.__version__}" if baseline == "interpolation" else f"OpenCV {cv2.__version__}"


# ---------------------------------------------------------------- classical inpainting


def telea(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Inpaint with OpenCV, radius 3 pixels (Telea, J. Graphics Tools 2004).

    Args:
        image: uint8 H×W×3.
        missing: the pixels to fill, bool H×W.

    Returns:
        uint8 H×W×3 with known pixels as they were.
    """
    import cv2

    return cv2.inpaint(image, missing.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Inpaint with OpenCV, radius 3 pixels (Bertalmio et al., CVPR 2001).

    Args:
        image: uint8 H×W×3.
        missing: the pixels to fill, bool H×W.

    Returns:
        uint8 H×W×3 with known pixels as they were.
    """
    import cv2

    return cv2.inpaint(image, missing.astype(np.uint8), 3, cv2.INPAINT_NS)


def interpolation(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Interpolate linearly on Delaunay triangles of the known pixels up to two pixels from the hole.

    Pixels outside of the triangles get the value of the nearest known pixel. All pixels do where the known pixels lie
    on one line.

    Args:
        image: uint8 H×W×3.
        missing: the pixels to fill, bool H×W.

    Returns:
        uint8 H×W×3 with known pixels as they were.
    """
    import cv2
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator
    from scipy.spatial import QhullError

    edge = cv2.dilate(missing.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~missing
    places, values, wanted = np.argwhere(edge), image[edge].astype(np.float64), np.argwhere(missing)
    try:
        found = LinearNDInterpolator(places, values)(wanted)
    except QhullError:  # no triangle
        found = np.full((len(wanted), 3), np.nan)
    outside = np.isnan(found[:, 0])
    if outside.any():
        found[outside] = NearestNDInterpolator(places, values)(wanted[outside])
    result = image.copy()
    result[missing] = np.rint(found).clip(0, 255).astype(np.uint8)
    return result


#: Classical methods that networks are compared with, by the names that models are given by.
BASELINES: dict[str, Fill] = {"telea": telea, "navier-stokes": navier_stokes, "interpolation": interpolation}
