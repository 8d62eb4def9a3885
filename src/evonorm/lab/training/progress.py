"""What a person sees while a run works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from evonorm.lab.training import tasks

PLAIN_SECONDS = 30.0


class Watch(Protocol):
    """What the training loop tells of itself."""

    def begin(self, name: str, *, steps: int, done: int) -> None:
        """A run starts or resumes: `done` of `steps` steps are behind it."""

    def step(self, *, epoch: int, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """One step is done; metrics: those of the epoch so far, by name."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """An epoch and its validation are done."""

    def say(self, text: str) -> None:
        """Something to know."""


class Silent:
    """Tells nothing."""

    def begin(self, name: str, *, steps: int, done: int) -> None:
        """See Watch."""

    def step(self, *, epoch: int, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """See Watch."""

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Watch."""

    def say(self, text: str) -> None:
        """See Watch."""


class Plain:
    """Lines for a log: one an epoch, and one every half minute between."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()
        self._started = time.monotonic()
        self._steps, self._done, self._done_before = 1, 0, 0

    def begin(self, name: str, *, steps: int, done: int) -> None:
        """See Watch."""
        self._steps, self._done, self._done_before = steps, done, done
        self._started = self._last = time.monotonic()
        self.say(f"{name}: {done} of {steps} steps done" if done else f"{name}: {steps} steps")

    def step(self, *, epoch: int, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """See Watch."""
        self._done += 1
        now = time.monotonic()
        if now - self._last >= PLAIN_SECONDS:
            self._last = now
            left = (now - self._started) / (self._done - self._done_before) * (self._steps - self._done)
            self.say(
                f"  epoch {epoch}, step {self._done}/{self._steps}: {_figures(metrics, ', ')}, "
                f"{images_per_second:.0f} images/s, {left / 60:.1f} min left"
            )

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Watch."""
        self.say(f"  {describe(metrics)}")

    def say(self, text: str) -> None:
        """See Watch."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """A progress bar with epoch, metrics, images/s and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self.progress.add_task("starting", total=None, figures="")
        self._name = ""

    def begin(self, name: str, *, steps: int, done: int) -> None:
        """See Watch."""
        self._name = name
        self.progress.reset(self._task, description=name, total=steps, completed=done, figures="")

    def step(self, *, epoch: int, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """See Watch."""
        figures = f"epoch {epoch}  {_figures(metrics, '  ')}  {images_per_second:.0f} images/s"
        self.progress.update(self._task, advance=1, figures=figures)

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """See Watch."""
        self.say(f"{self._name}: {describe(metrics)}")

    def say(self, text: str) -> None:
        """See Watch."""
        self._console.print(text, markup=False, highlight=False)


def describe(metrics: Mapping[str, Any]) -> str:
    """One epoch in a line."""
    splits = ", ".join(f"{split} {_figures(own, ' ')}" for split, own in tasks.measured(metrics).items())
    return (
        f"epoch {metrics['epoch']}: {splits}, {metrics['images_per_second']:.0f} images/s, {metrics['seconds']:.1f} s"
    )


def _figures(metrics: Mapping[str, float | None], between: str) -> str:
    return between.join(f"{name} {'–' if value is None else f'{value:.4f}'}" for name, value in metrics.items())


@contextmanager
def shown(console: Console) -> Iterator[Watch]:
    """A bar while the block runs, or plain lines where the console is no terminal."""
    if not console.is_terminal:
        yield Plain(console)
        return
    bar = Bar(console)
    with bar.progress:
        yield bar


@contextmanager
def live(console: Console, content: RenderableType) -> Iterator[None]:
    """`content`, drawn anew four times a second while the block runs; nothing where the console is no terminal."""
    if not console.is_terminal:
        yield
        return
    with Live(content, console=console, refresh_per_second=4):
        yield
