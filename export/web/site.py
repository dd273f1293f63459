"""Make a static site that removes things from pictures: the page, the network, and the engine that runs in a browser.

    index.html, page/     the page of glama-serve, with the engine `page/engine_browser.js`
    service_worker.js     the list of all files with their SHA-256, for offline use
    site.json             what the page reads: the network, its files, the engine's files
    model/PRECISION/      weights, and a structure for each provider (:mod:`glama_deploy.export.web.model_parts`)
    runtime/              ONNX Runtime Web, unless the page loads it from a CDN

The folder appears complete, or not at all.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import glama_deploy
from glama_deploy import catalogue
from glama_deploy.bundle import Bundle
from glama_deploy.checkpoints import formats
from glama_deploy.checkpoints.published.references import locate
from glama_deploy.errors import EngineError, GlamaError
from glama_deploy.export.pipeline import Outcome, Request, check_request, export
from glama_deploy.export.samples import SAMPLE
from glama_deploy.export.web import check_sample, ort_web
from glama_deploy.io.files import (
    PREFIX,
    check_overwrite,
    check_path,
    check_writable,
    publish_folder,
    temporary_beside,
    write_error,
)
from glama_deploy.io.images import read_image
from glama_deploy.runtime.base import require
from glama_deploy.runtime.onnxruntime.providers import require_onnxruntime

if TYPE_CHECKING:
    from glama_deploy.export.web.model_parts import Parts

#: The description that the page reads, and the version of its form.
DESCRIPTION = "site.json"
SCHEMA_VERSION = 1

#: The page of glama-serve, and its file that only a server needs.
_PAGE_FOLDER = Path(glama_deploy.__file__).parent / "server" / "page"
_SERVER_ENGINE, _BROWSER_ENGINE = "page/engine_server.js", "page/engine_browser.js"

#: Files that a visitor downloads only when the engine starts, or never.
_LATE_FOLDERS = ("model/", "runtime/")

#: The names that embedded networks have on the page.
_NAMES = {"default": "embedded network"}

#: The side of the photo on which a graph in fp16 is compared with fp32, in pixels.
_PHOTO_SIDE_PIXELS = 256

#: A comment that describes a module, a function or a value of the page.
_DOC_COMMENT = re.compile(r"^[ \t]*/\*\*.*?\*/\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class SiteRequest:
    """What to make a site of.

    Attributes:
        export: The checkpoint, the tolerances, whether parity is measured, and where the site is written. The graph
            is in fp32, of any size, with float tensors.
        precisions: The types in which the weights are stored, the one that the page opens first.
        ort_web: Where ONNX Runtime Web comes from: `npm`, `cdn`, or a folder.
    """

    export: Request
    precisions: tuple[str, ...] = ("fp32",)
    ort_web: str = ort_web.NPM_SOURCE


@dataclass(frozen=True)
class SiteNetwork:
    """A network of a finished site.

    Attributes:
        precision: The type in which the weights are stored.
        download_bytes: Bytes that a visitor downloads of the network, by provider.
        error: The largest error of an output value in [0, 1] against the ONNX model in fp32.
    """

    precision: str
    download_bytes: Mapping[str, int]
    error: float


def make_site(request: SiteRequest, step: Callable[[str], None] = lambda text: None) -> Outcome:
    """Make a site.

    Args:
        request: What to make.
        step: A function that is called with the description of each step.

    Returns:
        The bundle from which the site was made, which no longer exists, with the parity of its ONNX model.

    Raises:
        GlamaError: The request or the checkpoint cannot be used, or the engine cannot be had. Nothing is written.
    """
    _check_request(request)
    request = replace(request, export=replace(request.export, checkpoint=locate(request.export.checkpoint)))
    out = request.export.out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(out) as folder, tempfile.TemporaryDirectory() as scratch:
            folder.mkdir()
            bundle_request = _make_bundle_request(request.export, Path(scratch) / "bundle")
            check_request(bundle_request)
            formats.read(
                bundle_request.checkpoint, bundle_request.weights_key
            )  # a bad checkpoint is told before the download
            step(f"getting ONNX Runtime Web {ort_web.VERSION}")
            ort_web.write(request.ort_web, folder / "runtime")
            outcome = export(bundle_request, step)
            models = {}
            for precision in request.precisions:
                step(f"writing the network in {precision}")
                models[precision] = _write_model(folder, outcome.bundle, precision, request)
            _write_page(folder, request.ort_web)
            _write_json(folder / DESCRIPTION, _describe(request, outcome.bundle, models))
            _write_service_worker(folder, request.ort_web)
            publish_folder(folder, out)
    except OSError as error:
        raise write_error(out, error) from error
    return outcome


def _check_request(request: SiteRequest) -> None:
    """Raise GlamaError for a request that is known to fail, before any work."""
    asked, record = request.export, catalogue.WEB
    for precision in request.precisions:
        if precision not in record.precisions:
            raise GlamaError(
                f"{record.target} does not support precision {precision!r}; use "
                f"{catalogue.join_names(record.precisions)}, or both with a comma between"
            )
    if len(set(request.precisions)) != len(request.precisions):
        raise GlamaError(f"precision is {','.join(request.precisions)!r}; give each precision once")
    if asked.size is not None:
        raise GlamaError(f"{record.target} makes a graph of any size; leave out `size`")
    if asked.fft not in ("auto", *record.lowerings):
        raise GlamaError(f"browsers do not support `fft={asked.fft}`; use `fft={record.lowerings[0]}`")
    if asked.io != "float":
        raise GlamaError(f"the page converts bytes itself, so {record.target} needs `io=float`")
    if asked.calibration is not None or asked.calibration_images is not None:
        raise GlamaError(f"{record.target} needs no calibration; leave out `calibration` and `calibration_images`")
    for name in asked.options.list_given():
        raise GlamaError(f"`{name}` is for TensorRT (trt, trt-rtx); {record.target} has none: leave it out")
    catalogue.check_tolerances(asked.tolerances, ("fp32", *request.precisions))
    require("onnx", "the onnx package, which exporting needs,", "pip install onnx", "ModelProto")
    require_onnxruntime()
    ort_web.check_source(request.ort_web)
    _check_out(asked.out, overwrite=asked.overwrite)


def _make_bundle_request(asked: Request, out: Path) -> Request:
    """Return the request for the bundle in fp32 that the site is made from."""
    tolerances = {name: bound for name, bound in asked.tolerances.items() if name == "fp32" and asked.parity}
    return replace(asked, out=out, overwrite=False, tolerances=tolerances)


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Raise GlamaError if the site cannot be written."""
    check_path(out)
    check_overwrite(out, is_there=out.exists(), overwrite=overwrite)
    if out.exists() and not out.is_dir():
        raise GlamaError(f"{out} is a file; a folder is needed for the site")
    if out.is_dir() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        raise GlamaError(f"{out} exists and is not a site, so it is not overwritten; choose another folder")
    check_writable(out.absolute().parent)


def _write_model(folder: Path, bundle: Bundle, precision: str, request: SiteRequest) -> dict[str, Any]:
    """Write the parts of the network in a precision; return what the page reads about them."""
    from glama_deploy.export.web import model_parts  # needs the onnx package

    parts = model_parts.split_model(bundle.graph("fp32"), precision)
    error = _compare(parts, bundle)
    bound = catalogue.find_tolerance(precision, request.export.tolerances).max_abs_error
    if bound is not None and not error <= bound:
        raise GlamaError(
            f"the site's network in {precision} is {error:.1e} away from the bundle's, beyond the tolerance of "
            f"{bound:g}; nothing was written: use `precision=fp32` or report this"
        )
    place = folder / "model" / precision
    place.mkdir(parents=True)
    (place / "weights.bin").write_bytes(parts.weights)
    for provider, structure in parts.structures.items():
        (place / f"{provider}.bin").write_bytes(structure)
    here = f"model/{precision}"
    return {
        "weights": {"path": f"{here}/weights.bin", "bytes": len(parts.weights)},
        "structures": {
            provider: {"path": f"{here}/{provider}.bin", "bytes": len(structure)}
            for provider, structure in parts.structures.items()
        },
        "error": error,
        "check": check_sample.describe(parts.join(model_parts.PROVIDERS[0])),
    }


def _compare(parts: Parts, bundle: Bundle) -> float:
    """Return the largest error of a site's network against the bundle's, on a part of the sample photo."""
    from glama_deploy.export.web import model_parts

    side = _PHOTO_SIDE_PIXELS
    image = read_image(SAMPLE).rgb[None, :side, :side]
    missing = np.zeros((1, side, side), bool)
    missing[:, side // 3 : side // 2, side // 4 : side // 2] = True
    reference = model_parts.split_model(bundle.graph("fp32"), "fp32").join("webgpu")
    expected = check_sample.run_model(reference, image, missing)
    found = [check_sample.run_model(parts.join(provider), image, missing) for provider in model_parts.PROVIDERS]
    return max(float(np.abs(values - expected).max()) for values in found)


def _describe(request: SiteRequest, bundle: Bundle, models: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Describe the site for the page."""
    checkpoint = str(request.export.checkpoint)
    place = ort_web.CDN if request.ort_web == ort_web.CDN_SOURCE else "runtime/"
    builds = {
        provider: {
            name: {"url": place + file, "sha256": ort_web.FILES[file]}
            for name, file in (("library", build.library), ("factory", build.factory), ("binary", build.binary))
        }
        for provider, build in ort_web.BUILDS.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "software": f"glama-deploy {glama_deploy.__version__}",
        "model": _NAMES.get(checkpoint, Path(checkpoint).stem),
        "checkpoint_sha256": bundle.manifest.checkpoint.sha256,
        "decoder": {
            "reduction": bundle.manifest.network.reduction,
            "reach": bundle.manifest.network.decoder_reach,
        },
        "precisions": models,
        "runtime": {"version": ort_web.VERSION, "builds": builds},
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def strip_doc_comments(script: str) -> str:
    """Leave out the comments that describe modules and functions. Every visitor of a site would download them.

    Args:
        script: A module of the page. Comments of this kind begin a line, and no string contains their beginning.

    Returns:
        The module without them.
    """
    return _DOC_COMMENT.sub("", script)


def _write_page(folder: Path, source: str) -> None:
    """Copy the page, and name the engine that runs in the browser."""
    if not (_PAGE_FOLDER / "index.html").is_file():
        raise EngineError(f"this installation has no page ({_PAGE_FOLDER}); install glama-deploy again")
    ignored = shutil.ignore_patterns("index.html", Path(_SERVER_ENGINE).name)
    shutil.copytree(_PAGE_FOLDER, folder / "page", ignore=ignored)
    for script in (folder / "page").rglob("*.js"):
        script.write_text(strip_doc_comments(script.read_text(encoding="utf-8")), encoding="utf-8")
    html = (_PAGE_FOLDER / "index.html").read_text(encoding="utf-8")
    charset = '<meta charset="utf-8">\n'
    added = (
        f'    <meta http-equiv="Content-Security-Policy" content="{_make_policy(source)}">\n'
        '    <script src="page/browser/address_check.js"></script>\n'
    )
    for found, replacement in ((_SERVER_ENGINE, _BROWSER_ENGINE), (charset, charset + added)):
        if html.count(found) != 1:
            raise EngineError(f"the page of this installation has not one {found!r}; install glama-deploy again")
        html = html.replace(found, replacement)
    (folder / "index.html").write_text(html, encoding="utf-8")


def _make_policy(source: str) -> str:
    """Return the content security policy of the page. A CDN's scripts are verified and run from blobs."""
    host = " ".join(["", "/".join(ort_web.CDN.split("/")[:3])]) if source == ort_web.CDN_SOURCE else ""
    blob = " blob:" if source == ort_web.CDN_SOURCE else ""
    return (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval'{blob}; worker-src 'self'{blob}; "
        f"connect-src 'self'{host}; img-src 'self' blob: data:; style-src 'self'; base-uri 'none'; form-action 'none'"
    )


def _write_service_worker(folder: Path, source: str) -> None:
    """Write the script that lists all files, and reads the service worker's code."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {path.relative_to(folder).as_posix(): ort_web.compute_sha256(path) for path in files}
    if source == ort_web.CDN_SOURCE:
        listed |= {ort_web.CDN + name: digest for name, digest in ort_web.FILES.items()}
    first = [name for name in listed if not name.startswith((*_LATE_FOLDERS, ort_web.CDN))]
    site = json.dumps({"files": listed, "first": first}, indent=1)
    script = f'const SITE = {site};\nimportScripts("page/browser/service_worker.js");\n'
    (folder / "service_worker.js").write_text(script, encoding="utf-8")


def read_networks(out: Path) -> list[SiteNetwork]:
    """Read which networks a site has.

    Args:
        out: The site's folder.

    Returns:
        The networks, the one that the page opens first at the front.
    """
    site = json.loads((out / DESCRIPTION).read_text(encoding="utf-8"))
    return [
        SiteNetwork(
            precision,
            {name: model["weights"]["bytes"] + part["bytes"] for name, part in model["structures"].items()},
            model["error"],
        )
        for precision, model in site["precisions"].items()
    ]


def count_bytes(out: Path) -> dict[str, int]:
    """Count the bytes of a site's parts.

    Args:
        out: The site's folder.

    Returns:
        Bytes by the name of the part: `page`, `model` and `runtime`.
    """
    sizes = {"page": 0, "model": 0, "runtime": 0}
    for path in out.rglob("*"):
        if path.is_file() and not path.name.startswith(PREFIX):
            first = path.relative_to(out).parts[0]
            sizes[first if first in sizes else "page"] += path.stat().st_size
    return sizes
