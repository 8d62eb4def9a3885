"""Trials of our own training: parameters by name, run folders, going on after kill -9 to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.jobs.training_job import config_of
from evonorm.lab.records import run_files
from evonorm.lab.sweep import command, journal, of_training, schema
from evonorm.lab.sweep.of_training import check
from evonorm.lab.training.config import Seeds, TrainConfig
from tests.processes import PATIENCE_SECONDS, until

TINY = ["--data", "digits", "--set", "train_images=10", "test_images=10", "batch_size=10", "precision=fp32"]
TIMES = ("seconds", "images_per_second")
REPORT = Path(__file__).parents[3] / "examples" / "report_sweep.yaml"


def test_parameters_become_a_config() -> None:
    parameters = {"learning_rate": "1e-5", "epochs": 3.0, "augment": "true", "groups": None, "seeds": {"model": 4}}
    assert config_of(parameters | {"seeds.order": 2}) == TrainConfig(
        learning_rate=1e-5, epochs=3, augment=True, groups=None, seeds=Seeds(model=4, order=2)
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rat": {"value": 1}}, "no parameter 'learning_rat'; did you mean 'learning_rate'?; it knows layer"),
        ({"seeds.modle": {"value": 1}}, "no parameter 'seeds.modle'; did you mean 'seeds.model'?"),
        ({"epochs": {"values": [3, 2.5]}}, "parameters.epochs.values[1]: epochs takes int: got 2.5"),
        ({"epochs": {"values": [3, 0]}}, "parameters.epochs.values[1]: epochs must be at least 1"),
        ({"optimizer": {"values": ["adam", "rms"]}}, "optimizer must be one of sgd, adam: got 'rms'"),
        ({"layer": {"values": ["bn-relu", "evonorm-z"]}}, "parameters.layer.values[1]: no layer is called 'evonorm-z'"),
        ({"augment": {"values": ["maybe"]}}, "parameters.augment: augment takes bool: got 'maybe'"),
        ({"dropout": {"min": 0.0, "max": 1.5}}, "parameters.dropout: dropout must be in [0, 1)"),
        ({"epochs": {"min": 1.0, "max": 9.0}}, "parameters.epochs: epochs takes int"),
    ],
)
def test_mistakes_are_found_before_any_trial(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(schema.parse({"method": "random", "parameters": parameters}), {})
    assert message in str(caught.value)


def test_none_is_a_layer_and_no_groups() -> None:
    """What `published` means: --set layer=none."""
    chosen = command.read(REPORT, data=None, settings=["layer=none", "groups=none"])
    assert chosen.fixed == {"layer": "none", "groups": None}
    assert {parameter.name for parameter in chosen.sweep.parameters}.isdisjoint(chosen.fixed)
    with pytest.raises(UserError, match="epochs takes int: got 'none'"):
        command.read(REPORT, data=None, settings=["epochs=none"])


def test_a_metric_that_training_lacks(tmp_path: Path) -> None:
    sweep = schema.parse({"method": "random", "metric": {"name": "val_acc"}, "parameters": {"epochs": {"value": 1}}})
    with pytest.raises(UserError, match=r"no 'val_acc'; did you mean 'val_accuracy'\?"):
        check(sweep, {})


def test_integer_bounds_of_a_float_are_noted() -> None:
    sweep = schema.parse({"method": "random", "parameters": {"momentum": {"min": 0, "max": 5}}})
    with pytest.raises(UserError, match=r"must be in \[0, 1\)"):
        check(sweep, {})
    sweep = schema.parse({"method": "random", "parameters": {"learning_rate": {"min": 1, "max": 5}}})
    assert "integer bounds draw integers alone" in check(sweep, {})[0]


@pytest.mark.usefixtures("in_this_process")
def test_every_metric_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("method: grid\nmetric: {name: loss}\nparameters: {epochs: {values: [1, 2]}, groups: {value: 12}}")
    assert cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), *TINY]) == 0
    one, two = journal.read_trials(tmp_path / "out")
    assert set(of_training.reported(schema.read(file), {})) <= set(one.metrics)
    assert (len(one.history), len(two.history)) == (1, 2)
    for trial in (one, two):
        assert trial.run is not None
        record = run_files.read(tmp_path / "out" / trial.run)
        assert trial.metrics["accuracy"] == record.metrics[-1]["train_accuracy"]
        # groups: 12 divides few widths; the record says what ran.
        assert record.summary["groups_in_force"]["48"] == 12
        assert record.summary["groups_in_force"]["80"] == 10
    assert cli.main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html")]) == 0


def test_trials_that_come_to_one_run_wait_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As published: in a network of identities every number of groups is the same run."""
    file = tmp_path / "sweep.yaml"
    file.write_text("{method: grid, parameters: {groups: {values: [4, 8, 16, 32]}, epochs: {value: 1}}}")
    out = tmp_path / "out"
    options = [*TINY, "layer=none", "--workers", "2"]
    assert cli.main(["sweep", str(file), "--out", str(out), *options]) == 0
    assert "once more" not in capsys.readouterr().out
    trials = journal.read_trials(out)
    assert [trial.status for trial in trials] == ["finished"] * 4
    assert len({trial.run for trial in trials}) == 1


@pytest.mark.usefixtures("in_this_process")
def test_a_diverged_trial_counts_as_worst(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "method: grid\nmetric: {name: val_loss}\n"
        "parameters: {layer: {value: none}, epochs: {value: 2}, learning_rate: {values: [1e6, 1e-4]}}"
    )
    assert cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), *TINY]) == 0
    diverged, sound = journal.read_trials(tmp_path / "out")
    assert (diverged.status, sound.status) == ("diverged", "finished")
    assert "learning rate" in (diverged.error or "")
    assert "best val_loss" in capsys.readouterr().out


@pytest.mark.kills
def test_the_reports_sweep_goes_on_after_kill_9(tmp_path: Path) -> None:
    """Killed in the middle of a trial, driver and all; the repeated command ends as one that nobody killed."""
    options = [*TINY, "epochs=2"]

    def command(out: str) -> list[str]:
        arguments = ["sweep", str(REPORT), "--out", str(tmp_path / out), "--workers", "1", "--trials", "2"]
        return [sys.executable, "-m", "evonorm", *arguments, *options]

    process = subprocess.Popen(command("killed"))
    until(lambda: begun(tmp_path / "killed") or process.poll() is not None)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert [trial.ended for trial in journal.read_trials(tmp_path / "killed")][-1] is False
    for out in ("killed", "whole"):
        subprocess.run(command(out), check=True)
    killed, whole = (
        [(t.number, t.parameters, t.status, t.history, t.run) for t in journal.read_trials(tmp_path / out)]
        for out in ("killed", "whole")
    )
    assert killed == whole
    sessions = [len(run_files.read(path.parent).environment["sessions"]) for path in runs(tmp_path / "killed")]
    assert sorted(sessions)[-1] == 2  # gone on with, not begun again


def test_ctrl_c_stops_at_a_checkpoint(tmp_path: Path) -> None:
    arguments = ["sweep", str(REPORT), "--out", str(tmp_path), "--workers", "1", "--trials", "1", *TINY, "epochs=200"]
    process = subprocess.Popen([sys.executable, "-m", "evonorm", *arguments], start_new_session=True)
    until(lambda: begun(tmp_path) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=PATIENCE_SECONDS) == cli.INTERRUPTED
    (path,) = runs(tmp_path)
    assert run_files.read(path.parent).status == "stopped"
    assert journal.read_trials(tmp_path)[0].status == "waiting"


def runs(folder: Path) -> list[Path]:
    return list(folder.glob("*/config.json"))


def begun(folder: Path) -> bool:
    return any(list(run_files.read_metrics(path.parent)) for path in runs(folder))
