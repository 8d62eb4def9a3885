"""Each layer's best setting on a ladder of learning rates, and the range of them that it can use; see trials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from evonorm.lab.analysis import trials
from evonorm.lab.analysis.findings import Panel
from evonorm.lab.analysis.trials import Trials

OPTIMIZERS = ("sgd", "adam")
PIXELS = ("raw", "standardized")
# A learning rate is usable where the layer keeps so much of what it gains over chance at its best, and none diverges.
USABLE = 0.9
OPTIMIZER_NAMES = {"sgd": "SGD", "adam": "Adam"}


class Setting(NamedTuple):
    """Where a layer stands, but for the seed."""

    optimizer: str
    pixels: str
    learning_rate: float

    def __str__(self) -> str:
        return f"{self.optimizer} at {self.learning_rate:g}, {self.pixels} pixels"


Point = trials.Point[Setting]
Ladder = Trials[Setting]


@dataclass(frozen=True)
class Range:
    """Usable learning rates around a layer's best one; open where the ladder ends before they do."""

    low: float
    high: float
    open_below: bool
    open_above: bool

    @property
    def decades(self) -> float:
        """How wide it is, between rungs."""
        return math.log10(self.high / self.low)


def layers(ladder: Ladder) -> list[str]:
    """The best one first."""
    return sorted(ladder.points, key=lambda layer: ladder.rank(ladder.best(layer)))


def panels(ladder: Ladder) -> list[tuple[str, str]]:
    """The optimizers and kinds of pixels that were run."""
    there = {(p.place.optimizer, p.place.pixels) for points in ladder.points.values() for p in points}
    return [(optimizer, pixels) for optimizer in OPTIMIZERS for pixels in PIXELS if (optimizer, pixels) in there]


def panel(ladder: Ladder, layer: str, optimizer: str, pixels: str) -> list[Point]:
    """A layer's points with one optimizer and one kind of pixels, by learning rate."""
    chosen = (p for p in ladder.points[layer] if (p.place.optimizer, p.place.pixels) == (optimizer, pixels))
    return sorted(chosen, key=lambda point: point.place.learning_rate)


def usable(ladder: Ladder, layer: str, optimizer: str, pixels: str) -> Range | None:
    """The rungs about the best one that are as good but for a tenth; None where the best is no better than chance.

    The best one may be anywhere on the ladder; rungs count as long as none between is worse or diverged.
    """
    points = panel(ladder, layer, optimizer, pixels)
    best = min(range(len(points)), key=lambda place: ladder.rank(points[place]))
    gain = ladder.gain(points[best].mean)
    least = 2 * ladder.counting_error(ladder.lost) if ladder.metric.counted else 0.0
    if gain <= least or points[best].diverged:
        return None
    fits = [not point.diverged and ladder.gain(point.mean) >= USABLE * gain for point in points]
    low = high = best
    while low > 0 and fits[low - 1]:
        low -= 1
    while high < len(points) - 1 and fits[high + 1]:
        high += 1
    rates = [point.place.learning_rate for point in points]
    return Range(rates[low], rates[high], low == 0, high == len(points) - 1)


def charts(ladder: Ladder) -> list[Panel]:
    """The goal against learning rate, one for each optimizer and kind of pixels."""
    return [
        Panel(
            f"{OPTIMIZER_NAMES[optimizer]}, {pixels} pixels",
            "learning rate",
            {
                layer: [(point.place.learning_rate, point) for point in panel(ladder, layer, optimizer, pixels)]
                for layer in layers(ladder)
            },
        )
        for optimizer, pixels in panels(ladder)
    ]
