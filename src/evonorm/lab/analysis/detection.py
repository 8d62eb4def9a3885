"""What the detection experiment found, by rule: what a batch of one costs, who is best, and every average precision."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import replace

from evonorm.lab.analysis import batch_size, outcomes
from evonorm.lab.analysis.findings import Analysis, Table
from evonorm.lab.analysis.trials import Trials
from evonorm.lab.records.run_files import Record
from evonorm.lab.training import tasks

# What BatchNorm is called in the listing where it is frozen.
FROZEN = "bn-relu-frozen"


def analysis(found: Trials[int]) -> Analysis:
    """As of any batch sizes, with every metric, and what a layer costs."""
    told = batch_size.analysis(found)
    return replace(told, tables=[*told.tables, _metrics(found)], caveat=_caveat(found))


def layer_of(record: Record) -> str:
    """What the listing calls the layer of a run."""
    frozen = (record.config.get("options") or {}).get("freeze_norms")
    return FROZEN if frozen else str(record.config.get("layer"))


def _metrics(found: Trials[int]) -> Table:
    runs: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in found.records:
        if record.status == "finished":
            runs[layer_of(record), int(record.config["batch_size"])].append(record)
    metrics = tasks.get(tasks.DETECTION).metrics
    rows = []
    for (layer, size), of_place in sorted(runs.items()):
        means = [
            metric.figure(statistics.fmean(values) if values else None)
            for metric in metrics
            for values in [_last(of_place, metric)]
        ]
        speeds = [epoch["images_per_second"] for run in of_place for epoch in run.metrics]
        rows.append((layer, f"{size}", f"{len(of_place)}", *means, f"{statistics.median(speeds):.1f}"))
    header = ("layer", "batch", "runs", *(metric.words for metric in metrics), "pictures/s")
    caption = (
        "Validation after the last epoch, mean over the runs that finished: loss, COCO's average precisions in "
        "percent; training pictures a second, median over epochs: runs share the machine"
    )
    return Table(caption, header, rows, range(1, len(header)))


def _last(runs: list[Record], metric: tasks.Metric) -> list[float]:
    found = (outcomes.last(run).get(metric.key()) for run in runs)
    return [value for value in found if value is not None]


def _caveat(found: Trials[int]) -> str:
    """What the frozen runs are not, where there are any."""
    if FROZEN not in found.points:
        return ""
    return (
        f"{FROZEN}: from random weights, with the statistics of the untrained network; not what freezing the "
        "statistics of a trained backbone would give, which was not measured."
    )
