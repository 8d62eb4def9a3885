"""What our Plotly figures draw, drawn by matplotlib: lines with their markers, upright and level lines, notes, and a
legend's handles. A chart with another symbol or dash has it added here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Transform

INK = "#1d1f21"
_MARKERS = {
    **{"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v"},
    **{"x": "X", "x-thin": "x", "line-ns": "|"},
}
# Those that have no inside.
_THIN = ("x", "|")
_DASHES = {"solid": "-", "dash": "--", "dot": ":"}
# Pixels of the page as the points of a picture.
LINE, MARKER, FONT = 0.7, 0.65, 0.62


def trace(axes: Axes, drawn: Mapping[str, Any]) -> None:
    """Draws one trace. Raises KeyError for a symbol or dash that has no counterpart here."""
    x, y = (_numbers(drawn[name]) for name in "xy")
    mode, opacity = drawn.get("mode", "lines"), drawn.get("opacity", 1.0)
    _errors(axes, drawn, x, y)
    if "lines" in mode:
        steps = "steps-post" if drawn.get("line", {}).get("shape") == "hv" else "default"
        axes.plot(x, y, **_line_style(drawn), drawstyle=steps, alpha=opacity, zorder=2)
    if "markers" not in mode:
        return
    marker = drawn.get("marker", {})
    every = max(1, -(-len(x) // (marker.get("maxdisplayed") or len(x) or 1)))
    inside = drawn.get("cliponaxis", True)
    listed = [name for name in ("symbol", "size", "color") if isinstance(marker.get(name), (list, tuple))]
    # One call for all, but where points differ.
    for place in range(0, len(x), every) if listed else [slice(None, None, every)]:
        chosen = slice(place, place + 1) if isinstance(place, int) else place
        style = _marker_style(drawn, place if isinstance(place, int) else 0)
        alpha = opacity * marker.get("opacity", 1.0)
        axes.plot(x[chosen], y[chosen], linestyle="none", **style, alpha=alpha, zorder=3, clip_on=inside)


def handle(drawn: Mapping[str, Any]) -> Line2D:
    """A trace's entry in a legend: its line and its marker together."""
    from matplotlib.lines import Line2D

    mode = drawn.get("mode", "lines")
    style = _line_style(drawn) if "lines" in mode else {"linestyle": "none"}
    return Line2D([], [], **style, **(_marker_style(drawn, 0) if "markers" in mode else {}))


def shape(axes: Axes, drawn: Mapping[str, Any]) -> None:
    """Draws a line; on a paper's axis 0 and 1 are the ends."""
    line = drawn["line"]
    style: dict[str, Any] = {"linestyle": _dash(line), "linewidth": line.get("width", 2) * LINE, "color": line["color"]}
    style |= {"transform": _transform(axes, drawn), "zorder": 1 if drawn.get("layer") == "below" else 2.5}
    axes.plot([drawn["x0"], drawn["x1"]], [drawn["y0"], drawn["y1"]], scalex=False, scaley=False, **style)


def note(axes: Axes, drawn: Mapping[str, Any]) -> None:
    """Draws an annotation's text. Plotly gives its place on a logarithmic axis as a power of ten."""
    place = []
    for name, own in (("x", axes.get_xscale()), ("y", axes.get_yscale())):
        on_paper = drawn.get(f"{name}ref") == "paper"
        place.append(10.0 ** drawn[name] if own == "log" and not on_paper else drawn[name])
    axes.annotate(
        html.unescape(drawn["text"]),
        tuple(place),
        (drawn.get("xshift", 0) * LINE, drawn.get("yshift", 0) * LINE),
        xycoords=_transform(axes, drawn),
        textcoords="offset points",
        ha={"left": "left", "right": "right"}.get(drawn.get("xanchor", "auto"), "center"),
        va={"top": "top", "bottom": "bottom"}.get(drawn.get("yanchor", "auto"), "center"),
        fontsize=drawn.get("font", {}).get("size", 12) * FONT,
        color=drawn.get("font", {}).get("color", INK),
        # What has room of its own is not crossed out by lines.
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8} if "borderpad" in drawn else None,
        annotation_clip=False,
        zorder=4,
    )


def _transform(axes: Axes, drawn: Mapping[str, Any]) -> Transform:
    from matplotlib.transforms import blended_transform_factory

    x, y = (axes.transAxes if drawn.get(f"{name}ref") == "paper" else axes.transData for name in ("x", "y"))
    return blended_transform_factory(x, y)


def _errors(axes: Axes, drawn: Mapping[str, Any], x: Sequence[float], y: Sequence[float]) -> None:
    for name in ("x", "y"):
        if bars := drawn.get(f"error_{name}"):
            length: Any = {f"{name}err": [bars.get("arrayminus", bars["array"]), bars["array"]]}
            axes.errorbar(x, y, fmt="none", ecolor=bars.get("color") or _colour(drawn, 0), capsize=3, lw=1.3, **length)


def _line_style(drawn: Mapping[str, Any]) -> dict[str, Any]:
    line = drawn.get("line", {})
    colour = line.get("color") or _colour(drawn, 0)
    return {"linestyle": _dash(line), "linewidth": line.get("width", 2) * LINE, "color": colour}


def _dash(line: Mapping[str, Any]) -> str:
    return _DASHES[line.get("dash", "solid")]


def _marker_style(drawn: Mapping[str, Any], place: int) -> dict[str, Any]:
    marker = drawn.get("marker", {})
    symbol = str(_at(marker.get("symbol"), place) or "circle")
    shape, hollow = _MARKERS[symbol.removesuffix("-open")], symbol.endswith("-open")
    edge, colour = marker.get("line", {}), _colour(drawn, place)
    width = edge.get("width", 1.5 if hollow or shape in _THIN else 0) * LINE
    outline = (edge.get("color") or colour) if width and not hollow else colour
    return {
        "marker": shape,
        "markersize": (_at(marker.get("size"), place) or 6) * MARKER,
        "markerfacecolor": "none" if hollow else colour,
        "markeredgecolor": outline,
        "markeredgewidth": width,
    }


def _colour(drawn: Mapping[str, Any], place: int) -> str:
    return str(_at(drawn.get("marker", {}).get("color"), place) or drawn.get("line", {}).get("color") or INK)


def _at(value: Any, place: int) -> Any:
    """A value for all points, or a list with one for each."""
    return value[place] if isinstance(value, (list, tuple)) else value


def _numbers(values: Sequence[Any]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def crowded(places: Sequence[float], labels: Sequence[str], width: float) -> bool:
    """Whether labels at these places, as shares of so many inches, run into one another."""
    of_letter = 0.075
    return any(
        (b - a) * width < of_letter * (len(one) + len(other)) / 2 + 0.1
        for (a, one), (b, other) in pairwise(sorted(zip(places, labels, strict=True)))
    )
