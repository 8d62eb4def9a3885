"""Inside a trial: what it reports, and what a target is."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from evonorm.lab.records.run_files import flat


@dataclass(frozen=True)
class Job:
    """One attempt at a trial. folder: the trial's own, for its log and files; sweep_folder: the sweep's."""

    number: int
    parameters: dict[str, Any]
    folder: Path
    sweep_folder: Path


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: finished, diverged, stopped (asked to), failed, or no room (on the disk).

    run: its run folder's name, if any.
    """

    status: str
    error: str | None = None
    run: str | None = None


class Reporter(Protocol):
    """An attempt's line to the driver."""

    def tell(self, metrics: Mapping[str, Any]) -> None:
        """One report: names and numbers."""

    def moved(self, part: float) -> None:
        """How much of the attempt is done, from 0 to 1."""

    def stop_requested(self) -> bool:
        """Whether the driver wants this trial to end."""


class Target(Protocol):
    """What a sweep runs. It travels to worker processes, so it must pickle.

    resumes: a stopped attempt is gone on with, so it is given time to stop well.
    ships_folder: it uses files of the folder that the sweep is started in, so a node elsewhere needs them.
    """

    resumes: bool
    ships_folder: bool

    def describe(self) -> dict[str, Any]:
        """What a repeated command must agree with, as JSON."""

    def place(self, parameters: dict[str, Any]) -> str | None:
        """Where these parameters work, if others may work there too: two of one place never run at once."""

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        """One attempt; an exception is a failure."""


@runtime_checkable
class Carrying(Protocol):
    """A target with something large that all its attempts read: it goes to each node once, not with each attempt."""

    def cargo(self) -> Any:
        """What to send."""

    def unload(self, cargo: Any) -> None:
        """It arrived; it is shared, and must not be written to."""


class Function:
    """A Python function: train(parameters) yields metrics, returns metrics, or calls `log`.

    Metrics are a mapping of names to numbers, or a number alone, which is then the sweep's metric.
    """

    resumes = False
    ships_folder = False

    def __init__(self, train: Callable[[dict[str, Any]], Any], metric: str | None) -> None:
        self._train, self._metric = train, metric
        self.module: str = getattr(train, "__module__", "")

    def describe(self) -> dict[str, Any]:
        """See Target."""
        return {"function": getattr(self._train, "__qualname__", type(self._train).__qualname__)}

    def place(self, parameters: dict[str, Any]) -> str | None:
        """See Target: each trial is alone."""
        return None

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        """See Target."""
        global _reporter
        _reporter = reporter
        try:
            result = self._train(job.parameters)
            if hasattr(result, "__next__"):
                for metrics in result:
                    reporter.tell(self._named(metrics))
                    if reporter.stop_requested():
                        result.close()
                        return Outcome("stopped")
            elif result is not None:
                reporter.tell(self._named(result))
        finally:
            _reporter = None
        return Outcome("finished")

    def _named(self, metrics: Any) -> Mapping[str, Any]:
        if isinstance(metrics, Mapping):
            return metrics
        if isinstance(metrics, bool | str) or not hasattr(metrics, "__float__"):
            raise TypeError(f"train must yield or return a mapping of metrics or a number: got {metrics!r}")
        if self._metric is None:
            raise TypeError(f"the sweep has no metric to call {metrics!r}; return a mapping, as in {{'loss': 0.1}}")
        return {self._metric: metrics}


_reporter: Reporter | None = None


def log(metrics: Mapping[str, Any] | None = None, /, **named: Any) -> None:
    """Reports metrics of the running trial: `log({"loss": 0.1})` or `log(loss=0.1)`.

    In a script started by `evonorm sweep`, and in any other, it prints them as a line of JSON on the standard output.
    """
    metrics = plain({**(metrics or {}), **named})
    if _reporter is not None:
        _reporter.tell(metrics)
    else:
        print(json.dumps(metrics), file=sys.__stdout__, flush=True)


def plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON has them: numbers of any library become Python's, nested ones go by their dotted names."""
    return {name: _plain(value) for name, value in flat(metrics).items()}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return int(number) if math.isfinite(number) and hasattr(value, "__index__") else number
