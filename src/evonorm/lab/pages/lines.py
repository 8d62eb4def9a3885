"""The goal against what an experiment varies, a line a layer with its spread."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

from evonorm.lab.analysis.findings import Panel
from evonorm.lab.analysis.trials import Point, Trials
from evonorm.lab.pages.charts import COLOURS, Chart

# Okabe and Ito's remaining colours, and dashes once they are used up.
_MORE_COLOURS = ("#cc79a7", "#56b4e9", "#e69f00", "#b5a800")
# Every colour there is, for what has none of its own.
PALETTE = (*(colour for name, colour in COLOURS.items() if name != "none"), *_MORE_COLOURS, COLOURS["none"])
_DASHES = ("solid", "dash", "dot")


def chart(trials: Trials[Any], panel: Panel) -> Chart:
    """For the page."""
    style = _looks(trials.points)
    layout = {
        "xaxis": _axis(panel),
        "yaxis": {"title": {"text": _goal(trials)}, "range": list(_limits(trials))},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "margin": {"l": 56, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    traces = [_trace(panel, layer, line, *style[layer]) for layer, line in panel.lines.items()]
    rows = tuple(_row(layer, panel.place(at), point) for layer, line in panel.lines.items() for at, point in line)
    header = ("layer", panel.axis, trials.metric.titled("mean"), trials.metric.titled("every seed"), "diverged")
    return Chart(panel.title, _key(trials), {"data": traces, "layout": layout}, header, rows)


def _axis(panel: Panel) -> dict[str, Any]:
    if panel.names:
        marks = {"tickvals": list(range(len(panel.names))), "ticktext": [html.escape(name) for name in panel.names]}
        return {"title": {"text": panel.axis}, "type": "linear", **marks}
    ticks = {"tickvals": list(panel.ticks), "ticktext": [f"{tick:g}" for tick in panel.ticks]}
    return {"title": {"text": f"{panel.axis} (logarithmic)"}, "type": "log", **(ticks if panel.ticks else {"dtick": 1})}


def _looks(layers: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Each layer's colour and dash, the same in every chart."""
    found: dict[str, tuple[str, str]] = {}
    used = 0
    for layer in sorted(layers):
        if layer in COLOURS:
            found[layer] = COLOURS[layer], "solid"
        else:
            found[layer] = _MORE_COLOURS[used % len(_MORE_COLOURS)], _DASHES[used // len(_MORE_COLOURS) % len(_DASHES)]
            used += 1
    return found


def _trace(panel: Panel, layer: str, line: list[tuple[float, Point[Any]]], colour: str, dash: str) -> dict[str, Any]:
    name, metric = html.escape(layer), line[0][1].metric
    scale, shown = metric.scale, "%{y:.1f}" if metric.unit == "%" else "%{y:.4g}"
    means = [scale * point.mean for _, point in line]
    return {
        "type": "scatter",
        "mode": "markers" if panel.names else "lines+markers",
        "name": name,
        "x": [at for at, _ in line],
        "y": means,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [scale * max(point.values) - mean for (_, point), mean in zip(line, means, strict=True)],
            "arrayminus": [mean - scale * min(point.values) for (_, point), mean in zip(line, means, strict=True)],
            "thickness": 1.2,
            "width": 3,
        },
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {
            "color": colour,
            "size": [12 if point.diverged else 6 for _, point in line],
            "symbol": ["x" if point.diverged else "circle" for _, point in line],
        },
        "text": [html.escape(panel.place(at)) for at, _ in line],
        "hovertemplate": f"{name} at %{{text}}: {f'{shown} {metric.unit}'.rstrip()}<extra></extra>",
    }


def _row(layer: str, place: str, point: Point[Any]) -> tuple[str, ...]:
    each = ", ".join(map(point.metric.figure, point.values))
    return layer, place, point.metric.figure(point.mean), each, str(point.diverged)


def _goal(trials: Trials[Any]) -> str:
    return f"validation {trials.metric.label}"


def _key(trials: Trials[Any]) -> str:
    points = [point for points in trials.points.values() for point in points]
    several = any(len(point.values) > 1 for point in points)
    lost = any(point.diverged for point in points)
    key = "mean over seeds, bars from the worst to the best" if several else "one seed"
    return key + (f"; a cross: a run diverged there, counted as {trials.lost_as}" if lost else "")


def _limits(trials: Trials[Any]) -> tuple[float, float]:
    scale, every = trials.metric.scale, [point for points in trials.points.values() for point in points]
    values = [scale * value for point in every for value in point.values]
    low, high = min([*values, scale * trials.lost]), max([*values, scale * trials.lost])
    if trials.metric.unit == "%":
        return max(0.0, low - 3), min(100.0, high + 3)
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
