"""Each distribution against SciPy's: the draws of a sweep, at a fixed seed, by Kolmogorov and Smirnov."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evonorm.lab.sweep import schema, suggest
from evonorm.lab.sweep.distributions import KINDS, quantile

DRAWS = 4000
BOUNDS = {"min": 0.25, "max": 8.0}
CONTINUOUS: dict[str, tuple[dict[str, Any], Any]] = {
    "uniform": (BOUNDS, stats.uniform(0.25, 7.75)),
    "log_uniform": ({"min": -3, "max": 2}, stats.loguniform(math.exp(-3), math.exp(2))),
    "log_uniform_values": (BOUNDS, stats.loguniform(0.25, 8.0)),
    "inv_log_uniform": ({"min": -3, "max": 2}, stats.loguniform(math.exp(-2), math.exp(3))),
    "inv_log_uniform_values": (BOUNDS, stats.loguniform(0.25, 8.0)),
    "normal": ({"mu": 2, "sigma": 0.5}, stats.norm(2, 0.5)),
    "log_normal": ({"mu": 1, "sigma": 0.5}, stats.lognorm(0.5, scale=math.e)),
    "beta": ({"a": 2, "b": 5}, stats.beta(2, 5)),
}
QUANTIZED: dict[str, tuple[dict[str, Any], Any]] = {
    "int_uniform": ({"min": -2, "max": 5}, stats.randint(-2, 6)),
    "q_uniform": (BOUNDS, CONTINUOUS["uniform"][1]),
    "q_log_uniform": ({"min": -3, "max": 2}, CONTINUOUS["log_uniform"][1]),
    "q_log_uniform_values": (BOUNDS, CONTINUOUS["log_uniform_values"][1]),
    "q_normal": ({"mu": 2, "sigma": 0.5}, CONTINUOUS["normal"][1]),
    "q_log_normal": ({"mu": 1, "sigma": 0.5}, CONTINUOUS["log_normal"][1]),
    "q_beta": ({"a": 2, "b": 5}, CONTINUOUS["beta"][1]),
}


def draws(parameter: dict[str, Any], count: int = DRAWS) -> list[Any]:
    sweep = schema.parse({"method": "random", "parameters": {"x": parameter}})
    random = suggest.make(sweep, seed=3)
    return [random.suggest(number, []).parameters["x"] for number in range(count)]


def test_every_kind_is_tested() -> None:
    listed = {"constant", "categorical", "categorical_w_probabilities"}
    assert CONTINUOUS.keys() | QUANTIZED.keys() | listed == KINDS.keys()


@pytest.mark.parametrize("kind", CONTINUOUS)
def test_continuous(kind: str) -> None:
    numbers, expected = CONTINUOUS[kind]
    assert stats.kstest(draws({"distribution": kind, **numbers}), expected.cdf).pvalue > 0.01


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized(kind: str) -> None:
    """By counts: a quantized value k q stands for the stretch half a q to each side of it."""
    numbers, expected = QUANTIZED[kind]
    q = 0.25 if kind != "int_uniform" else 1
    found = draws({"distribution": kind, **numbers, **({"q": q} if kind != "int_uniform" else {})})
    places = np.round(np.asarray(found) / q)
    np.testing.assert_array_equal(places * q, found)
    edges = np.arange(places.min(), places.max()) + 0.5
    below = expected.cdf(np.floor(edges) if kind == "int_uniform" else edges * q)
    chances = np.diff(np.concatenate([[0.0], below, [1.0]]))
    counts = np.array([(places == place).sum() for place in np.arange(places.min(), places.max() + 1)])
    likely = chances * DRAWS >= 5
    chances, counts = (np.append(a[likely], a[~likely].sum()) for a in (chances, counts))
    kept = chances > 0
    assert stats.chisquare(counts[kept], chances[kept] * DRAWS).pvalue > 0.01


def test_listed_values() -> None:
    counts = Counter(draws({"values": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3]}))
    assert stats.chisquare([counts[v] for v in "abc"], np.array([0.2, 0.5, 0.3]) * DRAWS).pvalue > 0.01
    counts = Counter(draws({"values": [1, 2, 3, 4]}))
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    assert draws({"value": {"deep": [1]}}, 2) == [{"deep": [1]}] * 2
    assert 0 not in draws({"values": [0, 1], "probabilities": [0, 1]})


def test_parameters_and_trials_draw_independently() -> None:
    sweep = schema.parse({"method": "random", "parameters": {k: {"min": 0.0, "max": 1.0} for k in "ab"}})
    numbers = np.array([list(suggest.make(sweep, seed=0).suggest(n, []).parameters.values()) for n in range(DRAWS)])
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.05


@pytest.mark.parametrize("kind", [*CONTINUOUS, *QUANTIZED])
def test_the_ends_are_finite_and_inside(kind: str) -> None:
    numbers = (CONTINUOUS | QUANTIZED)[kind][0]
    sweep = schema.parse({"method": "random", "parameters": {"x": {"distribution": kind, **numbers}}})
    low, high = (quantile(sweep.parameters[0].distribution, u) for u in (0.0, 1.0))
    assert math.isfinite(low)
    assert low < high < math.inf
    if kind in ("uniform", "int_uniform", "log_uniform_values"):
        assert numbers["min"] <= low
        assert high <= numbers["max"]
