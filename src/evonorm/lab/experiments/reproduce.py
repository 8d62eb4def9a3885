"""An experiment from data to its listing: plan its runs, each once, train them, say which run stands for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from evonorm.lab.data.sets import Dataset
from evonorm.lab.errors import UserError
from evonorm.lab.experiments.experiment import Budget, Experiment, Images
from evonorm.lab.jobs import campaign
from evonorm.lab.jobs.campaign import Board, PlannedRun
from evonorm.lab.jobs.executors import Executor
from evonorm.lab.jobs.training_job import Training
from evonorm.lab.records import listings
from evonorm.lab.stopping import locked
from evonorm.lab.training import tasks
from evonorm.lab.training.sinks import Wanted
from evonorm.lab.training.training import resolve, run_folder


@dataclass(frozen=True)
class Plan:
    """The runs of an experiment, and the file that lists what each stands for."""

    experiment: Experiment
    budget: Budget
    runs: list[PlannedRun]
    listing: Path


def plan(
    experiment: Experiment,
    dataset: Dataset,
    out: Path,
    *,
    budget: str = "quick",
    data: str | None = None,
    asked: Mapping[str, Sequence[Any] | None] | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Cells with the same configuration share a run. asked: values by axis, for the axis' own.

    Raises UserError for a budget or a value that there is not.
    """
    chosen = experiment.budget(budget)
    images = Images(*listings.budget_images(dataset, chosen))
    runs: dict[str, PlannedRun] = {}
    task = tasks.find(experiment.task).name
    for cell in experiment.cells(asked, seeds):
        config = replace(experiment.config(cell, chosen, images), data=data)
        if config.task not in (tasks.DEFAULT, task):
            raise UserError(f"{experiment.name} has runs of task {config.task}: say Experiment(task={config.task!r})")
        config = replace(config, task=task)
        name = run_folder(config, dataset, out).name
        # What this process knows travels to those that train: another's choice would be another run.
        resolved = resolve(config)[0]
        planned = replace(config, precision=resolved.precision, formula=resolved.formula)
        runs.setdefault(name, PlannedRun(name, planned)).entries.append({**cell, "run": name})
    for run in runs.values():
        run.label = experiment.label_of(run.entries)
    listing = out / f"{experiment.listing or experiment.name}-{chosen.name}-{dataset.fingerprint}.json"
    return Plan(experiment, chosen, list(runs.values()), listing)


def reproduce(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    console: Console,
    executor_of: Callable[[Training], Executor],
    *,
    sinks: Wanted | None = None,
) -> None:
    """Trains what is not trained yet and keeps the listing; see campaign.run for how runs end.

    sinks: where else the runs are shown, tagged with what they stand for. One command at a time: raises UserError if
    another holds `out`.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out}: {error.strerror}; choose another --out") from error
    with locked(out, "another command is training the runs in"):
        _reproduce(plan, dataset, out, console, executor_of, sinks or Wanted())


def _reproduce(
    plan: Plan,
    dataset: Dataset,
    out: Path,
    console: Console,
    executor_of: Callable[[Training], Executor],
    sinks: Wanted,
) -> None:
    entries = [entry for run in plan.runs for entry in run.entries]
    listings.write(plan.listing, dataset, plan.budget, entries, plan.experiment.described())
    tags = {
        one.name: tuple(dict.fromkeys(listings.describe(plan.listing, e) for e in one.entries)) for one in plan.runs
    }
    sinks = sinks.of(group=plan.listing.stem, job_type="reproduce", tags_by_run=tags)
    sources = {(run.config.task, run.config.data) for run in plan.runs}
    executor = executor_of(Training({}, dataset.fingerprint, sinks, sources))
    what = f"{plan.experiment.what}, {plan.budget.name}"
    campaign.run(plan.runs, out, executor, Board(console, plan.runs, what))
    listings.write(plan.listing, dataset, plan.budget, entries, plan.experiment.described())
