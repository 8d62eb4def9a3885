"""What a sweep's page says it is of, what its metric means, its curves, its links, its axes' marks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evonorm import cli
from evonorm.lab.analysis import sweep_words, swept
from evonorm.lab.pages import learning_charts, page, sweep_charts
from evonorm.lab.records import run_files
from evonorm.lab.sweep.journal import SWEEP
from evonorm.lab.training.config import TrainConfig
from tests.lab import sweeps
from tests.lab.pages.browser import tab
from tests.lab.pages.test_report import epochs_of, make_run, text_of

TRAINING = {"training": {"layer": "evonorm-s0"}, "data": "f" * 16}
CONFIG = TrainConfig(layer="evonorm-s0", epochs=4)


def trained(folder: Path, metric: str = "accuracy", goal: str = "maximize", count: int = 10, **runs: Any) -> Path:
    """Trials of our training with their run folders; a trial's validation is two points below its training."""
    config = {**sweeps.REPORT, "metric": {"name": metric, "goal": goal}}
    rows = sweeps.drawn(count, lambda parameters, rng: rng.uniform(0.3, 0.9))
    for place, row in enumerate(rows):
        own = replace(CONFIG, learning_rate=row["parameters"]["learning_rate"])
        epochs = epochs_of(own, row["value"] - 0.02)
        make_run(folder / f"run-{place}", own, epochs)
        row.update(run=f"run-{place}", history=[epoch["train_accuracy"] for epoch in epochs], metrics=epochs[-1])
    return sweeps.write(folder, rows, config, runs=runs or TRAINING)


def named(folder: Path, file: str) -> Path:
    run_files.write_json(folder / SWEEP, run_files.read_json(folder / SWEEP) | {"file": file})
    return folder


def test_file_data_and_network_at_the_top(tmp_path: Path) -> None:
    text = text_of(page.render(named(trained(tmp_path), "report_sweep.yaml")))
    top = text.split("The report")[0]
    assert "Sweep file: report_sweep.yaml." in top
    assert "Data: pictures: 50,000 training and 10,000 validation images." in top
    assert "Network: mini-inception, with evonorm-s0." in top


def test_several_networks_and_data_sets(tmp_path: Path) -> None:
    trained(tmp_path)
    for run, (model, data) in {"run-0": ("resnet18", "digits"), "run-1": ("timm:vit", "pictures")}.items():
        content = run_files.read_json(tmp_path / run / "config.json")
        content["config"]["model"], content["dataset"]["name"] = model, data
        content["dataset"]["train_images"] = 100
        run_files.write_json(tmp_path / run / "config.json", content)
        content["dataset"]["notice"] = f"These are {data}."
        run_files.write_json(tmp_path / run / "config.json", content)
    text = text_of(page.render(tmp_path))
    assert "Mind the data. These are digits." in text
    assert "Mind the data. These are pictures." in text
    assert "Network: resnet18, timm:vit, mini-inception, with evonorm-s0." in text
    assert "digits: 100 training and 10,000 validation images; pictures: 100 to 50,000 training and" in text


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"program": "train.py"}, "Every trial runs train.py."),
        ({"command": ["python", "x.py", "${args}"]}, "Every trial runs python x.py ${args}."),
        ({"function": "objective"}, "Every trial runs objective."),
    ],
)
def test_programs(tmp_path: Path, runs: dict[str, Any], words: str) -> None:
    rows = sweeps.drawn(10, lambda parameters, rng: rng.random())
    text = text_of(page.render(named(sweeps.write(tmp_path, rows, runs=runs), "my.json")))
    assert f"Sweep file: my.json. {words}" in text
    # What a program calls accuracy only it knows.
    assert "is measured on" not in text


def test_a_sweep_without_a_file_or_a_run(tmp_path: Path) -> None:
    rows = sweeps.drawn(10, lambda parameters, rng: rng.random())
    text = text_of(page.render(sweeps.write(tmp_path, rows, runs=TRAINING)))
    assert "Sweep file" not in text
    assert "Data: not known, since no trial has begun a run. Network: mini-inception, with evonorm-s0." in text


@pytest.mark.parametrize(
    ("metric", "goal", "expected"),
    [
        ("accuracy", "maximize", "it is the training accuracy, as in the report's sweep."),
        ("train_accuracy", "maximize", "it is the training accuracy."),
        ("loss", "minimize", "it is the training loss."),
        ("train_loss", "minimize", "it is the training loss."),
        ("val_accuracy", "maximize", "val_accuracy is measured on the validation images"),
        ("val_loss", "minimize", "val_loss is measured on the validation images"),
        ("images_per_second", "maximize", None),
    ],
)
def test_what_the_metric_is_measured_on(tmp_path: Path, metric: str, goal: str, expected: str | None) -> None:
    found = swept.read(trained(tmp_path, metric, goal))
    words = sweep_words.meaning(found)
    assert (expected or "") in words
    assert bool(words) == (expected is not None)
    assert ("not on validation images" in words) == (expected is not None and "training" in expected)


def test_the_best_trials_validation_is_beside_its_training(tmp_path: Path) -> None:
    found = swept.read(trained(tmp_path))
    best = max(found.trials, key=lambda trial: trial.value or 0.0)
    told = sweep_words.meaning(found)
    trial = replace(best, metrics={"val_accuracy": 0.4375})
    others = tuple(trial if one is best else one for one in found.trials)
    assert "The best trial" not in told  # its last report has no validation
    words = sweep_words.meaning(replace(found, trials=others))
    assert f"The best trial, {best.number}, ends with a validation accuracy of 0.4375." in words


def test_learning_curves(tmp_path: Path) -> None:
    found = swept.read(trained(tmp_path))
    made = run_files.read_all(tmp_path).records
    ours, validation = learning_charts.learning(found, made)
    assert (ours.title, validation.title) == ("accuracy against epoch", "val_accuracy against epoch")
    for chart, key in ((ours, "train_accuracy"), (validation, "val_accuracy")):
        lines: dict[int, list[tuple[float, float]]] = {}
        for trace in chart.figure["data"]:
            for number, x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True):
                if y is not None:
                    lines.setdefault(number, []).append((x, y))
        assert len(lines) == 10
        for number, line in lines.items():
            epochs = run_files.read(tmp_path / f"run-{number}").metrics
            assert line == [(epoch["epoch"], epoch[key]) for epoch in epochs]
    assert len(ours.rows) == 10
    # The best are drawn last, on top.
    best = max(found.trials, key=lambda trial: trial.value or 0.0).number
    assert best in ours.figure["data"][-1]["customdata"]


def test_trials_of_one_report_have_no_curve(tmp_path: Path) -> None:
    found = swept.read(sweeps.write(tmp_path, sweeps.drawn(10, lambda parameters, rng: rng.random())))
    assert learning_charts.learning(found, ()) == []
    assert "Learning curves" not in text_of(page.render(tmp_path))


def test_trials_lead_to_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path / "sweep")
    (tmp_path / "sweep" / "run-3").rename(tmp_path / "sweep" / "gone")
    (tmp_path / "sweep" / "trials" / "0003").mkdir(parents=True)
    (tmp_path / "sweep" / "run-4").rename(tmp_path / "sweep" / "gone too")
    for output, above in (("sweep/report.html", ""), ("pages/report.html", "../sweep/")):
        assert cli.main(["report", str(tmp_path / "sweep"), "-o", str(tmp_path / output)]) == 0
        table = (tmp_path / output).read_text().split('id="trials"')[1].split("</table>")[0]
        links = dict(re.findall(r'<th scope="row" class="number"><a href="([^"]*)">(\d+)</a>', table))
        found = {int(number): link for link, number in links.items()}
        assert found[0] == f"./{above}run-0/"
        assert found[3] == f"./{above}trials/0003/"  # its log
        assert 4 not in found
        assert all((tmp_path / output).parent.joinpath(link).is_dir() for link in found.values())


@pytest.mark.parametrize(
    ("parameter", "kind", "marks"),
    [
        ({"values": [4, 8, 12, 16, 32]}, "linear", ["4", "8", "12", "16", "32"]),
        ({"values": [1e-2, 1e-3, 1e-4]}, "log", ["0.0001", "0.001", "0.01"]),
        ({"values": [0.5, 0.9, 0.99]}, "linear", ["0.5", "0.9", "0.99"]),
        ({"values": [0.5, 0.9, 0.905]}, "linear", ["0.5", "0.9"]),  # two labels in one place cannot be read
        ({"values": [-2, 3]}, "linear", ["−2", "3"]),
        ({"values": ["b", "a"]}, None, ["b", "a"]),
        ({"values": [True, False]}, None, ["true", "false"]),
        ({"min": 0.0, "max": 1.0}, "linear", None),
        ({"distribution": "log_uniform_values", "min": 1e-6, "max": 1.0}, "log", None),
        ({"values": [0.1 * place for place in range(30)]}, "linear", None),
    ],
)
def test_an_axis_is_marked_at_its_values(
    tmp_path: Path, parameter: dict[str, Any], kind: str | None, marks: list[str] | None
) -> None:
    values = parameter.get("values") or [10 ** -(0.37 * place % 6) for place in range(11)]
    config = {"method": "random", "metric": {"name": "loss"}, "parameters": {"p": parameter}}
    rows = [{"parameters": {"p": value}, "value": float(place)} for place, value in enumerate(values * 2)]
    if marks is None and "values" not in parameter:
        rows = rows[: len(values)]
    found = swept.read(sweeps.write(tmp_path, rows, config))
    axis = sweep_charts.against(found, found.axes[0]).figure["layout"]["xaxis"]
    assert axis.get("type", "linear" if kind else None) == kind
    assert axis.get("ticktext") == marks
    if marks is not None and kind is not None:
        assert axis["tickvals"] == [float(mark.replace("−", "-")) for mark in marks]


def test_learning_curves_follow_the_filter(tmp_path: Path) -> None:
    page.write(trained(tmp_path, count=30), tmp_path / "report.html")
    with tab(tmp_path / "report.html", "dark", 390) as opened:
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        opened.fill("#words", "adam")
        opened.wait_for_function("document.querySelectorAll('#trials tbody tr:not([hidden])').length < 30")
        opened.evaluate("document.getElementById('learning').scrollIntoView()")
        shown = (
            "new Set([...document.querySelectorAll('section[aria-label=\"Learning curves\"] .chart')[0].data].flatMap("
        )
        shown += "t => [...t.customdata]))"
        rows = (
            "[...document.querySelectorAll('#trials tbody tr:not([hidden])')].map(r => Number(r.cells[0].textContent))"
        )
        opened.wait_for_function(f"{shown}.size === {rows}.length")
        assert sorted(opened.evaluate(f"[...{shown}]")) == sorted(opened.evaluate(rows))
        opened.fill("#words", "")
        opened.wait_for_function(f"{shown}.size === 30")
