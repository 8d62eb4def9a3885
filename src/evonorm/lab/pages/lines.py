"""The goal against what an experiment varies, a line a layer with its spread: for the page, and as a picture."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.analysis.findings import Panel
from evonorm.lab.analysis.trials import Point, Trials
from evonorm.lab.pages.charts import COLOURS, Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's remaining colours, and dashes once they are used up.
_MORE_COLOURS = ("#cc79a7", "#56b4e9", "#e69f00", "#b5a800")
# Every colour there is, for what has none of its own.
PALETTE = (*(colour for name, colour in COLOURS.items() if name != "none"), *_MORE_COLOURS, COLOURS["none"])
_DASHES = ("solid", "dash", "dot")
_MATPLOTLIB_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
_DPI = 200
_WIDTH, _HEIGHT = 4.6, 3.3  # of a panel, in inches


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


def picture(trials: Trials[Any], panels: Sequence[Panel], path: Path) -> None:
    """Writes the panels as one picture, in the format that the path's suffix names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * rows + 0.5), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for place, panel in enumerate(panels):
        _draw(figure, (rows, columns, place + 1), trials, panel)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    # Three fit above a panel; in even rows.
    in_rows = -(-len(labels) // (3 * columns))
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // in_rows), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)


def _draw(figure: Figure, where: tuple[int, int, int], trials: Trials[Any], panel: Panel) -> None:
    axes = figure.add_subplot(*where)
    style = _looks(trials.points)
    for layer, line in panel.lines.items():
        colour, dash = style[layer]
        x, scale = [at for at, _ in line], trials.metric.scale
        means, lows, highs = (
            [scale * of(point.values) for _, point in line] for of in (lambda v: sum(v) / len(v), min, max)
        )
        dashes = "none" if panel.names else _MATPLOTLIB_DASHES[dash]
        axes.plot(x, means, linestyle=dashes, color=colour, marker="o", markersize=3.5, label=layer)
        if panel.names:
            axes.vlines(x, lows, highs, color=colour)
        else:
            axes.fill_between(x, lows, highs, color=colour, alpha=0.15, linewidth=0)
        lost = [(at, scale * point.mean) for at, point in line if point.diverged]
        axes.plot([at for at, _ in lost], [y for _, y in lost], "x", color=colour, markersize=9, markeredgewidth=2)
    axes.set_xscale("linear" if panel.names else "log")
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names, rotation=30, ha="right")
    elif panel.ticks:
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        axes.minorticks_off()
    axes.set_ylim(*_limits(trials))
    axes.grid(color="#e6e8eb")
    axes.set_axisbelow(True)
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel(panel.axis)
    if where[2] % where[1] == 1 or where[1] == 1:
        axes.set_ylabel(_goal(trials))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


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
