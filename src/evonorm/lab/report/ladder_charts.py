"""Validation accuracy against learning rate, a line a layer: on the page, and as a picture."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import Any

from evonorm.lab.report.charts import COLOURS, Chart
from evonorm.lab.report.ladder import Ladder, Point, layers, panel, panels

# Okabe and Ito's remaining colours, and dashes once they are used up.
_MORE_COLOURS = ("#cc79a7", "#56b4e9", "#e69f00", "#b5a800")
_DASHES = ("solid", "dash", "dot")
OPTIMIZER_NAMES = {"sgd": "SGD", "adam": "Adam"}
_PICTURE_DPI = 200
_MATPLOTLIB_DASHES = {"solid": "-", "dash": "--", "dot": ":"}


def charts(ladder: Ladder) -> list[Chart]:
    """One chart for each optimizer and kind of pixels, all with the same vertical axis."""
    return [_chart(ladder, optimizer, pixels) for optimizer, pixels in panels(ladder)]


def looks(ladder: Ladder) -> dict[str, tuple[str, str]]:
    """Each layer's colour and dash, the same in every chart."""
    found, used = {}, 0
    for layer in sorted(ladder.points):
        if layer in COLOURS:
            found[layer] = COLOURS[layer], "solid"
        else:
            found[layer] = _MORE_COLOURS[used % len(_MORE_COLOURS)], _DASHES[used // len(_MORE_COLOURS) % len(_DASHES)]
            used += 1
    return found


def picture(ladder: Ladder, path: Path) -> None:
    """Writes the charts as one picture, in the format that the path's suffix names."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn, style = panels(ladder), looks(ladder)
    columns = 2 if len(drawn) > 1 else 1
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows + 0.5), dpi=_PICTURE_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    low, high = _limits(ladder)
    for place, (optimizer, pixels) in enumerate(drawn):
        axes = figure.add_subplot(rows, columns, place + 1)
        for layer in layers(ladder):
            colour, dash = style[layer]
            points = panel(ladder, layer, optimizer, pixels)
            x = [point.place.learning_rate for point in points]
            y = [100 * point.mean for point in points]
            axes.plot(x, y, _MATPLOTLIB_DASHES[dash], color=colour, marker="o", markersize=3.5, label=layer)
            axes.fill_between(
                x,
                [100 * min(point.values) for point in points],
                [100 * max(point.values) for point in points],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            lost = [point for point in points if point.diverged]
            axes.plot(
                [point.place.learning_rate for point in lost],
                [100 * point.mean for point in lost],
                "x",
                color=colour,
                markersize=9,
                markeredgewidth=2,
            )
        axes.set_xscale("log")
        axes.set_ylim(low, high)
        axes.grid(color="#e6e8eb")
        axes.set_axisbelow(True)
        axes.set_title(f"{OPTIMIZER_NAMES[optimizer]}, {pixels} pixels", fontsize=11)
        axes.set_xlabel("learning rate")
        if place % columns == 0:
            axes.set_ylabel("validation accuracy, %")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(6, len(labels)), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else None)


def _chart(ladder: Ladder, optimizer: str, pixels: str) -> Chart:
    traces: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    style = looks(ladder)
    for layer in layers(ladder):
        points = panel(ladder, layer, optimizer, pixels)
        traces += _traces(layer, points, *style[layer])
        rows += [_row(layer, point) for point in points]
    layout = {
        "xaxis": {"title": {"text": "learning rate (logarithmic)"}, "type": "log", "dtick": 1},
        "yaxis": {"title": {"text": "validation accuracy, %"}, "range": list(_limits(ladder))},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "margin": {"l": 56, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    several = any(len(point.values) > 1 for points in ladder.points.values() for point in points)
    lost = any(point.diverged for points in ladder.points.values() for point in points)
    key = "mean over seeds, bars from the worst to the best" if several else "one seed"
    return Chart(
        f"{OPTIMIZER_NAMES[optimizer]}, {pixels} pixels",
        key + ("; a cross: a run diverged there, counted as chance" if lost else ""),
        {"data": traces, "layout": layout},
        ("layer", "learning rate", "mean, %", "every seed, %", "diverged"),
        tuple(rows),
    )


def _traces(layer: str, points: list[Point], colour: str, dash: str) -> list[dict[str, Any]]:
    name = html.escape(layer)
    means = [100 * point.mean for point in points]
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": [point.place.learning_rate for point in points],
            "y": means,
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [100 * max(point.values) - mean for point, mean in zip(points, means, strict=True)],
                "arrayminus": [mean - 100 * min(point.values) for point, mean in zip(points, means, strict=True)],
                "thickness": 1.2,
                "width": 3,
            },
            "line": {"color": colour, "dash": dash, "width": 2},
            "marker": {
                "color": colour,
                "size": [12 if point.diverged else 6 for point in points],
                "symbol": ["x" if point.diverged else "circle" for point in points],
            },
            "hovertemplate": f"{name} at %{{x:g}}: %{{y:.1f}} %<extra></extra>",
        }
    ]


def _row(layer: str, point: Point) -> tuple[str, ...]:
    each = ", ".join(f"{100 * value:.1f}" for value in point.values)
    return layer, f"{point.place.learning_rate:g}", f"{100 * point.mean:.1f}", each, str(point.diverged)


def _limits(ladder: Ladder) -> tuple[float, float]:
    values = [100 * value for points in ladder.points.values() for point in points for value in point.values]
    low, high = min([*values, 100 * ladder.chance]), max(values)
    return max(0.0, low - 3), min(100.0, high + 3)
