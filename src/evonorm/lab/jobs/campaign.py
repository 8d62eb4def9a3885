"""A list of training runs, several at once, on the executors that sweeps use; what a person sees meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors import Ended, Executor, Lost, Message, Moved, Told
from evonorm.lab.jobs.job import Job
from evonorm.lab.records import run_files
from evonorm.lab.stopping import stop_requests
from evonorm.lab.sweep.driver import MOST_DEATHS, MOST_ERRORS, POLL_SECONDS, STOP_SECONDS
from evonorm.lab.sweep.journal import LOG
from evonorm.lab.sweep.view import duration
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
    todo = []
    for one in runs:
        _look(one, out)
        if not one.behind:
            todo.append(one)
    board.begin()
    work = _Work(runs, todo, out, executor, board)
    try:
        with board.shown(), stop_requests() as stop_requested:
            work.go(stop_requested)
    finally:
        executor.close()
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


class _Work:
    def __init__(
        self,
        runs: Sequence[PlannedRun],
        todo: list[PlannedRun],
        out: Path,
        executor: Executor,
        board: Board,
    ) -> None:
        self._number = {one.name: number for number, one in enumerate(runs)}
        self._todo, self._out, self._executor, self._board = todo, out, executor, board
        self._running: dict[int, PlannedRun] = {}

    def go(self, stop_requested: Callable[[], bool]) -> None:
        stop_at: float | None = None
        while True:
            if stop_at is None and stop_requested():
                stop_at = time.monotonic() + STOP_SECONDS
                self._board.say("stopping at a checkpoint; Ctrl-C again ends at once")
                for number in self._running:
                    self._executor.stop(number)
            while stop_at is None and self._todo and self._executor.free():
                self._start(self._todo.pop(0))
            if not self._running or (stop_at is not None and time.monotonic() > stop_at):
                return
            for message in self._executor.wait(POLL_SECONDS):
                self._handle(message, stopping=stop_at is not None)

    def _start(self, one: PlannedRun) -> None:
        number = self._number[one.name]
        one.status = "running"
        self._running[number] = one
        self._executor.submit(Job(number, asdict(one.config), self._out / one.name, self._out))

    def _handle(self, message: Message, *, stopping: bool) -> None:
        one = self._running.get(message.number)
        if one is None:
            return
        if isinstance(message, Moved):
            one.part = message.part
        elif isinstance(message, Told):
            one.metrics = message.metrics
            self._board.epoch(one)
        elif isinstance(message, Lost):
            del self._running[message.number]
            one.deaths += 1
            self._again(one, message.reason, stopping=stopping)
        elif isinstance(message, Ended):
            del self._running[message.number]
            outcome = message.outcome
            if outcome.status == "no room":
                raise UserError(f"{one.name}: {outcome.error}; make room and repeat the command")
            if outcome.status == "failed":
                one.errors += 1
                self._again(one, outcome.error or "it failed without a word", stopping=stopping)
                return
            one.status = outcome.status
            if one.status == "stopped" and not stopping:  # by a signal to its process alone
                self._todo.insert(0, one)
            elif one.behind:
                one.part = 1.0
                self._board.ended(one, outcome.error)

    def _again(self, one: PlannedRun, error: str, *, stopping: bool) -> None:
        if stopping:  # what a stop breaks is not the run's fault
            one.status = "stopped"
        elif one.errors < MOST_ERRORS and one.deaths < MOST_DEATHS:
            one.status = "waiting"
            self._todo.insert(0, one)
            self._board.say(f"{one.name}: {error}; once more")
        else:
            one.status = "failed"
            one.part = 1.0
            self._board.ended(one, f"{error}; see {self._out / one.name / LOG}")


class Board:
    """What a person sees: on a terminal a live table with a bar of the whole, elsewhere lines."""

    def __init__(self, console: Console, runs: Sequence[PlannedRun], what: str) -> None:
        self._console, self._runs, self._what = console, runs, what
        self._started = time.monotonic()
        self._part_before = 0.0

    def begin(self) -> None:
        """The runs are about to go on from where their folders say."""
        self._started = time.monotonic()
        self._part_before = self._part()
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
        figures = f", val {goal.name} {value:.4f}" if value is not None else ""
        told = f" ({one.label})" if one.label else ""
        self.say(f"{one.name}{told} {one.status}{figures}{f': {error}' if error else ''}  [{self._line()}]")

    def say(self, text: str) -> None:
        """Something to know."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _part(self) -> float:
        return sum(one.part for one in self._runs)

    def _line(self) -> str:
        counts = Counter(one.status for one in self._runs)
        behind = sum(one.behind for one in self._runs)
        parts = [f"{behind} of {len(self._runs)} runs"]
        parts += [f"{counts[status]} {status}" for status in ("running", "diverged", "failed") if counts[status]]
        done = self._part() - self._part_before
        if done > 0 and behind < len(self._runs):
            left = (time.monotonic() - self._started) / done * (len(self._runs) - self._part())
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def __rich__(self) -> RenderableType:
        width = self._console.width
        at_work = [one for one in self._runs if one.status == "running"]
        board = Table.grid(expand=True)
        board.add_row(results_table(self._runs if len(self._runs) <= TABLE_ROWS else at_work, width=width))
        board.add_row(Text(f"{self._what}: {self._line()}", "bold"))
        board.add_row(ProgressBar(total=max(1, len(self._runs)), completed=self._part()))
        return board


def print_table(console: Console, table: Table) -> None:
    """Prints a table whole: on a terminal in its width, elsewhere each row on one line, however long."""
    before = console.width
    if not console.is_terminal:
        console.width = 10_000
        console.width = max(before, console.measure(table).maximum)
    console.print(table)
    console.width = before


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
        shown = [] if narrow else [(task.goal, "train")]
        shown += [(task.goal, "val")]
        shown += [] if narrow else [(metric, "val") for metric in task.metrics if metric != task.goal]
        found |= {f"{split} {metric.short or metric.name}": metric.key(split) for metric, split in shown}
    return found


def _cells(one: PlannedRun) -> dict[str, str | Text]:
    status = f"{one.status} {one.part:.0%}" if one.status in ("running", "stopped") else one.status
    speed = one.metrics.get("images_per_second")
    epoch, pace = str(one.metrics.get("epoch", "")), "" if speed is None else f"{speed:.0f}"
    return dict(zip(_COLUMNS, (Text(one.name), Text(one.label), status, epoch, pace), strict=True))
