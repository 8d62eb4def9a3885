"""Which parameters a trial gets: drawn at random, walked through as a grid, or searched for with Optuna."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evonorm.lab.sweep.distributions import grid_values, quantile
from evonorm.lab.sweep.journal import Trial
from evonorm.lab.sweep.parameters import Parameter
from evonorm.lab.sweep.schema import Metric, Sweep

# A Gaussian process costs the cube of its trials; beyond these, TPE serves.
GP_TRIALS = 200
FAILED_VALUE = 0.0


@dataclass(frozen=True)
class Suggestion:
    """A trial's parameters, nested as in the file, and where in [0, 1] each was drawn."""

    parameters: dict[str, Any]
    point: dict[str, float]


class Suggester(Protocol):
    """Gives the parameters of trial after trial."""

    total: int | None
    """How many trials there can be; None: no end."""

    def suggest(self, number: int, trials: Sequence[Trial]) -> Suggestion:
        """The parameters of trial `number`, given all trials so far. number: from 0, below `total`."""


def make(sweep: Sweep, seed: int) -> Suggester:
    """The suggester of the sweep's method. The same sweep, seed, number and trials give the same suggestion."""
    makers: dict[str, Callable[[Sweep, int], Suggester]] = {"random": Random, "grid": Grid, "bayes": Bayes}
    return makers[sweep.method](sweep, seed)


class Random:
    """Each parameter at its own distribution's quantile of a number in (0, 1) hashed from seed, trial and name.

    No state: trial 7 is the same whoever asks, whenever.
    """

    total: int | None = None

    def __init__(self, sweep: Sweep, seed: int) -> None:
        self._sweep, self._seed = sweep, seed

    def suggest(self, number: int, trials: Sequence[Trial]) -> Suggestion:
        """See Suggester."""
        point = {p.name: uniform(self._seed, number, "/".join(p.path)) for p in _searched(self._sweep.parameters)}
        return at_point(self._sweep, point)


class Grid:
    """Every combination once, in W&B's order: parameters sorted by name, the last one fastest."""

    def __init__(self, sweep: Sweep, seed: int) -> None:
        self._sweep = sweep
        self._values = [grid_values(parameter.distribution) or () for parameter in sweep.parameters]
        self.total: int | None = math.prod(len(values) for values in self._values)

    def suggest(self, number: int, trials: Sequence[Trial]) -> Suggestion:
        """See Suggester."""
        chosen = {}
        for parameter, values in zip(reversed(self._sweep.parameters), reversed(self._values), strict=True):
            number, place = divmod(number, len(values))
            chosen[parameter.path] = values[place]
        return Suggestion(self._sweep.nested(chosen), {})


class Bayes:
    """Optuna's Gaussian process (Matern, expected improvement), its TPE beyond GP_TRIALS; the first ten at random.

    Searches the unit cube of the quantiles, as W&B does, so that every distribution serves; listed values are
    categories. A trial that ended without a value counts as metric.impute says. Each suggestion has its own seed and
    follows from the trials it is given: with one worker a resumed search is the uninterrupted one.
    """

    total: int | None = None

    def __init__(self, sweep: Sweep, seed: int) -> None:
        assert sweep.metric is not None
        self._sweep, self._seed, self._metric = sweep, seed, sweep.metric

    def suggest(self, number: int, trials: Sequence[Trial]) -> Suggestion:
        """See Suggester."""
        import optuna

        space: dict[str, optuna.distributions.BaseDistribution] = {}
        for parameter in _searched(self._sweep.parameters):
            if parameter.distribution.choices:
                places = range(len(parameter.distribution.values))
                space[parameter.name] = optuna.distributions.CategoricalDistribution(tuple(places))
            else:
                space[parameter.name] = optuna.distributions.FloatDistribution(0.0, 1.0)
        if not space:
            return at_point(self._sweep, {})
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int(uniform(self._seed, number, "bayes") * 2**31)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                sampler=(optuna.samplers.GPSampler if len(trials) <= GP_TRIALS else optuna.samplers.TPESampler)(
                    seed=seed
                ),
                direction=self._metric.goal,
            )
            study.add_trials(self._known(trials, space))
            asked = study.ask(space)
        drawn = {}
        for parameter in _searched(self._sweep.parameters):
            place = asked.params[parameter.name]
            count = len(parameter.distribution.values)
            drawn[parameter.name] = (place + 0.5) / count if count else place
        return at_point(self._sweep, drawn, places=True)

    def _known(self, trials: Sequence[Trial], space: Any) -> Iterable[Any]:
        import optuna

        values = imputed(trials, self._metric)
        for trial in trials:
            params: dict[str, Any] = {}
            for parameter in _searched(self._sweep.parameters):
                count = len(parameter.distribution.values)
                u = trial.point[parameter.name]
                params[parameter.name] = min(count - 1, int(u * count)) if count else u
            value = values.get(trial.number)
            state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
            yield optuna.trial.create_trial(params=params, distributions=space, state=state, value=value)


def imputed(trials: Iterable[Trial], metric: Metric) -> dict[int, float]:
    """A value for each ended trial: its own, or for one without (failed, diverged, silent) what metric.impute says.

    worst: the worst value any ended trial logged; best, latest: of its own; 0 where there is nothing to take. With
    metric.impute_while_running, also one for each running trial: its best so far, or, without one, what that says.
    """
    trials = list(trials)
    ended = [trial for trial in trials if trial.ended]
    worst = {"minimize": max, "maximize": min}[metric.goal]
    worst_value = worst((value for trial in ended for value in trial.history), default=FAILED_VALUE)
    values = {}
    for trial in trials:
        impute = metric.impute if trial.ended else metric.impute_while_running
        if impute is None or not (trial.ended or trial.status == "running"):
            continue
        if trial.status in ("finished", "pruned", "running") and trial.value is not None:
            values[trial.number] = trial.value
        elif impute == "worst":
            values[trial.number] = worst_value
        elif impute == "best":
            values[trial.number] = FAILED_VALUE if trial.value is None else trial.value
        else:
            values[trial.number] = trial.history[-1] if trial.history else FAILED_VALUE
    return values


def at_point(sweep: Sweep, point: dict[str, float], *, places: bool = False) -> Suggestion:
    """The parameters at these quantiles. places: take a listed value by its place, whatever its probability."""
    values = {}
    for parameter in sweep.parameters:
        distribution, u = parameter.distribution, point.get(parameter.name, 0.5)
        if places and distribution.choices:
            count = len(distribution.values)
            values[parameter.path] = distribution.values[min(count - 1, int(u * count))]
        else:
            values[parameter.path] = quantile(distribution, u)
    return Suggestion(sweep.nested(values), point)


def uniform(seed: int, number: int, name: str) -> float:
    """A number in (0, 1), the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()
    return ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / 2**52


def _searched(parameters: Iterable[Parameter]) -> list[Parameter]:
    return [parameter for parameter in parameters if parameter.distribution.kind != "constant"]
