"""What a person sees of many jobs at work: a line of where they stand, a bar of the whole, the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


def say(console: Console, text: str) -> None:
    """One line, as it is, however long."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Pace:
    """How fast it goes. done: jobs done before it went on, in parts too."""

    def __init__(self, done: float = 0.0) -> None:
        self._started, self._before = time.monotonic(), done

    def left(self, done: float, total: float | None) -> str:
        """The time left, in words; empty where nothing is done since, or nothing is left, or there is no end."""
        since = done - self._before
        if since <= 0 or total is None or total <= done:
            return ""
        return f"{duration((time.monotonic() - self._started) / since * (total - done))} left"


def counted(counts: Mapping[str, int], statuses: Iterable[str]) -> list[str]:
    """`3 finished`, `1 failed`: those of the statuses that there are."""
    return [f"{counts[status]} {status}" for status in statuses if counts.get(status)]


def standing(behind: int, total: int | None, noun: str, counts: Iterable[str], left: str) -> str:
    """`3 of 8 runs, 1 failed, 5 min left`."""
    of = f" of {total}" if total is not None else ""
    return ", ".join([f"{behind}{of} {noun}", *counts, *filter(None, [left])])


def stacked(above: Iterable[Table], line: str, done: float, total: int | None, *below: RenderableType) -> Table:
    """Where it stands with a bar of the whole, and what is above and below. total: None where there is no end.

    A grid, not a Group: a progress bar does not end its line.
    """
    bar = [] if total is None else [ProgressBar(total=max(1, total), completed=done)]
    grid = Table.grid(expand=True)
    for row in (*above, Text(line, "bold"), *bar, *below):
        grid.add_row(row)
    return grid


def print_table(console: Console, table: Table) -> None:
    """Prints a table whole: on a terminal in its width, elsewhere each row on one line, however long."""
    before = console.width
    if not console.is_terminal:
        console.width = 10_000
        console.width = max(before, console.measure(table).maximum)
    console.print(table)
    console.width = before
