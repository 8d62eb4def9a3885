"""The page's first chart: a row of accuracies for every layer, BN-ReLU's first, the recorded values beside them."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from evonorm.lab.analysis import outcomes, recorded
from evonorm.lab.analysis.comparison import GOAL, LAYERS, Cell, Comparison
from evonorm.lab.pages.charts import COLOURS, GROUP_SYMBOLS, OTHER_COLOUR, Chart
from evonorm.lab.records.report import REPORT_RUNS, Variant

NEUTRAL = "#7a7f87"
HEADER = ("layer", "finished, each seed, %", "mean, %", "others", "recorded, %")


@dataclass(frozen=True)
class Line:
    """One row of the chart: its name, its runs, and what the report recorded for it in percent."""

    name: str
    cell: Cell
    layer: str
    recorded: tuple[float | None, ...]


def chart(comparison: Comparison) -> Chart | None:
    """A dot a finished seed, a bar their mean; what did not finish is marked as what it is. None without runs."""
    lines = [line for line in _lines(comparison) if line.cell.records]
    if not lines:
        return None
    places = {line.name: len(lines) - row for row, line in enumerate(lines)}
    traces = [trace for line in lines for trace in _seeds(line, places[line.name])]
    others = (_mean(lines, places), _unended(lines, places), _recorded(lines, places))
    traces += [trace for trace in others if trace["x"]]
    layout = {
        "xaxis": {"title": {"text": f"validation {GOAL.label}"}, "range": _ends(lines)},
        "yaxis": {
            "tickvals": list(places.values()),
            "ticktext": [html.escape(name) for name in places],
            "range": [0.4, len(lines) + 0.6],
            "automargin": True,
            "showgrid": False,
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "margin": {"l": 8, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
        "annotations": _diverged(lines, places),
    }
    key = "last epoch; a dot a finished seed; layers as intended, identity: what the report's code ran in their place"
    key += ", and what it recorded under their names" if any(line.recorded for line in lines) else ""
    return Chart("BN-ReLU and the EvoNorms", key, {"data": traces, "layout": layout}, HEADER, tuple(map(_row, lines)))


def _lines(comparison: Comparison) -> Iterable[Line]:
    """The layers trained with SGD, as intended, then the identity; without augmentation, then with it."""
    comparable = recorded.is_cifar10(comparison.dataset)
    for augment in (False, True):
        suffix = ", aug." * augment
        for experiment in REPORT_RUNS:
            if experiment.optimizer != "sgd" or experiment.augment != augment:
                continue
            values = experiment.recorded if comparable else ()
            cell = comparison.cell(experiment.id, "intended")
            groups = f" g{experiment.groups}" if experiment.groups else ""
            yield Line(f"{LAYERS[experiment.layer]}{groups}{suffix}", cell, experiment.layer, values)
        published: Variant = "published"
        identity = comparison.cell("b0-aug" if augment else "b0", published)
        yield Line(f"identity{suffix}", identity, "none", ())


def _seeds(line: Line, place: int) -> list[dict[str, Any]]:
    values = [(seed, 100 * value) for seed, value in line.cell.by_seed().items()]
    if not values:
        return []
    groups = (line.cell.experiment.groups or 0) if line.layer != "none" else 0
    marker = {"color": COLOURS.get(line.layer, OTHER_COLOUR), "size": 10, "symbol": GROUP_SYMBOLS.get(groups, "circle")}
    hovers = [f"{html.escape(line.name)}, seed {seed}" for seed, _ in values]
    return [_dots("", [value for _, value in values], [place] * len(values), hovers, marker)]


def _mean(lines: Sequence[Line], places: dict[str, int]) -> dict[str, Any]:
    found = [(line, line.cell.last()) for line in lines]
    means = [(places[line.name], 100 * statistics.fmean(values), len(values)) for line, values in found if values]
    several = any(count > 1 for *_, count in means)
    name = "mean of the finished seeds" if several else "finished, one seed"
    hovers = [f"mean of {count}" if count > 1 else "one seed" for *_, count in means]
    marker = {"color": NEUTRAL, "size": 22, "symbol": "line-ns", "line": {"width": 2, "color": NEUTRAL}}
    return _dots(name, [mean for _, mean, _ in means], [place for place, *_ in means], hovers, marker)


def _unended(lines: Sequence[Line], places: dict[str, int]) -> dict[str, Any]:
    found = [
        (100 * reached, places[line.name], f"{line.name}, seed {seed}: {outcomes.end(record)}")
        for line in lines
        for seed, record in line.cell.runs.items()
        if record is not None and outcomes.state(record) in outcomes.UNENDED
        for reached in [outcomes.reached(record)]
        if reached is not None
    ]
    marker = {"color": NEUTRAL, "size": 12, "symbol": "diamond-open", "line": {"width": 2, "color": NEUTRAL}}
    hovers = [html.escape(text) for *_, text in found]
    return _dots("not finished: reached so far", [x for x, *_ in found], [y for _, y, _ in found], hovers, marker)


def _diverged(lines: Sequence[Line], places: dict[str, int]) -> list[dict[str, Any]]:
    """Words in the rows of runs that diverged: they have no accuracy to be drawn at."""
    return [
        {
            "text": f"× diverged {len(lost)} of {len(line.cell.runs)}",
            "xref": "paper",
            "x": 0.01,
            "xanchor": "left",
            "y": places[line.name],
            "showarrow": False,
            "font": {"size": 12, "color": "#d9463d"},
            "hovertext": html.escape("; ".join(outcomes.end(record) for record in lost)),
        }
        for line in lines
        for lost in [line.cell.with_status("diverged")]
        if lost
    ]


def _recorded(lines: Sequence[Line], places: dict[str, int]) -> dict[str, Any]:
    found = [(value, places[line.name]) for line in lines for value in line.recorded if value is not None]
    marker = {"color": NEUTRAL, "size": 11, "symbol": "triangle-down-open", "line": {"width": 2, "color": NEUTRAL}}
    hovers = ["recorded by the report"] * len(found)
    return _dots("recorded by the report", [x for x, _ in found], [y for _, y in found], hovers, marker)


def _dots(name: str, x: list[float], y: Sequence[float], hovers: list[str], marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "showlegend": bool(name),
        "x": x,
        "y": list(y),
        "text": hovers,
        "marker": marker,
        "hovertemplate": "%{text}: %{x:.1f} %<extra></extra>",
    }


def _row(line: Line) -> tuple[str, ...]:
    values = [100 * value for value in line.cell.last()]
    others = [outcomes.end(record) for record in line.cell.runs.values() if outcomes.state(record) != "finished"]
    return (
        line.name,
        ", ".join(f"{value:.1f}" for value in values) or "–",
        f"{statistics.fmean(values):.1f}" if values else "–",
        "; ".join(others) or "–",
        " and ".join("NaN" if value is None else f"{value:.1f}" for value in line.recorded) or "–",
    )


def _ends(lines: Sequence[Line]) -> list[float]:
    """Of the axis: around all that is drawn."""
    reached = [outcomes.reached(record) for line in lines for record in line.cell.records]
    shown = [100 * value for value in reached if value is not None]
    shown += [value for line in lines for value in line.recorded if value is not None]
    return [max(-1.0, min(shown, default=5.0) - 5), min(101.0, max(shown, default=95.0) + 2)]
