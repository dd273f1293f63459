"""Summarize records: means over images, their spread and bootstrap intervals, and changes against a method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import product

import numpy as np
from pydantic import Field
from scipy.stats import bootstrap

from glama_deploy.evaluation.metrics.pairs import REGIONS, Region
from glama_deploy.evaluation.metrics.registry import SPECTRUM, MetricName, SetMetric, find_set_metrics
from glama_deploy.evaluation.protocol import Protocol
from glama_deploy.evaluation.records import Folder, Record
from glama_deploy.frozen import FrozenModel

#: Samples of the bootstrap, and the share of them that an interval holds.
_BOOTSTRAP_RESAMPLES, _CONFIDENCE_LEVEL = 1000, 0.95


#: Values by `metric/region` and image.
_Values = dict[str, dict[str, float]]


class Statistic(FrozenModel):
    """The values of n images.

    Attributes:
        mean: the mean; of a metric of all images together (FID), the value.
        n: the number of images.
        std: the standard deviation; None of one image, and of a metric of all images together.
        low: the interval's lower bound. The mean lies in the interval in 95 of 100 samples of as many images.
        high: the interval's upper bound.
    """

    mean: float
    n: int
    std: float | None = None
    low: float | None = None
    high: float | None = None


class Cell(FrozenModel):
    """A metric of a method with a mask on a dataset; `change` is that against the reference, image by image."""

    dataset: str
    method: str
    mask: str
    metric: MetricName
    region: Region
    value: Statistic
    change: Statistic | None = None


class Ring(FrozenModel):
    """The spectrum's error of a method with a mask on a dataset by ring of frequencies, averaged over images."""

    dataset: str
    method: str
    mask: str
    region: Region
    errors: tuple[float | None, ...]


class Summary(FrozenModel):
    """What an evaluation found."""

    protocol: Protocol
    images: dict[str, int] = Field(description="that were evaluated, by dataset")
    reference: str | None = None
    cells: tuple[Cell, ...]
    rings: tuple[Ring, ...]
    failures: tuple[str, ...] = Field(default=(), description="of images, and of methods on images, one line each")
    refused: dict[str, str] = Field(default_factory=dict, description="methods that do not run here, with the reason")
    lacking: dict[MetricName, str] = Field(default_factory=dict, description="metrics without weights, with the reason")
    notes: tuple[str, ...] = Field(default=(), description="on methods that changed known pixels, one line each")

    @property
    def remarks(self) -> tuple[str, ...]:
        """A line for each thing that was asked for and is not there."""
        missing = self.lacking | self.refused
        return *(f"{name} is not computed: {reason}" for name, reason in missing.items()), *self.failures

    @cached_property
    def _places(self) -> dict[tuple[str, str, str, str, Region], Cell]:
        return {(c.dataset, c.method, c.mask, c.metric, c.region): c for c in self.cells}

    def cell(self, dataset: str, method: str, mask: str, metric: str, region: Region) -> Cell | None:
        """Find a cell.

        Args:
            dataset: the name of the dataset.
            method: the label of the method.
            mask: the name of the mask.
            metric: the name of the metric.
            region: the pixels that the value is of.

        Returns:
            The cell, or None without a result.
        """
        return self._places.get((dataset, method, mask, metric, region))


def summarize(
    protocol: Protocol,
    records: Sequence[Record],
    folder: Folder,
    reference: str | None = None,
    *,
    refused: dict[str, str] | None = None,
    lacking: dict[MetricName, str] | None = None,
    step: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Summarize the records of a run.

    Args:
        protocol: what was evaluated.
        records: the records of all images.
        folder: the folder of the run, which has the features.
        reference: the label of the method that changes are taken against.
        refused: by label, why methods do not run here.
        lacking: by name, why metrics are not computed.
        step: called with the current step.

    Returns:
        All results.
    """
    cells: list[Cell] = []
    rings: list[Ring] = []
    whole = [record for record in records if not record.broken]
    labels = [method.label for method in protocol.methods]
    for dataset, mask in product(protocol.datasets, protocol.masks):
        here = [record for record in whole if record.dataset == dataset.name]
        theirs = {label: _group_by_metric(here, mask, label) for label in labels}
        for label in labels:
            place = {"dataset": dataset.name, "method": label, "mask": mask}
            other = theirs[reference] if reference not in (None, label) else {}
            cells += _make_cells(place, protocol, theirs[label], other)
            if SPECTRUM in protocol.metrics:
                rings += [Ring(**place, region=r, errors=_average_rings(here, mask, label, r)) for r in REGIONS]
    first = 0
    for metric in find_set_metrics(protocol.metrics):
        columns = slice(first, first := first + metric.feature_count)
        cells += _compare_sets(metric, columns, protocol, whole, folder, reference, step)
    return Summary(
        protocol=protocol,
        images={d.name: sum(record.dataset == d.name for record in whole) for d in protocol.datasets},
        reference=reference,
        cells=tuple(cells),
        rings=tuple(rings),
        failures=tuple(_list_failures(records)),
        refused=refused or {},
        lacking=lacking or {},
        notes=tuple(_list_changes(whole, labels)),
    )


def _make_cells(place: dict[str, str], protocol: Protocol, mine: _Values, other: _Values) -> Iterator[Cell]:
    """Yield a method's cells at a place of the table, with the changes against another method's values."""
    for metric in protocol.metrics:
        for region in REGIONS:
            values, theirs = mine.get(f"{metric}/{region}", {}), other.get(f"{metric}/{region}", {})
            differences = [values[image] - theirs[image] for image in values if image in theirs]
            if values:
                change = compute_statistic(differences) if differences else None
                value = compute_statistic(list(values.values()))
                yield Cell(**place, metric=metric, region=region, value=value, change=change)


def compute_statistic(values: Sequence[float]) -> Statistic:
    """Compute the statistic of values.

    Args:
        values: at least one value.

    Returns:
        Mean, spread and interval. One value alone has neither spread nor interval.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Statistic(mean=mean, n=len(values))
    spread = float(np.std(values, ddof=1))
    if spread == 0:  # which has no distribution to resample
        return Statistic(mean=mean, n=len(values), std=0.0, low=mean, high=mean)
    found = bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=_BOOTSTRAP_RESAMPLES,
        confidence_level=_CONFIDENCE_LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Statistic(mean=mean, n=len(values), std=spread, low=float(found.low), high=float(found.high))


def _group_by_metric(records: Iterable[Record], mask: str, label: str) -> _Values:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for record in records:
        for name, value in record.results[mask][label].values.items():
            found[name][record.image] = value
    return found


def _compare_sets(
    metric: SetMetric,
    columns: slice,
    protocol: Protocol,
    records: Sequence[Record],
    folder: Folder,
    reference: str | None,
    step: Callable[[str], None],
) -> Iterator[Cell]:
    """Yield a metric's cell of each method with each mask on each dataset. Its features are some of the columns.

    A method needs results of two images. A cell has a change where the reference has results of the same images.
    """
    for dataset in protocol.datasets:
        theirs = [record for record in records if record.dataset == dataset.name and not record.empty]
        if len(theirs) < 2:
            continue
        for mask, (number, region) in product(protocol.masks, enumerate(REGIONS)):
            # the truth's and each method's, [images, D]; a view would keep all regions and metrics in memory
            seen = [folder.load_features(record, mask)[:, number, columns].copy() for record in theirs]
            truth, *results = np.stack(seen, axis=1)
            values: dict[str, tuple[bytes, Statistic]] = {}
            for method, result in zip(protocol.methods, results, strict=True):
                step(f"{metric.label} of {method.label}, {mask}, {region}")
                there = np.isfinite(result).all(axis=1)
                if there.sum() < 2:
                    continue
                mean = metric.compare(result[there], truth[there])
                values[method.label] = there.tobytes(), Statistic(mean=mean, n=int(there.sum()))
            for label, (images, value) in values.items():
                change = None
                if reference in values and label != reference and values[reference][0] == images:
                    change = Statistic(mean=value.mean - values[reference][1].mean, n=value.n)
                place = {"dataset": dataset.name, "method": label, "mask": mask}
                yield Cell(**place, metric=metric.name, region=region, value=value, change=change)


def _average_rings(records: Iterable[Record], mask: str, label: str, region: Region) -> tuple[float | None, ...]:
    """Return the mean over images of each ring; None for a ring that no image has."""
    found = [record.results[mask][label].rings.get(region, ()) for record in records]
    columns = zip(*(rings for rings in found if rings), strict=True)
    there = [[value for value in column if value is not None] for column in columns]
    return tuple(float(np.mean(column)) if column else None for column in there)


def _list_changes(records: Sequence[Record], labels: Sequence[str]) -> Iterator[str]:
    """Yield a line for each method that changed known pixels."""
    for label in labels:
        results = [results[label] for record in records for results in record.results.values()]
        there = [result for result in results if not result.error]
        changed = [result for result in there if result.largest_change]
        if changed:
            share = float(np.mean([result.changed for result in there]))
            largest = max(result.largest_change for result in changed)
            yield (
                f"{label} changed known pixels in {len(changed)} of {len(there)} results: {share:.3%} of them, by at "
                f"most {largest} of 255; the results are measured as they are"
            )


def _list_failures(records: Iterable[Record]) -> list[str]:
    """Return a line for each broken image, and for each image and reason of a method that failed."""
    found: list[str] = []
    for record in records:
        if record.broken:
            found.append(record.broken)
        reasons: dict[str, list[str]] = defaultdict(list)
        for mask, results in record.results.items():
            for label, result in results.items():
                if result.error:
                    reasons[f"{label}: {result.error}"].append(mask)
        for reason, masks in reasons.items():
            found.append(f"{record.dataset}/{record.image}, {', '.join(masks)}: {reason}")
    return found
