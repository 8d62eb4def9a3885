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

POINT_COLOUR, MEAN_COLOUR = "#2f86c9", "#d55e00"
# A label longer than this is cut where a chart has no room for it; tables and controls have it whole.
MOST_LETTERS = 16
MOST_TICKS = 12
# Marks nearer than this share of the axis cannot both be read.
LEAST_APART = 0.04
# How far, of the metric's range, trials without a value stand beyond its worst.
BEYOND = 0.08


@dataclass(frozen=True)
class Point:
    """A trial in a best-so-far chart: place among the trials, where it stands, its value, the best until then."""

    place: int
    x: float
    value: float
    best: float


def short(text: str) -> str:
    """A label for a chart, cut to MOST_LETTERS."""
    return escaped(text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…")


def escaped(text: str) -> str:
    """Text with nothing in it that Plotly would take for markup, a formula or a template's field."""
    for character in "$%{}":
        text = text.replace(character, f"\0{ord(character)};")
    return html.escape(text).replace("\0", "&#")


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
    groups = _groups(swept, axis)
    if axis.choices and axis.listed:
        of_choices = zip(axis.choices, (_values(swept, places) for _, places in groups), strict=True)
        means = [(choice, statistics.fmean(values)) for choice, values in of_choices if values]
        traces.append(
            {
                **{"type": "scatter", "mode": "markers", "name": "mean"},
                "hovertemplate": "mean %{y:.4g}<extra></extra>",
                "x": [_x(axis, value) for value, _ in means],
                "y": [mean for _, mean in means],
                "marker": {"symbol": "diamond-open", "size": 13, "color": MEAN_COLOUR, "line": {"width": 2.5}},
            }
        )
    layout = plain_layout({"title": {"text": short(axis.name)}, **_x_ticks(axis)}, _upright(measure))
    key = "a point a trial" + ("; diamonds: means" if axis.choices and axis.listed else "")
    key += "; crosses beyond the worst: diverged or failed" if lost else ""
    header = (axis.name, "trials", f"mean {measure.name} ± standard deviation", "best", "diverged", "failed")
    table = tuple(_group_row(swept, label, places) for label, places in groups)
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
    layout = plain_layout({"title": {"text": x}, "rangemode": "tozero"}, _upright(measure))
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


def plain_layout(across: Mapping[str, Any], upright: Mapping[str, Any]) -> dict[str, Any]:
    """Of a chart without a legend."""
    margin = {"l": 60, "r": 12, "t": 8, "b": 48}
    return {"xaxis": across, "yaxis": upright, "showlegend": False, "margin": margin, "hovermode": "closest"}


def _upright(measure: Axis) -> dict[str, Any]:
    return {"title": {"text": short(measure.name)}, **({"type": "log"} if measure.scale == "log" else {})}


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


def _values(swept: Swept, places: Iterable[int]) -> list[float]:
    numbers = (swept.trials[place].number for place in places)
    return [swept.values[number] for number in numbers if number in swept.values]


def _group_row(swept: Swept, label: str, places: Sequence[int]) -> tuple[str, ...]:
    values = _values(swept, places)
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
