"""The page's tables as text: the comparison, every run, and the conditions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from evonorm.lab.experiments import EXPERIMENTS, VARIANTS, Experiment, Variant
from evonorm.lab.records import Record
from evonorm.lab.report.comparison import Cell, Comparison, percent, summarize


@dataclass(frozen=True)
class Row:
    """One experiment in the comparison table: what the report recorded, and both variants here.

    cells: the number, and the remarks on it.
    """

    id: str
    what: str
    recorded: str
    cells: tuple[tuple[str, tuple[str, ...]], ...]


def comparison_rows(comparison: Comparison) -> list[Row]:
    """The report's experiments in its order; none for a folder of plain runs."""
    return [_row(comparison, experiment) for experiment in EXPERIMENTS] if comparison.cells else []


def run_rows(comparison: Comparison, runs: Iterable[Record]) -> list[tuple[str, ...]]:
    """RUN_HEADER's columns for every run; columns from RUN_NUMBERS on are numbers."""
    return [_run(comparison, record) for record in runs]


RUN_HEADER = (
    "run",
    "what",
    "status",
    "epochs",
    "training, %",
    "validation, %",
    "parameters",
    "images/s",
    "minutes",
)
RUN_NUMBERS = 3


def conditions(comparison: Comparison) -> list[tuple[str, str]]:
    """Under what the numbers were measured: name and value, as far as the records tell."""
    found = comparison.records or comparison.others
    about: list[tuple[str, str]] = []
    data, budget = comparison.dataset, comparison.budget
    if data:
        text = f"{data['name']}: {data['train_images']:,} training and {data['test_images']:,} validation images, "
        about.append(("data", f"{text}{len(data['classes'])} classes (content {data['fingerprint']})"))
    if budget:
        about.append(("budget", f"{budget['name']}: {budget['epochs']} epochs; {budget['meaning']}"))
        about.append(("seeds", ", ".join(str(seed) for seed in comparison.seeds)))
    for name in ("processor", "instructions", "device", "cores", "threads", "platform"):
        about.append((name, distinct(record.environment.get(name) for record in found)))
    about.append(("precision", distinct(record.config.get("precision") for record in found)))
    versions = {name: distinct(r.environment.get(name) for r in found) for name in ("evonorm", "torch", "python")}
    about.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)))
    about.append(("commit", distinct(record.environment.get("commit") for record in found)))
    hours = sum(float(record.summary.get("seconds") or 0) for record in found) / 3600
    about.append(("training time", f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"))
    about.append(("made", comparison.updated))
    return [(name, value) for name, value in about if value]


def _row(comparison: Comparison, experiment: Experiment) -> Row:
    what = [experiment.layer, experiment.optimizer.upper() if experiment.optimizer == "sgd" else "Adam"]
    what += [f"{experiment.groups} groups"] if experiment.groups else []
    what += ["augmented"] if experiment.augment else []
    recorded = [f"{value:.1f}" if value is not None else "NaN" for value in experiment.recorded]
    cells = tuple(_cell(comparison.cell(experiment.id, variant)) for variant in VARIANTS)
    return Row(experiment.id, ", ".join(what), " and ".join(recorded), cells)


def _cell(cell: Cell) -> tuple[str, tuple[str, ...]]:
    if not cell.runs:
        return "", ("not asked for",)
    last, best = (percent(summarize(values)) for values in (cell.last("val_accuracy"), cell.best_accuracy()))
    train = percent(summarize(cell.last("train_accuracy")))
    remarks = [f"best epoch {best}"] if best and best != last else []
    remarks += [f"training {train}"] if train else []
    for status in ("diverged", "failed", "stopped", "running"):
        count = len(cell.with_status(status))
        remarks += [f"{status} {count} of {len(cell.runs)}"] if count else []
    absent = len(cell.runs) - len(cell.records)
    remarks += [f"not run {absent} of {len(cell.runs)}" if cell.records else "not run"] if absent else []
    if cell.same_as is not None:
        id, variant = cell.same_as
        remarks.append(f"same run as {variant if id == cell.experiment.id else id}")
    return last, tuple(remarks)


def _run(comparison: Comparison, record: Record) -> tuple[str, ...]:
    served: dict[Variant, list[str]] = {variant: [] for variant in VARIANTS}
    for (id, variant), cell in comparison.cells.items():
        if any(own.name == record.name for own in cell.records):
            served[variant].append(id)
    if served["published"] == served["intended"]:
        what = [", ".join(served["intended"]) or str(record.dataset.get("name", ""))]
    else:
        what = [f"{', '.join(ids)} ({variant})" for variant, ids in served.items() if ids]
    # Where the groups asked for do not divide a width, fewer are in force.
    asked = record.config.get("groups")
    fitted = {width: groups for width, groups in record.summary.get("groups_in_force", {}).items() if groups != asked}
    if fitted:
        what.append("groups: " + ", ".join(f"{groups} at width {width}" for width, groups in fitted.items()))
    last = record.summary.get("last") or {}
    parameters = record.summary.get("parameters")
    return (
        record.name,
        "; ".join(what),
        record.status,
        f"{record.summary.get('epochs_done', len(record.metrics))} of {record.config.get('epochs', '?')}",
        *(
            "–" if last.get(key) is None else f"{100 * float(last[key]):.1f}"
            for key in ("train_accuracy", "val_accuracy")
        ),
        f"{parameters:,}" if isinstance(parameters, int) else "–",
        speed(record),
        f"{float(record.summary.get('seconds') or 0) / 60:.1f}",
    )


def speed(record: Record) -> str:
    """Training images a second, the median epoch's."""
    speeds = [epoch["images_per_second"] for epoch in record.metrics if epoch.get("images_per_second")]
    return f"{statistics.median(speeds):.0f}" if speeds else "–"


def distinct(values: Iterable[Any]) -> str:
    """The values that there are, each once, in words."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))
