"""What the learning-rate experiment found, by rule: each layer's best setting, its usable range, and who wins.

A run's value is its validation accuracy after the last epoch; one that diverged counts as chance. A setting (optimizer,
pixels, learning rate) has the mean over its seeds. Layers are compared over the places that every one of them has run,
so that each has had the same number of trials.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evonorm.lab import records
from evonorm.lab.errors import UserError
from evonorm.lab.ladder import OPTIMIZERS, PIXELS
from evonorm.lab.records import Record

LISTINGS = "learning-rate-*.json"
# A learning rate is usable where the layer keeps so much of what it gains over chance at its best, and none diverges.
USABLE = 0.9
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Setting:
    """Where a layer stands, but for the seed."""

    optimizer: str
    pixels: str
    learning_rate: float

    def __str__(self) -> str:
        return f"{self.optimizer} at {self.learning_rate:g}, {self.pixels} pixels"


@dataclass(frozen=True)
class Point:
    """A layer at a setting: the value of each seed's run, and how many of them diverged."""

    setting: Setting
    values: tuple[float, ...]
    diverged: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)


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


@dataclass(frozen=True)
class Ladder:
    """points: a layer's settings that every layer has run, with every seed that every layer has run there.

    missing: planned runs that have not ended, or that another layer lacks.
    """

    budget: Mapping[str, Any]
    dataset: Mapping[str, Any]
    points: Mapping[str, tuple[Point, ...]]
    records: tuple[Record, ...]
    missing: int
    name: str
    others: tuple[str, ...]

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / max(1, len(self.dataset["classes"]))

    @property
    def layers(self) -> list[str]:
        """The best one first."""
        return sorted(self.points, key=lambda layer: -self.best(layer).mean)

    @property
    def trials(self) -> int:
        """Runs of each layer that count."""
        return sum(len(point.values) for point in next(iter(self.points.values()), ()))

    def panel(self, layer: str, optimizer: str, pixels: str) -> list[Point]:
        """A layer's points with one optimizer and one kind of pixels, by learning rate."""
        chosen = (p for p in self.points[layer] if (p.setting.optimizer, p.setting.pixels) == (optimizer, pixels))
        return sorted(chosen, key=lambda point: point.setting.learning_rate)

    def panels(self) -> list[tuple[str, str]]:
        """The optimizers and kinds of pixels that were run."""
        there = {(p.setting.optimizer, p.setting.pixels) for points in self.points.values() for p in points}
        return [(optimizer, pixels) for optimizer in OPTIMIZERS for pixels in PIXELS if (optimizer, pixels) in there]

    def best(self, layer: str, optimizer: str | None = None, pixels: str | None = None) -> Point:
        """A layer's best setting, of all or of those with this optimizer and these pixels."""
        chosen = (
            point
            for point in self.points[layer]
            if optimizer in (None, point.setting.optimizer) and pixels in (None, point.setting.pixels)
        )
        return max(chosen, key=lambda point: point.mean)

    def at(self, layer: str, setting: Setting) -> Point | None:
        """A layer at one setting."""
        return next((point for point in self.points[layer] if point.setting == setting), None)

    def usable(self, layer: str, optimizer: str, pixels: str) -> Range | None:
        """The rungs about the best one that are as good but for a tenth; None where the best is no better than chance.

        The best one may be anywhere on the ladder; rungs count as long as none between is worse or diverged.
        """
        panel = self.panel(layer, optimizer, pixels)
        best = max(range(len(panel)), key=lambda place: panel[place].mean)
        gain = panel[best].mean - self.chance
        if gain <= 2 * self._counting_error(self.chance) or panel[best].diverged:
            return None
        fits = [not point.diverged and point.mean - self.chance >= USABLE * gain for point in panel]
        low = high = best
        while low > 0 and fits[low - 1]:
            low -= 1
        while high < len(panel) - 1 and fits[high + 1]:
            high += 1
        rates = [point.setting.learning_rate for point in panel]
        return Range(rates[low], rates[high], low == 0, high == len(panel) - 1)

    def spread(self) -> tuple[float, int]:
        """Standard deviation of a run about its setting's mean, pooled over layers and settings; degrees of freedom.

        Settings where a run diverged are left out: chance says nothing of noise. With one seed it is the error of
        counting on so many images, and there are no degrees of freedom.
        """
        sound = [p for points in self.points.values() for p in points if not p.diverged]
        freedom = sum(len(point.values) - 1 for point in sound)
        if freedom == 0:
            best = max((point.mean for point in sound), default=self.chance)
            return self._counting_error(best), 0
        squares = sum((value - point.mean) ** 2 for point in sound for value in point.values)
        return math.sqrt(squares / freedom), freedom

    def uncertainty(self, one: Point, other: Point) -> float:
        """Half the width of the confidence interval of the difference of two settings' means."""
        from scipy.stats import norm, t

        spread, freedom = self.spread()
        quantile = (1 + CONFIDENCE) / 2
        factor = float(t.ppf(quantile, freedom) if freedom else norm.ppf(quantile))
        return factor * spread * math.sqrt(1 / len(one.values) + 1 / len(other.values))

    def _counting_error(self, accuracy: float) -> float:
        return math.sqrt(accuracy * (1 - accuracy) / max(1, int(self.dataset["test_images"])))


def listings(folder: Path) -> list[str]:
    """The experiment's files in a folder, the newest first."""
    files = {path.name: records.read_json(path) for path in folder.glob(LISTINGS)}
    return sorted(files, key=lambda name: str(files[name].get("updated", "")), reverse=True)


def read(folder: Path, name: str | None = None) -> Ladder:
    """The experiment in the file called `name`, or the newest. Raises UserError if it cannot be read or has no runs."""
    names = listings(folder)
    if not names or (name is not None and name not in names):
        raise UserError(f"{folder} holds no {name or LISTINGS}; it holds {', '.join(names) or 'none'}")
    chosen = name or names[0]
    content = records.read_json(folder / chosen)
    try:
        entries = [
            (str(e["layer"]), Setting(str(e["optimizer"]), str(e["pixels"]), float(e["learning_rate"])), int(e["seed"]))
            for e in content["entries"]
        ]
        runs = [str(entry["run"]) for entry in content["entries"]]
        budget, dataset = dict(content["budget"]), dict(content["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / chosen} is not an experiment that can be read: {error!r}; delete it") from error
    found = {run: records.read(folder / run) for run in runs if (folder / run / "config.json").exists()}
    values: dict[str, dict[tuple[Setting, int], float | None]] = defaultdict(dict)
    for (layer, setting, seed), run in zip(entries, runs, strict=True):
        record = found.get(run)
        if record is not None and record.status in ("finished", "diverged"):
            values[layer][setting, seed] = _value(record)
    layers = sorted({layer for layer, _, _ in entries})
    shared = set.intersection(*(set(values[layer]) for layer in layers)) if layers else set()
    if not shared:
        raise UserError(f"no setting in {folder / chosen} has ended for every layer yet; repeat `evonorm reproduce`")
    chance = 1 / max(1, len(dataset["classes"]))
    return Ladder(
        budget,
        dataset,
        {layer: tuple(_points(values[layer], shared, chance)) for layer in layers},
        tuple(found.values()),
        len(entries) - len(shared) * len(layers),
        chosen,
        tuple(other for other in names if other != chosen),
    )


def _value(record: Record) -> float | None:
    """None for a run that diverged, in training or in its last validation."""
    last = record.metrics[-1] if record.metrics and record.status == "finished" else {}
    accuracy, loss = last.get("val_accuracy"), last.get("val_loss")
    return None if accuracy is None or loss is None else float(accuracy)


def _points(
    values: Mapping[tuple[Setting, int], float | None], shared: Iterable[tuple[Setting, int]], chance: float
) -> Iterable[Point]:
    by_setting: dict[Setting, list[float | None]] = defaultdict(list)
    for setting, seed in sorted(shared, key=lambda place: (str(place[0]), place[1])):
        by_setting[setting].append(values[setting, seed])
    for setting, of_seeds in by_setting.items():
        kept: Sequence[float] = [chance if value is None else value for value in of_seeds]
        yield Point(setting, tuple(kept), sum(value is None for value in of_seeds))
