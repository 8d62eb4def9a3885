"""An experiment from data to its listing: plan its runs, each once, train them, say which run stands for what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import architectures, batch_sizes, ladder
from evonorm.lab.experiments.architectures import ARCHITECTURE_BUDGETS
from evonorm.lab.experiments.batch_sizes import BATCH_BUDGETS, Place
from evonorm.lab.experiments.ladder import LADDER_BUDGETS, Rung
from evonorm.lab.experiments.report_runs import BUDGETS, EXPERIMENTS, VARIANTS, Experiment, Variant, train_config
from evonorm.lab.jobs import campaign
from evonorm.lab.jobs.campaign import Board, PlannedRun
from evonorm.lab.jobs.executors import Executor
from evonorm.lab.jobs.training_job import Training
from evonorm.lab.records import listings
from evonorm.lab.records.listings import budget_images
from evonorm.lab.stopping import locked
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.sinks import Wanted
from evonorm.lab.training.training import resolve, run_folder


@dataclass(frozen=True)
class Plan:
    """The runs of an experiment, and the file that lists what each stands for. budget: one of the experiment's own."""

    what: str
    runs: list[PlannedRun]
    budget: Any
    listing: Path


def reproduce(
    plan: Plan,
    dataset: ImageDataset,
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
    dataset: ImageDataset,
    out: Path,
    console: Console,
    executor_of: Callable[[Training], Executor],
    sinks: Wanted,
) -> None:
    entries = [entry for run in plan.runs for entry in run.entries]
    listings.write(plan.listing, dataset, plan.budget, entries)
    tags = {
        one.name: tuple(dict.fromkeys(listings.describe(plan.listing, e) for e in one.entries)) for one in plan.runs
    }
    sinks = sinks.of(group=plan.listing.stem, job_type="reproduce", tags_by_run=tags)
    executor = executor_of(Training({}, dataset.fingerprint, sinks, {run.config.data for run in plan.runs}))
    campaign.run(plan.runs, out, executor, Board(console, plan.runs, plan.what))
    listings.write(plan.listing, dataset, plan.budget, entries)


def choose(only: Sequence[str] | None) -> tuple[Experiment, ...]:
    """The report's experiments of these ids, or all. Raises UserError naming an id that is none."""
    if not only:
        return EXPERIMENTS
    by_id = {experiment.id: experiment for experiment in EXPERIMENTS}
    unknown = [id for id in only if id not in by_id]
    if unknown:
        raise UserError(f"no experiment is called {unknown[0]!r}; choose from {', '.join(by_id)}")
    return tuple(by_id[id] for id in dict.fromkeys(only))


def comparison(
    dataset: ImageDataset,
    out: Path,
    *,
    budget: str = "quick",
    data: str | None = None,
    experiments: Sequence[Experiment] = EXPERIMENTS,
    variants: Sequence[Variant] = VARIANTS,
    seeds: Sequence[int] = (0,),
) -> Plan:
    """The report's comparison; entries with the same configuration share a run."""
    chosen = BUDGETS[budget]
    train_images, test_images = budget_images(dataset, chosen)
    entries = (
        (
            train_config(
                experiment,
                variant,
                chosen,
                seed=seed,
                data=data,
                train_images=train_images,
                test_images=test_images,
            ),
            {"experiment": experiment.id, "variant": variant, "seed": seed},
        )
        for seed in seeds
        for experiment in experiments
        for variant in variants
    )
    runs = _runs(entries, dataset, out)
    for run in runs:
        run.label = _serves(run.entries)
    listing = out / f"comparison-{chosen.name}-{dataset.fingerprint}.json"
    return Plan(f"the report's comparison, {chosen.name}", runs, chosen, listing)


def learning_rate(
    dataset: ImageDataset, out: Path, rungs: Iterable[Rung], *, budget: str = "quick", data: str | None = None
) -> Plan:
    """The learning-rate experiment; see ladder."""
    chosen = LADDER_BUDGETS[budget]
    entries = (
        (
            ladder.train_config(rung, chosen, data=data),
            {
                "layer": rung.layer,
                "optimizer": rung.optimizer,
                "pixels": rung.pixels,
                "learning_rate": rung.learning_rate,
                "seed": rung.seed,
            },
        )
        for rung in rungs
    )
    runs = _runs(entries, dataset, out)
    for run in runs:
        place = run.entries[0]
        run.label = f"{place['learning_rate']:g}, {place['pixels']}, seed {place['seed']}"
    listing = out / f"learning-rate-{chosen.name}-{dataset.fingerprint}.json"
    return Plan(f"learning rates, {chosen.name}", runs, chosen, listing)


def batch_size(
    dataset: ImageDataset, out: Path, places: Iterable[Place], *, budget: str = "quick", data: str | None = None
) -> Plan:
    """The batch-size experiment; see batch_sizes."""
    chosen = BATCH_BUDGETS[budget]
    entries = (
        (
            batch_sizes.train_config(place, chosen, data=data),
            {"layer": place.layer, "batch_size": place.batch_size, "seed": place.seed},
        )
        for place in places
    )
    runs = _runs(entries, dataset, out)
    for run in runs:
        run.label = f"batch {run.entries[0]['batch_size']}, seed {run.entries[0]['seed']}"
    listing = out / f"batch-size-{chosen.name}-{dataset.fingerprint}.json"
    return Plan(f"batch sizes, {chosen.name}", runs, chosen, listing)


def in_architectures(
    dataset: ImageDataset,
    out: Path,
    places: Iterable[architectures.Place],
    *,
    budget: str = "quick",
    data: str | None = None,
) -> Plan:
    """The architectures experiment; see architectures. Raises UserError for a model that there is not."""
    chosen = ARCHITECTURE_BUDGETS[budget]

    def entry(place: architectures.Place) -> tuple[TrainConfig, dict[str, Any]]:
        config = architectures.train_config(place, chosen, data=data)
        return config, {"model": resolve(config)[0].model, "layer": place.layer, "seed": place.seed}

    entries = (entry(place) for place in places)
    runs = _runs(entries, dataset, out)
    for run in runs:
        run.label = f"{run.entries[0]['model']}, seed {run.entries[0]['seed']}"
    listing = out / f"architectures-{chosen.name}-{dataset.fingerprint}.json"
    return Plan(f"architectures, {chosen.name}", runs, chosen, listing)


def _runs(entries: Iterable[tuple[TrainConfig, dict[str, Any]]], dataset: ImageDataset, out: Path) -> list[PlannedRun]:
    runs: dict[str, PlannedRun] = {}
    for config, entry in entries:
        name = run_folder(config, dataset, out).name
        # What this machine chooses travels to those that train: another's choice would be another run.
        planned = replace(config, precision=resolve(config)[0].precision)
        runs.setdefault(name, PlannedRun(name, planned)).entries.append(entry | {"run": name})
    return list(runs.values())


def _serves(entries: Iterable[Mapping[str, Any]]) -> str:
    """The report's experiments that a run stands for, a word each."""
    served: dict[str, set[str]] = {}
    for entry in entries:
        served.setdefault(entry["experiment"], set()).add(entry["variant"])
    return ", ".join(f"{id}{'' if len(variants) == 2 else f' ({min(variants)})'}" for id, variants in served.items())
