"""Layers compared place by place: what any experiment's runs say, whatever it varies beside the layer."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from evonorm.lab.analysis.findings import Analysis, Finding, Panel, Table, listed
from evonorm.lab.analysis.trials import CONFIDENCE, Trials
from evonorm.lab.training.tasks import Metric

APART = 0.12  # between the layers of one place, so that none hides another


def compared(trials: Trials[Any]) -> Analysis:
    """The best layer at each place, a table, a chart."""
    places, what = trials.places, ", ".join(trials.axes) or "place"

    def at(place: Hashable) -> str:
        values = place if type(place) is tuple else (place,)
        told = ", ".join(f"{name} {value}" for name, value in zip(trials.axes, values, strict=True))
        return f" at {told}" if told else ""

    return Analysis(
        [best_at(trials, place, f"Which {trials.lane} is best{at(place)}?") for place in places],
        [goal_table(trials, what, places)],
        [panel(trials, places, what)],
        method(trials),
    )


def best_at(trials: Trials[Any], place: Hashable, question: str) -> Finding:
    """The best layer at one place, or those that cannot be told from it."""
    at = {layer: point for layer in trials.points if (point := trials.at(layer, place)) is not None}
    first, *others = sorted(at, key=lambda layer: trials.rank(at[layer]))
    level = [one for one in others if not trials.gap(at[first], at[one]).better]
    told = "; ".join(f"{layer} {at[layer]} {trials.metric.unit}".rstrip() for layer in (first, *others))
    return Finding(question, no_winner([first, *level]) if level else first, f"{told}.")


def no_winner(level: Sequence[str]) -> str:
    """An answer where the best of them is not known."""
    return f"no winner: {listed(level)} cannot be told apart"


def goal_table(trials: Trials[Any], what: str, places: Sequence[Hashable]) -> Table:
    """A row a place, a column a layer."""
    rows = [(place_name(place), *(str(trials.at(layer, place)) for layer in trials.points)) for place in places]
    header = (what, *trials.points)
    return Table(goal_caption(trials, f"{what} and {trials.lane}"), header, rows, range(1, len(header)))


def goal_caption(trials: Trials[Any], by: str) -> str:
    """Of a table of every place's value."""
    metric = trials.metric
    unit = {"%": ", percent", "": ""}.get(metric.unit, f", {metric.unit}")
    return f"Validation {metric.words} by {by}{unit}: mean over seeds, from the {_ends(metric)} of them"


def _ends(metric: Metric) -> str:
    return "worst to the best" if metric.better == "higher" else "lowest to the highest"


def panel(trials: Trials[Any], places: Sequence[Hashable], what: str) -> Panel:
    """The goal by place, side by side."""
    middle = (len(trials.points) - 1) / 2
    return Panel(
        f"{trials.metric.title} by {what}",
        what,
        {
            layer: [(places.index(point.place) + APART * (number - middle), point) for point in points]
            for number, (layer, points) in enumerate(trials.points.items())
        },
        names=[place_name(place) for place in places],
    )


def method(trials: Trials[Any], first: str = "") -> str:
    """How the numbers were come by; first: what was equal and what was not."""
    return (
        f"{first}{' ' if first else ''}Value: validation {trials.metric.words} after the last epoch; a run that "
        f"diverged counts as {lost(trials)}. Noise: {trials.noise()}; intervals are of {100 * CONFIDENCE:.0f} %."
    )


def lost(trials: Trials[Any]) -> str:
    """What a run that diverged counts as, with its value."""
    if trials.metric.unit == "%":
        return f"{trials.lost_as} ({trials.metric.scale * trials.lost:.0f} %)"
    return f"{trials.lost_as} ({trials.metric.said(trials.lost)})"


def place_name(place: Hashable) -> str:
    """A place in words."""
    return ", ".join(map(str, place)) or "all" if type(place) is tuple else str(place)
