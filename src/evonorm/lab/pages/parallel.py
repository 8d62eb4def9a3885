"""A sweep's trials as lines through parallel coordinates: for the page's script, which draws those that pass, and as a
picture of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evonorm.lab.analysis.readings import swept_sign
from evonorm.lab.analysis.swept import SOUND, Axis, Swept, number
from evonorm.lab.pages.charts import Chart
from evonorm.lab.pages.sweep_charts import MOST_TICKS, jitter, short

# From the worst fifth of the trials to the best: told apart on light and dark, and by lightness and hue in any vision.
FIFTHS = ("#7f9cba", "#8f88bd", "#b5729f", "#d1603f", "#f08a00")
NO_VALUE_COLOUR = "#8c8c8c"
AXIS_COLOUR = "#8c8c8c"
# More lines than this are drawn thin.
MANY = 200


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


def layout(axes: Sequence[Axis]) -> dict[str, Any]:
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


def chart(swept: Swept, axes: Sequence[Axis]) -> Chart:
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
    return Chart(title, "", {"data": traces, "layout": layout(axes)}, (), ())


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
