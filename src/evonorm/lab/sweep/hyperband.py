"""W&B's early_terminate rule: which running trials to stop, from the metric histories of all of them.

Not Optuna's HyperbandPruner: here a trial is measured against every trial that got as far. Source: the public `sweeps`
package, 0.3.0.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Trial = TypeVar("Trial", bound=Hashable)
_MOST_BANDS = 100


@dataclass(frozen=True)
class Hyperband:
    """early_terminate of a sweep file.

    Bands, counted in logged values of the metric, are at max_iter / eta^i for i = 1..s, those below 1 dropped, or,
    without max_iter, at min_iter * eta^k. strict: judge a trial by its value at the band, not by its best so far; on
    unless switched off, as in the `sweeps` package.
    """

    min_iter: int | None = None
    max_iter: int | None = None
    s: float | None = None
    eta: float = 3.0
    strict: bool = True

    def bands(self, longest: int) -> list[int]:
        """The bands that a history of `longest` values can reach, lowest first."""
        if self.max_iter is not None:
            found = [self.max_iter / self.eta ** (i + 1) for i in range(int(self.s or 0))]
            bands = sorted(int(band) for band in found if band >= 1)
        else:
            bands = [int((self.min_iter or 1) * self.eta**k) for k in range(_MOST_BANDS)]
        return [band for band in bands if band <= longest]


def to_stop(
    rule: Hyperband,
    goal: Literal["minimize", "maximize"],
    histories: Mapping[Trial, Sequence[float]],
    running: Collection[Trial],
) -> set[Trial]:
    """The running trials that their last band stops. histories: finite metric values of every trial, in order.

    The threshold of a band is the value at place n / eta of the n trials' sorted values there; a trial worse than the
    threshold of the last band it has reached is stopped.
    """
    sign = -1.0 if goal == "maximize" else 1.0
    stopped = set()
    for trial in running:
        history = histories.get(trial, ())
        reached = rule.bands(len(history))
        if not reached:
            continue
        band = reached[-1]
        values = sorted(sign * other[band - 1] for other in histories.values() if len(other) >= band)
        threshold = values[int(1.0 / rule.eta * len(values))]
        measured = sign * history[band - 1] if rule.strict else min(sign * value for value in history)
        if measured > threshold:
            stopped.add(trial)
    return stopped
