"""A second task in one file (reconstruction.py) goes everywhere that classification does."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from rich.console import Console

from evonorm.lab.analysis import layers
from evonorm.lab.data import sets
from evonorm.lab.errors import UserError
from evonorm.lab.experiments.experiment import Axis, Budget, Experiment, of
from evonorm.lab.experiments.reproduce import plan, reproduce
from evonorm.lab.jobs import campaign, training_job
from evonorm.lab.jobs.executors import make
from evonorm.lab.pages import experiment_page, page, runs_page, sweep_page
from evonorm.lab.records import export, run_files
from evonorm.lab.sweep import driver, of_training, schema
from evonorm.lab.training import checkpoint, sinks, tasks
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.progress import Plain
from evonorm.lab.training.training import train
from tests.lab.pages.test_report import text_of
from tests.lab.pictures import pictures, written
from tests.lab.training.reconstruction import ERROR, RECONSTRUCTION
from tests.lab.training.test_training import StopAfter, curves

CONFIG = TrainConfig(
    task="reconstruction", layer="evonorm-s0", groups=4, epochs=3, batch_size=16, learning_rate=0.1, precision="fp32"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that finished, of two learning rates, and one that diverged."""
    out = tmp_path_factory.mktemp("runs")
    for config in (
        CONFIG,
        replace(CONFIG, learning_rate=0.02),
        replace(CONFIG, layer="none", learning_rate=1e6),
    ):
        train(config, pictures(), out)
    return out


def found(folder: Path, rate: float) -> run_files.Record:
    (record,) = (one for one in run_files.read_all(folder).records if one.config["learning_rate"] == rate)
    return record


def test_it_is_trained_and_its_best_is_the_lowest(folder: Path) -> None:
    record = found(folder, 0.1)
    assert record.status == "finished"
    assert record.name.startswith("reconstruction-evonorm-s0-g4-sgd-")
    assert list(record.metrics[0]) == [
        *("epoch", "train_loss", "train_error", "val_loss", "val_error"),
        *("learning_rate", "images_per_second", "seconds"),
    ]
    assert [epoch["val_error"] for epoch in record.metrics] == pytest.approx(
        [math.sqrt(epoch["val_loss"]) for epoch in record.metrics]
    )
    assert record.metrics[-1]["train_loss"] < record.metrics[0]["train_loss"]
    assert record.summary["best"]["val_error"] == min(epoch["val_error"] for epoch in record.metrics)


def test_the_error_is_what_the_saved_network_makes(folder: Path) -> None:
    record = found(folder, 0.1)
    state = torch.load(folder / record.name / "checkpoint.pt", weights_only=True)["model"]
    network = RECONSTRUCTION.work_class(CONFIG, pictures(), torch.device("cpu"), folder).network()
    network.load_state_dict(state)
    images = torch.from_numpy(pictures().test_images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        own = (network.eval()(images) - images).square().mean().sqrt().item()
    assert record.metrics[-1]["val_error"] == pytest.approx(own, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 4, 6], ids=["first step", "end of an epoch", "middle of an epoch"])
def test_it_resumes_exactly(folder: Path, tmp_path: Path, steps: int) -> None:
    assert train(CONFIG, pictures(), tmp_path, watch=StopAfter(steps)).status == "stopped"
    resumed = train(CONFIG, pictures(), tmp_path)
    assert curves(resumed) == curves(found(folder, 0.1))


def test_its_divergence_is_diagnosed(folder: Path) -> None:
    record = found(folder, 1e6)
    assert record.status == "diverged"
    assert record.summary["diagnosis"]["kind"] in ("forward", "parameter", "gradient", "loss")


def test_it_is_exported(folder: Path) -> None:
    table = export.read(folder)
    assert {"last.val_error", "best.train_error", "config.task"} <= set(table.columns)
    assert not [name for name in table.columns if "accuracy" in name]
    (row,) = (row for row in table.rows if row["config.learning_rate"] == 0.1)
    assert row["last.val_error"] == found(folder, 0.1).metrics[-1]["val_error"]
    assert list(export.read(folder, metrics=True).columns) == ["run", "epoch", *RECONSTRUCTION.figures]


def test_the_page_of_its_runs(folder: Path) -> None:
    losses = {rate: found(folder, rate).metrics[-1]["val_error"] for rate in (0.1, 0.02)}
    best = min(losses, key=lambda rate: losses[rate])
    (ranking,) = runs_page.plain_runs.read(folder).rankings
    assert ranking.ranked[0].config["learning_rate"] == best
    text = page.render(folder)
    said = runs_page.plain_runs.answer(ranking)
    assert "Best of 2 finished runs on pictures (reconstruction)" in said
    assert f"{255 * losses[best]:.4g} grey levels in validation" in said
    assert "validation, grey levels" in text
    assert "accuracy" not in told(text)
    drawn = {chart.title: chart for chart in runs_page.charts(folder).values()}
    assert list(drawn) == ["Loss", "Error"]
    assert drawn["Error"].figure["layout"]["yaxis"]["title"]["text"].startswith("error, grey levels")
    assert drawn["Error"].header[-1] == "validation error, grey levels"
    values = [trace["y"] for trace in drawn["Error"].figure["data"] if trace["x"] == [1, 2, 3]]
    assert [255 * epoch["val_error"] for epoch in found(folder, best).metrics] in values


def told(html: str) -> str:
    """A page with its charts' numbers, without Plotly."""
    return "".join(part for part in html.split("</script>") if len(part) < 1_000_000).lower()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment: two layers at two learning rates, of which the larger is too large for one."""
    out = tmp_path_factory.mktemp("compared")
    experiment = Experiment(
        "own",
        title="Made again",
        what="layers",
        question="which",
        axes=(Axis("layer", of("evonorm-s0", "none")), Axis("rate", of(0.1, 1e6), kind=float)),
        budgets=(Budget("quick", 2, None, None, "a test", batch_size=16),),
        config=lambda cell, budget, images: budget.config(
            cell, layer=cell["layer"], learning_rate=cell["rate"], groups=4
        ),
        task="reconstruction",
    )
    planned = plan(experiment, pictures(), out)
    with mock.patch.object(sets, "load", return_value=pictures()):
        reproduce(planned, pictures(), out, Console(quiet=True), lambda target: make(target, workers=0))
    return out


def test_the_page_of_an_experiment_on_it(compared: Path) -> None:
    """The error's lowest is the best, a run that diverged counts as the worst, and nothing there is an accuracy."""
    _, found = experiment_page.read(next(compared.glob("own-*.json")))
    at = {layer: found.at(layer, 0.1) for layer in ("evonorm-s0", "none")}
    errors = {layer: point.mean for layer, point in at.items() if point is not None}
    best = min(errors, key=lambda layer: errors[layer])
    assert (found.best(best).mean, found.metric) == (errors[best], ERROR)
    lost = found.at("none", 1e6)
    assert lost is not None
    assert (lost.diverged, lost.mean) == (2, found.lost)
    assert found.lost >= max(errors.values())
    html = page.render(compared)
    assert "accuracy" not in told(html)
    text = text_of(html)
    for expected in (
        "Validation error by rate and layer, grey levels: mean over seeds, from the lowest to the highest of them",
        f"a run that diverged counts as the worst run ({255 * found.lost:.4g} grey levels)",
        f"{best} {found.at(best, 0.1)} grey levels; ",
        "a cross: a run diverged there, counted as the worst run",
    ):
        assert expected in text, expected
    (drawn,) = page.draw(compared, compared / "pictures", kind="svg")
    assert "accuracy" not in drawn.read_text(encoding="utf-8")


def test_one_seed_of_what_is_not_counted_tells_nothing_apart(compared: Path) -> None:
    """A share of images has an error of counting; what one seed's grey levels vary by is unknown."""
    _, found = experiment_page.read(next(compared.glob("own-*.json")))
    points = {
        layer: tuple(replace(point, values=point.values[:1]) for point in of_layer)
        for layer, of_layer in found.points.items()
    }
    alone = layers.compared(replace(found, points=points))
    assert all(finding.answer.startswith("no winner: ") for finding in alone.findings)
    assert "Noise: unknown with one seed" in alone.method
    one, other = (points[layer][0] for layer in ("evonorm-s0", "none"))
    gap = replace(found, points=points).gap(one, other)
    assert str(gap) == f"{255 * (one.mean - other.mean):+.4g} ± unknown"
    assert (gap.better, gap.worse) == (False, False)


def test_two_tasks_on_the_same_data_are_two_lists(folder: Path, tmp_path: Path) -> None:
    train(CONFIG, pictures(), tmp_path)
    train(replace(CONFIG, task="classification", epochs=1), pictures(), tmp_path)
    names = {ranking.name: len(ranking.records) for ranking in runs_page.plain_runs.read(tmp_path).rankings}
    assert names == {"pictures": 1, "pictures (reconstruction)": 1}
    assert {"last.val_accuracy", "last.val_error"} <= set(export.read(tmp_path).columns)
    page.render(tmp_path)


def test_a_sweep_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "load", lambda source, **_: pictures())
    sweep = schema.parse(
        {
            "method": "grid",
            "metric": {"name": "val_error", "goal": "minimize"},
            "parameters": {"learning_rate": {"values": [0.02, 0.1, 0.5]}},
        }
    )
    fixed: dict[str, Any] = {"task": "reconstruction", "groups": 4, "epochs": 2, "batch_size": 16, "precision": "fp32"}
    assert of_training.check(sweep, fixed) == []
    target = training_job.Training({**fixed, "data": "pictures"}, "0123456789abcdef")
    result = driver.drive(sweep, target, tmp_path, make(target, workers=0))
    assert [trial.status for trial in result.trials] == ["finished"] * 3
    values = [trial.value for trial in result.trials]
    assert result.best is not None
    assert result.best.value == min(value for value in values if value is not None)
    assert "val_error" in page.render(tmp_path)
    assert "accuracy" not in told(page.render(tmp_path))
    drawn = sweep_page.charts(tmp_path)
    assert drawn["val_error-against-epoch"].figure["layout"]["yaxis"]["title"]["text"] == "val_error"
    assert "Best val_error:" in text_of(page.render(tmp_path))
    assert {"last.val_error", "best.val_error"} <= set(export.read(tmp_path).columns)
    other = schema.parse({"method": "grid", "metric": {"name": "val_accuracy"}, "parameters": {"epochs": {"value": 1}}})
    with pytest.raises(UserError, match=r"no 'val_accuracy'.*it reports train_loss, train_error, val_loss, val_error"):
        of_training.check(other, fixed)


def test_progress_sinks_and_tables_name_its_metrics(folder: Path) -> None:
    record = found(folder, 0.1)
    written = io.StringIO()
    Plain(Console(file=written, width=200)).epoch(record.metrics[-1])
    assert f"val loss {record.metrics[-1]['val_loss']:.4f} error {record.metrics[-1]['val_error']:.4f}" in (
        written.getvalue()
    )
    assert set(RECONSTRUCTION.figures) == set(sinks.finite(record.metrics[-1]))
    assert sinks.results(record)["best.val_error"] == record.summary["best"]["val_error"]
    one = campaign.PlannedRun(record.name, CONFIG, metrics=record.metrics[-1], status="finished")
    titles = [str(column.header) for column in campaign.results_table([one]).columns]
    assert titles == ["run", "stands for", "status", "epoch", "images/s", "train error", "val error", "val loss"]


def test_a_record_of_a_task_that_is_not_known_is_shown_by_its_loss(folder: Path, tmp_path: Path) -> None:
    """Who is given the folder need not have the file of the task."""
    program = f"from pathlib import Path; from evonorm.lab.pages import page; print(page.render(Path({str(folder)!r})))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"loss {found(folder, 0.1).metrics[-1]['val_loss']:.4g} in validation" in shown.stdout or (
        f"loss {found(folder, 0.02).metrics[-1]['val_loss']:.4g} in validation" in shown.stdout
    )


def test_worker_processes_learn_it(tmp_path: Path) -> None:
    sweep = schema.parse({"method": "grid", "parameters": {"learning_rate": {"values": [0.02]}}})
    source = written(tmp_path / "images")
    fixed = {"task": "reconstruction", "groups": 4, "epochs": 1, "batch_size": 16, "precision": "fp32", "data": source}
    target = training_job.Training(fixed, "0123456789abcdef")
    result = driver.drive(sweep, target, tmp_path / "out", make(target, workers=1))
    assert [(trial.status, trial.error) for trial in result.trials] == [("finished", None)]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (tasks.Task("classification", (tasks.LOSS, ERROR), ERROR, RECONSTRUCTION.work), "already"),
        (tasks.Task("another", (tasks.LOSS,), ERROR, RECONSTRUCTION.work), "hold the goal 'error', of validation"),
        (tasks.Task("another", (ERROR,), ERROR, RECONSTRUCTION.work), "begin with the loss"),
    ],
)
def test_rows_that_do_not_hold(task: tasks.Task, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tasks.add(task)


def test_a_task_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no task 'ranking'; known are classification"):
        train(replace(CONFIG, task="ranking"), pictures(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_checkpoints_from_before_there_were_tasks_are_resumed(tmp_path: Path) -> None:
    """Their position has loss_sum and correct."""
    config = replace(CONFIG, task="classification", learning_rate=1e-2, epochs=2, batch_size=4, train_images=16)
    whole = train(config, pictures(), tmp_path / "whole")
    stopped = train(config, pictures(), tmp_path / "old", watch=StopAfter(6))
    path = tmp_path / "old" / stopped.name / checkpoint.NAME
    state = torch.load(path, weights_only=True)
    sums = state["position"].pop("sums")
    torch.save(
        state | {"position": state["position"] | {"loss_sum": sums["loss"], "correct": sums["accuracy"]}},
        path,
    )
    config_file = path.with_name("config.json")
    content = json.loads(config_file.read_text())
    del content["config"]["task"]
    config_file.write_text(json.dumps(content))
    assert curves(train(config, pictures(), tmp_path / "old")) == curves(whole)
