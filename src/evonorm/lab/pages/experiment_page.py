"""The page of an experiment that compares layers at the places of its other axes, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evonorm.lab.analysis import trials
from evonorm.lab.analysis.conditions import conditions
from evonorm.lab.analysis.trials import Trials
from evonorm.lab.experiments import catalogue
from evonorm.lab.experiments.experiment import Experiment
from evonorm.lab.pages import html, lines, run_pictures
from evonorm.lab.pages.charts import Chart
from evonorm.lab.records import export, listings

LISTINGS = "*-*-*.json"


def render(folder: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. name: of the experiment's listing. Raises UserError if nothing there can be shown."""
    experiment, found = read(folder / (name or ""))
    told = experiment.analyse(found)
    words = listings.stands_for(folder)
    return html.fill(
        "experiment.html.j2",
        title=experiment.title,
        task=experiment.task,
        trials=found,
        told=told,
        charts=[lines.chart(found, panel) for panel in told.panels],
        conditions=conditions(
            found.records,
            dataset=found.dataset,
            budget=found.budget,
            seeds=", ".join(map(str, found.seeds)),
            updated=found.updated,
        ),
        csv=html.as_csv(export.of_runs(found.records, words), "runs.csv", "These runs"),
        pictures=[
            (f"{', '.join(words.get(record.name, [record.name]))}, seed {found.seeds[0]}", shown)
            for record in found.records
            if record.config["seeds"]["model"] == found.seeds[0]
            and (shown := run_pictures.shown(folder / record.name, at or folder))
        ],
        diverged=[record for record in found.records if record.status == "diverged"],
    )


def charts(folder: Path, name: str | None = None) -> dict[str, Sequence[Chart]]:
    """The charts, which share a legend, as one picture. Raises as render does."""
    experiment, found = read(folder / (name or ""))
    return {experiment.name: [lines.chart(found, panel) for panel in experiment.analyse(found).panels]}


def read(listing: Path) -> tuple[Experiment, Trials[Any]]:
    """The experiment of a listing and its runs; see trials.read."""
    experiment = catalogue.of_listing(listing)
    found = trials.read(
        listing.parent,
        experiment.listings,
        experiment.place_of,
        listing.name,
        lane=experiment.lane,
        axes=experiment.others,
    )
    return experiment, found
