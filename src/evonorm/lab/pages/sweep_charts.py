"""A sweep's charts as Plotly figures, plain data, each with the same numbers as a table."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from evonorm.lab.analysis.readings import swept_sign
from evonorm.lab.analysis.swept import JUDGED, SOUND, Axis, Swept, number
from evonorm.lab.pages.charts import Chart

# From the worst fifth of the trials to the best: told apart on light and dark, and by lightness and hue in any vision.
FIFTHS = ("#7f9cba", "#8f88bd", "#b5729f", "#d1603f", "#f08a00")
NO_VALUE_COLOUR = "#8c8c8c"
POINT_COLOUR, MEAN_COLOUR = "#2f86c9", "#d55e00"
AXIS_COLOUR = "#8c8c8c"
# A label longer than this is cut where a chart has no room for it; tables and controls have it whole.
MOST_LETTERS = 16
MOST_TICKS = 12
# Marks nearer than this share of the axis cannot both be read.
LEAST_APART = 0.04
# More lines than this are drawn thin.
MANY = 200
# How far, of the metric's range, trials without a value stand beyond its worst.
BEYOND = 0.08


@dataclass(frozen=True)
class Point:
    """A trial in a best-so-far chart: place among the trials, where it stands, its value, the best until then."""

    place: int
    x: float
    value: float
    best: float


def fifths(swept: Swept) -> list[int | None]:
    """Each trial's fifth by rank, 0 the worst and 4 the best; None without a value. Equals share the better one's."""
    sound = [
        place for place, trial in enumerate(swept.trials) if trial.status in SOUND and trial.number in swept.values
    ]
    sign = swept_sign(swept)
    ranked = sorted(sign * swept.values[swept.trials[place].number] for place in sound)
    last = {value: rank for rank, value in enumerate(ranked)}
    found: list[int | None] = [None] * len(swept.trials)
    for place in sound:
        rank = last[sign * swept.values[swept.trials[place].number]]
        found[place] = len(FIFTHS) * rank // len(ranked)
    return found


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Places from 0 to 1 and labels: the values themselves where they are few, else round ones' places evenly."""
    if axis.choices and len(axis.choices) <= MOST_TICKS:
        found = [(axis.place(value), axis.shown(value)) for value in axis.choices]
    elif axis.scale == "category":
        step = -(-len(axis.labels) // MOST_TICKS)
        found = [(axis.place(label), label) for label in axis.labels[::step]]
    else:
        ratio = axis.high / axis.low if axis.scale == "log" else 0.0
        span = axis.high / 4 - axis.low / 4
        found = [
            (step / 4, number(float(f"{axis.low * ratio ** (step / 4) if ratio else axis.low + step * span:.3g}")))
            for step in range(5)
        ]
    return [(place, short(label)) for place, label in found if place is not None]


def short(text: str) -> str:
    """A label for a chart, cut to MOST_LETTERS."""
    return escaped(text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…")


def escaped(text: str) -> str:
    """Text with nothing in it that Plotly would take for markup, a formula or a template's field."""
    for character in "$%{}":
        text = text.replace(character, f"\0{ord(character)};")
    return html.escape(text).replace("\0", "&#")


def parallel_layout(axes: Sequence[Axis]) -> dict[str, Any]:
    """The parallel coordinates without their lines, which the page's script draws from the trials that pass."""
    upright = [
        {
            **{"type": "line", "layer": "below", "x0": place, "x1": place, "y0": 0, "y1": 1},
            "line": {"color": AXIS_COLOUR, "width": 1},
        }
        for place in range(len(axes))
    ]
    labels = [
        {
            **{"x": place, "y": y, "text": label, "showarrow": False, "xanchor": "left", "xshift": 3},
            **{"font": {"size": 11}, "borderpad": 1, "opacity": 0.9},
        }
        for place, axis in enumerate(axes)
        for y, label in ticks(axis)
    ]
    last = len(axes) - 1
    return {
        "xaxis": {
            **{"tickvals": list(range(len(axes))), "ticktext": [short(axis.name) for axis in axes]},
            # The last axis's labels stand to its right.
            **{"side": "top", "showgrid": False, "zeroline": False, "range": [-0.1, last + 0.55], "fixedrange": True},
            **{"tickangle": 0, "tickfont": {"size": 12}},
        },
        "yaxis": {"visible": False, "range": [-0.04, 1.04], "fixedrange": True},
        "shapes": upright,
        "annotations": labels,
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "margin": {"l": 16, "r": 8, "t": 36, "b": 8},
    }


def parallel(swept: Swept, axes: Sequence[Axis]) -> Chart:
    """The parallel coordinates as a picture: every trial, the best on top, as the page's script draws them."""
    own = fifths(swept)
    traces = []
    for fifth, colour in ((None, NO_VALUE_COLOUR), *enumerate(FIFTHS)):
        x: list[float | None] = []
        y: list[float | None] = []
        for place in (place for place, found in enumerate(own) if found == fifth):
            for across, axis in enumerate(axes):
                at = axis.place(axis.values[place])
                moved = axis.breadth * jitter(swept.trials[place].number)
                x.append(None if at is None else across)
                y.append(None if at is None else at + moved)
            x.append(None)
            y.append(None)
        width = (2.0 if fifth == len(FIFTHS) - 1 else 1.2) * (0.5 if len(swept.trials) > MANY else 1.0)
        line = {"color": colour, "width": width}
        traces.append({"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "opacity": 0.75})
    title = "Trials as lines" + (f", orange: the best fifth by {swept.metric.name}" if swept.metric else "")
    return Chart(title, "", {"data": traces, "layout": parallel_layout(axes)}, (), ())


def against(swept: Swept, axis: Axis) -> Chart:
    """The metric against one parameter: a point a trial, crosses without a value, means where values are few."""
    measure = swept.measure
    assert measure is not None
    sound, lost = _places(swept, SOUND), _places(swept, ("diverged", "failed"))
    beyond = _beyond(swept, measure)
    traces = [
        _points(swept, axis, sound, [measure.values[place] for place in sound], "circle", POINT_COLOUR),
        _points(swept, axis, lost, [beyond] * len(lost), "x-thin", MEAN_COLOUR),
    ]
    # Plotly has no place for a diverged trial's missing height: the words say what the height means.
    traces[1]["hovertemplate"] = "trial %{customdata}: no value<extra></extra>"
    rows = _grouped(swept, axis)
    if axis.choices and axis.listed:
        means = [(axis.choices[place], mean) for place, (_, values, mean) in enumerate(rows) if values]
        traces.append(
            {
                **{
                    "type": "scatter",
                    "mode": "markers",
                    "name": "mean",
                    "hovertemplate": "mean %{y:.4g}<extra></extra>",
                },
                "x": [_x(axis, value) for value, _ in means],
                "y": [mean for _, mean in means],
                "marker": {"symbol": "diamond-open", "size": 13, "color": MEAN_COLOUR, "line": {"width": 2.5}},
            }
        )
    layout = {
        "xaxis": {"title": {"text": short(axis.name)}, **_x_ticks(axis)},
        "yaxis": {"title": {"text": short(measure.name)}, **({"type": "log"} if measure.scale == "log" else {})},
        "showlegend": False,
        "margin": {"l": 60, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    key = "a point a trial" + ("; diamonds: means" if axis.choices and axis.listed else "")
    key += "; crosses beyond the worst: diverged or failed" if lost else ""
    header = (axis.name, "trials", f"mean {measure.name} ± standard deviation", "best", "diverged", "failed")
    table = tuple(_group_row(swept, axis, label, places) for label, places in _groups(swept, axis))
    return Chart(f"{measure.name} against {axis.name}", key, {"data": traces, "layout": layout}, header, table)


def progress(swept: Swept, by: str) -> Chart:
    """The best value so far. by: `trial`, or `time`, which is the drivers' at work, or else the trials' added up."""
    measure = swept.measure
    assert measure is not None
    points, unit = best_so_far(swept, by)
    x = "trial" if by == "trial" else f"time, {unit}"
    traces = [
        {
            **{"type": "scatter", "mode": "markers", "name": "trials", "meta": {"filter": True}},
            "x": [point.x for point in points],
            "y": [point.value for point in points],
            "customdata": [swept.trials[point.place].number for point in points],
            "marker": {"size": 6, "color": POINT_COLOUR, "opacity": 0.45},
            "unselected": {"marker": {"opacity": 0.05}},
            "hovertemplate": f"trial %{{customdata}}: {short(measure.name)} %{{y:.4g}}<extra></extra>",
        },
        {
            **{"type": "scatter", "mode": "lines", "name": "best so far", "meta": {"best": swept_sign(swept)}},
            "x": [point.x for point in points],
            "y": [point.best for point in points],
            "line": {"shape": "hv", "color": MEAN_COLOUR, "width": 2},
            "hovertemplate": "best so far %{y:.4g}<extra></extra>",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": short(measure.name)}, **({"type": "log"} if measure.scale == "log" else {})},
        "showlegend": False,
        "margin": {"l": 60, "r": 12, "t": 8, "b": 48},
        "hovermode": "closest",
    }
    improved = [
        one for one, before in zip(points, [None, *points], strict=False) if not before or one.best != before.best
    ]
    rows = tuple((str(swept.trials[one.place].number), number(one.x), number(one.best)) for one in improved)
    header = ("trial", x if by == "time" else "trials before", f"best {measure.name}")
    return Chart(
        f"Best {measure.name} against {by}", "line: best so far", {"data": traces, "layout": layout}, header, rows
    )


def best_so_far(swept: Swept, by: str) -> tuple[list[Point], str]:
    """Trials that have a value, in order of number or of their end, and the unit of x."""
    places = _places(swept, SOUND)
    unit, scale = "", 1.0
    if by == "trial":
        at = {place: float(swept.trials[place].number) for place in places}
    else:
        at, whole = _times(swept)
        longest = max(at.values(), default=0.0)
        unit, scale = (
            ("hours", 3600.0) if longest >= 7200 else ("minutes", 60.0) if longest >= 180 else ("seconds", 1.0)
        )
        unit += "" if whole else " of trials, added up"
    sign, best, points = swept_sign(swept), None, []
    for place in sorted(places, key=lambda place: (at[place], place)):
        value = swept.values[swept.trials[place].number]
        best = value if best is None or sign * value > sign * best else best
        points.append(Point(place, at[place] / scale, value, best))
    return points, unit


def _points(
    swept: Swept, axis: Axis, places: Sequence[int], heights: Sequence[Any], symbol: str, colour: str
) -> dict[str, Any]:
    chosen = [(place, height) for place, height in zip(places, heights, strict=True) if axis.values[place] is not None]
    name = short(swept.metric.name if swept.metric else "")
    marker: dict[str, Any] = {"size": 7, "symbol": symbol, "color": colour, "opacity": 0.65}
    if symbol == "x-thin":
        marker["line"] = {"color": colour, "width": 1.5}
    return {
        **{"type": "scatter", "mode": "markers", "meta": {"filter": True}, "marker": marker},
        "x": [_x(axis, axis.values[place], swept.trials[place].number) for place, _ in chosen],
        "y": [height for _, height in chosen],
        "customdata": [swept.trials[place].number for place, _ in chosen],
        "unselected": {"marker": {"opacity": 0.05}},
        "hovertemplate": f"trial %{{customdata}}: {name} %{{y:.4g}}<extra></extra>",
    }


def jitter(trial: int) -> float:
    """Between -0.5 and 0.5, the same for a trial each time: so that equal values do not hide one another."""
    return (trial * 0.6180339887) % 1 - 0.5


def _x(axis: Axis, value: Any, trial: int | None = None) -> float:
    if axis.scale != "category":
        return float(value)
    return axis.labels.index(value) + (0.0 if trial is None else 0.5 * jitter(trial))


def _x_ticks(axis: Axis) -> dict[str, Any]:
    if axis.scale != "category":
        kind = {"type": "log"} if axis.scale == "log" else {}
        if axis.listed and axis.choices:
            marked = _apart(axis)
            return kind | {"tickvals": marked, "ticktext": [short(axis.shown(one)) for one in marked]}
        return kind | ({"exponentformat": "power"} if kind else {}) | ({"dtick": 1} if _decades(axis) else {})
    step = -(-len(axis.labels) // MOST_TICKS)
    shown = list(enumerate(axis.labels))[::step]
    return {
        **{"tickvals": [place for place, _ in shown], "ticktext": [short(label) for _, label in shown]},
        "range": [-0.6, len(axis.labels) - 0.4],
    }


def _apart(axis: Axis) -> list[float]:
    """Its values, but for those whose labels would lie upon one another."""
    kept: list[float] = []
    for value in axis.choices:
        place, before = axis.place(value), axis.place(kept[-1]) if kept else None
        if place is not None and (before is None or place - before >= LEAST_APART):
            kept.append(value)
    return kept


def _decades(axis: Axis) -> bool:
    return axis.scale == "log" and axis.high / axis.low > 30


def _groups(swept: Swept, axis: Axis) -> list[tuple[str, list[int]]]:
    """Places of the ended trials by value where values are few, else by quarters in order."""
    ended = [p for p in _places(swept, (*JUDGED, "failed")) if axis.values[p] is not None]
    if axis.choices:
        return [(axis.shown(value), [p for p in ended if axis.values[p] == value]) for value in axis.choices]
    key = axis.labels.index if axis.scale == "category" else float
    ended.sort(key=lambda place: key(axis.values[place]))
    cuts = [len(ended) * quarter // 4 for quarter in range(5)]
    parts = [ended[start:end] for start, end in pairwise(cuts) if end > start]
    shown = [(axis.shown(axis.values[part[0]]), axis.shown(axis.values[part[-1]])) for part in parts]
    return [(f"{low} to {high}", part) for (low, high), part in zip(shown, parts, strict=True)]


def _grouped(swept: Swept, axis: Axis) -> list[tuple[str, list[float], float]]:
    found = []
    for label, places in _groups(swept, axis):
        values = [swept.values[n] for n in (swept.trials[place].number for place in places) if n in swept.values]
        found.append((label, values, statistics.fmean(values) if values else 0.0))
    return found


def _group_row(swept: Swept, axis: Axis, label: str, places: Sequence[int]) -> tuple[str, ...]:
    values = [swept.values[n] for n in (swept.trials[place].number for place in places) if n in swept.values]
    spread = f" ± {number(statistics.stdev(values))}" if len(values) > 1 else ""
    mean = f"{number(statistics.fmean(values))}{spread}" if values else "–"
    best = swept.metric.best(values) if swept.metric else None
    statuses = [swept.trials[place].status for place in places]
    counts = (str(statuses.count(status)) for status in ("diverged", "failed"))
    return (label, str(len(places)), mean, "–" if best is None else number(best), *counts)


def _times(swept: Swept) -> tuple[dict[int, float], bool]:
    """When each trial ended, by place, in seconds; and whether that is the drivers' clock, not trials' added up."""
    if all(trial.at is not None for trial in swept.trials):
        return {place: trial.at or 0.0 for place, trial in enumerate(swept.trials)}, True
    found, total = {}, 0.0
    for place, trial in enumerate(swept.trials):
        total += trial.seconds
        found[place] = total
    return found, False


def _beyond(swept: Swept, measure: Axis) -> float:
    down = swept_sign(swept) > 0
    if measure.scale == "log":
        step = float((measure.high / measure.low) ** BEYOND)
        return measure.low / step if down else measure.high * step
    step = BEYOND * (measure.high - measure.low)
    return measure.low - step if down else measure.high + step


def _places(swept: Swept, statuses: Iterable[str]) -> list[int]:
    """Of trials of these statuses, those that should have a value and have none left out."""
    statuses = set(statuses)
    return [
        place
        for place, trial in enumerate(swept.trials)
        if trial.status in statuses and (trial.status not in SOUND or trial.number in swept.values)
    ]


def data(swept: Swept, axes: Sequence[Axis]) -> Mapping[str, Any]:
    """What the page's script filters by: each axis's places and choices, each trial's status, value and fifth."""
    return {
        "axes": [
            {
                "name": axis.name,
                "places": [None if (p := axis.place(value)) is None else round(p, 5) for value in axis.values],
                "choice": [None if value is None else axis.choices.index(value) for value in axis.values]
                if axis.choices
                else None,
                "breadth": round(axis.breadth, 5),
                "log": axis.scale == "log",
                "low": axis.low,
                "high": axis.high,
            }
            for axis in axes
        ],
        "numbers": [trial.number for trial in swept.trials],
        "statuses": [trial.status for trial in swept.trials],
        "fifths": fifths(swept),
        "colours": FIFTHS,
        "grey": NO_VALUE_COLOUR,
        "thin": len(swept.trials) > MANY,
    }
