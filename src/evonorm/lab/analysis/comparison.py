"""What a folder of runs holds, arranged as the report's comparison."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evonorm.lab.analysis import outcomes
from evonorm.lab.errors import UserError
from evonorm.lab.records import listings, run_files
from evonorm.lab.records.report import REPORT_RUNS, VARIANTS, ReportRun, Variant
from evonorm.lab.records.run_files import Record, Unread
from evonorm.lab.training import tasks
from evonorm.lab.training.tasks import Metric

COMPARISONS = "comparison-*.json"
GOAL = tasks.CLASSIFICATION.goal  # every run of the report classifies
LAYERS = {"bn-relu": "BN-ReLU", "evonorm-b0": "EvoNorm-B0", "evonorm-s0": "EvoNorm-S0", "none": "identity"}


@dataclass(frozen=True)
class Cell:
    """An experiment in one variant: its runs by seed; None where a run is planned and not there."""

    experiment: ReportRun
    variant: Variant
    runs: dict[int, Record | None] = field(default_factory=dict)
    # Entries that share these very runs, (experiment id, variant), when this is not the first of them.
    same_as: tuple[str, Variant] | None = None

    @property
    def records(self) -> list[Record]:
        """The runs that are there."""
        return [record for record in self.runs.values() if record is not None]

    def with_status(self, status: str) -> list[Record]:
        """The runs of one status."""
        return [record for record in self.records if record.status == status]

    def by_seed(self, split: str = "val") -> dict[int, float]:
        """The goal after the last epoch by seed, of every finished run that has a finite one."""
        ended = {seed: run for seed, run in self.runs.items() if run is not None and run.status == "finished"}
        values = {seed: outcomes.reached(run, split) for seed, run in ended.items()}
        return {seed: value for seed, value in values.items() if value is not None}

    def last(self, split: str = "val") -> list[float]:
        """The goal after the last epoch of every finished run that has a finite one."""
        return list(self.by_seed(split).values())

    def best(self) -> list[float]:
        """The goal in validation at the best epoch of every finished run that has a finite one."""
        bests = [(run.summary.get("best") or {}).get(GOAL.key()) for run in self.with_status("finished")]
        return [float(best) for best in bests if best is not None]

    @property
    def name(self) -> str:
        """The layer as a reader knows it, with its groups: "EvoNorm-S0, 8 groups"."""
        name = LAYERS.get(self.experiment.layer, self.experiment.layer)
        return f"{name}, {self.experiment.groups} groups" if self.experiment.groups else name

    @property
    def validation_images(self) -> int:
        """How many images GOAL is counted on."""
        return max((int(record.dataset.get("test_images", 0)) for record in self.records), default=0)


@dataclass(frozen=True)
class Comparison:
    """cells: by experiment id and variant; only those that were asked for. others: runs that no entry names.

    unread: runs that are left out, for they cannot be read. caveats: what the records themselves cannot say.
    """

    budget: dict[str, Any]
    dataset: dict[str, Any]
    cells: dict[tuple[str, Variant], Cell]
    others: list[Record]
    updated: str = ""
    name: str = ""
    other_comparisons: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """Every run of the comparison, each once."""
        found = {record.name: record for cell in self.cells.values() for record in cell.records}
        return list(found.values())

    @property
    def runs(self) -> list[Record | None]:
        """Every planned run, each once though entries share it; None for each that is not there."""
        absent = [
            None for cell in self.cells.values() if cell.same_as is None for run in cell.runs.values() if run is None
        ]
        return [*self.records, *absent]

    def with_status(self, status: str) -> list[Record]:
        """The comparison's runs of one status, each once."""
        return [record for record in self.records if record.status == status]

    @property
    def seeds(self) -> list[int]:
        """The seeds that were asked for."""
        return sorted({seed for cell in self.cells.values() for seed in cell.runs})

    @property
    def epochs(self) -> int:
        """The planned epochs, which every chart spans."""
        planned = [int(record.config.get("epochs") or 0) for record in self.records]
        return max([int(self.budget.get("epochs") or 0), *planned])

    def repetitions(self, cell: Cell) -> list[Record]:
        """Runs outside the comparison whose configuration is this cell's but for the seeds."""
        own = [_but_seeds(record) for record in cell.records]
        return [record for record in self.others if _but_seeds(record) in own]

    def cell(self, id: str, variant: Variant) -> Cell:
        """The cell, without runs if it was not asked for."""
        experiment = next(experiment for experiment in REPORT_RUNS if experiment.id == id)
        return self.cells.get((id, variant), Cell(experiment, variant))


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (None for one value) and count of what was measured."""

    mean: float
    spread: float | None
    count: int


def summarize(values: Iterable[float]) -> Summary | None:
    """None where nothing was measured."""
    values = list(values)
    if not values:
        return None
    return Summary(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def told(summary: Summary | None, metric: Metric, unit: str | None = None) -> str:
    """84.1 ± 0.3 % (n=3), as the metric is read; 84.1 % for one value; empty for none. unit: the metric's, or this."""
    if summary is None or math.isnan(summary.mean):
        return ""
    spread = "" if summary.spread is None else f" ± {metric.figure(summary.spread)}"
    unit = f" {metric.unit}".rstrip() if unit is None else unit
    return f"{metric.figure(summary.mean)}{spread}{unit}{f' (n={summary.count})' if spread else ''}"


def percent(summary: Summary | None, unit: str = "") -> str:
    """GOAL as `told` has it. unit: what follows the number, as " %"."""
    return told(summary, GOAL, unit)


def read(runs: Path, name: str | None = None) -> Comparison:
    """The comparison called `name`, or the one updated last, with every run in the folder.

    Raises UserError if there is nothing to show.
    """
    if not runs.is_dir():
        raise UserError(f"there is no folder {runs}; make runs with `evonorm reproduce --out {runs}`")
    files = {path.name: run_files.read_json(path) for path in sorted(runs.glob(COMPARISONS))}
    if not files or (name is not None and name not in files):
        raise UserError(f"{runs} holds no {name or COMPARISONS}; it holds {', '.join(files) or 'no comparison'}")
    there = run_files.read_all(runs)
    found = {record.name: record for record in there.records}
    chosen = name or max(files, key=lambda file: str(files[file].get("updated", "")))
    content = files[chosen]
    others = [path.name for path in listings.all_in(runs) if path.name not in files]
    try:
        cells = _cells(content["entries"], found)
        named = {entry["run"] for entry in content["entries"]}
        budget, dataset = dict(content["budget"]), dict(content["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{runs / chosen} is not a comparison that can be read: {error!r}; delete it") from error
    return Comparison(
        budget,
        dataset,
        cells,
        [record for record in found.values() if record.name not in named],
        updated=str(content.get("updated", "")),
        name=chosen,
        other_comparisons=tuple(file for file in (*files, *others) if file != chosen),
        unread=there.unread,
        caveats=tuple(map(str, content.get("caveats", ()))),
    )


def _but_seeds(record: Record) -> tuple[Any, ...]:
    config = {"task": tasks.DEFAULT} | record.config  # older records have none
    return {key: value for key, value in config.items() if key != "seeds"}, record.dataset.get("fingerprint")


def _cells(entries: list[dict[str, Any]], found: dict[str, Record]) -> dict[tuple[str, Variant], Cell]:
    cells: dict[tuple[str, Variant], Cell] = {}
    first_with: dict[frozenset[tuple[int, str]], tuple[str, Variant]] = {}
    for experiment in REPORT_RUNS:
        for variant in VARIANTS:
            own = [e for e in entries if (e["experiment"], e["variant"]) == (experiment.id, variant)]
            if not own:
                continue
            key = experiment.id, variant
            runs = frozenset((int(entry["seed"]), str(entry["run"])) for entry in own)
            first = first_with.setdefault(runs, key)
            by_seed = {seed: found.get(run) for seed, run in sorted(runs)}
            cells[key] = Cell(experiment, variant, by_seed, None if first == key else first)
    return cells
