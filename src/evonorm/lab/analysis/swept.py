"""What a sweep's folder holds, arranged for its page: axes, values, and what each trial came to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.records.run_files import flat
from evonorm.lab.sweep.journal import SWEEP, Trial, read_trials
from evonorm.lab.sweep.schema import Metric
from evonorm.lab.sweep.suggest import imputed

Scale = Literal["linear", "log", "category"]

# Listed values that span this much are spaced by ratio, as a log-uniform parameter's are.
LOG_RATIO = 100
# So many distinct values and no more are chosen one by one; beyond, by a range.
FEW = 12
MOST_BREADTH = 0.05
# Values beyond are taken for this: their squares overflow, and nothing is learned from how far beyond.
LARGEST = 1e150
# Statuses whose value stands for what the parameters are worth.
SOUND = ("finished", "pruned")
JUDGED = (*SOUND, "diverged")


@dataclass(frozen=True)
class Axis:
    """A parameter that varies, or the metric. values: a trial's, None where it has none; numbers, or labels.

    labels: of a category axis, in order. low, high: of a number's; never equal. listed: whether its values are those
    of a list, or such that trials share them.
    """

    name: str
    scale: Scale
    values: tuple[Any, ...]
    labels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    listed: bool = True

    @cached_property
    def choices(self) -> tuple[Any, ...]:
        """Its distinct values in order if they are few, else empty."""
        if self.scale == "category":
            return self.labels
        distinct = sorted({value for value in self.values if value is not None})
        return tuple(distinct) if len(distinct) <= FEW else ()

    @cached_property
    def breadth(self) -> float:
        """How broadly, of the axis, the lines through one value are spread to be seen; 0 where values are many."""
        places = [place for value in self.choices if (place := self.place(value)) is not None]
        if not places:
            return 0.0
        return min(MOST_BREADTH, 0.4 * min((b - a for a, b in pairwise(places)), default=1.0))

    def place(self, value: Any) -> float | None:
        """Where a value lies between the axis's ends, from 0 to 1."""
        if value is None:
            return None
        if self.scale == "category":
            return (self.labels.index(value) + 0.5) / len(self.labels)
        return _share(value, self.low, self.high, log=self.scale == "log")

    def shown(self, value: Any) -> str:
        """A value as the page writes it."""
        return "–" if value is None else value if isinstance(value, str) else number(value)


@dataclass(frozen=True)
class Swept:
    """A sweep: its trials by number, the parameters that vary as axes, those that do not, and what it is judged by.

    values: by number, of the trials that ended and did not fail; a diverged one has the worst of all, as W&B imputes
    and as the driver counts it.
    """

    content: Mapping[str, Any]
    trials: tuple[Trial, ...]
    axes: tuple[Axis, ...]
    constants: Mapping[str, Any]
    metric: Metric | None
    values: Mapping[int, float]

    @cached_property
    def measure(self) -> Axis | None:
        """The metric as an axis, over the trials that were judged and did not diverge; None without one."""
        if self.metric is None or not any(trial.status in SOUND for trial in self.trials):
            return None
        found = [self.values.get(trial.number) if trial.status in SOUND else None for trial in self.trials]
        return _number_axis(self.metric.name, found, log=_spread(found, LOG_RATIO))

    @property
    def judged(self) -> list[int]:
        """Places in `trials` of those that have a value to learn from."""
        return [place for place, trial in enumerate(self.trials) if trial.number in self.values]

    @property
    def runs(self) -> list[str]:
        """By `judged`: what each trial ran. Equal configurations share a run folder and so a value."""
        return [self.trials[place].run or f"trial {place}" for place in self.judged]

    @property
    def identity(self) -> bool:
        """Whether this lab trained networks without layers, in which groups mean nothing."""
        training = self.content.get("runs", {}).get("training")
        return training is not None and {**training, **self.constants}.get("layer") == "none"


def read(folder: Path) -> Swept:
    """The sweep in `folder`. Raises UserError if there is none, it cannot be read, or no trial was drawn yet."""
    trials = read_trials(folder)
    content = run_files.read_json(folder / SWEEP)
    if not trials:
        raise UserError(f"the sweep in {folder} has no trials yet; run `evonorm sweep` to make some")
    try:
        metric = None if content["sweep"]["metric"] is None else Metric(**content["sweep"]["metric"])
        specified = {".".join(one["path"]): one["distribution"] for one in content["sweep"]["parameters"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / SWEEP} is not a sweep that can be read: {error!r}") from error
    rows = [flat(trial.parameters) for trial in trials]
    names = list(dict.fromkeys([*specified, *(name for row in rows for name in row)]))
    axes, constants = [], {}
    for name in names:
        present = [row[name] for row in rows if name in row]
        if not present:
            continue
        if len(present) == len(rows) and len({_label(value) for value in present}) == 1:
            constants[name] = present[0]
        else:
            axes.append(_axis(name, [row.get(name) for row in rows], specified.get(name, {})))
    learned = [trial for trial in trials if trial.status in JUDGED]
    sound = any(trial.value is not None for trial in learned if trial.status in SOUND)
    values = imputed(learned, metric) if metric is not None and sound else {}
    values = {place: min(max(value, -LARGEST), LARGEST) for place, value in values.items()}
    return Swept(content, tuple(trials), tuple(axes), constants, metric, values)


def number(value: float) -> str:
    """A number in four digits, with a minus sign that is one."""
    text = f"{value:.4g}" if isinstance(value, float) or abs(value) >= 1e6 else str(value)
    return text.replace("-", "−") if text.startswith("-") else text


def _axis(name: str, values: Sequence[Any], distribution: Mapping[str, Any]) -> Axis:
    numbers = [_number(value) for value in values]
    if all((one is None) == (value is None) for one, value in zip(numbers, values, strict=True)):
        listed = bool(distribution.get("values"))
        log = "log" in str(distribution.get("kind", "")) or listed
        log = log and _spread(numbers, LOG_RATIO if listed else 1)
        return _number_axis(name, numbers, log=log, listed=listed)
    given = [_label(value) for value in distribution.get("values", ())]
    # A parameter of another branch, absent here, is null.
    labels = [_label(value) for value in values]
    present = set(labels)
    ordered = [label for label in dict.fromkeys(given) if label in present]
    ordered += sorted(present - set(ordered))
    return Axis(name, "category", tuple(labels), tuple(ordered))


def _number_axis(name: str, values: Sequence[float | None], *, log: bool, listed: bool = False) -> Axis:
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    if low == high:
        low, high, log = low - (abs(low) or 1), high + (abs(high) or 1), False
    listed = listed or len(set(known)) < len(known)
    return Axis(name, "log" if log else "linear", tuple(values), (), low, high, listed)


def _spread(values: Sequence[float | None], ratio: float) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and min(known) > 0 and max(known) / ratio >= min(known) and max(known) > min(known)


def _share(value: float, low: float, high: float, *, log: bool) -> float:
    if log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    # Halves, so that ends of opposite sign near the largest float do not overflow.
    return (value / 2 - low / 2) / (high / 2 - low / 2)


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
