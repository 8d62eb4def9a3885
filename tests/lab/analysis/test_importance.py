"""Importance and correlation against truths that the data were made from."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from evonorm.lab.analysis import importance
from evonorm.lab.analysis.importance import Column, Effect, effects


def made(count: int, seed: int = 0) -> tuple[list[Column], list[float]]:
    """lr: strong and linear in its logarithm; middle: strong and not linear at all; optimizer: weak; inert: nothing."""
    rng = random.Random(seed)
    lr = [10 ** rng.uniform(-5, -2) for _ in range(count)]
    middle = [rng.random() for _ in range(count)]
    optimizer = [rng.choice(["adam", "sgd"]) for _ in range(count)]
    inert = [rng.choice([4, 8, 12, 16, 32]) for _ in range(count)]
    metric = [
        0.5 * math.log10(a) - 6 * (b - 0.5) ** 2 + 0.3 * (c == "adam") + 0.2 * rng.gauss(0, 1)
        for a, b, c in zip(lr, middle, optimizer, strict=True)
    ]
    columns = [Column("lr", lr, True, log=True), Column("middle", middle, True)]
    return [*columns, Column("optimizer", optimizer, False), Column("inert", inert, True)], metric


def named(count: int, seed: int = 0) -> dict[str, Effect]:
    return {effect.name: effect for effect in effects(*made(count, seed), seed=seed)}


def test_each_truth_comes_out() -> None:
    found = named(300)
    assert found["lr"].correlation.clear
    assert found["lr"].beyond_chance
    log = found["lr"].log_correlation
    assert log is not None
    assert log.value > found["lr"].correlation.value > 0.4
    # No correlation at all, and yet it matters: what importance is for.
    assert not found["middle"].correlation.clear
    assert found["middle"].beyond_chance
    assert found["middle"].explained > 0.1
    assert found["optimizer"].correlation.clear
    assert not found["inert"].correlation.clear
    assert not found["inert"].beyond_chance
    assert found["inert"].correlation.farthest < 0.3
    assert found["inert"].importance.low == pytest.approx(0, abs=0.02)
    shares = [effect.importance.value for effect in effects(*made(300))]
    assert shares == sorted(shares, reverse=True)
    assert sum(effect.importance.value for effect in found.values()) == pytest.approx(1)


def test_texts_are_one_hot_and_two_mirror_each_other() -> None:
    effect = named(100)["optimizer"]
    (one, first), (other, second) = effect.each
    assert {one, other} == {"adam", "sgd"}
    assert first.value == pytest.approx(-second.value)
    assert abs(effect.correlation.value) == pytest.approx(abs(first.value))
    assert effect.of in ("adam", "sgd")


def test_pearson_is_numpys() -> None:
    columns, metric = made(50)
    (effect,) = [effect for effect in effects(columns, metric) if effect.name == "middle"]
    assert effect.correlation.value == pytest.approx(np.corrcoef(columns[1].values, metric)[0, 1])


def test_the_interval_of_r_holds_as_often_as_it_says() -> None:
    """True r 0.5, 20 trials: at least 90 of 100 intervals hold it; a narrow one would lose many."""
    from scipy.stats import t

    rng, held, widths = np.random.default_rng(1), 0, []
    for _ in range(100):
        x = rng.standard_normal(20)
        y = 0.5 * x + math.sqrt(0.75) * rng.standard_normal(20)
        draws = rng.integers(20, size=(300, 20))
        interval = importance.correlation(x, y, draws, float(t.ppf(0.975, 17)))
        held += interval.low <= 0.5 <= interval.high
        widths.append(interval.high - interval.low)
    assert held >= 90
    assert np.mean(widths) < 0.8


def test_an_inert_parameter_is_seldom_seen() -> None:
    seen = 0
    for seed in range(6):
        effect = named(40, seed)["inert"]
        seen += effect.correlation.clear or effect.beyond_chance
    assert seen <= 1


def test_the_seed_decides() -> None:
    columns, metric = made(30)
    assert effects(columns, metric, seed=1) == effects(columns, metric, seed=1)
    assert effects(columns, metric, seed=1) != effects(columns, metric, seed=2)


@pytest.mark.parametrize("metric", [[0.5] * 30, [0.1] * 7])
def test_nothing_to_learn_from(metric: list[float]) -> None:
    columns, _ = made(len(metric))
    assert effects(columns, metric) == ()


@pytest.mark.parametrize(
    "column",
    [
        Column("big", [10.0**300 * (i % 5) for i in range(20)], True),
        Column("absent", [None if i % 3 else 0.5 for i in range(20)], True),
        Column("constant here", [1.0] * 20, True),
        Column("all different", [f"run-{i}" for i in range(20)], False),
        Column("too many", [f"value {i}" for i in range(20)], False),
    ],
    ids=lambda column: column.name,
)
def test_awkward_columns(column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
    if column.name == "too many":
        monkeypatch.setattr(importance, "MOST_COLUMNS", 5)
    metric: list[Any] = [1e150 * ((7 * i) % 20) for i in range(20)]
    (effect,) = effects([column], metric)
    for interval in (effect.correlation, effect.importance):
        assert all(math.isfinite(value) for value in (interval.value, interval.low, interval.high))
    if column.name == "too many":
        assert len(effect.each) == 5
        assert "(any other)" in dict(effect.each)
