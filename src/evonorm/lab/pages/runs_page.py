"""The page of plain runs: each task's on each data set, the best first, with their curves, faults and conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evonorm.lab.analysis import plain_runs, tables
from evonorm.lab.analysis.conditions import conditions
from evonorm.lab.analysis.outcomes import reached
from evonorm.lab.analysis.plain_runs import Ranking, Runs, seed, setting
from evonorm.lab.pages import html, pictures, run_pictures
from evonorm.lab.pages.charts import Chart, Curve, curves
from evonorm.lab.pages.grid import Cell, Grid, Row, link
from evonorm.lab.pages.lines import PALETTE
from evonorm.lab.records import export, run_files
from evonorm.lab.records.run_files import Record
from evonorm.lab.training.tasks import Metric

LISTINGS = "config.json"  # one run's own folder; a folder of several has no file of its own
# More settings than this in one chart cannot be told apart.
MOST_CURVES = len(PALETTE)


@dataclass(frozen=True)
class Part:
    """The runs of a task on a data set as the page shows them. undrawn: settings that the charts leave out."""

    runs: Ranking
    answer: str
    mixture: str
    ranked: Grid
    apart: Grid
    charts: tuple[Chart, ...]
    undrawn: int
    data: str


def render(folder: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. Raises UserError if there is no run that can be read."""
    found = plain_runs.read(folder)
    alone = run_files.is_run(folder)
    links = {run.name: link(folder if alone else folder / run.name, at or folder) for run in found.records}
    return html.fill(
        "runs.html.j2",
        title=title(found),
        parts=[_part(runs, links) for runs in found.rankings],
        pictures={
            run.name: shown
            for run in found.records
            if (shown := run_pictures.shown(folder if alone else folder / run.name, at or folder))
        },
        several=len(found.rankings) > 1,
        networks=sorted({str(record.config.get("model") or "?") for record in found.records}),
        conditions=conditions(found.records),
        unread=found.unread,
        csv=html.as_csv(export.of_runs(found.records, {}), "runs.csv", "These runs"),
    )


def charts(folder: Path, name: str | None = None) -> dict[str, Chart]:
    """The page's charts by the name of a file. Raises as render does."""
    named: dict[str, Chart] = {}
    rankings = plain_runs.read(folder).rankings
    for runs in rankings:
        for chart in _charts(runs)[0]:
            words = f"{runs.name} {chart.title}" if len(rankings) > 1 else chart.title
            named[pictures.file_name(words.lower(), list(named))] = chart
    return named


def title(found: Runs) -> str:
    """What the page is of: how many runs, of which layers, on which data."""
    layers = list(dict.fromkeys(str(record.config.get("layer") or "?") for record in found.records))
    count = len(found.records)
    what = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    data = " and ".join(dict.fromkeys(runs.name for runs in found.rankings))
    return f"{count} training runs on {data}: {what}" if count > 1 else f"A training run on {data}: {what}"


def _part(runs: Ranking, links: Mapping[str, str]) -> Part:
    drawn, undrawn = _charts(runs)
    train, test = (_images(runs.records, name) for name in ("train_images", "test_images"))
    data = f"{runs.name}: {train} training and {test} validation images"
    data += f", {len(runs.dataset['classes'])} classes" if runs.dataset.get("classes") else ""
    data += f" (content {runs.dataset['fingerprint']})" if runs.dataset.get("fingerprint") else ""
    ranked, apart = (_grid(runs, some, links) for some in (runs.ranked, runs.apart))
    return Part(runs, plain_runs.answer(runs), plain_runs.mixture(runs), ranked, apart, drawn, undrawn, data)


def _images(found: Sequence[Record], name: str) -> str:
    counts = {int(record.dataset.get(name) or 0) for record in found}
    return f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"


def _grid(runs: Ranking, found: Sequence[Record], links: Mapping[str, str]) -> Grid:
    """Answers first, then settings: a narrow screen shows the left of it."""
    several = "model" in runs.differing
    rest = [name for name in runs.differing if name not in plain_runs.COLUMNS]
    goal = runs.task.goal
    header = [("layer", False), (goal.titled("validation"), True), (goal.titled("training"), True)]
    header += [("status", False), ("epochs", True)]
    header += [("network", False)] * several
    header += [("groups", True), ("optimizer", False), ("learning rate", True), ("batch", True), ("seed", True)]
    header += [("images", True)] + [("other settings", False)] * bool(rest)
    header += [(goal.titled("best epoch"), True), ("images/s", True), ("minutes", True), ("run", False)]
    return Grid(tuple(header), tuple(_row(goal, record, several, rest, links[record.name]) for record in found))


def _row(goal: Metric, record: Record, several: bool, rest: Sequence[str], address: str) -> Row:
    best = (record.summary.get("best") or {}).get(goal.key())
    done, planned = record.summary.get("epochs_done"), record.config.get("epochs")
    done = len(record.metrics) if done is None else done
    cells = [
        Cell(setting(record, "layer")),
        *(Cell(goal.figure(value), value) for value in (reached(record), reached(record, "train"))),
        Cell(record.status),
        Cell(f"{done}" if done == planned else f"{done} of {'?' if planned is None else planned}", done),
    ]
    cells += [Cell(setting(record, "model"))] if several else []
    cells += [_number(record, "groups"), Cell(setting(record, "optimizer"))]
    cells += [_number(record, name) for name in ("learning_rate", "batch_size")]
    cells += [Cell(seed(record)), _count(record.dataset.get("train_images"))]
    cells += [Cell(", ".join(plain_runs.others(record, rest)) or "–")] if rest else []
    cells += [
        Cell(goal.figure(best), best),
        Cell(tables.speed([record])),
        Cell(f"{float(record.summary.get('seconds') or 0) / 60:.1f}"),
    ]
    return Row(record.status, (*cells, Cell(record.name, link=address)))


def _number(record: Record, name: str) -> Cell:
    return Cell(setting(record, name), record.config.get(name))


def _count(value: int | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:,}", value)


def _charts(runs: Ranking) -> tuple[tuple[Chart, ...], int]:
    """The metrics of the best settings, and how many settings they leave out."""
    labels = list(
        dict.fromkeys(runs.label(record) for record in runs.records if record.metrics or record in runs.apart)
    )
    seeds = len({seed(record) for record in runs.records}) > 1
    shown = []
    for record in runs.records:
        label = runs.label(record)
        if label in labels[:MOST_CURVES]:
            colour = PALETTE[labels.index(label)] if _alike(runs, labels[:MOST_CURVES]) else ""
            shown.append(Curve(label, record, seed=f"seed {seed(record)}" if seeds else "", colour=colour))
    drawn = tuple(curves(shown, metric) for metric in runs.task.metrics) if shown else ()
    return drawn, max(0, len(labels) - MOST_CURVES)


def _alike(runs: Ranking, labels: Sequence[str]) -> bool:
    """Whether a colour a layer would not tell the settings apart."""
    layers = {runs.label(record): record.config.get("layer") for record in runs.records}
    shown = [layers[label] for label in labels]
    return len(set(shown)) < len(shown)
