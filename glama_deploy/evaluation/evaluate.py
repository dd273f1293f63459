"""From what was asked for to a folder with results: the way through the evaluation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch

from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.evaluation import methods, protocol
from glama_deploy.evaluation.methods import Method
from glama_deploy.evaluation.metrics import backbones
from glama_deploy.evaluation.metrics.registry import DEFINITIONS, METRICS, SPECTRUM, find_set_metrics, sort_metrics
from glama_deploy.evaluation.metrics.scores import Judge
from glama_deploy.evaluation.protocol import Identity, Item, Protocol, Weights
from glama_deploy.evaluation.records import CSV, JSON, PAGE, RINGS, SHEET, SPECTRA, TEXT, TRUTH, Folder, Record
from glama_deploy.evaluation.report import page, pictures, tables
from glama_deploy.evaluation.report.summary import Summary, summarize
from glama_deploy.evaluation.run import Evaluator, Setting, processes, run
from glama_deploy.inpainting.inpainter import Region, check_region
from glama_deploy.io.files import atomic_file, sha256
from glama_deploy.masks import MASKS_VERSION

#: Masks whose spectra are shown rather than others': of a grid or of lines, whose ripples the paper's are.
_RIPPLED = ("NearestNeighbor", "EveryNLines")

#: Hears how many of how many images are done, and what is being done.
Heard = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Request:
    """What to evaluate; names are those of `glama-eval`'s options. `processes` None: as many as there is room for."""

    data: Sequence[str]
    models: Sequence[str]
    out: Path
    masks: Sequence[str] = ("general",)
    backends: Sequence[str] = ("auto",)
    precisions: Sequence[str] = ("auto",)
    metrics: Sequence[str] = field(default_factory=lambda: tuple(METRICS))
    size: tuple[int, int] | None = None
    limit: int | None = None
    seed: int = 0
    region: Region = "full"
    shown: int = 14
    reference: str | None = None
    weights: Path | None = None
    download: bool = False
    processes: int | None = None
    threads: int = 1
    device: str = "cpu"
    overwrite: bool = False
    allow_engine_code: bool = False


def evaluate(request: Request, heard: Heard = lambda done, total, text: None) -> Summary:
    """Evaluate, or go on where an earlier run of the same stopped, and write everything into `request.out`.

    A method that cannot run here, a metric without its weights and a broken image are named in the result; the rest
    comes out. Raises GlamaError for bad input, with the folder as it was.
    """
    check_region(request.region)
    if request.weights is not None and not request.weights.is_dir():
        raise GlamaError(f"--weights {request.weights} is no folder; give the one that the files of weights are in")
    datasets, masks = protocol.datasets(request.data), protocol.columns(request.masks)
    specs = methods.parse(
        request.models, request.backends, request.precisions, allow_engine_code=request.allow_engine_code
    )
    if request.reference not in (None, *(spec.label for spec in specs)):
        labels = ", ".join(spec.label for spec in specs)
        raise GlamaError(f"--reference is {request.reference!r}; one of the methods is expected: {labels}")
    for dataset in datasets:
        if request.out.resolve().is_relative_to(dataset.folder):
            raise GlamaError(
                f"--out {request.out} lies in --data {dataset.folder}, all of which is evaluated; choose another folder"
            )
    _check_device(request.device)
    metrics, weights, lacking = _metrics(request)
    opened, refused = _opened(request, specs)
    if request.reference in refused:
        raise GlamaError(f"--reference {request.reference} does not run here: {refused[request.reference]}")
    judge = Judge(metrics, weights, request.device)
    asked = Protocol(
        datasets=datasets,
        methods=tuple(
            Identity(label=m.spec.label, description=m.description, digest=methods.digest(m.spec)) for m in opened
        ),
        masks=masks,
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
    folder, items = Folder(request.out), protocol.items(asked)
    setting = Setting(asked, tuple(m.spec for m in opened), weights, request.out.resolve())
    _check_images(Evaluator(setting, opened, judge), items)
    with folder.held(asked, overwrite=request.overwrite) as records:
        records = _completed(request, setting, items, opened, judge, records, folder, heard)
        summary = summarize(
            asked,
            records,
            folder,
            request.reference,
            refused=refused,
            lacking=lacking,
            step=lambda text: heard(len(items), len(items), text),
        )
        write(summary, [item for item, record in zip(items, records, strict=True) if not record.broken], folder)
    return summary


def _check_device(device: str) -> None:
    """Raise GlamaError unless the metrics' networks can run there."""
    kind, _, number = device.partition(":")
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", device):
        raise GlamaError(f"--device is {device!r}; cpu, cuda or cuda:N is expected")
    there = torch.cuda.device_count() if kind == "cuda" and torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= there:
        raise GlamaError(f"--device is {device}, and PyTorch finds {there} GPUs; use --device cpu")


def _check_images(evaluator: Evaluator, items: Sequence[Item]) -> None:
    """Raise GlamaError where not one of them can be used."""
    broken = ""
    for item in items:
        found = evaluator.read(item)
        if not isinstance(found, Record):
            return
        broken = broken or found.broken
    raise GlamaError(f"none of the {len(items)} images can be used; the first: {broken}")


def _metrics(request: Request) -> tuple[tuple[str, ...], dict[str, Path], dict[str, str]]:
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
        raise GlamaError(reasons or "no metric is asked for; give --metric psnr")
    return metrics, weights, lacking


def _opened(request: Request, specs: Sequence[methods.Spec]) -> tuple[list[Method], dict[str, str]]:
    """The methods that run here, and why others do not. Raises GlamaError where none does."""
    opened, refused = list[Method](), dict[str, str]()
    for spec in specs:
        try:
            opened.append(methods.opened(spec, request.threads, request.region))
        except GlamaError as error:
            refused[spec.label] = str(error)
    if not opened:
        raise GlamaError(next(iter(refused.values())))
    return opened, refused


def _completed(
    request: Request,
    setting: Setting,
    items: Sequence[Item],
    opened: Sequence[Method],
    judge: Judge,
    records: list[Record],
    folder: Folder,
    heard: Heard,
) -> list[Record]:
    """The records of all items, in their order: those that were there, and the rest, which is evaluated now: images
    that are new, or others than they were, or whose pictures are to be shown and were not kept, and those that failed.
    A broken image's record is not kept."""
    there = {(record.dataset, record.image): record for record in records}
    seen = bool(find_set_metrics(setting.protocol.metrics))
    kept = ((item, _kept(item, there, folder, seen)) for item in items)
    done = {(item.dataset, item.image): record for item, record in kept if record is not None}
    todo = [item for item in items if (item.dataset, item.image) not in done]
    heard(len(done), len(items), "evaluating")
    if todo:
        count = request.processes or processes(todo, setting.protocol, opened)
        with closing(run(setting, todo, min(count, len(todo)), opened, judge)) as found:
            for record in found:
                if not record.broken and record != there.get((record.dataset, record.image)):
                    folder.append(record)
                done[record.dataset, record.image] = record
                heard(len(done), len(items), "evaluating")
    return [done[item.dataset, item.image] for item in items]


def _kept(item: Item, there: dict[tuple[str, str], Record], folder: Folder, seen: bool) -> Record | None:
    """The record of an image that need not be looked at again; `seen`: with what Inception saw in it."""
    record = there.get((item.dataset, item.image))
    if record is None or record.failed or (item.shown and not folder.picture(item, TRUTH).is_file()):
        return None
    if seen and not folder.has_features(item):
        return None
    try:
        return record if record.digest == item.digest() else None
    except ImageError:
        return None


def write(summary: Summary, items: Sequence[Item], folder: Folder) -> None:
    """The tables, the sheets, the spectra and the page; `items` are the images that have results."""
    asked, out = summary.protocol, folder.path
    folder.remove_pictures_but_of(items)
    figures: dict[str, bytes] = {}
    slides: list[page.Slide] = []
    for dataset in asked.datasets:
        strips: list[pictures.Strip] = []
        telling: pictures.Shown | None = None
        for row in pictures.shown(asked, [item for item in items if item.dataset == dataset.name], folder):
            strips.append(pictures.strip(row))
            slides.append(page.slide(row))
            if telling is None or (row.item.shown in _RIPPLED and telling.item.shown not in _RIPPLED):
                telling = row
        if strips:
            with atomic_file(out / f"{SHEET}-{dataset.name}.png") as temporary:
                pictures.sheet(strips, [method.label for method in asked.methods]).save(temporary, format="PNG")
        if SPECTRUM not in asked.metrics:
            continue
        here = {f"{RINGS}-{dataset.name}": (f"{dataset.name}: by frequency", pictures.rings(summary, dataset.name))}
        if telling is not None:
            here[f"{SPECTRA}-{dataset.name}"] = f"{dataset.name}: of one image", pictures.spectra(telling)
        for name, (caption, figure) in here.items():
            figures[caption] = pictures.render_png(figure)
            with atomic_file(out / f"{name}.png") as temporary:
                temporary.write_bytes(figures[caption])
    texts = {
        JSON: summary.model_dump_json(indent=1) + "\n",
        CSV: tables.text(summary),
        TEXT: tables.markdown(summary),
        PAGE: page.page(summary, slides, figures),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
