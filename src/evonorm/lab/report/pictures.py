"""The page's charts as static pictures, for papers and READMEs: the same figures, drawn by matplotlib on white."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.report.charts import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Twice what a page shows, as screens of twice the density need.
DPI = 200
INK, QUIET, GRID = "#1d1f21", "#5b6067", "#e6e8eb"
MARKERS = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "x-thin": "x"}
# Of a title; a picture has no room for more. A legend has half.
MOST_LETTERS = 60
DASHES = {"solid": "-", "dash": "--"}


def write(charts: Mapping[str, Chart], folder: Path) -> list[Path]:
    """Draws each chart into `folder`, which is there, as its name and .png. Raises OSError if it cannot be written."""
    from matplotlib import rc_context

    # A name is text, whatever dollars it has.
    with rc_context({"text.parse_math": False, "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        return [_draw(chart, folder / f"{name}.png") for name, chart in charts.items()]


def file_name(text: str, taken: Sequence[str] = ()) -> str:
    """Words as the name of a file, none that is taken."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "chart"
    name, count = plain, 1
    while name in taken:
        count += 1
        name = f"{plain}-{count}"
    return name


def _draw(chart: Chart, path: Path) -> Path:
    from matplotlib.figure import Figure

    layout = chart.figure["layout"]
    wide = len(layout.get("shapes", ()))
    height = layout["height"] / 80 if "height" in layout else 4.0
    figure = Figure(figsize=(max(6.0, 1.7 * wide), height), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    axes = figure.subplots()
    axes.set_title(_cut(chart.title, MOST_LETTERS), loc="left", fontweight="bold", fontsize=10)
    for trace in chart.figure["data"]:
        _trace(axes, trace)
    for name in ("xaxis", "yaxis"):
        _axis(axes, layout.get(name, {}), name[0])
    for shape in layout.get("shapes", ()):
        axes.plot([shape["x0"], shape["x1"]], [shape["y0"], shape["y1"]], color=shape["line"]["color"], lw=1, zorder=1)
    for note in layout.get("annotations", ()):
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        axes.annotate(
            _plain(note["text"]),
            (note["x"], note["y"]),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            bbox=box,
        )
    named = [handle for handle in axes.get_legend_handles_labels()[1] if handle]
    if layout.get("showlegend", True) and named:
        figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    figure.savefig(path, dpi=DPI)
    return path


def _trace(axes: Axes, trace: Mapping[str, Any]) -> None:
    x, y = (_numbers(trace[name]) for name in "xy")
    line, marker = trace.get("line", {}), trace.get("marker", {})
    label = _cut(_plain(trace.get("name", "")), MOST_LETTERS // 2) if trace.get("showlegend") else ""
    mode, colour = trace.get("mode", "lines"), line.get("color") or marker.get("color") or INK
    opacity = trace.get("opacity", marker.get("opacity", 1.0))
    if "error_x" in trace:
        bars = trace["error_x"]
        axes.errorbar(
            x, y, xerr=[bars["arrayminus"], bars["array"]], fmt="none", ecolor=bars["color"], capsize=3, lw=1.3
        )
    if "lines" in mode:
        style: dict[str, Any] = {
            "linestyle": DASHES[line.get("dash", "solid")],
            "linewidth": line.get("width", 2) * 0.7,
        }
        style["drawstyle"] = "steps-post" if line.get("shape") == "hv" else "default"
        axes.plot(x, y, color=colour, alpha=opacity, label=label, zorder=2, **style)
        label = ""
    if "markers" not in mode:
        return
    symbols = marker.get("symbol", "circle")
    for place, symbol in enumerate([symbols] if isinstance(symbols, str) else symbols):
        step = max(1, -(-len(x) // marker.get("maxdisplayed", len(x)))) if x else 1
        chosen = slice(None, None, step) if isinstance(symbols, str) else slice(place, place + 1)
        shape, hollow = symbol.removesuffix("-open"), symbol.endswith("-open")
        style = {"s": (marker.get("size", 6) * 0.65) ** 2, "marker": MARKERS[shape], "alpha": opacity, "label": label}
        if shape == "x-thin":
            style["color"] = marker.get("line", {}).get("color") or colour
        else:
            style |= {"facecolors": "none" if hollow else colour, "edgecolors": colour}
        axes.scatter(x[chosen], y[chosen], zorder=3, **style)


def _axis(axes: Axes, layout: Mapping[str, Any], name: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    own = axes.xaxis if name == "x" else axes.yaxis
    if "title" in layout:
        own.set_label_text(_plain(layout["title"]["text"]))
    if layout.get("type") == "log":
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        low, high = own.get_data_interval()
        # matplotlib's own labels are formulas, which are off here so that names are safe.
        own.set_major_locator(LogLocator(subs=(1,) if high > 30 * low else (1, 2, 5)))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        own.set_minor_formatter(NullFormatter())
    if "tickvals" in layout:
        own.set_ticks(layout["tickvals"], [_plain(text) for text in layout["ticktext"]])
    if "range" in layout:
        (axes.set_xlim if name == "x" else axes.set_ylim)(*layout["range"])
    elif layout.get("rangemode") == "tozero":
        axes.set_xlim(left=0) if name == "x" else axes.set_ylim(bottom=0)
    if layout.get("side") == "top":
        own.tick_top()  # type: ignore[union-attr]
    if layout.get("visible") is False:
        own.set_visible(False)
    elif layout.get("showgrid", True):
        axes.grid(visible=True, axis=name, color=GRID, lw=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis=name, which="both", length=0, colors=QUIET)  # type: ignore[arg-type]


def _numbers(values: Sequence[Any]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(text: str) -> str:
    return html.unescape(text)
