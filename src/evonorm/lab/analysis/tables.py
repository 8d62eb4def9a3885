"""The page's tables as text: the comparison, every run, and the conditions."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from evonorm.lab.analysis import evidence, outcomes, recorded
from evonorm.lab.analysis.comparison import GOAL, Cell, Comparison, percent, summarize
from evonorm.lab.records.report import VARIANTS, ReportRun, Variant
from evonorm.lab.records.run_files import Record


@dataclass(frozen=True)
class Row:
    """One experiment in the comparison table: what the report recorded, and both variants here.

    cells: the number, and the remarks on it.
    """

    id: str
    what: str
    recorded: str
    cells: tuple[tuple[str, tuple[str, ...]], ...]


# Of `run`; columns from epochs on are numbers.
RUN_HEADER = ("run", "what", "status", "epochs", "training, %", "validation, %", "parameters", "images/s", "minutes")


def seeds(comparison: Comparison) -> str:
    """Which seeds every entry was asked for; entries of the same seeds together."""
    by_seeds: dict[str, list[str]] = {}
    for (id, variant), cell in comparison.cells.items():
        by_seeds.setdefault(", ".join(map(str, cell.runs)), []).append(f"{id} ({variant})")
    if len(by_seeds) == 1:
        return f"{next(iter(by_seeds))} in every entry"
    return "; ".join(f"{seeds}: {', '.join(ids)}" for seeds, ids in by_seeds.items())


def row(comparison: Comparison, experiment: ReportRun) -> Row:
    """An experiment of the report."""
    what = [experiment.layer, experiment.optimizer.upper() if experiment.optimizer == "sgd" else "Adam"]
    what += [f"{experiment.groups} groups"] if experiment.groups else []
    what += ["augmented"] if experiment.augment else []
    # What was intended answers the question, and stands first.
    cells = tuple(_cell(comparison.cell(experiment.id, variant)) for variant in reversed(VARIANTS))
    told = recorded.in_words(experiment) if recorded.is_cifar10(comparison.dataset) else ""
    return Row(experiment.id, ", ".join(what), told, cells)


def _cell(cell: Cell) -> tuple[str, tuple[str, ...]]:
    if not cell.runs:
        return "", ("not asked for",)
    last, best = (percent(summarize(values)) for values in (cell.last(), cell.best()))
    train = percent(summarize(cell.last("train")))
    remarks = [f"best epoch {best}"] if best and best != last else []
    remarks += [f"training {train}"] if train else []
    remarks += _endings(cell)
    if cell.same_as is not None:
        id, variant = cell.same_as
        remarks.append(f"same run as {variant if id == cell.experiment.id else id}")
    return last, tuple(remarks)


def _endings(cell: Cell) -> list[str]:
    """How many runs did not finish, by state, and how each of them ended; none of them is in a mean."""
    told = []
    for state, count in outcomes.tally(cell.runs.values()).items():
        if state == "finished":
            continue
        ends = [
            outcomes.end(record).removeprefix(state).strip() + (f" (seed {seed})" if len(cell.runs) > 1 else "")
            for seed, record in cell.runs.items()
            if outcomes.state(record) == state
        ]
        told.append(f"{state} {count} of {len(cell.runs)}" + (f": {'; '.join(ends)}" if state != "not run" else ""))
    lost, ended = (sum(len(cell.with_status(s)) for s in some) for some in (("diverged",), ("diverged", "finished")))
    if lost and ended == len(cell.runs) > 1:
        low, high = evidence.wilson(lost, ended)
        told.append(f"rate of divergence {100 * low:.0f} to {100 * high:.0f} % at {100 * evidence.LEVEL:.0f} %")
    return told


def run(comparison: Comparison, record: Record) -> tuple[str, ...]:
    """RUN_HEADER's columns of a run."""
    served: dict[Variant, list[str]] = {variant: [] for variant in VARIANTS}
    for (id, variant), cell in comparison.cells.items():
        if any(own.name == record.name for own in cell.records):
            served[variant].append(id)
    if served["published"] == served["intended"]:
        seed = (record.config.get("seeds") or {}).get("model")
        alone = f"{record.config.get('layer')}, seed {seed}, on {record.dataset.get('name', 'data of no name')}"
        what = [", ".join(served["intended"]) or alone]
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
        *(GOAL.figure(last.get(GOAL.key(split))) for split in ("train", "val")),
        f"{parameters:,}" if isinstance(parameters, int) else "–",
        speed([record]),
        f"{float(record.summary.get('seconds') or 0) / 60:.1f}",
    )


def speed(runs: Iterable[Record]) -> str:
    """Training images a second, the median epoch's."""
    speeds = [epoch["images_per_second"] for run in runs for epoch in run.metrics if epoch.get("images_per_second")]
    return f"{statistics.median(speeds):.0f}" if speeds else "–"
