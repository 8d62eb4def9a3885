"""The table of runs: whole on a narrow terminal, and a line a run in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from evonorm.lab.jobs.campaign import PlannedRun, print_table, results_table
from evonorm.lab.training.config import TrainConfig

NAMES = ["evonorm-s0-g32-sgd-aug-45268ecf6665", "resnet18-evonorm-b0-sgd-06a3d4c0038d"]


def runs() -> list[PlannedRun]:
    metrics = {"epoch": 60, "images_per_second": 12345.0, "train_accuracy": 0.9, "val_accuracy": 0.81, "val_loss": 0.5}
    return [PlannedRun(name, TrainConfig(), label="s0-g32 (intended)", metrics=metrics) for name in NAMES]


def shown(width: int | None, *, columns: int, terminal: bool) -> list[str]:
    text = io.StringIO()
    console = Console(file=text, width=columns, force_terminal=terminal, color_system=None)
    print_table(console, results_table(runs(), width=width))
    assert console.width == columns
    return text.getvalue().splitlines()


@pytest.mark.parametrize("columns", [80, 100, 119])
def test_nothing_is_cut_on_a_narrow_terminal(columns: int) -> None:
    lines = shown(columns, columns=columns, terminal=True)
    assert max(map(len, lines)) <= columns
    for name in NAMES:
        (line,) = (line for line in lines if name in line)
        assert "waiting" in line
        assert "0.810" in line
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("columns", [20, 80, 200])
def test_a_pipe_gets_whole_lines(columns: int) -> None:
    lines = shown(None, columns=columns, terminal=False)
    for name in NAMES:
        (line,) = (line for line in lines if name in line)
        for cell in ("s0-g32 (intended)", "waiting", "12345", "0.900", "0.810", "0.500"):
            assert cell in line
