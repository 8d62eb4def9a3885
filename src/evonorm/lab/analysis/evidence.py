"""What can be measured on runs, with its noise: pure functions of the numbers, which the claims are judged by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from evonorm.lab.analysis import outcomes
from evonorm.lab.analysis.comparison import Cell, Summary, percent, summarize
from evonorm.lab.records.run_files import Record

# The report speaks of 60 epochs on 50,000 images. A third of its steps is taken as the least that says how such a
# training ends; below, what is seen is told, and the claim is left open.
REPORT_STEPS = 60 * 391
ENOUGH_STEPS = REPORT_STEPS / 3
# Running averages that reach back over a larger share of a run than this describe weights that are gone.
STALE_SHARE = 0.05
# Fluctuation is taken from the second half of a run, past the fall that all runs begin with; this many epochs there
# are the least that a standard deviation of changes means anything for.
FLUCTUATION_EPOCHS = 5
# A difference is called one if its two-sided interval at this level leaves out zero.
LEVEL = 0.95

_ONE_SEED = (
    "one seed: the error of counting alone, which leaves out the noise between runs (on CIFAR-10 the report's two runs "
    "of BN-ReLU with Adam ended 3.1 points apart)"
)


@dataclass(frozen=True)
class Difference:
    """Of two mean accuracies, with the half-width of its interval.

    noise: where that comes from. seeds: of which there are the fewer, or the pairs.
    """

    value: float
    margin: float
    noise: str
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return abs(self.value) > self.margin

    def __str__(self) -> str:
        return f"{points(self.value)} ± {100 * self.margin:.1f} points"


def difference(a: Cell, b: Cell, *, among: int = 1) -> Difference | None:
    """Last validation accuracy of a minus that of b; None where either has none.

    Seeds that finished in both are paired, if there are two or more: Student's interval of the differences. Else, with
    several seeds each, Welch's. With one, or where the seeds agree more closely than counting on a finite validation
    set allows: the binomial error of that counting. among: how many differences are looked at together; each interval
    is widened so that all hold at LEVEL (Bonferroni).
    """
    one, other = a.by_seed(), b.by_seed()
    shared = sorted(one.keys() & other.keys())
    paired = len(shared) > 1
    first, second = (
        summarize([found[seed] for seed in shared] if paired else found.values()) for found in (one, other)
    )
    if first is None or second is None:
        return None
    value, seeds = first.mean - second.mean, min(first.count, second.count)
    tail = 1 - (1 - LEVEL) / (2 * among)
    counted = statistics.NormalDist().inv_cdf(tail) * math.sqrt(_counting(first, a) + _counting(second, b))
    if first.spread is None or second.spread is None:
        return Difference(value, counted, _ONE_SEED, seeds)
    if paired:
        margin = _student([one[seed] - other[seed] for seed in shared], tail)
        noise = f"paired by seed (n = {seeds})"
    else:
        parts = [first.spread**2 / first.count, second.spread**2 / second.count]
        margin, noise = welch(parts, [first.count, second.count], tail), "Welch over seeds"
    if margin < counted:
        return Difference(value, counted, "error of counting, as the seeds agree more closely than that", seeds)
    return Difference(value, margin, noise, seeds)


def wilson(count: int, of: int) -> tuple[float, float]:
    """Bounds of Wilson's interval at LEVEL for the rate of what happened `count` times of `of`, at least one."""
    z = statistics.NormalDist().inv_cdf(1 - (1 - LEVEL) / 2)
    rate, shrink = count / of, 1 + z**2 / of
    middle = (rate + z**2 / (2 * of)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / of + z**2 / (4 * of**2)) / shrink
    return max(0.0, middle - half), min(1.0, middle + half)


def rate(count: int, of: int) -> str:
    """As "1 of 4 (95 %: 5 to 70 %)"."""
    low, high = wilson(count, of)
    return f"{count} of {of} ({100 * LEVEL:.0f} %: {100 * low:.0f} to {100 * high:.0f} %)"


def points(value: float) -> str:
    """A difference of fractions in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "−")


def steps(record: Record) -> int:
    """Training steps of a whole run."""
    return int(record.config.get("epochs") or 0) * outcomes.steps_per_epoch(record)


def shortest(cells: Iterable[Cell]) -> int:
    """Training steps of the shortest run in the cells; 0 without runs."""
    return min((steps(record) for cell in cells for record in cell.records), default=0)


def gap(cell: Cell) -> float | None:
    """Training minus validation accuracy at the last epoch; None where nothing finished."""
    train, validation = summarize(cell.last("train")), summarize(cell.last())
    return None if train is None or validation is None else train.mean - validation.mean


def rise(cell: Cell) -> float | None:
    """Last validation loss over the lowest, mean over seeds; None where nothing finished."""
    found = [_validation_losses(record.metrics) for record in cell.with_status("finished")]
    rises = [losses[-1] / min(losses) for losses in found if losses and min(losses) > 0]
    return statistics.fmean(rises) if rises else None


def fluctuation(cell: Cell) -> float | None:
    """Standard deviation of the validation loss's change from epoch to epoch, as a share of its mean.

    Over the second half of each run, then mean over seeds; None where that is shorter than FLUCTUATION_EPOCHS.
    """
    shares = []
    for record in cell.with_status("finished"):
        losses = _validation_losses(record.metrics[len(record.metrics) // 2 :])
        if len(losses) >= FLUCTUATION_EPOCHS and statistics.fmean(losses) > 0:
            changes = [later - sooner for sooner, later in pairwise(losses)]
            shares.append(statistics.stdev(changes) / statistics.fmean(losses))
    return statistics.fmean(shares) if shares else None


def stale_averages(cells: Iterable[Cell]) -> str:
    """What to mind where BatchNorm's running averages reach back over much of its training; else empty.

    With weight m of the newest batch they span about 1 / m batches, and after S steps still hold (1 - m)^S of the
    value they were initialized with.
    """
    stale = [
        (cell, 1 / momentum, steps(record), (1 - momentum) ** steps(record))
        for cell in cells
        for record in cell.records
        if str(record.config.get("layer")).startswith("bn-") and steps(record) > 0
        for momentum in [float(record.config.get("norm_momentum") or 1)]
        if 1 / momentum / steps(record) > STALE_SHARE
    ]
    if not stale:
        return ""
    _, batches, taken, initial = min(stale, key=lambda one: one[2])
    text = f"BN-ReLU keeps the report's running averages, which reach back over about {batches:.0f} batches: "
    text += f"{100 * min(1.0, batches / taken):.0f} % of a run of {taken:,} steps"
    text += f", at whose end they still hold {100 * initial:.0f} % of their initial value. " if initial > 0.05 else ". "
    text += "In validation it normalizes by statistics of weights that are gone, so its validation numbers are "
    text += "depressed by the budget"
    measured = {cell.experiment.id: accuracies(cell) for cell, *_ in stale if gap(cell) is not None}
    return f"{text}: {'; '.join(f'{id} ends at {told}' for id, told in measured.items())}." if measured else f"{text}."


def accuracies(cell: Cell) -> str:
    """Both last accuracies in words."""
    train, validation = summarize(cell.last("train")), summarize(cell.last())
    return f"{percent(train, ' %')} in training and {percent(validation, ' %')} in validation"


def _counting(summary: Summary, cell: Cell) -> float:
    return summary.mean * (1 - summary.mean) / max(1, cell.validation_images)


def _validation_losses(metrics: Iterable[Mapping[str, Any]]) -> list[float]:
    return [float(epoch["val_loss"]) for epoch in metrics if epoch.get("val_loss") is not None]


def _student(differences: list[float], tail: float) -> float:
    """Half-width of Student's interval of a mean."""
    from scipy.stats import t

    count = len(differences)
    return float(t.ppf(tail, count - 1)) * statistics.stdev(differences) / math.sqrt(count)


def welch(parts: list[float], counts: list[int], tail: float) -> float:
    """Half-width of Welch's interval from the squared standard errors of two means. tail: its upper quantile."""
    from scipy.stats import t

    spread = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    freedom = sum(parts) ** 2 / spread if spread > 0 else sum(counts) - 2
    return float(t.ppf(tail, freedom)) * math.sqrt(sum(parts))
