"""Words by rule: synthetic sweeps whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.analysis import readings
from evonorm.lab.analysis.importance import Effect, Interval
from evonorm.lab.analysis.swept import read
from evonorm.lab.pages import sweep_page
from tests.lab import sweeps

Value = Callable[[dict[str, Any], random.Random], float]


def rate_alone(parameters: dict[str, Any], rng: random.Random) -> float:
    return 0.2 + 30 * parameters["learning_rate"] + 0.02 * rng.gauss(0, 1)


def adam_helps(parameters: dict[str, Any], rng: random.Random) -> float:
    return rate_alone(parameters, rng) + 0.2 * (parameters["optimizer"] == "adam")


def groups_matter(parameters: dict[str, Any], rng: random.Random) -> float:
    return 0.3 + 0.02 * parameters["groups"] + 0.05 * rng.gauss(0, 1)


def groups_matter_little(parameters: dict[str, Any], rng: random.Random) -> float:
    return 0.3 + 0.0025 * parameters["groups"] + 0.1 * rng.gauss(0, 1)


def verdicts(folder: Path) -> list[str]:
    swept = read(folder)
    return [finding.verdict for finding in readings.conclusions(swept, sweep_page.effects(swept))]


@pytest.mark.parametrize(
    ("value", "count", "expected"),
    [
        (rate_alone, 150, ["no clear difference", "supported", "no effect found"]),
        (adam_helps, 150, ["supported", "supported", "no effect found"]),
        (lambda p, rng: -adam_helps(p, rng), 150, ["contradicted", "supported", "no effect found"]),
        (groups_matter, 150, ["no clear difference", "contradicted", "contradicted"]),
        (groups_matter_little, 400, ["no clear difference", "contradicted", "supported"]),
        (rate_alone, 7, ["too few trials to tell"] * 3),
    ],
)
def test_the_reports_conclusions(tmp_path: Path, value: Value, count: int, expected: list[str]) -> None:
    assert verdicts(sweeps.write(tmp_path, sweeps.drawn(count, value))) == expected


def test_twelve_trials_do_not_say_that_groups_have_no_effect(tmp_path: Path) -> None:
    assert verdicts(sweeps.write(tmp_path, sweeps.drawn(12, rate_alone)))[2] == "too few trials to tell"


def test_a_loss_turns_better_and_worse_round(tmp_path: Path) -> None:
    config = sweeps.REPORT | {"metric": {"name": "loss", "goal": "minimize"}}
    rows = sweeps.drawn(80, lambda p, rng: -adam_helps(p, rng))
    assert verdicts(sweeps.write(tmp_path, rows, config))[0] == "supported"


def test_identities_have_no_groups(tmp_path: Path) -> None:
    rows = sweeps.drawn(60, rate_alone)
    sweeps.write(tmp_path / "published", rows, runs={"training": {"layer": "none"}})
    sweeps.write(tmp_path / "intended", rows, runs={"training": {"layer": "evonorm-s0"}})
    told = {}
    for name in ("published", "intended"):
        swept = read(tmp_path / name)
        told[name] = readings.conclusions(swept, sweep_page.effects(swept))[2].text
    assert "groups cannot matter" in told["published"]
    assert "groups cannot matter" not in told["intended"]


def test_trials_of_one_run_are_drawn_together(tmp_path: Path) -> None:
    """Ten runs, each under eight numbers of groups: eighty trials that know no more than ten of learning rates."""
    rows = []
    for place, row in enumerate(sweeps.drawn(10, lambda p, rng: rng.random(), seed=5)):
        for copy in range(8):
            parameters = row["parameters"] | {"groups": (4, 8, 12, 16, 32)[copy % 5], "momentum": 0.5 + copy}
            rows.append({"parameters": parameters, "value": row["value"], "run": f"run-{place}"})
    swept = read(sweeps.write(tmp_path / "shared", rows))
    own = read(sweeps.write(tmp_path / "own", [row | {"run": None} for row in rows]))
    wide, narrow = ({effect.name: effect.correlation for effect in sweep_page.effects(found)} for found in (swept, own))
    for name in ("learning_rate", "optimizer"):
        assert wide[name].high - wide[name].low > 1.5 * (narrow[name].high - narrow[name].low)
    # What differs within a run has no effect, and that is certain.
    assert wide["momentum"].farthest < 0.1
    assert "70 trials had the very run of another" in readings.answer(swept, ())
    assert readings.conclusions(swept, ())[0].text.count("(n=") == 2
    assert "(n=80" not in readings.conclusions(swept, ())[0].text


def test_diverged_trials_count_as_the_worst(tmp_path: Path) -> None:
    """Half of SGD's trials diverge: their best value before that does not count."""
    rows = sweeps.drawn(80, lambda p, rng: 0.5 + 0.02 * rng.gauss(0, 1))
    for place, row in enumerate(rows):
        if row["parameters"]["optimizer"] == "sgd" and place % 2:
            row.update(status="diverged", value=0.9, history=[0.9, 0.1])
    swept = read(sweeps.write(tmp_path, rows))
    assert min(swept.values.values()) == 0.1
    assert verdicts(tmp_path)[0] == "supported"


def test_other_parameters_have_readings_and_no_conclusions(tmp_path: Path) -> None:
    config = {"method": "random", "metric": {"name": "loss"}, "parameters": {"depth": {"min": 1, "max": 9}}}
    rows = [{"parameters": {"depth": 1 + i % 9}, "value": float(i % 9)} for i in range(30)]
    swept = read(sweeps.write(tmp_path, rows, config))
    found = sweep_page.effects(swept)
    assert readings.conclusions(swept, found) == []
    (reading,) = readings.readings(found, "loss")
    assert (reading.name, reading.strength) == ("depth", "strong")
    assert "r of depth with loss: +1.00" in reading.text


def test_one_trial_that_decides_everything_is_told(tmp_path: Path) -> None:
    rows = sweeps.drawn(30, lambda p, rng: rng.random())
    rows[4]["value"] = 1e200
    swept = read(sweeps.write(tmp_path, rows))
    assert "One trial holds 97 % of the metric's variance" in readings.answer(swept, sweep_page.effects(swept))


@pytest.mark.parametrize(
    ("r", "low", "high", "beyond", "explained", "word"),
    [
        (0.7, 0.5, 0.85, True, 0.4, "strong"),
        (0.0, -0.2, 0.2, True, 0.4, "strong"),  # a hill: not linear, and yet strong
        (0.4, 0.2, 0.55, False, 0.1, "moderate"),
        (0.15, 0.05, 0.25, False, 0.0, "weak"),
        (0.1, -0.05, 0.25, False, 0.0, "no effect found"),
        (0.1, -0.3, 0.48, False, 0.0, "too few trials to tell"),
    ],
)
def test_strength(r: float, low: float, high: float, beyond: bool, explained: float, word: str) -> None:
    effect = Effect("x", Interval(r, low, high), "", (), None, Interval(0.1, 0, 0.2), beyond, explained)
    assert readings.strength(effect) == word


def test_states_without_effects(tmp_path: Path) -> None:
    """What the answer says where there is nothing to learn from."""
    one = sweeps.drawn(1, rate_alone)
    told = []
    for name, rows, config in (
        ("few", sweeps.drawn(5, rate_alone), sweeps.REPORT),
        ("equal", sweeps.drawn(20, lambda p, rng: 0.5), sweeps.REPORT),
        ("fixed", [one[0]] * 9, sweeps.REPORT),
        ("failed", [row | {"status": "failed", "value": None} for row in one], sweeps.REPORT),
        ("aimless", one, {key: value for key, value in sweeps.REPORT.items() if key != "metric"}),
    ):
        swept = read(sweeps.write(tmp_path / name, rows, config))
        told.append(readings.answer(swept, sweep_page.effects(swept)))
    for text, expected in zip(
        told,
        ("too few to tell", "the same value", "No parameter varies", "None has a value of accuracy", "names no metric"),
        strict=True,
    ):
        assert expected in text


def test_seldom_wrong_about_groups(tmp_path: Path) -> None:
    """Inert groups beside a strong learning rate: never called an effect in four sweeps of 60 trials."""

    def value(parameters: dict[str, Any], rng: random.Random) -> float:
        return 0.1 * math.log10(parameters["learning_rate"]) + 0.05 * rng.gauss(0, 1)

    found = [
        verdicts(sweeps.write(tmp_path / str(seed), sweeps.drawn(60, value, seed=seed)))[2] for seed in range(1, 5)
    ]
    assert set(found) <= {"no effect found", "too few trials to tell"}
