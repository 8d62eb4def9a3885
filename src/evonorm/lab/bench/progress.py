"""What a person sees while the bench works: a bar with the time left on a terminal, a line a case elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from evonorm.lab.jobs.board import say

REFRESH_SECONDS = 0.5


class Board:
    """Goes through parts of the work of known weight; `tick` tells how much of the current part is done."""

    def __init__(self, console: Console, weights: Sequence[float], progress: Progress | None) -> None:
        self._console, self._weights, self._progress = console, weights, progress
        self._number = -1
        self._drawn = 0.0
        self._task = progress.add_task("starting", total=sum(weights)) if progress else None

    def begin(self, name: str) -> None:
        """The next part starts."""
        self._number += 1
        if self._progress is None or self._task is None:
            say(self._console, f"[{self._number + 1}/{len(self._weights)}] {name}")
        else:
            done = sum(self._weights[: self._number])
            self._progress.update(self._task, description=name, completed=done, refresh=True)

    def tick(self, share: float) -> None:
        """`share`, 0 to 1, of the current part is done."""
        if self._progress is not None and self._task is not None:
            done = sum(self._weights[: self._number]) + share * self._weights[self._number]
            now = time.monotonic()
            due = now - self._drawn >= REFRESH_SECONDS
            self._drawn = now if due else self._drawn
            self._progress.update(self._task, completed=done, refresh=due)


@contextmanager
def shown(console: Console, weights: Sequence[float]) -> Iterator[Board]:
    """A board while the block runs. weights: of the parts, in any unit of expected time."""
    if not console.is_terminal:
        yield Board(console, weights, None)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(bar_width=None), TimeRemainingColumn()
    # Drawn between samples: rich's own thread would draw during them, on a core that is being measured.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield Board(console, weights, progress)
