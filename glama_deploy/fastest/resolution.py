"""Open the precision `fastest`: a precision of the catalogue, by a measurement that the cache keeps."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError

from glama_deploy import catalogue
from glama_deploy.bundle import MANIFEST, Bundle
from glama_deploy.errors import EngineError, GlamaError, ImageError
from glama_deploy.fastest.measurement import LEAST_PSNR_DB, SIZE, Measurement, choose_fastest, measure
from glama_deploy.frozen import FrozenModel
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.io import cache, locks
from glama_deploy.io.files import PREFIX, atomic_file, sha256, write_error
from glama_deploy.runtime import choice
from glama_deploy.runtime.base import Request
from glama_deploy.system import cpu, gpus
from glama_deploy.system.packages import read_versions
from glama_deploy.system.processors import count_processors

Opened = TypeVar("Opened")

log = logging.getLogger("glama_deploy")


class Record(FrozenModel):
    """The file in the cache: all measured precisions, fp32 first."""

    measurements: tuple[Measurement, ...] = Field(min_length=1)


def open_fastest(bundle: Bundle, backend: str, request: Request, open_engine: Callable[[Request], Opened]) -> Opened:
    """Open a bundle in the precision that is the fastest on this machine.

    The measurement takes some seconds, and a minute for a large network. Its result is kept in the cache for the
    bundle, the engines' versions, the CPU, the GPUs, the device and the number of threads. One process at a time
    measures.

    Args:
        bundle: the bundle.
        backend: the backend, as :func:`glama_deploy.load` takes it.
        request: how to open the engine, with the precision `fastest`.
        open_engine: opens the bundle with a precision of the catalogue. An engine without fp32 keeps the precision that
            it was built in: `auto`.

    Returns:
        What `open_engine` returns.

    Raises:
        EngineError: no engine can be opened.
    """
    resolved, is_kept = _resolve(bundle, backend, request)
    try:
        return open_engine(resolved)
    except EngineError as error:
        if not is_kept:
            raise
        log.warning("%s was the fastest here and does not open now (%s)", resolved.precision, error)
    return open_engine(_resolve(bundle, backend, request, again=True)[0])


def _resolve(bundle: Bundle, backend: str, request: Request, *, again: bool = False) -> tuple[Request, bool]:
    """Replace the precision `fastest`; return also whether the cache had the answer. `again` ignores the cache."""
    plain = replace(request, precision="auto")
    folder = cache.folder("precisions")
    if folder is None:
        return _measure_and_choose(bundle, backend, plain, None), False
    path = folder / f"{_make_key(bundle, backend, request)}.json"
    if not again and (record := _read(path)) is not None:
        return _take_fastest(record, plain), True
    with ExitStack() as stack:
        try:
            subject = f"the speed of each precision of {bundle.path}"
            stack.enter_context(locks.hold(path.with_name(f"{PREFIX}{path.name}.lock"), subject))
        except OSError as error:
            log.warning("%s", write_error(path, error))
            return _measure_and_choose(bundle, backend, plain, None), False
        if not again and (record := _read(path)) is not None:  # another process has measured meanwhile
            return _take_fastest(record, plain), True
        return _measure_and_choose(bundle, backend, plain, path), False


def _measure_and_choose(bundle: Bundle, backend: str, plain: Request, path: Path | None) -> Request:
    """Measure, write the record into the file, and return the request with the fastest precision."""
    first = choice.open_bundle(bundle, backend, plain)
    chosen_backend, description = first.backend if backend == "auto" else backend, first.description
    size = SIZE if first.sizes.covers(*SIZE) else first.sizes.opt
    del first  # with its copy of the weights
    often = "once for this machine" if path is not None else "at each start, because the result cannot be kept"
    log.warning("measuring which precision of %s is the fastest here, %s", bundle.path, often)

    def open_inpainter(precision: str) -> Inpainter:
        asked = replace(plain, precision=precision, streams=1, compile_sizes=plain.compile_sizes is not False)
        return Inpainter(choice.open_bundle(bundle, chosen_backend, asked), bundle.manifest.network)

    try:
        record = Record(measurements=measure(open_inpainter, size))
    except (EngineError, ImageError) as error:  # ImageError: memory is short
        log.warning("the precisions cannot be compared (%s); using %s", error, description)
        return plain
    if path is not None:
        _write(path, record)
    return _take_fastest(record, plain, logging.WARNING)


def _write(path: Path, record: Record) -> None:
    """Write a record. A file that cannot be written is logged as a warning."""
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    except GlamaError as error:
        log.warning("%s; the precisions are measured again at the next start", error)


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
        gpus.read_names(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        str(request.device),
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
