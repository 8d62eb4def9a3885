"""What W&B's agent does with a file, here too: numbers, names, macros, metrics; each with a small program."""

from __future__ import annotations

import json
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from evonorm import cli
from evonorm.lab.jobs import executors, supervisor
from evonorm.lab.jobs.job import Job, Outcome, Reporter
from evonorm.lab.sweep import driver, journal, schema, view
from evonorm.lab.sweep.distributions import sent
from tests.processes import until

# Keeps what it was called with beside it, one line a trial.
KEEPS = "import json, sys; open('calls.jsonl', 'a').write(json.dumps(sys.argv[1:]) + '\\n'); print('{\"loss\": 1.0}')"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def swept(here: Path, file: str, program: str = KEEPS, *, code: int = 0) -> list[list[str]]:
    """The words that each trial's program was called with."""
    (here / "train.py").write_text(textwrap.dedent(program))
    (here / "s.yaml").write_text(textwrap.dedent(file))
    assert cli.main(["sweep", "s.yaml", "--out", "out", "--workers", "1"]) == code
    calls = here / "calls.jsonl"
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (23.0, "23"),
        (-0.0, "0"),
        (3.0e6, "3000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (0.5, "0.5"),
        (1e-5, "1e-05"),
        (True, "True"),
        ("1.0", "1.0"),
        (None, "None"),
        ([1.0, 2.5, [3.0]], "[1, 2.5, [3]]"),
        ({"lr": 1.0, "deep": {"n": 2.0}}, "{'lr': 1, 'deep': {'n': 2}}"),
    ],
    ids=str,
)
def test_values_as_the_server_sends_them(value: Any, arrives: str) -> None:
    assert str(sent(value)) == arrives


@pytest.mark.parametrize(
    "parameter",
    [
        {"distribution": "q_uniform", "min": 10, "max": 100, "q": 1},
        {"distribution": "q_uniform", "min": 10.0, "max": 100.0, "q": 1.0},
        {"distribution": "q_normal", "mu": 50.0, "sigma": 5.0, "q": 5.0},
        {"distribution": "q_log_uniform_values", "min": 8.0, "max": 256.0, "q": 8.0},
        {"values": [3.0e6, 16.0]},
        {"value": 7.0},
    ],
    ids=str,
)
def test_whole_numbers_are_integers_for_the_program(here: Path, parameter: dict[str, Any]) -> None:
    """argparse's type=int takes them."""
    file = {"program": "train.py", "method": "random", "run_cap": 3, "parameters": {"n": parameter}}
    program = "import argparse; p = argparse.ArgumentParser(); p.add_argument('--n', type=int); print(p.parse_args())"
    swept(here, json.dumps(file), program)
    assert all(type(trial.parameters["n"]) is int for trial in journal.read_trials(here / "out"))


def test_hydra_gets_its_overrides(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = """
        program: train.py
        method: grid
        parameters:
          ++model.width: {values: [32.0, 64.0]}
          +trainer.precision: {value: bf16}
          data/augment: {value: yes}
        command: ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}", "run.dir=${now:%Y}", "${oc.env:A}"]
    """
    assert swept(here, file) == [
        ["++model.width=32", "+trainer.precision=bf16", "data/augment=True", "run.dir=${now:%Y}"],
        ["++model.width=64", "+trainer.precision=bf16", "data/augment=True", "run.dir=${now:%Y}"],
    ]
    told = capsys.readouterr().out
    assert "command: ${oc.env:A} is no macro of W&B's and is left out, as it does" in told
    assert "parameters.++model.width: an unusual name, given to the program as it is: --++model.width=..." in told


@pytest.mark.parametrize(("macro", "mark"), [("append", "+"), ("override", "++")])
def test_hydras_own_macros(here: Path, macro: str, mark: str) -> None:
    file = f"""
        program: train.py
        method: grid
        parameters: {{model.lr: {{value: 0.1}}, epochs: {{value: 3.0}}}}
        command: [python, "${{program}}", "${{args_{macro}_hydra}}"]
    """
    assert swept(here, file) == [[f"{mark}epochs=3", f"{mark}model.lr=0.1"]]


def test_best_as_args_is_what_the_program_got(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = """
        program: train.py
        method: grid
        metric: {name: loss}
        parameters:
          amp: {value: true}
          clip: {value: null}
          lr: {value: 1.0e-5}
          name: {value: "a b'c"}
          opt: {parameters: {betas: {value: [0.9, 1.0]}, kind: {value: adam}}}
          width: {value: 64.0}
    """
    (words,) = swept(here, file)
    capsys.readouterr()
    assert cli.main(["sweep", "best", "out", "--as-args"]) == 0
    assert shlex.split(capsys.readouterr().out) == words
    assert "--opt={'betas': [0.9, 1], 'kind': 'adam'}" in words


def test_a_command_that_does_not_use_the_program_needs_none(here: Path) -> None:
    """Nor does the file that it names have to be there."""
    file = """
        program: src/not_here.py
        method: grid
        parameters: {lr: {values: [1, 2]}}
        command: [python, train.py, "${args_no_equals}"]
    """
    assert swept(here, file) == [["--lr", "1"], ["--lr", "2"]]


@pytest.mark.parametrize(
    ("printed", "ends"),
    [
        ('{"val": {"acc": 0.5}}', ("finished", 0.5, None)),
        ('{"val.acc": 0.5}', ("finished", 0.5, None)),
        ('{"val": {"acc": 0.25}, "val.loss": 1}', ("finished", 0.25, None)),
        (
            '{"val": {"acc": "high"}}',
            ("failed", None, "it reported the metric 'val.acc' as 'high', text, not as a number"),
        ),
        ('{"val.acc": [1]}', ("failed", None, "it reported the metric 'val.acc' as [1], a list, not as a number")),
        (
            '{"val/acc": 0.5}',
            ("failed", None, "it never reported the metric 'val.acc'; did you mean 'val/acc'?; it reported val/acc"),
        ),
        (
            '{"val_acc": 0.5, "step": 1}',
            (
                *("failed", None),
                "it never reported the metric 'val.acc'; did you mean 'val_acc'?; it reported val_acc, step",
            ),
        ),
        (
            '{"val": 3}',
            ("failed", None, "it never reported the metric 'val.acc'; did you mean 'val'?; it reported val"),
        ),
    ],
)
def test_a_dotted_metric(here: Path, printed: str, ends: tuple[str, float | None, str | None]) -> None:
    file = """
        program: train.py
        method: grid
        metric: {name: val.acc, goal: maximize}
        parameters: {lr: {value: 1}}
    """
    swept(here, file, f"print('{printed}')", code=0 if ends[0] == "finished" else cli.FAILED)
    (trial,) = journal.read_trials(here / "out")
    assert (trial.status, trial.value, trial.error) == ends


@pytest.mark.parametrize(
    ("parameter", "told"),
    [
        ({"distribution": "log_uniform", "min": 0.001, "max": 0.1}, "between 1.001 and 1.105"),
        ({"distribution": "q_log_uniform", "min": 1, "max": 3}, "between 2.718 and 20.09"),
        ({"distribution": "inv_log_uniform", "min": 1, "max": 3}, "between 0.04979 and 0.3679"),
        ({"distribution": "log_uniform", "min": -9.2, "max": -2.3}, None),
        ({"distribution": "log_uniform", "min": -2, "max": 1}, None),
        ({"distribution": "log_uniform_values", "min": 0.001, "max": 0.1}, None),
    ],
    ids=str,
)
def test_bounds_that_are_exponents_are_said_to_be(parameter: dict[str, Any], told: str | None) -> None:
    notes = schema.parse({"method": "random", "parameters": {"lr": parameter}}).notes
    assert bool(notes) == (told is not None)
    for note in notes:
        assert told is not None
        assert told in note
        assert f"for the bounds themselves write {parameter['distribution']}_values" in note


class OfOnePlace:
    """Trials with an even x share a place; 0 goes on until these others have begun."""

    resumes = ships_folder = False

    def __init__(self, others: Sequence[int] = ()) -> None:
        self._others = others

    def describe(self) -> dict[str, Any]:
        return {"function": "of one place"}

    def place(self, parameters: dict[str, Any]) -> str | None:
        return None if parameters["x"] % 2 else "shared"

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        began = time.time()
        (job.sweep_folder / f"begun-{job.parameters['x']}").touch()
        if job.parameters["x"] == 0:
            until(lambda: all((job.sweep_folder / f"begun-{x}").exists() for x in self._others))
        time.sleep(0.05)
        reporter.tell({"began": began, "ended": time.time()})
        return Outcome("finished")


@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_trial_that_waits_for_a_place_holds_up_no_other(tmp_path: Path, method: str) -> None:
    """0 takes long; 2 and 4 wait for it, the odd ones run meanwhile, on the other worker."""
    values = {"x": {"values": [0, 2, 1, 3, 4, 5, 7]}}
    content: dict[str, Any] = {"method": method, "parameters": values, "run_cap": 7}
    target = OfOnePlace(others=[1, 3, 5, 7] if method == "grid" else [])
    drive: Callable[[], driver.Result] = lambda: driver.drive(  # noqa: E731
        schema.parse(content), target, tmp_path, executors.make(target, workers=2), seed=3
    )
    trials = drive().trials
    assert [trial.status for trial in trials] == ["finished"] * 7
    at = [(trial.parameters["x"], trial.metrics["began"], trial.metrics["ended"]) for trial in trials]
    shared = sorted((began, ended) for x, began, ended in at if x % 2 == 0)
    assert all(one[1] <= other[0] for one, other in pairwise(shared))
    if method == "grid":
        first = at[0]
        assert first[0] == 0
        assert [x for x, began, _ in at if x % 2 and began > first[2]] == []
    assert drive().trials == trials  # nothing is run again


def test_only_so_many_trials_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all share one place and there is no end, drawing ends all the same."""
    monkeypatch.setattr(supervisor, "MOST_WAITING", 3)
    target = OfOnePlace()
    sweep = schema.parse({"method": "random", "run_cap": 9, "parameters": {"x": {"value": 2}}})
    drawn = []

    class Watching(view.View):
        def update(self, trials: Mapping[int, journal.Trial]) -> None:
            drawn.append(sum(not trial.ended for trial in trials.values()))

    driver.drive(sweep, target, tmp_path, executors.make(target, workers=2), view=Watching())
    assert max(drawn) == 4  # one at work, three that wait
