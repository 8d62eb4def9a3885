"""Sweep files as they are met: what they mean, and what is said of those that hold a mistake."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.errors import UserError
from evonorm.lab.sweep import schema
from evonorm.lab.sweep.hyperband import Hyperband
from evonorm.lab.sweep.schema import Metric

EXAMPLES = Path(__file__).parents[3] / "examples"
X = {"x": {"values": [1, 2]}}
LOSS = {"name": "loss"}


def test_the_reports_sweep() -> None:
    sweep = schema.read(EXAMPLES / "report_sweep.yaml")
    values = {parameter.name: parameter.distribution.values for parameter in sweep.parameters}
    assert (sweep.method, sweep.metric) == ("random", Metric("accuracy", "maximize"))
    assert values == {
        "groups": (4, 8, 12, 16, 32),
        "epochs": (10, 20, 30, 40, 50, 60),
        "learning_rate": (1e-2, 1e-3, 1e-4, 3e-4, 3e-5, 1e-5),
        "optimizer": ("adam", "sgd"),
        "batch_size": (128,),
        "layer": ("evonorm-s0",),
        "augment": (False,),
    }
    assert (sweep.run_cap, sweep.notes) == (None, ())


FILE = """
program: train.py
project: lab
entity: someone
method: bayes
run_cap: 30
metric: {name: val.loss, goal: minimize, target: 0.1, impute: latest}
early_terminate: {type: hyperband, min_iter: 3, s: 2, eta: 2}
parameters:
  trainer.lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}
  optimizer:
    parameters:
      name: {values: [adam, sgd]}
      momentum: {parameters: {beta: {min: 0.5, max: 0.99}}}
  dropout: {min: 0, max: 1}
  width: {min: 8, max: "64"}
  amp: {values: [true, off]}
command: ["${env}", python, "${program}", "${args_no_hyphens}", "hydra.run.dir=${now:%H}", 3]
"""


def test_a_real_file(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(FILE)
    sweep = schema.read(path)
    kinds = {p.name: (p.distribution.kind, p.distribution.minimum, p.distribution.maximum) for p in sweep.parameters}
    assert kinds["trainer.lr"] == ("log_uniform_values", 1e-5, 1e-1)
    assert kinds["optimizer.momentum.beta"] == ("uniform", 0.5, 0.99)
    assert kinds["width"] == ("int_uniform", 8, 64)
    assert [p.path for p in sweep.parameters][2:4] == [("optimizer", "momentum", "beta"), ("optimizer", "name")]
    assert sweep.parameters[0].distribution.values == (True, False)
    assert sweep.metric == Metric("val.loss", "minimize", 0.1, "latest")
    assert sweep.early_terminate == Hyperband(min_iter=3, eta=2)
    assert sweep.command[-2:] == ("hydra.run.dir=${now:%H}", "3")
    assert sweep.notes == (
        "project: ignored, a place on W&B's server",
        "entity: ignored, an account on W&B's server",
        "parameters.dropout: integer bounds draw 0 or 1 alone, as W&B does; write 0.0 for every number between",
        "parameters.width.max: the text '64' is taken for the number 64",
        "early_terminate.s: ignored without max_iter",
    )
    values = {p.path: place for place, p in enumerate(sweep.parameters)}
    assert sweep.nested(values)["optimizer"] == {"momentum": {"beta": 2}, "name": 3}


def test_json_is_read_alike(tmp_path: Path) -> None:
    content = {"method": "grid", "parameters": X}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    assert schema.read(tmp_path / "sweep.json") == replace(schema.parse(content), file="sweep.json")


PARAMETER = [
    ({"min": 0.1, "max": 0.01}, "parameters.lr.min: 0.1 must be below max 0.01"),
    ({"mim": 0.1, "max": 0.2}, "parameters.lr.mim: unknown key; did you mean 'min'?"),
    ({"min": 0.1}, "parameters.lr.max: missing; uniform needs min and max"),
    ({"min": "low", "max": 1}, "parameters.lr.min: 'low' must be a number"),
    ({"min": True, "max": 2}, "parameters.lr.min: True must be a finite number"),
    ({"min": 0, "max": float("inf")}, "parameters.lr.max: inf must be a finite number"),
    ({"distribution": "log_unifrom", "min": 1, "max": 2}, "'log_unifrom' is not known; did you mean 'log_uniform'?"),
    ({"distribution": "log_uniform_values", "min": 0, "max": 2}, "lr.min: 0 must be above 0 for log_uniform_values"),
    ({"distribution": "log_uniform", "min": 0, "max": 1000}, "lr.max: 1000 is an exponent of e here, too large"),
    ({"distribution": "int_uniform", "min": 0.5, "max": 2}, "lr.min: 0.5 must be an integer for int_uniform"),
    ({"distribution": "q_uniform", "min": 0, "max": 2, "q": 0}, "lr.q: 0 must be above 0"),
    ({"distribution": "normal", "sigma": -1}, "lr.sigma: -1 must be 0 or above"),
    ({"distribution": "beta", "a": 0}, "lr.a: 0 must be above 0"),
    ({"distribution": "normal", "q": 2}, "lr.q: normal does not take it; it takes mu, sigma"),
    ({"values": []}, "lr.values: [] must be a list of at least one value"),
    ({"values": [1, 2], "probabilities": [1]}, "lr.probabilities: 1 numbers for 2 values"),
    ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "sum to 1.1, must sum to 1"),
    ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "must be 0 or above"),
    ({}, "parameters.lr: needs value, values, min and max, or distribution"),
    (0.1, "parameters.lr: 0.1 must be a mapping, as in `lr: {value: ...}`"),
    ([1, 2], "parameters.lr: [1, 2] must be a mapping, as in `lr: {values: ...}`"),
    ({"parameters": {}}, "parameters.lr.parameters: empty"),
    ({"parameters": {"a": {"value": 1}}, "value": 1}, "parameters.lr.value: cannot stand beside `parameters`"),
    (
        {"parameters": {"a.b": {"value": 1}, "a": {"parameters": {"b": {"value": 1}}}}},
        "is called lr.a.b, as parameters.lr",
    ),
    ({"parameters": {"a": {"min": 2, "max": 1}}}, "parameters.lr.parameters.a.min: 2 must be below max 1"),
]


@pytest.mark.parametrize(("parameter", "message"), PARAMETER, ids=lambda value: str(value)[:40])
def test_mistakes_in_a_parameter(parameter: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        schema.parse({"method": "random", "parameters": {"lr": parameter}})
    assert message in str(caught.value)


HYPERBAND = {"type": "hyperband"}
TOP = [
    ({"method": "randon"}, "method: 'randon' is none; did you mean 'random'?"),
    ({"method": None}, "method: missing; choose random, grid or bayes"),
    ({"method": "custom"}, "method: custom is not supported here: choose random, grid or bayes"),
    ({"method": "bayes"}, "metric: missing; bayes searches by it"),
    ({"controller": {"type": "local"}}, "controller: not supported here: this program decides by itself"),
    ({"scheduler": {"engine": "ax"}}, "scheduler: not supported here"),
    ({"metrics": [LOSS, LOSS]}, "metrics: not supported here: a sweep has one metric"),
    ({"job": "x"}, "job: not supported here: W&B Launch jobs need its server; name a script with `program`"),
    ({"paramaters": {}}, "paramaters: unknown key; did you mean 'parameters'?"),
    ({"parameters": {}}, "parameters: empty"),
    ({"metric": "accuracy"}, "metric: 'accuracy' must be a mapping of names to values, as in `metric: {name: accuracy"),
    ({"early_terminate": "hyperband"}, "as in `early_terminate: {type: hyperband, min_iter: 3}`"),
    ({"parameters": ["lr"]}, "parameters: ['lr'] must be a mapping of names to values, as in `parameters: {lr: {"),
    ({"parameters": {"lr": 0.1}}, "parameters.lr: 0.1 must be a mapping, as in `lr: {value: ...}`"),
    ({"command": "python train.py"}, 'as in `command: ["python", "train.py", "${args}"]`'),
    ({"method": "grid", "parameters": {"x": {"min": 0.0, "max": 1.0}}}, "parameters.x: a grid cannot walk uniform"),
    ({"run_cap": 0}, "run_cap: 0 must be an integer of at least 1"),
    ({"run_cap": 1.5}, "run_cap: 1.5 must be an integer"),
    ({"metric": "loss"}, "metric: 'loss' must be a mapping"),
    ({"metric": {"goal": "minimize"}}, "metric.name: None must be the name of a logged metric"),
    ({"metric": LOSS | {"goal": "minimise"}}, "metric.goal: 'minimise' is not known; did you mean 'minimize'?"),
    ({"metric": LOSS | {"impute": "mean"}}, "metric.impute: 'mean' is not known"),
    ({"metric": LOSS | {"impute_while_running": "mean"}}, "metric.impute_while_running: 'mean' is not known"),
    ({"early_terminate": HYPERBAND | {"min_iter": 1}}, "metric: missing; early_terminate stops trials by it"),
    ({"metric": LOSS, "early_terminate": {"type": "median"}}, "early_terminate.type: 'median' is not known"),
    ({"metric": LOSS, "early_terminate": HYPERBAND}, "early_terminate: needs min_iter, or max_iter with s"),
    ({"metric": LOSS, "early_terminate": HYPERBAND | {"max_iter": 9}}, "early_terminate.s: missing"),
    ({"metric": LOSS, "early_terminate": HYPERBAND | {"max_iter": 2, "s": 1}}, "max_iter 2 / eta 3 leaves no band"),
    (
        {"metric": LOSS, "early_terminate": HYPERBAND | {"min_iter": 1, "eta": 1}},
        "early_terminate.eta: 1 must be above",
    ),
    ({"command": "python x.py"}, "command: 'python x.py' must be a list"),
    ({"program": ["x.py"]}, "program: ['x.py'] must be text"),
]


@pytest.mark.parametrize(("change", "message"), TOP, ids=lambda value: str(value)[:40])
def test_mistakes_at_the_top(change: dict[str, Any], message: str) -> None:
    content = {"method": "random", "parameters": X} | change
    with pytest.raises(UserError) as caught:
        schema.parse({key: value for key, value in content.items() if value is not None})
    assert message in str(caught.value)


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
TEXTS = [
    ("", "None must be a mapping"),
    ("- 1", "[1] must be a mapping"),
    ("method: [", "not YAML"),
    ("method: grid\nmethod: random", "method: given twice, again in line 2"),
    ("!!python/object/apply:os.system ['touch harmed']", "not YAML"),
    ("method: grid\nparameters: {x: {values: [2020-01-01]}}", "parameters.x.values[0]: 2020-01-01 is read as a date"),
    ("method: grid\nparameters: {1: {value: 1}}", "parameters.1: a key must be text"),
    (BOMB, "more than 100,000 values"),
    ("[" * 5000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "message"), TEXTS, ids=lambda value: value[:20])
def test_files_that_are_none(tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        schema.read(Path("sweep.yaml"))
    assert str(caught.value).startswith("sweep.yaml: ")
    assert message in str(caught.value)
    assert not Path("harmed").exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.yaml: No such file"):
        schema.read(tmp_path / "nowhere.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*bytes\.yaml"):
        schema.read(tmp_path / "bytes.yaml")
    (tmp_path / "twice.json").write_text('{"method": "grid", "method": "random"}')
    with pytest.raises(UserError, match="method: given twice"):
        schema.read(tmp_path / "twice.json")
    (tmp_path / "half.json").write_text('{"method"')
    with pytest.raises(UserError, match=r"half\.json: not JSON"):
        schema.read(tmp_path / "half.json")


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = "method: random\nparameters:\n  a: &range {min: 1, max: 3}\n  b: {<<: *range, max: 5}\n"
    (tmp_path / "s.yaml").write_text(text)
    a, b = schema.read(tmp_path / "s.yaml").parameters
    assert (a.distribution.maximum, b.distribution.minimum, b.distribution.maximum) == (3, 1, 5)
