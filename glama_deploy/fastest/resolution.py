"""Replace the precision `fastest` by a precision of the catalogue, from a measurement that the cache keeps."""

from __future__ import annotations

import hashlib
import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from pydantic import Field, ValidationError

from glama_deploy import catalogue
from glama_deploy.bundle import MANIFEST, Bundle
from glama_deploy.errors import EngineError
from glama_deploy.fastest.measurement import LEAST_PSNR_DB, SIZE, Measurement, choose_fastest, measure
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io import cache, locks
from glama_deploy.io.files import PREFIX, atomic_file, sha256, write_error
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request
from glama_deploy.system import cpu
from glama_deploy.system.packages import read_versions
from glama_deploy.system.processors import count_processors

log = logging.getLogger("glama_deploy")


class Record(FrozenModel):
    """The file in the cache: all measured precisions, fp32 first."""

    measurements: tuple[Measurement, ...] = Field(min_length=1)


def resolve_fastest(bundle: Bundle, backend: str, request: Request) -> Request:
    """Replace the precision `fastest` by the precision that is the fastest on this machine.

    The measurement takes some seconds, and a minute for a large network. Its result is kept in the cache for the
    bundle, the engines' versions, the CPU and the number of threads. One process at a time measures.

    Args:
        bundle: the bundle.
        backend: the backend, as :func:`glama_deploy.load` takes it.
        request: how to open the engine, with the precision `fastest`.

    Returns:
        The request with a precision of the catalogue. An engine without fp32 keeps the precision that it was built in:
        `auto`.

    Raises:
        EngineError: no engine can be opened.
    """
    plain = replace(request, precision="auto")
    folder = cache.folder("precisions")
    if folder is None:
        return _measure_and_choose(bundle, backend, plain, None)
    path = folder / f"{_make_key(bundle, backend, request)}.json"
    if (record := _read(path)) is not None:
        return _take_fastest(record, plain)
    with ExitStack() as stack:
        try:
            subject = f"the speed of each precision of {bundle.path}"
            stack.enter_context(locks.hold(path.with_name(f"{PREFIX}{path.name}.lock"), subject))
        except OSError as error:
            raise write_error(path, error) from error
        if (record := _read(path)) is not None:  # another process has measured meanwhile
            return _take_fastest(record, plain)
        return _measure_and_choose(bundle, backend, plain, path)


def _measure_and_choose(bundle: Bundle, backend: str, plain: Request, path: Path | None) -> Request:
    """Measure, write the record into the file, and return the request with the fastest precision."""
    first = choice.open_bundle(bundle, backend, plain)
    chosen_backend, description = first.backend if backend == "auto" else backend, first.description
    size = SIZE if first.sizes.covers(*SIZE) else first.sizes.opt
    del first  # with its copy of the weights
    log.warning("measuring which precision of %s is the fastest here, once for this machine", bundle.path)

    def open_inpainter(precision: str) -> Inpainter:
        asked = replace(plain, precision=precision, streams=1, compile_sizes=plain.compile_sizes is not False)
        return Inpainter(choice.open_bundle(bundle, chosen_backend, asked), bundle.manifest.network)

    try:
        record = Record(measurements=measure(open_inpainter, size))
    except EngineError as error:
        log.warning("the precisions cannot be compared (%s); using %s", error, description)
        return plain
    if path is not None:
        with atomic_file(path) as temporary:
            temporary.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    return _take_fastest(record, plain, logging.WARNING)


def _take_fastest(record: Record, plain: Request, level: int = logging.INFO) -> Request:
    log.log(level, "%s", _describe(record))
    return replace(plain, precision=choose_fastest(record.measurements).precision)


def _describe(record: Record) -> str:
    """Describe the choice: the precision, and seconds and decibels of each."""
    figures = ", ".join(
        f"{one.precision} {one.seconds:.3g} s" + ("" if one.decibels is None else f" {one.decibels:.1f} dB")
        for one in record.measurements
    )
    chosen = choose_fastest(record.measurements).precision
    return f"the fastest precision with at least {LEAST_PSNR_DB:g} dB against fp32 is {chosen} ({figures})"


def _make_key(bundle: Bundle, backend: str, request: Request) -> str:
    """Name the record by all that the measurement depends on."""
    packages = [record.package for record in catalogue.ENGINES.values()]
    parts = (
        sha256(bundle.path / MANIFEST),
        backend,
        sorted(read_versions("glama-deploy", *packages, "onnxruntime-gpu").items()),
        cpu.read_model(),
        sorted(cpu.features()),
        request.threads or count_processors(),
        request.compile_sizes is not False,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> Record | None:
    """Read a record. A damaged file is a note, and counts as missing."""
    try:
        text = path.read_text(encoding="utf-8")
        record = Record.model_validate_json(text)
        if record.measurements[0].precision == "fp32" and {m.precision for m in record.measurements} <= set(
            catalogue.PRECISIONS
        ):
            return record
        reason = "a precision is unknown, or fp32 is missing"
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
    log.warning("%s is damaged (%s); the precisions are measured again", path, reason)
    return None
