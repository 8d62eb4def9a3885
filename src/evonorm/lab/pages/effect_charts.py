"""Importance and correlation of a sweep's parameters as Plotly figures, plain data, with their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evonorm.lab.analysis.importance import Effect, Interval
from evonorm.lab.pages.charts import Chart
from evonorm.lab.pages.sweep_charts import POINT_COLOUR, escaped, short


def importances(effects: Sequence[Effect]) -> Chart:
    """Importance of each parameter with its interval; filled where it is more than chance gives."""
    figure = _dots(
        [(effect.name, effect.importance, effect.beyond_chance) for effect in effects], "importance", [-0.03, 1.03]
    )
    header = ("parameter", "importance", "from", "to", "more than chance", "variance explained")
    rows = tuple(
        (
            effect.name,
            *_numbers(effect.importance),
            "yes" if effect.beyond_chance else "no",
            f"{100 * effect.explained:.0f} %",
        )
        for effect in effects
    )
    key = "random forest; filled: more than a shuffled copy of the parameter gets"
    return Chart("Importance", key, figure, header, rows)


def correlations(effects: Sequence[Effect]) -> Chart:
    """Pearson's r of each parameter with its interval; filled where that leaves out zero."""
    lines = [
        (f"{effect.name} = {effect.of}" if effect.of else effect.name, effect.correlation, effect.correlation.clear)
        for effect in effects
    ]
    header = ("parameter", "r", "from", "to", "leaves out zero")
    rows = []
    for effect in effects:
        every = [(f"{effect.name} = {value}", interval) for value, interval in effect.each]
        for name, interval in every or [(effect.name, effect.correlation)]:
            rows.append((name, *_numbers(interval), "yes" if interval.clear else "no"))
        if effect.log_correlation is not None:
            interval = effect.log_correlation
            rows.append((f"log of {effect.name}", *_numbers(interval), "yes" if interval.clear else "no"))
    key = "Pearson's r; of a text, its value with the largest |r|; filled: the interval leaves out zero"
    return Chart("Linear correlation", key, _dots(lines, "r", [-1.05, 1.05]), header, tuple(rows))


def _dots(lines: Sequence[tuple[str, Interval, bool]], title: str, ends: list[float]) -> dict[str, Any]:
    lines = list(reversed(lines))
    trace = {
        **{"type": "scatter", "mode": "markers", "name": title},
        "x": [interval.value for _, interval, _ in lines],
        "y": list(range(len(lines))),
        "error_x": {
            **{"type": "data", "symmetric": False, "color": POINT_COLOUR, "thickness": 1.5, "width": 5},
            "array": [interval.high - interval.value for _, interval, _ in lines],
            "arrayminus": [interval.value - interval.low for _, interval, _ in lines],
        },
        "marker": {
            **{"size": 11, "color": POINT_COLOUR, "line": {"width": 2, "color": POINT_COLOUR}},
            "symbol": ["circle" if clear else "circle-open" for _, _, clear in lines],
        },
        "text": [escaped(name) for name, _, _ in lines],
        "hovertemplate": "%{text}: %{x:.2f}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": title}, "range": ends, "zeroline": True},
        "yaxis": {
            **{"tickvals": list(range(len(lines))), "ticktext": [short(name) for name, _, _ in lines]},
            **{"range": [-0.6, len(lines) - 0.4], "zeroline": False, "automargin": True},
        },
        "showlegend": False,
        "height": 130 + 30 * len(lines),
        "margin": {"l": 90, "r": 16, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    return {"data": [trace], "layout": layout}


def _numbers(interval: Interval) -> tuple[str, str, str]:
    # Plus zero, where rounding would leave a minus before it.
    value, low, high = (
        f"{round(one, 2) + 0.0:.2f}".replace("-", "−") for one in (interval.value, interval.low, interval.high)
    )
    return value, low, high
