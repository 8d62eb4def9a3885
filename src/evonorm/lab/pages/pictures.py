"""The page's charts as static pictures, for papers and READMEs: the same figures, drawn by matplotlib on white."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evonorm.lab.pages import picture_marks as marks
from evonorm.lab.pages.charts import Chart
from evonorm.lab.pages.picture_marks import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Twice what a page shows, as screens of twice the density need.
DPI = 200
QUIET, GRID = "#5b6067", "#e6e8eb"
WIDTH, HEIGHT = 6.4, 4.0  # of a chart without its legend, in inches
PANEL = 0.75  # of that, where there are several
# Of a legend: its letters in points; what stands before a text, and the height of a line, in inches.
LETTERS, BEFORE, LINE = 8, 0.65, 0.17
# No name is so long that its end says more.
MOST_LETTERS = 240


def write(charts: Mapping[str, Chart | Sequence[Chart]], folder: Path, kind: str = "png") -> list[Path]:
    """Draws each chart into `folder`, which is there, as its name and `.png` or `.svg`; returns the paths.

    Several charts of one name share a legend: they are the panels of one picture. Raises OSError if it cannot be
    written.
    """
    from matplotlib import rc_context

    # A name is text, whatever dollars it has; and the same chart is the same file.
    look: Any = {"text.parse_math": False, "font.size": 9, "text.color": INK, "axes.labelcolor": INK}
    with rc_context(look | {"svg.hashsalt": "0"}):
        return [
            _draw([one] if isinstance(one, Chart) else one, folder / f"{name}.{kind}") for name, one in charts.items()
        ]


def file_name(text: str, taken: Sequence[str] = ()) -> str:
    """Words as the name of a file, none that is taken."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "chart"
    name, count = plain, 1
    while name in taken:
        count += 1
        name = f"{plain}-{count}"
    return name


def _draw(charts: Sequence[Chart], path: Path) -> Path:
    from matplotlib.figure import Figure

    columns = min(2, len(charts))
    rows = -(-len(charts) // columns)
    sizes = [_size(chart.figure["layout"], PANEL if len(charts) > 1 else 1.0) for chart in charts]
    width, height = max(width for width, _ in sizes), max(height for _, height in sizes)
    titles = [textwrap.fill(chart.title[:MOST_LETTERS], int(width / 0.09)) for chart in charts]
    every = {
        "data": [trace for chart in charts for trace in chart.figure["data"]],
        "layout": charts[0].figure["layout"],
    }
    entries, legend_columns, lines = _legend(every, columns * width)
    below = LINE * (lines + max(title.count("\n") for title in titles))
    figure = Figure(figsize=(columns * width, rows * height + below), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, chart, title in zip(panels, charts, titles, strict=False):
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        _panel(axes, chart.figure, width)
    for axes in panels:  # those that are left over
        axes.set_visible(False)
    if entries:
        handles = [marks.handle(trace) for trace in entries.values()]
        look: Any = {"ncols": legend_columns, "frameon": False, "fontsize": LETTERS, "handlelength": 3}
        figure.legend(handles, list(entries), loc="outside lower left", **look)
    figure.savefig(path, dpi=DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def _size(layout: Mapping[str, Any], share: float) -> tuple[float, float]:
    """In inches, without the legend."""
    upright = sum(shape.get("yref", "y") == "y" for shape in layout.get("shapes", ()))
    return share * max(WIDTH, 1.7 * upright), share * (layout["height"] / 80 if "height" in layout else HEIGHT)


def _panel(axes: Axes, figure: Mapping[str, Any], width: float) -> None:
    layout = figure["layout"]
    for trace in figure["data"]:
        marks.trace(axes, trace)
    for name in ("xaxis", "yaxis"):
        _axis(axes, layout.get(name, {}), name[0], width)
    for shape in layout.get("shapes", ()):
        marks.shape(axes, shape)
    for note in layout.get("annotations", ()):
        marks.note(axes, note)


def _legend(figure: Mapping[str, Any], width: float) -> tuple[dict[str, Mapping[str, Any]], int, int]:
    """Traces by what a legend calls them, each name once, in columns that fit, and how many lines that takes."""
    named = [trace for trace in figure["data"] if trace.get("showlegend", True) and trace.get("name")]
    # As on the page: one trace alone needs no legend, but where it asks for it.
    wanted = len(figure["data"]) > 1 or any(trace.get("showlegend") for trace in named)
    if not named or not figure["layout"].get("showlegend", wanted):
        return {}, 1, 0
    entries: dict[str, Mapping[str, Any]] = {}
    for trace in named:
        entries.setdefault(_wrapped(html.unescape(trace["name"])[:MOST_LETTERS], width - BEFORE - 0.3), trace)
    widest = max(_inches(line) for name in entries for line in name.split("\n"))
    columns = max(1, min(len(entries), int((width - 0.2) / (BEFORE + 0.15 + widest))))
    rows = -(-len(entries) // columns)
    return entries, columns, rows * max(name.count("\n") + 1 for name in entries)


def _wrapped(text: str, room: float) -> str:
    """In lines that so many inches hold."""
    letter = _inches(text) / len(text)
    return textwrap.fill(text, max(1, int(0.9 * room / letter))) if _inches(text) > room else text


def _inches(text: str) -> float:
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=LETTERS).get_extents().width) / 72


def _axis(axes: Axes, layout: Mapping[str, Any], name: str, width: float) -> None:
    own = axes.xaxis if name == "x" else axes.yaxis
    if "title" in layout:
        own.set_label_text(html.unescape(layout["title"]["text"]))
    log = layout.get("type") == "log"
    if log:
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    limits = axes.set_xlim if name == "x" else axes.set_ylim
    if "range" in layout:
        # Plotly has powers of ten there.
        limits(*(10.0**end if log else end for end in layout["range"]))
    elif layout.get("rangemode") == "tozero" and not log:
        limits(0, None)
    _ticks(axes, own, layout, width if name == "x" else None)
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


def _ticks(axes: Axes, own: Axis, layout: Mapping[str, Any], width: float | None) -> None:
    """width: of the picture, for a horizontal axis, whose labels are turned where they would run into one another."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter, NullLocator

    if layout.get("type") == "log":
        low, high = own.get_data_interval()
        # matplotlib's own labels are formulas, which are off here so that names are safe.
        own.set_major_locator(LogLocator(subs=(1,) if high > 30 * low else (1, 2, 5)))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        own.set_minor_formatter(NullFormatter())
    elif isinstance(layout.get("dtick"), (int, float)):
        own.set_major_locator(MultipleLocator(layout["dtick"]))
    if "tickvals" not in layout:
        return
    labels = [html.unescape(text) for text in layout.get("ticktext", [f"{value:g}" for value in layout["tickvals"]])]
    own.set_ticks(layout["tickvals"], labels)
    own.set_minor_locator(NullLocator())
    if width is not None and labels:
        ends = axes.transData.transform([(value, 1) for value in (*axes.get_xlim(), *layout["tickvals"])])[:, 0]
        places = [(at - ends[0]) / ((ends[1] - ends[0]) or 1) for at in ends[2:]]
        if marks.crowded(places, labels, width - 1):
            own.set_tick_params(rotation=35)
            for label in own.get_ticklabels():
                label.set_horizontalalignment("right")
