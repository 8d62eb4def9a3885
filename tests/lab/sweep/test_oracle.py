"""Held to W&B's own `sweeps` package: inference, quantiles, grid order, early stops; the fixtures say how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.sweep import hyperband, schema, suggest
from evonorm.lab.sweep.distributions import quantile, sent

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = {
    "param_single_value": "constant",
    "param_categorical": "categorical",
    "param_categorical_w_probabilities": "categorical_w_probabilities",
    "param_int_uniform": "int_uniform",
    "param_uniform": "uniform",
    "param_quniform": "q_uniform",
    "param_loguniform": "log_uniform",
    "param_loguniform_v2": "log_uniform_values",
    "param_qloguniform": "q_log_uniform",
    "param_qloguniform_v2": "q_log_uniform_values",
    "param_inv_loguniform": "inv_log_uniform",
    "param_inv_loguniform_v2": "inv_log_uniform_values",
    "param_normal": "normal",
    "param_qnormal": "q_normal",
    "param_lognormal": "log_normal",
    "param_qlognormal": "q_log_normal",
    "param_beta": "beta",
    "param_qbeta": "q_beta",
}


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FIXTURES / name).read_text())["cases"]
    return found


def parsed(method: str, parameters: dict[str, Any], **more: Any) -> schema.Sweep:
    return schema.parse({"method": method, "parameters": parameters, **more})


@pytest.mark.parametrize("case", cases("quantiles.json"), ids=lambda case: json.dumps(case["parameter"]))
def test_inference_and_quantiles(case: dict[str, Any]) -> None:
    distribution = parsed("random", {"x": case["parameter"]}).parameters[0].distribution
    assert distribution.kind == KINDS[case["kind"]]
    for u, value in case["quantiles"]:
        ours = quantile(distribution, u)
        assert type(ours) is type(value)
        assert ours == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value)


def test_every_distribution_is_held_to_the_oracle() -> None:
    assert {KINDS[case["kind"]] for case in cases("quantiles.json")} == set(KINDS.values())


@pytest.mark.parametrize("case", cases("grid.json"), ids=lambda case: ",".join(case["parameters"]))
def test_grid_order(case: dict[str, Any]) -> None:
    """The package's own values, before W&B's server has sent them."""
    grid = suggest.make(parsed("grid", case["parameters"]), seed=0)
    assert grid.total == len(case["order"])
    ours = [grid.suggest(number, []).parameters for number in range(len(case["order"]))]
    assert json.dumps(ours, sort_keys=True) == json.dumps([sent(one) for one in case["order"]], sort_keys=True)


@pytest.mark.parametrize("case", cases("hyperband.json"))
def test_early_stops(case: dict[str, Any]) -> None:
    sweep = parsed(
        "random",
        {"a": {"values": [1]}},
        metric={"name": "m", "goal": case["goal"]},
        early_terminate=case["early_terminate"],
    )
    assert sweep.early_terminate is not None
    histories = {place: run["history"] for place, run in enumerate(case["runs"])}
    running = [place for place, run in enumerate(case["runs"]) if run["running"]]
    assert hyperband.to_stop(sweep.early_terminate, case["goal"], histories, running) == set(case["stopped"])
