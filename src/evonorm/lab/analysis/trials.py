"""Runs of several layers at the same places: what an experiment's file lists, read from the runs' folders.

A place is whatever the experiment varies but layer and seed. A run's value is the goal of its task in validation after
the last epoch; one that diverged counts as chance or, where a guess has no value, as the worst run. Layers are compared
over the places and seeds that every one of them has run, so that each has had the same number of trials.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from evonorm.lab.analysis import outcomes
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record, Unread
from evonorm.lab.training import tasks
from evonorm.lab.training.tasks import Metric

CONFIDENCE = 0.95
PlaceT = TypeVar("PlaceT", bound=Hashable)


@dataclass(frozen=True)
class Point(Generic[PlaceT]):
    """A layer at a place: the value of each seed's run of a metric, and how many of them diverged."""

    place: PlaceT
    values: tuple[float, ...]
    diverged: int
    metric: Metric

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        text = self.metric.figure(self.mean)
        if len(self.values) > 1:
            low, high = self.metric.figure(min(self.values)), self.metric.figure(max(self.values))
            text += f" ({low} to {high}, n={len(self.values)})"
        return text + (f", {self.diverged} diverged" if self.diverged else "")


@dataclass(frozen=True)
class Gap:
    """One mean minus another, and half the width of its confidence interval, infinite where nothing tells the noise.

    better: whether the first is clearly the better one; worse: clearly the worse one.
    """

    value: float
    error: float
    metric: Metric

    @property
    def better(self) -> bool:
        """Whether the first is better, and the interval leaves out zero."""
        return self.metric.above(self.value, 0.0) and abs(self.value) > self.error

    @property
    def worse(self) -> bool:
        """Whether the second is better, and the interval leaves out zero."""
        return self.metric.above(0.0, self.value) and abs(self.value) > self.error

    def __str__(self) -> str:
        error = "unknown" if math.isinf(self.error) else self.metric.figure(self.error)
        return f"{self.plain('+')} ± {error}"

    def plain(self, sign: str = "") -> str:
        """Without the interval. sign: `+` for one at either kind of number."""
        value = self.metric.scale * self.value
        return f"{value:{sign}z.1f}" if self.metric.unit == "%" else f"{value:{sign}z.4g}"


@dataclass(frozen=True)
class Trials(Generic[PlaceT]):
    """points: a layer's places that every layer has run, with every seed that every layer has run there.

    metric: what the values are of. lost: what a run that diverged counts as; chance, or the worst where that is NaN.
    missing: planned runs that have not ended, or that another layer lacks. others: files of the same kind beside it.
    unread: planned runs that cannot be read; they are missing too.
    lane: what the runs are compared by; its values are called layers here, as they nearly always are. axes: the names
    of what a place is made of, where they are known.
    """

    budget: Mapping[str, Any]
    dataset: Mapping[str, Any]
    points: Mapping[str, tuple[Point[PlaceT], ...]]
    metric: Metric
    chance: float
    lost: float
    records: tuple[Record, ...]
    missing: int
    name: str
    others: tuple[str, ...]
    updated: str = ""
    lane: str = "layer"
    axes: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def places(self) -> list[PlaceT]:
        """Those that every layer has run, in the order of the first layer's."""
        return list(dict.fromkeys(point.place for points in self.points.values() for point in points))

    @property
    def lost_as(self) -> str:
        """What a run that diverged counts as, in a word or two."""
        return "the worst run" if math.isnan(self.chance) else "chance"

    @property
    def points_of(self) -> str:
        """What differences are counted in: "points" of percent."""
        return "points" if self.metric.unit == "%" else self.metric.unit or self.metric.words

    @property
    def each(self) -> int:
        """Runs of each layer that count."""
        return sum(len(point.values) for point in next(iter(self.points.values()), ()))

    @property
    def seeds(self) -> list[int]:
        """Of the runs that are there."""
        return sorted({int(record.config["seeds"]["model"]) for record in self.records})

    def best(self, layer: str, where: Callable[[PlaceT], bool] = lambda place: True) -> Point[PlaceT]:
        """A layer's best place of those where `where` holds."""
        return min((p for p in self.points[layer] if where(p.place)), key=self.rank)

    def rank(self, point: Point[PlaceT]) -> float:
        """A key that sorts the best first."""
        return self.metric.order(point.mean)

    def gain(self, value: float) -> float:
        """By how much a value is better than that of a run that is lost; negative where it is worse."""
        return self.metric.order(self.lost) - self.metric.order(value)

    def at(self, layer: str, place: PlaceT) -> Point[PlaceT] | None:
        """A layer at one place."""
        return next((point for point in self.points[layer] if point.place == place), None)

    def spread(self) -> tuple[float, int]:
        """Standard deviation of a run about its place's mean, pooled over layers and places; degrees of freedom.

        Places where a run diverged are left out: chance says nothing of noise. With one seed it is the error of
        counting on so many images, infinite where the metric counts none, and there are no degrees of freedom.
        """
        sound = [p for points in self.points.values() for p in points if not p.diverged]
        freedom = sum(len(point.values) - 1 for point in sound)
        if freedom == 0:
            return self.counting_error(min(sound, key=self.rank).mean if sound else self.lost), 0
        squares = sum((value - point.mean) ** 2 for point in sound for value in point.values)
        return math.sqrt(squares / freedom), freedom

    def gap(self, one: Point[PlaceT], other: Point[PlaceT]) -> Gap:
        """The difference of two means."""
        from scipy.stats import norm, t

        spread, freedom = self.spread()
        quantile = (1 + CONFIDENCE) / 2
        factor = float(t.ppf(quantile, freedom) if freedom else norm.ppf(quantile))
        error = factor * spread * math.sqrt(1 / len(one.values) + 1 / len(other.values))
        return Gap(one.mean - other.mean, error, self.metric)

    def noise(self) -> str:
        """The spread in words."""
        spread, freedom = self.spread()
        if math.isinf(spread):
            return "unknown with one seed, so that nothing can be told apart"
        told = f"{self.metric.figure(spread)} {self.points_of}"
        if not freedom:
            return f"{told}, the error of counting alone: with one seed nothing else can be known"
        return (
            f"{told}, the standard deviation of a run about the mean of its seeds, pooled over "
            f"{freedom} degrees of freedom"
        )

    def counting_error(self, share: float) -> float:
        """Standard error of a share counted on the validation images; infinite where the metric is none."""
        if not self.metric.counted:
            return math.inf
        return math.sqrt(share * (1 - share) / max(1, int(self.dataset["test_images"])))


def listings(folder: Path, pattern: str) -> list[str]:
    """The experiment's files in a folder, the newest first."""
    files = {path.name: run_files.read_json(path) for path in folder.glob(pattern)}
    return sorted(files, key=lambda name: str(files[name].get("updated", "")), reverse=True)


def read(
    folder: Path,
    pattern: str,
    place_of: Callable[[Mapping[str, Any]], PlaceT],
    name: str | None = None,
    *,
    lane: str = "layer",
    axes: Sequence[str] = (),
) -> Trials[PlaceT]:
    """The experiment in the file called `name`, or the newest. place_of: an entry's place. lane: what is compared.

    Raises UserError if the file cannot be read, or no place has ended for every layer.
    """
    names = listings(folder, pattern)
    if not names or (name is not None and name not in names):
        raise UserError(f"{folder} holds no {name or pattern}; it holds {', '.join(names) or 'none'}")
    chosen = name or names[0]
    content = run_files.read_json(folder / chosen)
    try:
        entries = [(str(e[lane]), (place_of(e), int(e["seed"])), str(e["run"])) for e in content["entries"]]
        budget, dataset = dict(content["budget"]), dict(content["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / chosen} is not an experiment that can be read: {error!r}; delete it") from error
    runs = sorted({run for _, _, run in entries if run_files.is_run(folder / run)})
    there = run_files.read_these(folder / run for run in runs)
    found = {record.name: record for record in there.records}
    values: dict[str, dict[tuple[PlaceT, int], float | None]] = {layer: {} for layer, _, _ in entries}
    for layer, place, run in entries:
        if run in found and found[run].status in ("finished", "diverged"):
            values[layer][place] = _value(found[run])
    shared = set.intersection(*(set(of_layer) for of_layer in values.values())) if values else set()
    if not shared:
        left_out = "".join(f"; {one}" for one in there.unread)
        what = f"nothing in {folder / chosen} has ended for every layer yet"
        raise UserError(f"{what}; repeat `evonorm reproduce`{left_out}")
    task, *others = {tasks.of(record.config).name: tasks.of(record.config) for record in found.values()}.values()
    if others:
        several = ", ".join(one.name for one in (task, *others))
        raise UserError(f"{folder / chosen} has runs of several tasks, which cannot be compared: {several}")
    chance = task.chance(dataset)
    measured = [value for of_layer in values.values() for value in of_layer.values() if value is not None]
    lost = max(measured, key=task.goal.order, default=chance) if math.isnan(chance) else chance
    if math.isnan(lost):
        raise UserError(f"nothing in {folder / chosen} can be compared: every run of it diverged")
    return Trials(
        budget,
        dataset,
        {layer: tuple(_points(of_layer, shared, task.goal, lost)) for layer, of_layer in sorted(values.items())},
        task.goal,
        chance,
        lost,
        tuple(found.values()),
        len(entries) - len(shared) * len(values),
        chosen,
        tuple(other for other in names if other != chosen),
        str(content.get("updated", "")),
        lane,
        tuple(axes),
        there.unread,
    )


def _value(record: Record) -> float | None:
    """None for a run that diverged, in training or in its last validation."""
    lost = record.status != "finished" or outcomes.last(record).get(tasks.LOSS.key(), 0.0) is None
    return None if lost else outcomes.reached(record)


def _points(
    values: Mapping[tuple[PlaceT, int], float | None], shared: Iterable[tuple[PlaceT, int]], metric: Metric, lost: float
) -> Iterable[Point[PlaceT]]:
    by_place: dict[PlaceT, list[float | None]] = defaultdict(list)
    for place, seed in sorted(shared, key=lambda one: (str(one[0]), one[1])):
        by_place[place].append(values[place, seed])
    for place, of_seeds in by_place.items():
        kept = tuple(lost if value is None else value for value in of_seeds)
        yield Point(place, kept, sum(value is None for value in of_seeds), metric)
