"""A task in a file of the user's own (adversarial.py): networks, steps, options and validation of its own."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.jobs import training_job
from evonorm.lab.jobs.executors import make
from evonorm.lab.pages import page
from evonorm.lab.records import export, run_files
from evonorm.lab.sweep import driver, schema
from evonorm.lab.training import replicas, tasks
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.replicas import Replicas
from evonorm.lab.training.training import resolve, run_folder, train
from tests.lab.pictures import pictures, written
from tests.lab.training.test_training import StopAfter, curves

FILE = str(Path(__file__).with_name("adversarial.py"))
TASK = tasks.find(FILE)
CONFIG = TrainConfig(task="adversarial", layer="gn-relu", epochs=3, batch_size=16, precision="fp32")


def options(**own: Any) -> TrainConfig:
    assert TASK.options is not None
    return replace(CONFIG, options=TASK.options(**own))


def state(folder: Path, record: run_files.Record) -> dict[str, Any]:
    return torch.load(folder / record.name / "checkpoint.pt", weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder: Path) -> run_files.Record:
    return train(CONFIG, pictures(), folder)


def test_its_epochs_hold_what_it_measures(whole: run_files.Record, folder: Path) -> None:
    assert whole.status == "finished"
    assert list(whole.metrics[0])[:4] == ["epoch", "train_loss", "train_critic_loss", "val_distance"]
    assert not {"val_loss", "train_distance"} & set(whole.metrics[0])
    best = min(epoch["val_distance"] for epoch in whole.metrics)
    assert whole.summary["best"]["val_distance"] == best
    assert whole.config["options"] == {"critic_steps": 2, "critic_loss": "hinge", "keep": False}
    assert f"distance {whole.metrics[-1]['val_distance']:.4g} in validation" in page.render(folder)
    table = export.read(folder)
    assert {"last.val_distance", "config.options.critic_steps"} <= set(table.columns)
    assert table.rows[0]["config.options.critic_steps"] == 2


@pytest.mark.parametrize("steps", [1, 4, 6], ids=["first step", "end of an epoch", "middle of an epoch"])
def test_two_networks_resume_exactly(whole: run_files.Record, folder: Path, tmp_path: Path, steps: int) -> None:
    assert train(CONFIG, pictures(), tmp_path, watch=StopAfter(steps)).status == "stopped"
    resumed = train(CONFIG, pictures(), tmp_path)
    assert curves(resumed) == curves(whole)
    for mine, theirs in zip(*(flat_of(state(at, whole)) for at in (tmp_path, folder)), strict=True):
        assert torch.equal(mine, theirs)


def flat_of(kept: Any) -> list[torch.Tensor]:
    if isinstance(kept, torch.Tensor):
        return [kept]
    parts = kept.values() if isinstance(kept, dict) else kept if isinstance(kept, list) else ()
    return [one for part in parts for one in flat_of(part)]


def test_each_optimizer_counts_its_own_steps(whole: run_files.Record, folder: Path) -> None:
    kept = state(folder, whole)
    counts = {name: kept[f"{name}_optimizer"]["param_groups"][0]["iterations"] for name in ("maker", "critic")}
    assert counts == {"maker": 12, "critic": 24}


def test_the_network_that_broke_is_diagnosed(tmp_path: Path) -> None:
    record = train(replace(CONFIG, learning_rate=1e30), pictures(), tmp_path)
    assert record.status == "diverged"
    assert record.summary["diagnosis"]["kind"] in ("forward", "parameter", "gradient", "loss")


def test_options_name_the_run_unless_they_are_the_usual_ones() -> None:
    def name(config: TrainConfig) -> str:
        return run_folder(config, pictures(), Path()).name

    assert name(options(critic_steps=2)) == name(CONFIG)
    assert len({name(CONFIG), name(options(critic_steps=3)), name(options(critic_loss="logistic"))}) == 3
    with pytest.raises(UserError, match="the options of task classification must be none: got Options"):
        replace(options(), task="classification")


def test_it_is_trained_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = written(tmp_path / "images"), tmp_path / "runs"
    config = tmp_path / "config.yaml"
    config.write_text(f"task: {FILE}\noptions:\n  critic_steps: 3\nlayer: gn-relu\nepochs: 1\nbatch_size: 16\n")
    shared = ["--data", images, "--out", str(out), "--config", str(config)]
    assert cli.main(["train", *shared, "--options.critic-loss", "logistic", "--options.keep", "true"]) == 0
    (record,) = run_files.read_all(out).records
    assert record.config["task"] == "adversarial"
    assert record.config["options"] == {"critic_steps": 3, "critic_loss": "logistic", "keep": True}
    assert (out / record.name / "colours-1.pt").exists()
    with pytest.raises(SystemExit):
        cli.main(["train", "--task", FILE, "--help"])
    assert "steps of the second network in each of the first" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        cli.main(["train", "--task", FILE, "--data", images, "--options.critic_steps", "many"])
    assert "critic-steps must be a whole number" in capsys.readouterr().err


def test_a_sweep_of_it_in_worker_processes(tmp_path: Path) -> None:
    """They learn of the task by what is sent to them: the file is gone by then."""
    file = tmp_path / "own.py"
    file.write_text(Path(FILE).read_text().replace('"adversarial"', '"own"'))
    fixed = {"task": str(file), "layer": "gn-relu", "epochs": 1, "batch_size": 16, "options.critic_steps": 1}
    training_job.check_names(training_job.config_of(fixed))
    file.unlink()
    target = training_job.Training({**fixed, "data": written(tmp_path / "images")}, "0123456789abcdef")
    swept = {"options.critic_loss": {"values": ["hinge", "logistic"]}}
    sweep = schema.parse({"method": "grid", "metric": {"name": "val_distance"}, "parameters": swept})
    result = driver.drive(sweep, target, tmp_path / "out", make(target, workers=1))
    assert [(trial.status, trial.error) for trial in result.trials] == [("finished", None)] * 2
    kept = [run.config["options"] for run in run_files.read_all(tmp_path / "out").records]
    assert {(one["critic_steps"], one["critic_loss"]) for one in kept} == {(1, "hinge"), (1, "logistic")}


def test_sweep_files_and_their_settings_name_its_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sweep(values: list[Any], *settings: str) -> int:
        file = tmp_path / "sweep.json"
        parameters = {"task": {"value": FILE}, "options": {"parameters": {"critic_steps": {"values": values}}}}
        file.write_text(json.dumps({"method": "grid", "metric": {"name": "val_distance"}, "parameters": parameters}))
        given = ["layer=gn-relu", "epochs=1", "batch_size=16", *settings]
        data = written(tmp_path / "images")
        return cli.main(["sweep", str(file), "--out", str(tmp_path / "out"), "--data", data, "--set", *given])

    assert sweep([1, "many"]) == 2
    assert "parameters.options.parameters.critic_steps.values[1]: options.critic_steps takes int" in (
        capsys.readouterr().err
    )
    assert sweep([1, 2], "options.critic_los=hinge") == 2
    assert "no parameter 'options.critic_los'; did you mean 'options.critic_loss'?" in capsys.readouterr().err
    assert sweep([1, 2], "options.critic_loss=logistic") == 0
    kept = [run.config["options"] for run in run_files.read_all(tmp_path / "out").records]
    assert [one["critic_loss"] for one in kept] == ["logistic"] * 2


def test_an_experiment_of_it(tmp_path: Path) -> None:
    """Whose data are the task's, in worker processes too."""
    file = tmp_path / "experiment.py"
    file.write_text(
        textwrap.dedent(f"""
            from evonorm.lab.experiments.experiment import Axis, Budget, Experiment, of
            from evonorm.lab.experiments.layers import layers
            from evonorm.lab.training import tasks

            OPTIONS = tasks.find({FILE!r}).options

            def config(cell, budget, images):
                own = OPTIONS(critic_steps=cell["critic_steps"])
                return budget.config(cell, task="adversarial", options=own, layer=cell["layer"])

            EXPERIMENT = Experiment(
                "critics", title="Critics", what="critics", question="how many steps", task={FILE!r}, config=config,
                axes=(layers("gn-relu"), Axis("critic_steps", of(1, 2), kind=int)), seeds=(0,),
                budgets=(Budget("quick", 1, None, None, "one epoch", batch_size=16),),
            )
        """)
    )
    arguments = ["--experiment", str(file), "--data", written(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert cli.main(["reproduce", *arguments, "--workers", "1"]) == 0
    found = run_files.read_all(tmp_path / "out").records
    assert sorted(run.config["options"]["critic_steps"] for run in found) == [1, 2]
    assert all(math.isfinite(run.metrics[-1]["val_distance"]) for run in found)


def test_several_processes_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "current", lambda: Replicas(0, 2))
    with pytest.raises(UserError, match="task adversarial is trained in one process: got 2; start it without torchrun"):
        resolve(CONFIG)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must add one task with evonorm.lab.training.tasks.add, got 0"),
        ("1 / 0", "could not be run: ZeroDivisionError: division by zero"),
        (None, "cannot read .*: No such file"),
    ],
)
def test_files_that_are_none(text: str | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=told):
        tasks.find(str(file))
    assert cli.main(["train", "--task", str(file)]) == 2
    assert "Traceback" not in capsys.readouterr().err
