"""Curves as Plotly figures, plain data: who draws them and in which theme is the page's affair."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evonorm.lab.analysis import outcomes
from evonorm.lab.records.run_files import Record
from evonorm.lab.training.tasks import Metric

# Okabe and Ito's palette, told apart with any colour vision and on light and dark; a colour a layer, everywhere.
COLOURS = {
    "none": "#8c8c8c",
    "bn-relu": "#0072b2",
    "evonorm-b0": "#d55e00",
    "evonorm-s0": "#009e73",
}
OTHER_COLOUR = "#cc79a7"
# Groups of EvoNorm-S0 share its colour and differ by marker and dash.
GROUP_SYMBOLS = {8: "circle", 16: "square", 32: "triangle-up"}
GROUP_DASHES = {8: "solid", 16: "dash", 32: "dot"}
# More markers than this on a line hide it.
MOST_MARKERS = 12
# Losses further apart than this are drawn on a logarithmic axis: a run on its way to infinity would flatten the rest.
LOG_RATIO = 20
# Of a cross: its width as a share of the axis, its height in pixels.
CROSS_WIDTH, CROSS_HEIGHT = 0.03, 14


@dataclass(frozen=True)
class Curve:
    """A run as a chart shows it.

    label: what the legend says; curves of one label are repetitions of one another and share an entry. seed: which
    repetition, where there are several. published: whether it stands for the published variant alone. colour: its own
    where layers do not tell the curves apart; else the layer's.
    """

    label: str
    record: Record
    seed: str = ""
    published: bool = False
    colour: str = ""

    @property
    def name(self) -> str:
        """The label, and the seed where there are several."""
        return f"{self.label}, {self.seed}" if self.seed else self.label


@dataclass(frozen=True)
class Chart:
    """title, key to its lines in words, a Plotly figure as data, and the same numbers as a table."""

    title: str
    key: str
    figure: Mapping[str, Any]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def curves(shown: Iterable[Curve], metric: Metric, suffix: str = "", *, epochs: int = 0) -> Chart:
    """Training (thin and pale) and validation of every run against the epoch.

    A run that did not finish is marked where it ends: a diverged one by a cross on the epoch axis and a line across the
    chart, for it has no height there; its cross stands above that of another that diverged near that step; a stopped,
    failed or running one by a diamond. suffix: ends the title. epochs: that the axis spans; at least as many as these
    runs planned.
    """
    shown = list(shown)
    by_label: dict[str, list[Curve]] = {}
    for curve in shown:
        by_label.setdefault(curve.label, []).append(curve)
    traces: list[dict[str, Any]] = []
    for same in by_label.values():
        # The legend shows a member that has a line.
        leader = next((curve for curve in same if _has_line(curve, metric)), None)
        for curve in same:
            for split in ("train", "val"):
                name = _legend(same) if curve is leader and split == "val" else ""
                traces.append(_line(curve, split, metric, legend=name, thin=len(same) > 1))
    marked = [curve for curve in shown if curve.record.status == "diverged"]
    for same in by_label.values():
        lost = [curve for curve in same if curve in marked]
        if lost and not any(_has_line(curve, metric) for curve in same):
            traces.append(_legend_of_step(lost[0], _legend(same)))
        traces += [
            _end_mark(curve, metric)
            for curve in same
            if curve.record.status in outcomes.UNENDED and _has_line(curve, metric)
        ]
    planned = max([epochs, *(outcomes.planned_epochs(curve.record) for curve in shown), 1])
    crosses = _step_crosses(marked, CROSS_WIDTH * planned)
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": _epoch_tick(planned), "range": [0, planned * 1.02]},
        "yaxis": {"title": {"text": metric.label}} | _value_axis(traces, metric),
        # Above the plot: below, a legend of several lines runs into the axis title.
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "margin": {"l": 56, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
        "shapes": [_step_line(curve) for curve in marked],
        "annotations": crosses,
    }
    header = ("run", "epoch", f"training {metric.label}", f"validation {metric.label}")
    figure = {"data": traces, "layout": layout}
    rows = tuple(row for curve in shown for row in _rows(curve, metric))
    stacked = any("yshift" in cross for cross in crosses)
    return Chart(f"{metric.name.capitalize()}{suffix}", _key(shown, stacked=stacked), figure, header, rows)


def _rows(curve: Curve, metric: Metric) -> Iterable[tuple[str, ...]]:
    for epoch in curve.record.metrics:
        figures = [epoch.get(metric.key(split)) for split in ("train", "val")]
        yield curve.name, str(epoch["epoch"]), *(_number(figure, metric) for figure in figures)
    at = outcomes.diverged_at(curve.record)
    if at is not None:
        yield curve.name, f"{at:.4g}", "diverged", outcomes.end(curve.record)
    elif curve.record.status in outcomes.UNENDED:
        yield curve.name, str(len(curve.record.metrics)), curve.record.status, outcomes.end(curve.record)


def _legend(same: list[Curve]) -> str:
    """The label, and how its runs ended where one of them did not finish."""
    records = [curve.record for curve in same]
    if all(record.status == "finished" for record in records):
        return same[0].label
    return f"{same[0].label}: {outcomes.end(records[0]) if len(records) == 1 else outcomes.counted(records)}"


def _has_line(curve: Curve, metric: Metric) -> bool:
    return any(epoch.get(metric.key()) is not None for epoch in curve.record.metrics)


def _key(shown: list[Curve], *, stacked: bool) -> str:
    states = {curve.record.status for curve in shown}
    key = "validation thick, training thin and pale"
    key += "; published hollow, intended filled" if len({curve.published for curve in shown}) > 1 else ""
    key += "; a cross on the epoch axis and its dotted line: diverged at that step" if "diverged" in states else ""
    key += ", one above another where several did near it" if stacked else ""
    unended = [state for state in outcomes.UNENDED if state in states]
    return key + (f"; a large diamond: {' or '.join(unended)} there" if unended else "")


def _measured(traces: list[dict[str, Any]]) -> list[float]:
    return [value for trace in traces if not trace.get("meta") for value in trace["y"] if value is not None]


def _logarithmic(values: list[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > LOG_RATIO * min(values)


def _value_axis(traces: list[dict[str, Any]], metric: Metric) -> dict[str, Any]:
    values = _measured(traces)
    if not values:
        return {"tickvals": [], "ticktext": []}  # nothing was measured
    if metric.better == "lower" and _logarithmic(values):
        return {"title": {"text": f"{metric.label} (logarithmic)"}, "type": "log"}
    return {"rangemode": "tozero"}


def _line(curve: Curve, split: str, metric: Metric, *, legend: str, thin: bool) -> dict[str, Any]:
    metrics = curve.record.metrics
    values = [epoch.get(metric.key(split)) for epoch in metrics]
    colour, validation = _colour(curve), split == "val"
    lone = sum(value is not None for value in values) == 1  # no line, so that only a marker shows it
    width = (2.0 if validation else 1.2) * (0.6 if thin else 1)
    return {
        "type": "scatter",
        "mode": "lines+markers" if validation or lone else "lines",
        "name": html.escape(legend or curve.label),
        "legendgroup": html.escape(curve.label),
        "showlegend": bool(legend),
        "opacity": 1.0 if validation else 0.5,
        "x": [epoch["epoch"] for epoch in metrics],
        "y": [None if value is None else metric.scale * value for value in values],
        "line": {"color": colour, "dash": GROUP_DASHES.get(_groups(curve), "solid"), "width": width},
        "marker": {
            "color": colour,
            "size": 7 - thin,
            "symbol": _symbol(curve),
            "maxdisplayed": MOST_MARKERS,
        },
        "hovertemplate": f"{html.escape(curve.name)}<br>{'validation' if validation else 'training'}, "
        "epoch %{x}: %{y:.4g}<extra></extra>",
    }


def _legend_of_step(curve: Curve, legend: str) -> dict[str, Any]:
    """A legend's entry of runs that have no line."""
    colour = _colour(curve)
    return _mark(curve, [None], [None], legend) | {
        "mode": "lines+markers",
        "line": {"color": colour, "dash": "dot", "width": 1.5},
        "marker": {"color": colour, "size": 10, "symbol": "x-thin", "line": {"color": colour, "width": 3}},
    }


def _step_line(curve: Curve) -> dict[str, Any]:
    at = outcomes.diverged_at(curve.record)
    line = {"color": _colour(curve), "dash": "dot", "width": 1.5}
    return {"type": "line", "x0": at, "x1": at, "yref": "paper", "y0": 0, "y1": 1, "line": line}


def _step_crosses(marked: Iterable[Curve], width: float) -> list[dict[str, Any]]:
    """Each at its step, on the axis or above those that would hide it."""
    crosses: list[dict[str, Any]] = []
    for curve in marked:
        at = outcomes.diverged_at(curve.record) or 0.0
        taken = [cross.get("yshift", 0) for cross in crosses if abs(cross["x"] - at) < width]
        up = next(CROSS_HEIGHT * row for row in range(len(taken) + 1) if CROSS_HEIGHT * row not in taken)
        crosses.append(_step_cross(curve, at) | ({"yshift": up} if up else {}))
    return crosses


def _step_cross(curve: Curve, at: float) -> dict[str, Any]:
    return {
        "text": "×",
        "x": at,
        "yref": "paper",
        "y": 0,
        "yanchor": "middle",
        "showarrow": False,
        "font": {"size": 26, "color": _colour(curve)},
        "hovertext": html.escape(f"{curve.name}: {outcomes.end(curve.record)}"),
    }


def _end_mark(curve: Curve, metric: Metric) -> dict[str, Any]:
    last = [epoch for epoch in curve.record.metrics if epoch.get(metric.key()) is not None][-1]
    return _mark(curve, [last["epoch"]], [metric.scale * last[metric.key()]], "") | {
        "mode": "markers",
        "marker": {
            "color": _colour(curve),
            "size": 12,
            "symbol": "diamond-open",
            "line": {"color": _colour(curve), "width": 2},
        },
    }


def _mark(curve: Curve, x: list[Any], y: list[Any], legend: str) -> dict[str, Any]:
    """What is no measurement: where a run ended."""
    return {
        "type": "scatter",
        "meta": "mark",
        "name": html.escape(legend or curve.label),
        "legendgroup": html.escape(curve.label),
        "showlegend": bool(legend),
        "x": x,
        "y": y,
        "cliponaxis": False,
        "hovertemplate": f"{html.escape(curve.name)}<br>{html.escape(outcomes.end(curve.record))}<extra></extra>",
    }


def _colour(curve: Curve) -> str:
    return curve.colour or COLOURS.get(str(curve.record.config.get("layer")), OTHER_COLOUR)


def _groups(curve: Curve) -> int:
    groups = curve.record.config.get("groups")
    return groups if isinstance(groups, int) else 0


def _symbol(curve: Curve) -> str:
    """Groups by shape; published hollow, so that it is told from intended where both train one layer."""
    groups = _groups(curve)
    shape = GROUP_SYMBOLS.get(groups, "diamond") if groups else "circle"
    return f"{shape}-open" if curve.published else shape


def _epoch_tick(planned: int) -> int:
    return next(tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, planned) if planned / tick <= 7)


def _number(value: float | None, metric: Metric) -> str:
    return "not finite" if value is None else f"{metric.scale * value:.4g}"
