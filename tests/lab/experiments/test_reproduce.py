"""Experiments end to end on a little data set: plan, runs, resuming, failures, page."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evonorm import cli
from evonorm.lab import machine
from evonorm.lab.analysis.comparison import read
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import architectures, batch_size, learning_rate, report
from evonorm.lab.experiments.experiment import Budget, Experiment, Images
from evonorm.lab.experiments.reproduce import Plan, plan, reproduce
from evonorm.lab.jobs import campaign
from evonorm.lab.jobs.executors import InThisProcess, Processes
from evonorm.lab.jobs.job import Job, Outcome, Reporter
from evonorm.lab.jobs.training_job import Training
from evonorm.lab.pages import experiment_page, page
from evonorm.lab.records import run_files
from evonorm.lab.training.training import run_folder
from evonorm.layers import kernels
from tests.lab.pictures import pictures, written

TINY = Budget("tiny", 1, 16, 8, "a test", batch_size=8)
COMPARISON = replace(report.EXPERIMENT, budgets=(TINY,))
LEARNING_RATE = replace(learning_rate.EXPERIMENT, budgets=(TINY,))
BATCH_SIZE = replace(batch_size.EXPERIMENT, budgets=(TINY,))
ARCHITECTURES = replace(architectures.EXPERIMENT, budgets=(TINY,))


@pytest.fixture
def source(tmp_path: Path) -> str:
    """The little data set as a folder of images, which worker processes can read."""
    return written(tmp_path / "pictures")


class Here(Training):
    """Trains on the data set it is given, in this process; before each run it may do something else."""

    def __init__(self, before: Callable[[Job], None] = lambda job: None) -> None:
        super().__init__({}, pictures().fingerprint)
        self._before = before

    def _loaded(self, task, source):
        return pictures()

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        self._before(job)
        return super().run(job, reporter)


def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def here(target: Training) -> InThisProcess:
    return InThisProcess(Here())


def comparison(
    out: Path,
    shown: Console,
    before: Callable[[Job], None] = lambda job: None,
    only: list[str] | None = None,
    experiment: Experiment = COMPARISON,
    **chosen,
) -> Plan:
    planned = plan(experiment, pictures(), out, budget="tiny", asked={"experiment": only}, **chosen)
    reproduce(planned, pictures(), out, shown, lambda target: InThisProcess(Here(before)))
    return planned


def test_twenty_two_entries_are_fourteen_runs(tmp_path: Path) -> None:
    """Four published EvoNorms without augmentation are one function, four with it another; two BN-ReLU runs shared."""
    runs = plan(report.EXPERIMENT, pictures(), tmp_path, budget="full").runs
    assert sum(len(run.entries) for run in runs) == 22
    # bn-adam, bn-sgd, bn-sgd-aug twice, identity with and without augmentation, and eight EvoNorms as intended.
    assert len(runs) == 4 + 2 + 8
    served = {run.label for run in runs}
    assert "bn-relu-adam" in served
    assert "b0 (published), s0-g8 (published), s0-g16 (published), s0-g32 (published)" in served


def test_from_data_to_page(tmp_path: Path) -> None:
    out = console()
    only = ["bn-relu-sgd", "b0", "s0-g32"]
    planned = comparison(tmp_path, out, only=only, seeds=(0, 1))
    assert [run.status for run in planned.runs] == ["finished"] * 8  # per seed: bn, identity, b0, s0
    assert "8 of 8 runs" in out.file.getvalue()
    content = run_files.read_json(planned.listing)
    assert len(content["entries"]) == 3 * 2 * 2
    assert content["dataset"]["train_images"] == 16
    page.write(tmp_path, tmp_path / "report.html")
    found = read(tmp_path)
    assert found.seeds == [0, 1]
    assert {id for id, _ in found.cells} == set(only)
    assert found.cell("s0-g32", "published").same_as == ("b0", "published")
    assert found.cell("s0-g32", "intended").records[0].summary["groups_in_force"]["48"] == 24
    # Again: nothing is trained, nothing is lost.
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoint.pt")}
    again = comparison(tmp_path, out, only=["b0"], seeds=(0,))
    assert [run.status for run in again.runs] == ["finished"] * 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(run_files.read_json(planned.listing)["entries"]) == 12


def test_worker_processes_make_the_same_runs(tmp_path: Path, source: str) -> None:
    from evonorm.lab.data.sets import load

    dataset = load(source)
    asked = {"layer": ["bn-relu", "evonorm-s0"], "optimizer": ["sgd"], "pixels": ["raw"], "learning_rate": [0.01]}
    planned = plan(LEARNING_RATE, dataset, tmp_path / "out", budget="tiny", data=source, asked=asked)
    assert [run.label for run in planned.runs] == ["0.01, raw, seed 0"] * 2 + ["0.01, raw, seed 1"] * 2
    reproduce(planned, dataset, tmp_path / "out", console(), lambda target: Processes(target, 2))
    assert [run.status for run in planned.runs] == ["finished"] * 4
    entries = run_files.read_json(planned.listing)["entries"]
    assert [(entry["layer"], entry["seed"]) for entry in entries] == [
        ("bn-relu", 0),
        ("evonorm-s0", 0),
        ("bn-relu", 1),
        ("evonorm-s0", 1),
    ]
    for entry in entries:
        record = run_files.read(tmp_path / "out" / entry["run"])
        assert (record.config["layer"], record.config["seeds"]["model"]) == (entry["layer"], entry["seed"])


def test_batch_sizes_from_data_to_page(tmp_path: Path) -> None:
    asked = {"layer": ["bn-relu", "evonorm-s0"], "batch_size": [4, 16]}
    planned = plan(BATCH_SIZE, pictures(), tmp_path, budget="tiny", asked=asked, seeds=[0])
    reproduce(planned, pictures(), tmp_path, console(), here)
    assert [run.status for run in planned.runs] == ["finished"] * 4
    _, found = experiment_page.read(planned.listing)
    assert {layer: sorted(point.place for point in points) for layer, points in found.points.items()} == {
        "bn-relu": [4, 16],
        "evonorm-s0": [4, 16],
    }
    for run in planned.runs:
        config = run_files.read(tmp_path / run.name).config
        assert config["learning_rate"] == pytest.approx(0.01 * config["batch_size"] / 128)
    page.write(tmp_path, tmp_path / "page.html")
    assert "What does a batch of 4 cost, against one of 16" in (tmp_path / "page.html").read_text()


def test_architectures_from_data_to_page(tmp_path: Path) -> None:
    asked = {"layer": ["bn-relu", "evonorm-s0"], "model": ["mini-inception", "timm:test_resnet"]}
    planned = plan(ARCHITECTURES, pictures(), tmp_path, budget="tiny", asked=asked, seeds=[0])
    assert planned.listing.name == "architectures-tiny-0123456789abcdef.json"
    assert [run.label for run in planned.runs] == ["mini-inception, seed 0"] * 2 + ["timm:test_resnet, seed 0"] * 2
    reproduce(planned, pictures(), tmp_path, console(), here)
    assert [run.status for run in planned.runs] == ["finished"] * 4
    for entry in run_files.read_json(planned.listing)["entries"]:
        config = run_files.read(tmp_path / entry["run"]).config
        assert (config["model"], config["layer"]) == (entry["model"], entry["layer"])
    page.write(tmp_path, tmp_path / "page.html")
    assert "Is evonorm-s0 better than bn-relu?" in (tmp_path / "page.html").read_text()


def test_a_model_is_listed_by_its_one_name(tmp_path: Path) -> None:
    asked = {"layer": ["bn-relu"], "model": ["resnet18", "torchvision:resnet18"]}
    (run,) = plan(ARCHITECTURES, pictures(), tmp_path, budget="tiny", asked=asked, seeds=[0]).runs
    assert {entry["model"] for entry in run.entries} == {"resnet18"}
    with pytest.raises(UserError, match="no model is called 'resnet19'"):
        plan(ARCHITECTURES, pictures(), tmp_path, budget="tiny", asked={"model": ["resnet19"]})


@pytest.mark.parametrize(
    ("experiment", "asked", "varied"),
    [
        (architectures.EXPERIMENT, {}, {"model", "layer", "seeds"}),
        (batch_size.EXPERIMENT, {"layer": ["bn-relu"]}, {"batch_size", "learning_rate", "decay", "seeds"}),
        (
            learning_rate.EXPERIMENT,
            {"layer": ["evonorm-s0"], "learning_rate": [0.01, 0.1]},
            {"learning_rate", "optimizer", "standardize", "seeds"},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_runs_of_an_experiment_differ_in_its_axes_alone(experiment, asked, varied) -> None:
    budget = experiment.budget("hour")
    first, *others = [experiment.config(cell, budget, Images(100, 100)) for cell in experiment.cells(asked)]
    assert {name for one in others for name, value in vars(one).items() if value != getattr(first, name)} == varied


@pytest.mark.parametrize(
    ("experiment", "asked", "said"),
    [
        (report.EXPERIMENT, {"experiment": ["b0", "b1"]}, "no experiment is called 'b1'; choose from bn-relu-adam"),
        (report.EXPERIMENT, {"variant": ["both", "all"]}, "variant must be of published, intended, both: got 'all'"),
        (batch_size.EXPERIMENT, {"batch_size": [0]}, "at least 1: got 0"),
        (learning_rate.EXPERIMENT, {"learning_rate": [-1.0]}, "above 0: got -1"),
        (learning_rate.EXPERIMENT, {"optimizer": ["lion"]}, "optimizers must be of sgd, adam: got 'lion'"),
        (learning_rate.EXPERIMENT, {"layer": ["evonorm-s9"]}, "no layer is called 'evonorm-s9'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_value_that_an_axis_does_not_take_is_refused(experiment, asked, said) -> None:
    with pytest.raises(UserError, match=said):
        list(experiment.cells(asked))


def test_cells_come_each_once_in_the_order_of_their_axis() -> None:
    asked = {"layer": ["evonorm-s0", "bn-relu", "evonorm-s0"], "batch_size": [4, 16, 4]}
    cells = [tuple(cell.values()) for cell in batch_size.EXPERIMENT.cells(asked, [1, 0])]
    assert cells == [
        *(("evonorm-s0", 16, 1), ("bn-relu", 16, 1), ("evonorm-s0", 4, 1), ("bn-relu", 4, 1)),
        *(("evonorm-s0", 16, 0), ("bn-relu", 16, 0), ("evonorm-s0", 4, 0), ("bn-relu", 4, 0)),
    ]
    ids = [cell["experiment"] for cell in report.EXPERIMENT.cells({"experiment": ["s0-g8", "b0"], "variant": ["both"]})]
    assert ids == ["s0-g8", "s0-g8", "b0", "b0"]


def test_a_budget_that_there_is_not_is_named() -> None:
    budgets = "batch-size has no budget called 'huge'; choose from quick, hour, quarter, full"
    with pytest.raises(UserError, match=budgets):
        batch_size.EXPERIMENT.budget("huge")


def test_a_failed_run_does_not_stop_the_rest(tmp_path: Path) -> None:
    attempts = []

    def before(job: Job) -> None:
        if job.parameters["layer"] == "none":
            attempts.append(job.number)
            raise RuntimeError("the roof fell in")

    out = console()
    plan = comparison(tmp_path, out, before, only=["b0"])
    assert [run.status for run in plan.runs] == ["failed", "finished"]
    assert len(attempts) == 2  # once more, then no more
    assert "the roof fell in" in out.file.getvalue()


def test_ctrl_c_stops_all_and_repeating_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = replace(COMPARISON, budgets=(replace(TINY, epochs=3),))
    with monkeypatch.context() as patched:
        epoch = campaign.Board.epoch

        def pressed(self, run):
            epoch(self, run)
            signal.raise_signal(signal.SIGINT)

        patched.setattr(campaign.Board, "epoch", pressed)
        plan = comparison(tmp_path, console(), only=["b0"], experiment=longer)
        assert [run.status for run in plan.runs][1] == "waiting"
        assert plan.runs[0].status in ("stopped", "finished")
    assert len(run_files.read_json(plan.listing)["entries"]) == 2
    page.write(tmp_path, tmp_path / "report.html")
    plan = comparison(tmp_path, console(), only=["b0"], experiment=longer)
    assert [run.status for run in plan.runs] == ["finished"] * 2


def test_what_is_stopped_before_anything_can_be_compared_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no page, and the exit code of a stop: who repeats the command goes by that."""
    monkeypatch.setattr(campaign, "run", lambda *arguments: None)
    words = ["reproduce", "--experiment", "batch-size", "--data", "digits", "--out", str(tmp_path)]
    assert cli.main(words) == cli.INTERRUPTED
    shown = capsys.readouterr().out
    assert "no page: nothing in " in shown
    assert shown.endswith("stopped; repeat the command to go on\n")


def test_the_live_table_shows_every_run(tmp_path: Path) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
    plan = comparison(tmp_path, terminal, only=["s0-g8"])
    shown = terminal.file.getvalue()
    for run in plan.runs:
        assert run.name in shown
    assert "2 of 2 runs" in shown


def test_a_broken_comparison_file_is_named(tmp_path: Path) -> None:
    (tmp_path / f"comparison-tiny-{pictures().fingerprint}.json").write_text('{"entries": 3}')
    with pytest.raises(UserError, match="cannot use"):
        comparison(tmp_path, console(), only=["b0"])


def test_every_layer_gets_the_same_trials() -> None:
    cells = list(learning_rate.EXPERIMENT.cells({"layer": ["bn-relu", "evonorm-s0", "bn-relu"]}))
    assert len(cells) == 2 * 8 * 2 * 2 * 2
    of_bn, of_s0 = (
        [{**cell, "layer": ""} for cell in cells if cell["layer"] == layer] for layer in ("bn-relu", "evonorm-s0")
    )
    assert of_bn == of_s0


def test_a_second_command_on_one_folder_is_refused_with_words(tmp_path: Path) -> None:
    refused: list[str] = []

    def second(job: Job) -> None:
        with pytest.raises(UserError) as caught:
            comparison(tmp_path, console())
        refused.append(str(caught.value))

    planned = comparison(tmp_path, console(), second)
    assert {run.status for run in planned.runs} <= {"finished", "diverged"}
    assert refused
    for told in refused:
        assert told.startswith(f"another command is training the runs in {tmp_path} (process ")
        assert told.endswith("); wait for it, or choose another --out")


def test_the_plan_carries_what_its_machine_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned on a machine with bf16 and kernels, trained on one with neither: the same folders."""
    monkeypatch.setattr(machine, "fast_precision", lambda device: ("bf16", "a test"))
    monkeypatch.setattr(kernels, "_REASON", None)
    planned = plan(COMPARISON, pictures(), tmp_path, budget="tiny")
    assert {run.config.precision for run in planned.runs} == {"bf16"}
    monkeypatch.setattr(machine, "fast_precision", lambda device: ("fp32", "a test"))
    monkeypatch.setattr(kernels, "_REASON", "not built")
    for run in planned.runs:
        assert run_folder(run.config, pictures(), tmp_path).name == run.name
