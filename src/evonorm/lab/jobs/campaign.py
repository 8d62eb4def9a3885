"""A list of training runs, several at once, on the executors that sweeps use; what a person sees meanwhile."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from evonorm.lab.jobs import board as shared
from evonorm.lab.jobs.board import Pace
from evonorm.lab.jobs.board import print_table as print_table
from evonorm.lab.jobs.executors import Executor
from evonorm.lab.jobs.job import Job, Outcome
from evonorm.lab.jobs.logs import LOG
from evonorm.lab.jobs.supervisor import Supervisor, Work
from evonorm.lab.records import run_files
from evonorm.lab.stopping import stop_requests
from evonorm.lab.training import tasks
from evonorm.lab.training.progress import describe, live

if TYPE_CHECKING:
    from evonorm.lab.training.config import TrainConfig

# With more runs than this the live table shows those at work alone.
TABLE_ROWS = 24
# Columns of a terminal that hold the whole table.
NARROW = 120


@dataclass
class PlannedRun:
    """One run folder, and the entries of the experiment's listing that it serves."""

    name: str
    config: TrainConfig
    entries: list[dict[str, Any]] = field(default_factory=list)
    label: str = ""
    status: str = "waiting"
    metrics: Mapping[str, Any] = field(default_factory=dict)
    part: float = 0.0
    errors: int = 0
    deaths: int = 0
    number: int = 0  # in its list; set when they run

    @property
    def words(self) -> str:
        """What a person calls it."""
        return self.name

    @property
    def task(self) -> tasks.Task:
        """What it is trained for."""
        return tasks.get(self.config.task)

    @property
    def behind(self) -> bool:
        """Whether it will not run again."""
        return self.status in ("finished", "diverged", "failed")


def run(runs: Sequence[PlannedRun], out: Path, executor: Executor, board: Board) -> None:
    """Trains what is not trained yet; finished runs are kept, stopped ones go on.

    A run that fails is tried once more and does not stop the rest. Ctrl-C stops all, each with a checkpoint; its
    status is then `stopped` or, where it never began, `waiting`.
    """
    for number, one in enumerate(runs):
        one.number = number
        _look(one, out)
    board.begin()
    todo = [one for one in runs if not one.behind]
    try:
        with board.shown(), stop_requests() as stop_requested:
            Supervisor(_Work(out, board), executor, todo, resumes=True).go(stop_requested)
    finally:
        for one in runs:
            if one.status == "running":
                _look(one, out)


def _look(one: PlannedRun, out: Path) -> None:
    """Takes a run's state from its folder; one that is no longer at work counts as stopped."""
    one.status = "waiting"
    if not (out / one.name / "summary.json").exists():
        return
    # One that cannot be read is waiting: what trains it says why, and it alone fails.
    for record in run_files.read_these([out / one.name]).records:
        one.status = record.status if record.status in ("finished", "diverged") else "stopped"
        one.metrics = record.summary.get("last") or {}
        one.part = 1.0 if one.behind else (record.summary.get("epochs_done") or 0) / one.config.epochs


class _Work(Work[PlannedRun]):
    """The runs as the supervisor's work: where each stands is its status, which the board shows."""

    def __init__(self, out: Path, board: Board) -> None:
        self._out, self._board = out, board

    def job(self, task: PlannedRun) -> Job:
        task.status = "running"
        return Job(task.number, asdict(task.config), self._out / task.name, self._out)

    def moved(self, task: PlannedRun, part: float) -> None:
        task.part = part

    def told(self, task: PlannedRun, metrics: Mapping[str, Any]) -> Collection[int]:
        task.metrics = metrics
        self._board.epoch(task)
        return ()

    def stopped(self, task: PlannedRun) -> None:
        task.status = "stopped"

    def attempt_failed(self, task: PlannedRun, error: str, *, death: bool) -> None:
        task.status = "waiting"
        task.deaths += death
        task.errors += not death

    def ended(self, task: PlannedRun, outcome: Outcome) -> str | None:
        self._end(task, outcome.status, outcome.error)
        return None

    def failed(self, task: PlannedRun, error: str) -> None:
        self._end(task, "failed", f"{error}; see {self._out / task.name / LOG}")

    def say(self, text: str) -> None:
        self._board.say(text)

    def _end(self, task: PlannedRun, status: str, error: str | None) -> None:
        task.status, task.part = status, 1.0
        self._board.ended(task, error)


class Board:
    """What a person sees: on a terminal a live table with a bar of the whole, elsewhere lines."""

    def __init__(self, console: Console, runs: Sequence[PlannedRun], what: str) -> None:
        self._console, self._runs, self._what = console, runs, what
        self._pace = Pace()

    def begin(self) -> None:
        """The runs are about to go on from where their folders say."""
        self._pace = Pace(self._part())
        behind = sum(one.behind for one in self._runs)
        self.say(f"{self._what}: {len(self._runs)} runs" + (f", {behind} of them already there" if behind else ""))

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the live table while the block runs, where the console is a terminal."""
        with live(self._console, self):
            yield

    def epoch(self, one: PlannedRun) -> None:
        """An epoch of this run is done."""
        if not self._console.is_terminal and one.config.epochs > 1:
            self.say(f"  {one.name}: {describe(one.metrics)}")

    def ended(self, one: PlannedRun, error: str | None) -> None:
        """This run will not run again."""
        goal = one.task.goal
        value = one.metrics.get(goal.key())
        figures = f", val {goal.words} {value:.4f}" if value is not None else ""
        told = f" ({one.label})" if one.label else ""
        self.say(f"{one.name}{told} {one.status}{figures}{f': {error}' if error else ''}  [{self._line()}]")

    def say(self, text: str) -> None:
        """Something to know."""
        shared.say(self._console, text)

    def _part(self) -> float:
        return sum(one.part for one in self._runs)

    def _line(self) -> str:
        counts = shared.counted(Counter(one.status for one in self._runs), ("running", "diverged", "failed"))
        behind, total = sum(one.behind for one in self._runs), len(self._runs)
        return shared.standing(behind, total, "runs", counts, self._pace.left(self._part(), total))

    def __rich__(self) -> RenderableType:
        width = self._console.width
        at_work = [one for one in self._runs if one.status == "running"]
        table = results_table(self._runs if len(self._runs) <= TABLE_ROWS else at_work, width=width)
        return shared.stacked([table], f"{self._what}: {self._line()}", self._part(), len(self._runs))


def results_table(runs: Iterable[PlannedRun], *, width: int | None = None) -> Table:
    """The runs and where each stands; where a width below NARROW is given, without what the page shows too."""
    runs = list(runs)
    narrow = width is not None and width < NARROW
    measured = _measured(runs, narrow=narrow)
    about = _NARROW_COLUMNS if narrow else _COLUMNS
    table = Table(box=box.SIMPLE if narrow else box.HEAVY_HEAD)
    for column in (*about, *measured):
        words = column in ("run", "stands for", "status")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for one in runs:
        cells = _cells(one)
        figures = [one.metrics.get(key) for key in measured.values()]
        table.add_row(*(cells[column] for column in about), *("" if v is None else f"{v:.3f}" for v in figures))
    return table


_COLUMNS = ("run", "stands for", "status", "epoch", "images/s")
_NARROW_COLUMNS = ("run", "status", "epoch")


def _measured(runs: Iterable[PlannedRun], *, narrow: bool) -> dict[str, str]:
    """Of the runs' tasks, columns and what they show: the goal, and in a wide table all that was validated."""
    found: dict[str, str] = {}
    for task in {one.task.name: one.task for one in runs}.values() or [tasks.CLASSIFICATION]:
        shown = [] if narrow or task.goal not in task.measured_on("train") else [(task.goal, "train")]
        shown += [(task.goal, "val")]
        shown += [] if narrow else [(metric, "val") for metric in task.measured_on("val") if metric != task.goal]
        found |= {f"{split} {metric.short or metric.words}": metric.key(split) for metric, split in shown}
    return found


def _cells(one: PlannedRun) -> dict[str, str | Text]:
    status = f"{one.status} {one.part:.0%}" if one.status in ("running", "stopped") else one.status
    speed = one.metrics.get("images_per_second")
    epoch, pace = str(one.metrics.get("epoch", "")), "" if speed is None else f"{speed:.0f}"
    return dict(zip(_COLUMNS, (Text(one.name), Text(one.label), status, epoch, pace), strict=True))
