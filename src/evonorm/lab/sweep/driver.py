"""The one driver of a sweep: draws trials, has them supervised, writes down what becomes of them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors import Executor
from evonorm.lab.jobs.job import Job, Outcome, Target
from evonorm.lab.jobs.supervisor import Supervisor, Work
from evonorm.lab.records import run_files
from evonorm.lab.stopping import locked, stop_requests
from evonorm.lab.sweep import hyperband, suggest
from evonorm.lab.sweep.journal import METRICS, SWEEP, Journal, Trial, read_trials, trial_folder
from evonorm.lab.sweep.schema import Metric, Sweep
from evonorm.lab.sweep.view import View
from evonorm.spelling import meant

# So many failed trials and none that ended otherwise: the program is broken, not the parameters.
HOPELESS = 5


@dataclass(frozen=True)
class Result:
    """What a sweep came to. stopped: by Ctrl-C, with more to do."""

    folder: Path
    sweep: Sweep
    trials: list[Trial]
    stopped: bool = False

    @property
    def best(self) -> Trial | None:
        """The trial with the best value of the metric; None without one."""
        return best_by(self.sweep.metric, self.trials)


@dataclass
class _Attempt:
    trial: Trial
    started: float
    metrics: IO[str] | None = None
    last: dict[str, Any] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)
    newest: float | None = None
    unusable: Any = None

    def close(self) -> None:
        """Its metrics are on the disk; a second time does nothing."""
        if self.metrics is not None and not self.metrics.closed:
            with self.metrics as file:
                file.flush()
                os.fsync(file.fileno())


def best_by(metric: Metric | None, trials: Iterable[Trial]) -> Trial | None:
    """The trial with the best value of the metric, the first of equals; one that failed or diverged counts as worst."""
    chosen: Trial | None = None
    for trial in trials:
        if metric is None or trial.value is None or trial.status not in ("finished", "pruned"):
            continue
        if chosen is None or metric.better(trial.value, chosen.value):
            chosen = trial
    return chosen


def drive(
    sweep: Sweep,
    target: Target,
    folder: Path,
    executor: Executor,
    *,
    seed: int | None = None,
    trials: int | None = None,
    view: View | None = None,
) -> Result:
    """Runs the sweep, or goes on with it, until its end or Ctrl-C.

    seed: of the draws; default: that of the sweep in the folder, else 0. trials: at most so many in all, those of
    earlier calls included; run_cap holds too. Raises UserError if the folder holds another sweep or another driver is
    at work there, OSError if the disk does not take what happens: what is there stays whole.
    """
    view = view or View()
    with (
        contextlib.closing(executor),
        locked(folder, "another process is running the sweep in"),
        stop_requests() as stop_requested,
    ):
        seed = _agree(sweep, target, folder, seed)
        with contextlib.closing(_Driver(sweep, target, folder, seed, trials, view)) as work:
            supervisor = Supervisor(work, executor, work.begin(), resumes=target.resumes, hopeless=HOPELESS)
            supervisor.go(stop_requested)
            stopped = supervisor.stopping and (supervisor.left or work.may_draw())
    return Result(folder, sweep, read_trials(folder), stopped)


class _Driver(Work[Trial]):
    """A sweep as the supervisor's work: what happens goes into the journal, and to the view."""

    def __init__(self, sweep: Sweep, target: Target, folder: Path, seed: int, trials: int | None, view: View) -> None:
        self._sweep, self._target, self._folder, self._view = sweep, target, folder, view
        self._suggester = suggest.make(sweep, seed)
        limits = [limit for limit in (self._suggester.total, sweep.run_cap, trials) if limit is not None]
        self._limit = min(limits, default=None)
        self._journal = Journal(folder)
        self._attempts: dict[int, _Attempt] = {}  # the last one of each trial that has not ended

    def close(self) -> None:
        for attempt in self._attempts.values():
            with contextlib.suppress(OSError):
                attempt.close()
            if attempt.trial.status == "running":
                with contextlib.suppress(OSError):
                    self._journal.stopped(attempt.trial)
        self._journal.close()

    def begin(self) -> list[Trial]:
        """Tells that it goes on, and how its file was taken, and returns the trials that wait."""
        for note in self._sweep.notes:
            self._view.say(note)
        self._view.begin(self._sweep, self._limit, self._journal.trials)
        return [trial for trial in self._journal.trials.values() if not trial.ended]

    def may_draw(self) -> bool:
        if self._limit is not None and len(self._journal.trials) >= self._limit:
            return False
        metric = self._sweep.metric
        found = best_by(metric, self._journal.trials.values())
        return metric is None or found is None or found.value is None or not metric.reached(found.value)

    def draw(self) -> Trial | None:
        if not self.may_draw():
            return None
        trials = self._journal.trials
        number = len(trials)
        drawn = self._suggester.suggest(number, list(trials.values()))
        return self._journal.drawn(number, drawn.parameters, drawn.point)

    def place(self, task: Trial) -> str | None:
        return self._target.place(task.parameters)

    def job(self, task: Trial) -> Job:
        folder = trial_folder(self._folder, task.number)
        self._journal.started(task)
        task.value, task.history = None, []
        (folder / METRICS).unlink(missing_ok=True)  # of an attempt that did not end
        self._attempts[task.number] = _Attempt(task, time.monotonic())
        return Job(task.number, task.parameters, folder, self._folder)

    def told(self, task: Trial, metrics: Mapping[str, Any]) -> Collection[int]:
        attempt = self._attempts[task.number]
        if attempt.metrics is None:
            folder = trial_folder(self._folder, task.number)
            folder.mkdir(parents=True, exist_ok=True)
            attempt.metrics = (folder / METRICS).open("w", encoding="utf-8")
        attempt.metrics.write(run_files.dumps(metrics) + "\n")
        attempt.last.update(metrics)
        if self._sweep.metric is None:
            return ()
        value = metrics.get(self._sweep.metric.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            attempt.unusable = value if value is not None else attempt.unusable
            return ()
        attempt.newest = value
        if not math.isfinite(value):
            return ()
        attempt.history.append(value)
        task.history = attempt.history
        task.value = self._sweep.metric.best(attempt.history)
        if self._sweep.early_terminate is None:
            return ()
        trials = self._journal.trials.values()
        histories = {trial.number: trial.history for trial in trials if trial.history}
        running = [number for number, one in self._attempts.items() if one.trial.status == "running"]
        return hyperband.to_stop(self._sweep.early_terminate, self._sweep.metric.goal, histories, running)

    def stopped(self, task: Trial) -> None:
        self._attempts[task.number].close()
        self._journal.stopped(task)

    def attempt_failed(self, task: Trial, error: str, *, death: bool) -> None:
        self._attempts[task.number].close()
        self._journal.attempt_failed(task, error, death=death)

    def ended(self, task: Trial, outcome: Outcome) -> str | None:
        metric, attempt = self._sweep.metric, self._attempts[task.number]
        attempt.close()
        if outcome.status == "diverged":
            self._end(attempt, "diverged", run=outcome.run, error=outcome.error)
        elif attempt.newest is not None and not math.isfinite(attempt.newest):
            assert metric is not None
            self._end(attempt, "diverged", run=outcome.run, error=f"its last {metric.name} is {attempt.newest}")
        elif metric is not None and not attempt.history:
            if attempt.unusable is not None:
                kind = "text" if isinstance(attempt.unusable, str) else f"a {type(attempt.unusable).__name__}"
                return f"it reported the metric {metric.name!r} as {attempt.unusable!r}, {kind}, not as a number"
            near = meant(metric.name, attempt.last)
            told = ", ".join(attempt.last) or "nothing"
            return f"it never reported the metric {metric.name!r}{near}; it reported {told}"
        else:
            self._end(attempt, "pruned" if outcome.status == "stopped" else "finished", run=outcome.run)
        return None

    def failed(self, task: Trial, error: str) -> None:
        self._end(self._attempts[task.number], "failed", run=None, error=error)

    def say(self, text: str) -> None:
        self._view.say(text)

    def update(self) -> None:
        self._view.update(self._journal.trials)

    def _end(self, attempt: _Attempt, status: str, *, run: str | None, error: str | None = None) -> None:
        self._journal.ended(
            attempt.trial,
            status,
            value=self._sweep.metric.best(attempt.history) if self._sweep.metric else None,
            history=attempt.history,
            metrics=attempt.last,
            run=run,
            seconds=time.monotonic() - attempt.started,
            error=error,
        )
        del self._attempts[attempt.trial.number]
        self._view.ended(attempt.trial)


def read_sweep(folder: Path) -> tuple[dict[str, Any], list[Trial]]:
    """sweep.json and the trials of the sweep in `folder`. Raises UserError if there is none."""
    trials = read_trials(folder)
    return run_files.read_json(folder / SWEEP), trials


def identity(sweep: Sweep) -> dict[str, Any]:
    """What makes a sweep this one: all but how long it goes on, and its words."""
    content = asdict(sweep)
    for key in ("run_cap", "name", "description", "notes", "program", "command", "file"):
        del content[key]
    if content["metric"] and content["metric"]["impute_while_running"] is None:
        del content["metric"]["impute_while_running"]  # sweeps from before it was a field go on
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _agree(sweep: Sweep, target: Target, folder: Path, seed: int | None) -> int:
    """Writes sweep.json, or holds the sweep against the one that is there. Returns the seed in force."""
    path = folder / SWEEP
    content: dict[str, Any] = {
        "schema": 1,
        "name": sweep.name,
        "file": sweep.file,
        "description": sweep.description,
        "sweep": identity(sweep),
        "runs": json.loads(json.dumps(target.describe())),
        "seed": seed or 0,
    }
    if not path.exists():
        run_files.write_json(path, content)
        return seed or 0
    there = run_files.read_json(path)
    if seed is not None and there.get("seed") != seed:
        raise UserError(
            f"the sweep in {folder} has seed {there.get('seed')}: got {seed}; leave it out, or choose another --out"
        )
    for part in ("sweep", "runs"):
        if there.get(part) != content[part]:
            where = _difference(there.get(part), content[part])
            raise UserError(
                f"{folder} holds another sweep: {where}; choose another --out, or give it its own file again"
            )
    return int(there["seed"])


def _difference(there: Any, here: Any, at: str = "") -> str:
    """The first place where two trees differ, with both values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*here, *(key for key in there if key not in here)]:
            if there.get(key) != here.get(key):
                return _difference(there.get(key), here.get(key), f"{at}.{key}" if at else key)
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for place, (one, other) in enumerate(zip(there, here, strict=True)):
            if one != other:
                return _difference(one, other, f"{at}[{place}]")
    return f"{at} was {there!r}, is {here!r}"
