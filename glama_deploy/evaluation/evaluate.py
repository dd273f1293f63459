"""Evaluate methods on datasets and write a folder with results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation import methods, result_files
from glama_deploy.evaluation.arguments import Request, check_arguments
from glama_deploy.evaluation.methods import Method
from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.registry import DEFINITIONS, METRICS, SPECTRUM, find_set_metrics, sort_metrics
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.protocol import Identity, Item, Protocol, Weights
from glama_deploy.evaluation.records import (
    CSV,
    JSON,
    PAGE,
    PROTOCOL,
    RINGS,
    SHEET,
    SPECTRA,
    TEXT,
    TRUTH,
    Folder,
    Record,
    write_protocol,
)
from glama_deploy.evaluation.report import page, pictures, tables
from glama_deploy.evaluation.report.summary import Summary, summarize
from glama_deploy.evaluation.run import Evaluator, Setting, count_processes, evaluate_items
from glama_deploy.io.files import atomic_file, sha256
from glama_deploy.masks import MASKS_VERSION

#: Masks whose spectra are shown where there is a choice: grids and lines leave ripples, as in the paper's figure.
_SPECTRUM_MASKS = ("NearestNeighbor", "EveryNLines")

#: Called with the number of images that are done, the number of all images, and the current step.
OnProgress = Callable[[int, int, str], None]


def evaluate(request: Request, on_progress: OnProgress = lambda done, total, text: None) -> Summary:
    """Evaluate, or continue an earlier run of the same request, and write everything into `request.out`.

    Args:
        request: what to evaluate.
        on_progress: called after each image.

    Returns:
        All results. A method that cannot run here, a metric without its weights and a broken image are named in it.

    Raises:
        GlamaError: bad input. The folder is left as it was.
    """
    checked = check_arguments(request)
    result_files.check_sizes(checked.items, request.size)
    _check_gpu(request.device)
    metrics, weights, lacking = _find_metrics(request)
    opened, refused = _open_methods(request, checked.specs)
    if request.reference in refused:
        raise GlamaError(f"`reference` {request.reference} does not run here: {refused[request.reference]}")
    judge = Judge(metrics, weights, request.device)
    asked = Protocol(
        datasets=checked.datasets,
        methods=tuple(
            Identity(label=m.spec.label, description=m.description, digest=methods.compute_digest(m.spec))
            for m in opened
        ),
        masks=checked.masks,
        given=checked.given,
        metrics=metrics,
        weights=tuple(Weights(metric=metric, digest=sha256(path)) for metric, path in weights.items()),
        definitions=DEFINITIONS,
        mask_definitions=MASKS_VERSION,
        size=request.size,
        limit=request.limit,
        seed=request.seed,
        region=request.region,
        threads=request.threads,
        device=request.device,
        shown=request.shown,
    )
    folder, items = Folder(request.out), checked.items
    saved = None if request.save is None else request.save.resolve()
    setting = Setting(asked, tuple(m.spec for m in opened), weights, request.out.resolve(), saved)
    _check_images(Evaluator(setting, opened, judge), items)
    stale = [] if saved is None else result_files.check_folder(saved, asked, overwrite=request.overwrite)
    with folder.hold(asked, overwrite=request.overwrite) as records:
        if saved is not None:
            result_files.remove_saved(stale, saved)  # before the folder says that it is of this evaluation
            write_protocol(saved / PROTOCOL, asked)
        records = _evaluate_remaining(request, setting, items, opened, judge, records, folder, on_progress)
        summary = summarize(
            asked,
            records,
            folder,
            request.reference,
            refused=refused,
            lacking=lacking,
            step=lambda text: on_progress(len(items), len(items), text),
        )
        write_results(summary, [item for item, record in zip(items, records, strict=True) if not record.broken], folder)
    return summary


def _check_gpu(device: str) -> None:
    """Raise GlamaError where PyTorch does not find the GPU that the metrics' networks are to run on."""
    kind, _, number = device.partition(":")
    gpus = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= gpus:
        raise GlamaError(f"`device` is {device}, and PyTorch finds {gpus} GPUs; use `device=cpu`")


def _check_images(evaluator: Evaluator, items: Sequence[Item]) -> None:
    """Raise GlamaError where none of the images can be used."""
    broken = ""
    for item in items:
        found = evaluator.read(item)
        if not isinstance(found, Record):
            return
        broken = broken or found.broken
    raise GlamaError(f"none of the {len(items)} images can be used; the first: {broken}")


def _find_metrics(request: Request) -> tuple[tuple[str, ...], dict[str, Path], dict[str, str]]:
    """Return the metrics that can be computed, the files of those with weights, and why others cannot be computed."""
    weights, lacking = dict[str, Path](), dict[str, str]()
    names = sort_metrics(request.metrics)
    for name in names:
        needed = METRICS[name].weights
        if needed is None:
            continue
        path, reason = backbones.find_file(needed, request.weights), backbones.describe_absence(needed)
        if path is None and request.download:
            try:
                path = backbones.download(needed)
            except GlamaError as error:
                reason = str(error)
        if path is None:
            lacking[name] = reason
        else:
            weights[name] = path
    metrics = tuple(name for name in names if name not in lacking)
    if not metrics:
        reasons = "; ".join(f"{name} is not computed: {reason}" for name, reason in lacking.items())
        raise GlamaError(reasons or "no metric is asked for; give `metrics=psnr`")
    return metrics, weights, lacking


def _open_methods(request: Request, specs: Sequence[methods.Spec]) -> tuple[list[Method], dict[str, str]]:
    """Return the methods that run here, and by label why others do not. Raises GlamaError where none does."""
    opened, refused = list[Method](), dict[str, str]()
    for spec in specs:
        try:
            opened.append(methods.open_method(spec, request.threads, request.region))
        except GlamaError as error:
            refused[spec.label] = str(error)
    if not opened:
        raise GlamaError(next(iter(refused.values())))
    return opened, refused


def _evaluate_remaining(
    request: Request,
    setting: Setting,
    items: Sequence[Item],
    opened: Sequence[Method],
    judge: Judge,
    records: list[Record],
    folder: Folder,
    on_progress: OnProgress,
) -> list[Record]:
    """Return the records of all items, in their order, and evaluate the items that have none that can be kept.

    The record of a broken image is not written into the folder.
    """
    stored = {(record.dataset, record.image): record for record in records}
    needs_features = bool(find_set_metrics(setting.protocol.metrics))
    kept = ((item, _find_kept(item, stored, folder, setting, needs_features)) for item in items)
    done = {(item.dataset, item.name): record for item, record in kept if record is not None}
    todo = [item for item in items if (item.dataset, item.name) not in done]
    on_progress(len(done), len(items), "evaluating")
    if todo:
        count = request.processes or count_processes(todo, setting.protocol, opened)
        with closing(evaluate_items(setting, todo, min(count, len(todo)), opened, judge)) as found:
            for record in found:
                if not record.broken and record != stored.get((record.dataset, record.image)):
                    folder.append(record)
                done[record.dataset, record.image] = record
                on_progress(len(done), len(items), "evaluating")
    return [done[item.dataset, item.name] for item in items]


def _find_kept(
    item: Item, stored: dict[tuple[str, str], Record], folder: Folder, setting: Setting, needs_features: bool
) -> Record | None:
    """Return the stored record of an image that need not be evaluated again.

    An image is evaluated again where a method failed on it, where its files have changed, and where its pictures, its
    features or its saved results are needed and are not there. Saved results of another run may be of other files.
    """
    record = stored.get((item.dataset, item.name))
    if record is None or record.failed or (item.shown and not folder.picture_path(item, TRUTH).is_file()):
        return None
    if needs_features and not folder.has_features(item):
        return None
    if setting.save is not None and record.saved != str(setting.save):
        return None
    if setting.save is not None and not all(
        result_files.place_result(setting.save, spec.label, item, mask).is_file()
        for spec in setting.specs
        for mask in setting.protocol.masks
    ):
        return None
    try:
        return record if record.digest == item.digest() else None
    except ImageError:
        return None


def write_results(summary: Summary, items: Sequence[Item], folder: Folder) -> None:
    """Write the tables, the sheets, the spectra and the page.

    Args:
        summary: the results.
        items: the images that have results.
        folder: the folder of the run.
    """
    asked, out = summary.protocol, folder.path
    folder.remove_other_pictures(items)
    figures: dict[str, bytes] = {}
    slides: list[page.Slide] = []
    for dataset in asked.datasets:
        strips: list[pictures.Strip] = []
        spectra_row: pictures.Shown | None = None
        for row in pictures.read_shown(asked, [item for item in items if item.dataset == dataset.name], folder):
            strips.append(pictures.make_strip(row))
            slides.append(page.make_slide(row))
            if spectra_row is None or (
                row.item.shown in _SPECTRUM_MASKS and spectra_row.item.shown not in _SPECTRUM_MASKS
            ):
                spectra_row = row
        if strips:
            with atomic_file(out / f"{SHEET}-{dataset.name}.png") as temporary:
                pictures.draw_sheet(strips, [method.label for method in asked.methods]).save(temporary, format="PNG")
        if SPECTRUM not in asked.metrics:
            continue
        here = {
            f"{RINGS}-{dataset.name}": (f"{dataset.name}: by frequency", pictures.draw_rings(summary, dataset.name))
        }
        if spectra_row is not None:
            here[f"{SPECTRA}-{dataset.name}"] = f"{dataset.name}: of one image", pictures.draw_spectra(spectra_row)
        for name, (caption, figure) in here.items():
            figures[caption] = pictures.render_png(figure)
            with atomic_file(out / f"{name}.png") as temporary:
                temporary.write_bytes(figures[caption])
    texts = {
        JSON: summary.model_dump_json(indent=1) + "\n",
        CSV: tables.format_csv(summary),
        TEXT: tables.format_markdown(summary),
        PAGE: page.render_page(summary, slides, figures),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
