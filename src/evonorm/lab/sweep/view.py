"""What a person sees of a sweep: a live board on a terminal, plain lines elsewhere, and its state when asked later."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from evonorm.lab.jobs import board
from evonorm.lab.jobs.board import Pace
from evonorm.lab.jobs.logs import LOG
from evonorm.lab.records.run_files import flat
from evonorm.lab.sweep.journal import Trial, trial_folder
from evonorm.lab.sweep.schema import Sweep
from evonorm.lab.training.progress import live

_STATUSES = ("finished", "pruned", "diverged", "failed", "running", "waiting")


class View:
    """What the driver tells of a sweep; this one shows nothing of it."""

    def begin(self, sweep: Sweep, limit: int | None, trials: Mapping[int, Trial]) -> None:
        """It starts or goes on. limit: how many trials there will be; None: no end."""

    def update(self, trials: Mapping[int, Trial]) -> None:
        """Something may have changed."""

    def ended(self, trial: Trial) -> None:
        """A trial will not run again."""

    def say(self, text: str) -> None:
        """Something to know."""


class Board(View):
    """On a terminal a live board: what is done, running and failed, the best so far, the time left; above it, which
    trials failed. Elsewhere lines for a log, one for each trial that ends, at last the best.
    """

    def __init__(self, console: Console, folder: Path) -> None:
        self._console, self._folder = console, folder
        self._sweep: Sweep | None = None
        self._limit: int | None = None
        self._counts: Counter[str] = Counter()
        self._best: Trial | None = None
        self._pace = Pace()
        self._running: Sequence[Trial] = ()

    def begin(self, sweep: Sweep, limit: int | None, trials: Mapping[int, Trial]) -> None:
        """See View."""
        self._sweep, self._limit = sweep, limit
        for trial in trials.values():
            if trial.ended:
                self._count(trial)
        behind = self._counts.total()
        self._pace = Pace(behind)
        whole = f"{limit} trials" if limit is not None else "no run_cap: trials until Ctrl-C"
        self.say(f"{sweep.method} sweep, {whole}" + (f", {behind} of them behind it" if behind else ""))

    def update(self, trials: Mapping[int, Trial]) -> None:
        """See View."""
        self._running = [trial for trial in trials.values() if trial.status == "running"]

    def ended(self, trial: Trial) -> None:
        """See View."""
        self._count(trial)
        if not self._console.is_terminal:
            self.say(f"{describe(trial, self._folder)}  [{self._line()}]")
        elif trial.status == "failed":
            self.say(describe(trial, self._folder))

    def end(self) -> None:
        """Nothing runs any more: the board stays as it is, a log says which trial is best."""
        self._running = ()
        if not self._console.is_terminal and (best := self._best_line()):
            self.say(best)

    def say(self, text: str) -> None:
        """See View."""
        board.say(self._console, text)

    def _count(self, trial: Trial) -> None:
        self._counts[trial.status] += 1
        metric = self._sweep.metric if self._sweep else None
        if metric is None or trial.value is None or trial.status not in ("finished", "pruned"):
            return
        best = self._best  # of equals the first that was drawn, as everywhere, not the first that ended
        level = best is not None and trial.value == best.value and trial.number < best.number
        if best is None or level or metric.better(trial.value, best.value):
            self._best = trial

    def _line(self) -> str:
        done = self._counts.total()
        counts = board.counted(self._counts, _STATUSES)
        return board.standing(done, self._limit, "trials", counts, self._pace.left(done, self._limit))

    def _best_line(self) -> str:
        if self._best is None or self._sweep is None or self._sweep.metric is None:
            return ""
        parameters = shown_parameters(self._best.parameters)
        return f"best {self._sweep.metric.name} {self._best.value:.6g}, trial {self._best.number}: {parameters}"

    def __rich__(self) -> RenderableType:
        below: list[RenderableType] = [Text(best, "green")] if (best := self._best_line()) else []
        below += [self._table()] if self._running else []
        return board.stacked([], self._line(), self._counts.total(), self._limit, *below)

    def _table(self) -> Table:
        table = Table("running", "latest", "reports", "parameters", box=None, padding=(0, 2, 0, 0))
        for trial in self._running[:16]:
            latest = f"{trial.history[-1]:.6g}" if trial.history else ""
            table.add_row(str(trial.number), latest, str(len(trial.history)), Text(shown_parameters(trial.parameters)))
        return table


@contextmanager
def shown(console: Console, folder: Path) -> Iterator[View]:
    """A board while the block runs, or plain lines where the console is no terminal. folder: the sweep's."""
    view = Board(console, folder)
    try:
        with live(console, view):
            yield view
    finally:
        view.end()


def status(metric: Mapping[str, Any] | None, trials: Sequence[Trial], best: Trial | None, folder: Path) -> str:
    """Where the sweep in `folder` stands, for a person."""
    counts = board.counted(Counter(trial.status for trial in trials), _STATUSES)
    lines = [f"{len(trials)} trials: {', '.join(counts) or 'none yet'}"]
    if best is not None and metric is not None:
        lines.append(
            f"best {metric['name']} {best.value:.6g}, trial {best.number}: {shown_parameters(best.parameters)}"
        )
    lines += [describe(trial, folder) for trial in trials if trial.status == "failed"]
    return "\n".join(lines)


def describe(trial: Trial, folder: Path) -> str:
    """A trial of the sweep in `folder` in a line; a failed one says where its log is, if it has one."""
    value = f" {trial.value:.6g}" if trial.value is not None else ""
    log = trial_folder(folder, trial.number) / LOG
    see = f"; see {log}" if trial.status == "failed" and log.exists() else ""
    error = f" ({trial.error}{see})" if trial.error else ""
    return f"trial {trial.number} {trial.status}{value}{error}: {shown_parameters(trial.parameters)}"


def shown_parameters(parameters: Mapping[str, Any]) -> str:
    """Parameters as name=value words."""
    return " ".join(f"{name}={_shown(value)}" for name, value in flat(parameters).items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
