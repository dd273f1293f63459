"""From what was asked for to a folder with results: the way through the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from glama_deploy.errors import GlamaError
from glama_deploy.evaluation import backbones, methods, page, pictures, protocol, tables
from glama_deploy.evaluation.backbones import PUBLISHED, Backbone
from glama_deploy.evaluation.methods import Method
from glama_deploy.evaluation.metrics import Metric, known
from glama_deploy.evaluation.protocol import Identity, Item, Protocol
from glama_deploy.evaluation.records import Folder, Record
from glama_deploy.evaluation.run import Setting, processes, run
from glama_deploy.evaluation.summary import Summary, summarize
from glama_deploy.files import atomic_file
from glama_deploy.inpainter import Region, check_region

#: The page with everything on it, and the same as text, numbers and lines.
PAGE, TEXT, JSON, CSV = "index.html", "RESULTS.md", "results.json", "results.csv"

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
    metrics: Sequence[str] = field(default_factory=lambda: ("l1", "psnr", "ssim", *PUBLISHED, "spectrum"))
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


def evaluate(request: Request, heard: Heard = lambda done, total, text: None) -> Summary:
    """Evaluate, or go on where an earlier run of the same stopped, and write everything into `request.out`.

    A method that cannot run here, a metric without its weights and a broken image are named in the result; the rest
    comes out. Raises GlamaError for bad input, with the folder as it was.
    """
    check_region(request.region)
    if request.weights is not None and not request.weights.is_dir():
        raise GlamaError(f"--weights {request.weights} is no folder; give the one that the files of weights are in")
    datasets, masks = protocol.datasets(request.data), protocol.columns(request.masks)
    specs = methods.parse(request.models, request.backends, request.precisions)
    if request.reference not in (None, *(spec.label for spec in specs)):
        labels = ", ".join(spec.label for spec in specs)
        raise GlamaError(f"--reference is {request.reference!r}; one of the methods is expected: {labels}")
    metrics, weights, lacking = _metrics(request)
    opened, refused = _opened(request, specs)
    asked = Protocol(
        datasets=datasets,
        methods=tuple(
            Identity(label=m.spec.label, description=m.description, digest=methods.digest(m.spec)) for m in opened
        ),
        masks=masks,
        metrics=metrics,
        size=request.size,
        limit=request.limit,
        seed=request.seed,
        region=request.region,
        shown=request.shown,
    )
    folder, items = Folder(request.out), protocol.items(asked)
    setting = Setting(
        asked, tuple(m.spec for m in opened), weights, request.out.resolve(), request.threads, request.device
    )
    with folder.held(asked, overwrite=request.overwrite) as records:
        records = _completed(request, setting, items, opened, records, folder, heard)
        if all(record.broken for record in records):
            folder.discard()
            raise GlamaError(f"none of the {len(records)} images can be used; the first: {records[0].broken}")
        there = request.reference if request.reference in {m.spec.label for m in opened} else None
        summary = summarize(
            asked, records, folder, there, (*lacking, *refused), lambda text: heard(len(items), len(items), text)
        )
        write(summary, items, folder)
    return summary


def _metrics(request: Request) -> tuple[tuple[Metric, ...], dict[Backbone, Path], tuple[str, ...]]:
    """The metrics that can be computed, their files of weights, and a line for each that cannot."""
    metrics, weights, lacking = [], dict[Backbone, Path](), []
    for metric in known(tuple(dict.fromkeys(request.metrics))):
        if metric == "lpips-alex" or metric == "lpips-vgg" or metric == "fid":
            path = backbones.find(metric, request.weights)
            if path is None and request.download:
                path = backbones.download(metric)
            if path is None:
                lacking.append(backbones.absent(metric))
                continue
            weights[metric] = path
        metrics.append(metric)
    if not metrics:
        raise GlamaError("; ".join(lacking) or "no metric is asked for; give --metric psnr")
    return tuple(metrics), weights, tuple(lacking)


def _opened(request: Request, specs: Sequence[methods.Spec]) -> tuple[list[Method], list[str]]:
    """The methods that run here, and a line for each that does not. Raises GlamaError where none does."""
    opened, refused = [], []
    for spec in specs:
        try:
            opened.append(methods.opened(spec, request.threads, request.region))
        except GlamaError as error:
            refused.append((spec, error))
    if not opened:
        raise refused[0][1]
    return opened, [f"{spec.label} is not computed: {error}" for spec, error in refused]


def _completed(
    request: Request,
    setting: Setting,
    items: Sequence[Item],
    opened: Sequence[Method],
    records: list[Record],
    folder: Folder,
    heard: Heard,
) -> list[Record]:
    """The records of all items, in their order: those that were there, and the rest, which is evaluated now. A broken
    image's is not kept, so that the next run looks at it again."""
    done = {(record.dataset, record.image): record for record in records}
    todo = [item for item in items if (item.dataset, item.image) not in done]
    heard(len(items) - len(todo), len(items), "evaluating")
    if todo:
        count = request.processes or processes(todo, setting.protocol, opened)
        for record in run(setting, todo, min(count, len(todo)), opened):
            if not record.broken:
                folder.append(record)
            done[record.dataset, record.image] = record
            heard(len(done), len(items), "evaluating")
    return [done[item.dataset, item.image] for item in items]


def write(summary: Summary, items: Sequence[Item], folder: Folder) -> None:
    """The tables, the sheets, the spectra and the page."""
    asked, out = summary.protocol, folder.path
    figures: dict[str, Figure] = {}
    slides = []
    for dataset in asked.datasets:
        rows = pictures.shown(asked, [item for item in items if item.dataset == dataset.name], folder)
        slides += rows
        if rows:
            with atomic_file(out / f"sheet-{dataset.name}.png") as temporary:
                pictures.sheet(rows, [method.label for method in asked.methods]).save(temporary, format="PNG")
        if "spectrum" not in asked.metrics:
            continue
        here = {f"rings-{dataset.name}": (f"{dataset.name}: by frequency", pictures.rings(summary, dataset.name))}
        if rows:
            here[f"spectra-{dataset.name}"] = f"{dataset.name}: of one image", pictures.spectra(_telling(rows))
        for name, (caption, figure) in here.items():
            figures[caption] = figure
            with atomic_file(out / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=110)
    texts = {
        JSON: summary.model_dump_json(indent=1) + "\n",
        CSV: tables.text(summary),
        TEXT: tables.markdown(summary),
        PAGE: page.page(summary, slides, figures),
    }
    for name, text in texts.items():
        with atomic_file(out / name) as temporary:
            temporary.write_text(text)


def _telling(rows: Sequence[pictures.Shown]) -> pictures.Shown:
    """The image whose spectra are shown: one of a grid or of lines if there is one, whose ripples the paper's are."""
    return next((row for row in rows if row.item.shown in ("NearestNeighbor", "EveryNLines")), rows[0])
