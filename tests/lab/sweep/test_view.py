"""What a person sees of a sweep."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from evonorm.lab.jobs.logs import LOG
from evonorm.lab.sweep import schema, view
from evonorm.lab.sweep.journal import Trial, trial_folder

SWEEP = schema.parse(
    {"method": "random", "metric": {"name": "loss"}, "run_cap": 5, "parameters": {"lr": {"min": 0.0, "max": 1.0}}}
)


def trials() -> dict[int, Trial]:
    return {
        0: Trial(0, {"lr": 0.25, "deep": {"n": 3}}, status="finished", value=0.5, history=[0.5]),
        1: Trial(1, {"lr": 0.5}, status="failed", error="the roof fell in"),
        2: Trial(2, {"lr": 0.75}, status="running", history=[4.0, 3.0]),
        3: Trial(3, {"lr": 0.9}, status="diverged", value=0.1),
    }


def test_the_board_shows_it_all() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    board = view.Board(console, Path("sweep"))
    found = trials()
    board.begin(SWEEP, 5, {0: found[0]})
    for number in (1, 3):
        board.ended(found[number])
    board.update(found)
    with console.capture() as captured:
        console.print(board)
    shown = captured.get()
    assert "3 of 5 trials, 1 finished, 1 diverged, 1 failed, 0 s left" in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    assert "best loss 0.5, trial 0: lr=0.25 deep.n=3" in lines
    running = next(line.split() for line in lines if line.startswith("2 "))
    assert running == ["2", "3", "2", "lr=0.75"]


def test_every_trial_that_ends_is_a_line_of_a_log() -> None:
    file = io.StringIO()
    with view.shown(Console(file=file, width=200), Path("sweep")) as watch:
        watch.begin(SWEEP, None, {})
        for number, trial in trials().items():
            if number != 2:
                watch.ended(trial)
    lines = file.getvalue().splitlines()
    assert lines[0] == "random sweep, no run_cap: trials until Ctrl-C"
    assert lines[1].startswith("trial 0 finished 0.5: lr=0.25 deep.n=3  [1 trials, 1 finished]")
    assert lines[2:] == [
        "trial 1 failed (the roof fell in): lr=0.5  [2 trials, 1 finished, 1 failed]",
        "trial 3 diverged 0.1: lr=0.9  [3 trials, 1 finished, 1 diverged, 1 failed]",
        "best loss 0.5, trial 0: lr=0.25 deep.n=3",
    ]


def test_the_best_of_equals_is_the_first_drawn_whichever_ends_first() -> None:
    file = io.StringIO()
    with view.shown(Console(file=file, width=200), Path("sweep")) as watch:
        watch.begin(SWEEP, 5, {})
        for number in (2, 0, 1):
            watch.ended(Trial(number, {"lr": 0.1 * number, "name": "ü"}, status="finished", value=0.5))
    assert file.getvalue().splitlines()[-1] == "best loss 0.5, trial 0: lr=0 name=ü"


def test_text_inside_of_a_list_is_shown_as_it_is() -> None:
    assert view.shown_parameters({"a": ["é", 1], "b": {"c": None}}) == 'a=["é", 1] b.c=null'


def test_status_names_what_failed_and_its_log(tmp_path: Path) -> None:
    found = list(trials().values())
    log = trial_folder(tmp_path, 1) / LOG
    log.parent.mkdir(parents=True)
    log.touch()
    assert view.status({"name": "loss"}, found, found[0], tmp_path).splitlines() == [
        "4 trials: 1 finished, 1 diverged, 1 failed, 1 running",
        "best loss 0.5, trial 0: lr=0.25 deep.n=3",
        f"trial 1 failed (the roof fell in; see {log}): lr=0.5",
    ]
    assert view.status(None, [], None, tmp_path) == "0 trials: none yet"
