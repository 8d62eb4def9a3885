"""The comparison end to end on a little data set: plan, runs, resuming, failures, page."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console

from evonorm.lab import experiments, records, reproduce
from evonorm.lab.errors import UserError
from evonorm.lab.experiments import EXPERIMENTS, Budget
from evonorm.lab.report import page
from evonorm.lab.report.comparison import read
from tests.lab.pictures import pictures

TINY = Budget("tiny", 1, 16, 8, "a test")


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experiments.BUDGETS, "tiny", TINY)


def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def test_twenty_two_entries_are_fourteen_runs(tmp_path: Path) -> None:
    """Four published EvoNorms without augmentation are one function, four with it another; two BN-ReLU runs shared."""
    budget = Budget("full", 60, None, None, "")
    runs = reproduce.plan(pictures(), budget, tmp_path, data=None, experiments=EXPERIMENTS)
    assert sum(len(run.entries) for run in runs) == 22
    # bn-adam, bn-sgd, bn-sgd-aug twice, identity with and without augmentation, and eight EvoNorms as intended.
    assert len(runs) == 4 + 2 + 8
    served = {run.serves() for run in runs}
    assert "bn-relu-adam" in served
    assert "b0 (published), s0-g8 (published), s0-g16 (published), s0-g32 (published)" in served


def test_from_data_to_page(tmp_path: Path) -> None:
    out = console()
    only = ["bn-relu-sgd", "b0", "s0-g32"]
    runs, comparison = reproduce.reproduce(pictures(), tmp_path, out, budget="tiny", only=only, seeds=(0, 1))
    assert [run.status for run in runs] == ["finished"] * 8  # per seed: bn, identity, b0, s0
    content = records.read_json(comparison)
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
    again, _ = reproduce.reproduce(pictures(), tmp_path, out, budget="tiny", only=["b0"], seeds=(0,))
    assert [run.status for run in again] == ["finished"] * 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(records.read_json(comparison)["entries"]) == 12


def test_a_failed_run_does_not_stop_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = reproduce.train

    def train(config, *args, **kwargs):
        if config.layer == "none":
            raise RuntimeError("the roof fell in")
        return real(config, *args, **kwargs)

    monkeypatch.setattr(reproduce, "train", train)
    out = console()
    runs, _ = reproduce.reproduce(pictures(), tmp_path, out, budget="tiny", only=["b0"])
    assert [run.status for run in runs] == ["failed", "finished"]
    assert "the roof fell in" in out.file.getvalue()


def test_ctrl_c_stops_all_and_repeating_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experiments.BUDGETS, "tiny", Budget("tiny", 3, 16, 8, "a test"))
    with monkeypatch.context() as patched:
        step = reproduce.Board.step

        def pressed(self, **figures):
            step(self, **figures)
            signal.raise_signal(signal.SIGINT)

        patched.setattr(reproduce.Board, "step", pressed)
        runs, comparison = reproduce.reproduce(pictures(), tmp_path, console(), budget="tiny", only=["b0"])
        assert [run.status for run in runs] == ["stopped", "waiting"]
    assert len(records.read_json(comparison)["entries"]) == 2
    page.write(tmp_path, tmp_path / "report.html")
    runs, _ = reproduce.reproduce(pictures(), tmp_path, console(), budget="tiny", only=["b0"])
    assert [run.status for run in runs] == ["finished"] * 2


def test_ctrl_c_in_the_last_validation_still_stops_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = reproduce.Board.epoch

    def pressed(self, metrics):
        epoch(self, metrics)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(reproduce.Board, "epoch", pressed)
    runs, _ = reproduce.reproduce(pictures(), tmp_path, console(), budget="tiny", only=["b0"])
    assert [run.status for run in runs] == ["finished", "waiting"]


def test_the_live_table_shows_every_run(tmp_path: Path) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=160)
    runs, _ = reproduce.reproduce(pictures(), tmp_path, terminal, budget="tiny", only=["s0-g8"])
    shown = terminal.file.getvalue()
    for run in runs:
        assert run.name in shown
    assert "images/s" in shown


def test_unknown_experiments_are_named() -> None:
    with pytest.raises(UserError, match="no experiment is called 'b1'; choose from bn-relu-adam"):
        reproduce.choose(["b0", "b1"])
    assert [e.id for e in reproduce.choose(["s0-g8", "b0", "s0-g8"])] == ["s0-g8", "b0"]


def test_a_broken_comparison_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "comparison-tiny-0123456789abcdef.json").write_text('{"entries": 3}')
    with pytest.raises(UserError, match="cannot use"):
        reproduce.reproduce(pictures(), tmp_path, console(), budget="tiny", only=["b0"])
