"""The page of a sweep: parallel coordinates to brush, its charts, what matters in words, and every trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evonorm.lab.analysis import importance, readings, sweep_words
from evonorm.lab.analysis.conditions import distinct
from evonorm.lab.analysis.importance import Effect
from evonorm.lab.analysis.swept import Axis, Swept, number, read
from evonorm.lab.jobs.board import duration
from evonorm.lab.pages import effect_charts, html, learning_charts, parallel, pictures, sweep_charts
from evonorm.lab.pages.charts import Chart
from evonorm.lab.pages.grid import Cell, Grid, Row, link
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Found, Record, flat
from evonorm.lab.sweep import export
from evonorm.lab.sweep.journal import SWEEP, trial_folder

LISTINGS = SWEEP


def effects(swept: Swept) -> tuple[Effect, ...]:
    """What each parameter does to the metric, drawn with the sweep's own seed."""
    places = swept.judged
    columns = [
        importance.Column(
            axis.name, [axis.values[place] for place in places], axis.scale != "category", axis.scale == "log"
        )
        for axis in swept.axes
    ]
    metric = [swept.values[swept.trials[place].number] for place in places]
    return importance.effects(columns, metric, runs=swept.runs, seed=int(swept.content.get("seed") or 0))


def render(folder: Path, name: str | None = None, at: Path | None = None) -> str:
    """The page as text. Raises UserError if the sweep has no trials yet, or cannot be read."""
    swept = read(folder)
    made = _records(folder, swept)
    measure = swept.measure
    axes = [*swept.axes, *([measure] if measure else [])]
    found = effects(swept)
    return html.fill(
        "sweep.html.j2",
        title=swept.content.get("name") or "Sweep",
        description=swept.content.get("description") or "",
        subject=sweep_words.subject(swept, made.records),
        meaning=sweep_words.meaning(swept),
        notices=sweep_words.notices(made.records),
        unread=made.unread,
        metric=swept.metric,
        answer=readings.answer(swept, found),
        conclusions=readings.conclusions(swept, found),
        readings=readings.readings(found, swept.metric.name if swept.metric else ""),
        conditions=conditions(swept, made.records),
        axes=[_control(swept, axis) for axis in axes],
        layout=parallel.layout(axes) if axes else None,
        fifths=_legend(swept),
        valueless=None in parallel.fifths(swept),
        data=parallel.data(swept, axes),
        progress=[sweep_charts.progress(swept, by) for by in ("trial", "time")] if measure else [],
        learning=learning_charts.learning(swept, made.records),
        effects=[effect_charts.importances(found), effect_charts.correlations(found)] if found else [],
        among=len(swept.judged),
        level=f"{100 * importance.LEVEL:.0f} %",
        against=[sweep_charts.against(swept, axis) for axis in swept.axes] if measure else [],
        grid=_grid(folder, swept, at or folder),
        csv=html.as_csv(export.read(folder), "trials.csv", "These trials"),
    )


def charts(folder: Path, name: str | None = None) -> dict[str, Chart]:
    """The page's charts by the name of a file. Raises as render does."""
    swept = read(folder)
    measure = swept.measure
    axes = [*swept.axes, *([measure] if measure else [])]
    named = {"lines": parallel.chart(swept, axes)} if axes else {}
    if measure is None:
        return named
    named |= {f"best-by-{by}": sweep_charts.progress(swept, by) for by in ("trial", "time")}
    for chart in learning_charts.learning(swept, _records(folder, swept).records):
        named[pictures.file_name(chart.title.lower(), list(named))] = chart
    if found := effects(swept):
        named |= {"importance": effect_charts.importances(found), "correlation": effect_charts.correlations(found)}
    for axis in swept.axes:
        named[pictures.file_name(f"against-{axis.name}", list(named))] = sweep_charts.against(swept, axis)
    return named


def conditions(swept: Swept, made: Sequence[Record]) -> list[tuple[str, str]]:
    """Under what the trials ran, as far as the folder tells: name and value."""
    content = swept.content
    metric, runs = swept.metric, content.get("runs", {})
    found = [("method", str(content["sweep"].get("method", "")))]
    if metric is not None:
        found.append(("metric", f"{metric.name}, {metric.goal}: the best value a trial reported"))
    if early := content["sweep"].get("early_terminate"):
        found.append(("early stops", _words({key: value for key, value in early.items() if value is not None})))
    found.append(("seed", str(content.get("seed", 0))))
    if swept.constants:
        found.append(("for every trial", _words(swept.constants)))
    if training := runs.get("training"):
        found.append(("training options", _words(flat(training))))
    for name in ("program", "command", "function"):
        value = runs.get(name)
        if value:
            found.append((name, " ".join(map(str, value)) if isinstance(value, list) else str(value)))
    found.append(("data", sweep_words.data(made)))
    for name in ("processor", "device", "threads", "platform", "commit"):
        found.append((name, distinct(record.environment.get(name) for record in made)))
    found.append(("torch", distinct(record.environment.get("torch") for record in made)))
    found.append(("time of trials", duration(sum(trial.seconds for trial in swept.trials))))
    return [(name, value) for name, value in found if value]


def _records(folder: Path, swept: Swept) -> Found:
    """The runs of the trials that have one."""
    names = dict.fromkeys(str(trial.run) for trial in swept.trials if trial.run)
    return run_files.read_these(folder / name for name in names if run_files.is_run(folder / name))


def _control(swept: Swept, axis: Axis) -> dict[str, Any]:
    """What brushes an axis from the keyboard: a box a value where they are few, else the ends of a range."""
    return {
        "name": axis.name,
        "metric": axis is swept.measure,
        "choices": [axis.shown(value) for value in axis.choices],
        "labels": [axis.shown(label) for label in axis.labels],
        "low": axis.labels[0] if axis.labels else number(axis.low),
        "high": axis.labels[-1] if axis.labels else number(axis.high),
    }


def _legend(swept: Swept) -> list[tuple[str, str]]:
    """Colour and words of each fifth that has trials, the best first."""
    measure = swept.measure
    if measure is None:
        return []
    names = ("worst fifth", "fourth fifth", "middle fifth", "second fifth", "best fifth")
    places = parallel.fifths(swept)
    found = []
    known = {value for value, own in zip(measure.values, places, strict=True) if own is not None}
    if len(known) == 1:
        (place,) = {place for place in places if place is not None}
        return [(parallel.FIFTHS[place], f"all alike: {number(*known)}")]
    for fifth in reversed(range(len(names))):
        values = [measure.values[place] for place, own in enumerate(places) if own == fifth]
        if values:
            ends = f"{number(min(values))} to {number(max(values))}" if min(values) < max(values) else number(values[0])
            found.append((parallel.FIFTHS[fifth], f"{names[fifth]}: {ends}"))
    return found


def _grid(folder: Path, swept: Swept, at: Path) -> Grid:
    """Every trial, with the way to what it left: a run's folder, or its own with its log."""
    metric = [(swept.metric.name, True)] if swept.metric else []
    parameters = [(axis.name, axis.scale != "category") for axis in swept.axes]
    header = [("trial", True), ("status", False), *metric, *parameters, ("seconds", True), ("remark", False)]
    return Grid(tuple(header), tuple(_row(folder, swept, place, at) for place in range(len(swept.trials))))


def _row(folder: Path, swept: Swept, place: int, at: Path) -> Row:
    trial = swept.trials[place]
    left = [folder / str(trial.run)] * bool(trial.run) + [trial_folder(folder, trial.number)]
    cells = [Cell(str(trial.number), link=next(filter(None, (link(one, at) for one in left)), "")), Cell(trial.status)]
    value = "–" if trial.value is None else number(trial.value)
    cells += [Cell(value, trial.value)] if swept.metric else []
    for axis in swept.axes:
        value = axis.values[place]
        cells.append(Cell(axis.shown(value), axis.labels.index(value) if axis.scale == "category" else value))
    remark = trial.error or ""
    if trial.status == "pruned" and not remark:
        remark = f"stopped early, after {len(trial.history)} reports"
    cells += [Cell(f"{trial.seconds:.1f}", trial.seconds) if trial.ended else Cell("–"), Cell(remark)]
    return Row(trial.status, tuple(cells))


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in values.items())


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "null" if value is None else str(value)
