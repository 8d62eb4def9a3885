"""Runs of several layers at the same places: what an experiment's file lists, read from the runs' folders.

A place is whatever the experiment varies but layer and seed. A run's value is its validation accuracy after the last
epoch; one that diverged counts as chance. Layers are compared over the places and seeds that every one of them has run,
so that each has had the same number of trials.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import Record, Unread
from evonorm.lab.training import tasks

CONFIDENCE = 0.95
PlaceT = TypeVar("PlaceT", bound=Hashable)


@dataclass(frozen=True)
class Point(Generic[PlaceT]):
    """A layer at a place: the value of each seed's run, and how many of them diverged."""

    place: PlaceT
    values: tuple[float, ...]
    diverged: int

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        text = f"{100 * self.mean:.1f}"
        if len(self.values) > 1:
            text += f" ({100 * min(self.values):.1f} to {100 * max(self.values):.1f}, n={len(self.values)})"
        return text + (f", {self.diverged} diverged" if self.diverged else "")


@dataclass(frozen=True)
class Trials(Generic[PlaceT]):
    """points: a layer's places that every layer has run, with every seed that every layer has run there.

    missing: planned runs that have not ended, or that another layer lacks. others: files of the same kind beside it.
    unread: planned runs that cannot be read; they are missing too.
    lane: what the runs are compared by; its values are called layers here, as they nearly always are. axes: the names
    of what a place is made of, where they are known.
    """

    budget: Mapping[str, Any]
    dataset: Mapping[str, Any]
    points: Mapping[str, tuple[Point[PlaceT], ...]]
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
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / max(1, len(self.dataset["classes"]))

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
        return max((p for p in self.points[layer] if where(p.place)), key=lambda point: point.mean)

    def at(self, layer: str, place: PlaceT) -> Point[PlaceT] | None:
        """A layer at one place."""
        return next((point for point in self.points[layer] if point.place == place), None)

    def spread(self) -> tuple[float, int]:
        """Standard deviation of a run about its place's mean, pooled over layers and places; degrees of freedom.

        Places where a run diverged are left out: chance says nothing of noise. With one seed it is the error of
        counting on so many images, and there are no degrees of freedom.
        """
        sound = [p for points in self.points.values() for p in points if not p.diverged]
        freedom = sum(len(point.values) - 1 for point in sound)
        if freedom == 0:
            return self.counting_error(max((point.mean for point in sound), default=self.chance)), 0
        squares = sum((value - point.mean) ** 2 for point in sound for value in point.values)
        return math.sqrt(squares / freedom), freedom

    def uncertainty(self, one: Point[PlaceT], other: Point[PlaceT]) -> float:
        """Half the width of the confidence interval of the difference of two means."""
        from scipy.stats import norm, t

        spread, freedom = self.spread()
        quantile = (1 + CONFIDENCE) / 2
        factor = float(t.ppf(quantile, freedom) if freedom else norm.ppf(quantile))
        return factor * spread * math.sqrt(1 / len(one.values) + 1 / len(other.values))

    def noise(self) -> str:
        """The spread in words."""
        spread, freedom = self.spread()
        if not freedom:
            return f"{100 * spread:.1f} points, the error of counting alone: with one seed nothing else can be known"
        return (
            f"{100 * spread:.1f} points, the standard deviation of a run about the mean of its seeds, pooled over "
            f"{freedom} degrees of freedom"
        )

    def counting_error(self, accuracy: float) -> float:
        """Standard error of an accuracy counted on the validation images."""
        return math.sqrt(accuracy * (1 - accuracy) / max(1, int(self.dataset["test_images"])))


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
        lost = "".join(f"; {one}" for one in there.unread)
        raise UserError(f"nothing in {folder / chosen} has ended for every layer yet; repeat `evonorm reproduce`{lost}")
    chance = tasks.CLASSIFICATION.chance(dataset)
    return Trials(
        budget,
        dataset,
        {layer: tuple(_points(of_layer, shared, chance)) for layer, of_layer in sorted(values.items())},
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
    last = record.metrics[-1] if record.metrics and record.status == "finished" else {}
    accuracy, loss = last.get("val_accuracy"), last.get("val_loss")
    return None if accuracy is None or loss is None else float(accuracy)


def _points(
    values: Mapping[tuple[PlaceT, int], float | None], shared: Iterable[tuple[PlaceT, int]], chance: float
) -> Iterable[Point[PlaceT]]:
    by_place: dict[PlaceT, list[float | None]] = defaultdict(list)
    for place, seed in sorted(shared, key=lambda one: (str(one[0]), one[1])):
        by_place[place].append(values[place, seed])
    for place, of_seeds in by_place.items():
        kept: Sequence[float] = [chance if value is None else value for value in of_seeds]
        yield Point(place, tuple(kept), sum(value is None for value in of_seeds))
