"""The one driver of a sweep: draws trials, hands them to an executor, writes down what becomes of them."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors import Ended, Executor, Lost, Message, Moved, Told
from evonorm.lab.jobs.job import Job, Outcome, Target
from evonorm.lab.records import run_files
from evonorm.lab.stopping import locked, stop_requests
from evonorm.lab.sweep import hyperband, suggest
from evonorm.lab.sweep.checked import suggestion
from evonorm.lab.sweep.journal import LOG, METRICS, SWEEP, Journal, Trial, read_trials, trial_folder
from evonorm.lab.sweep.schema import Metric, Sweep
from evonorm.lab.sweep.view import Silent, View

# A trial that raises gets a second attempt; one whose process is killed, which is seldom its own fault, gets four.
MOST_ERRORS, MOST_DEATHS = 2, 4
# So many failed trials and none that ended otherwise: the program is broken, not the parameters.
HOPELESS = 5
# So many trials may wait for the place of a running one while others go ahead of them.
MOST_WAITING = 32
POLL_SECONDS = 0.25
# After Ctrl-C: for a run to reach its checkpoint, and for one that keeps none.
STOP_SECONDS, STOP_SECONDS_WITHOUT_RESUME = 60.0, 3.0


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
    pruned: bool = False


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
    view = view or Silent()
    with contextlib.closing(executor):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error
        with locked(folder, "another process is running the sweep in"), stop_requests() as stop_requested:
            seed = _agree(sweep, target, folder, seed)
            driver = _Driver(sweep, target, folder, executor, seed, trials, view)
            try:
                stopped = driver.go(stop_requested)
            finally:
                executor.close()  # before another driver may begin
                driver.close()
    return Result(folder, sweep, read_trials(folder), stopped)


class _Driver:
    def __init__(
        self,
        sweep: Sweep,
        target: Target,
        folder: Path,
        executor: Executor,
        seed: int,
        trials: int | None,
        view: View,
    ) -> None:
        self._sweep, self._target, self._folder, self._executor, self._view = sweep, target, folder, executor, view
        self._suggester = suggest.make(sweep, seed)
        limits = [limit for limit in (self._suggester.total, sweep.run_cap, trials) if limit is not None]
        self._limit = min(limits, default=None)
        self._journal = Journal(folder)
        self._waiting = [trial for trial in self._journal.trials.values() if not trial.ended]
        self._running: dict[int, _Attempt] = {}
        self._failed_now = self._sound_now = 0

    def close(self) -> None:
        for attempt in self._running.values():
            if attempt.metrics is not None:
                with contextlib.suppress(OSError):
                    attempt.metrics.close()
            with contextlib.suppress(OSError):
                self._journal.stopped(attempt.trial)
        self._journal.close()

    def go(self, stop_requested: Callable[[], bool]) -> bool:
        """Whether it was stopped before its end."""
        self._view.begin(self._sweep, self._limit, self._journal.trials)
        stop_at: float | None = None
        while True:
            if stop_at is None and stop_requested():
                grace = STOP_SECONDS if self._target.resumes else STOP_SECONDS_WITHOUT_RESUME
                stop_at = time.monotonic() + grace
                self._view.say("stopping: running trials are asked to end; Ctrl-C again ends them at once")
                for number in self._running:
                    self._executor.stop(number)
            while stop_at is None and self._executor.free() and (trial := self._next()) is not None:
                self._start(trial)
            if not self._running or (stop_at is not None and time.monotonic() > stop_at):
                break
            for message in self._executor.wait(POLL_SECONDS):
                self._handle(message, stopping=stop_at is not None)
            self._view.update(self._journal.trials)
        self._view.update(self._journal.trials)
        return stop_at is not None and (bool(self._waiting or self._running) or self._may_draw())

    def _next(self) -> Trial | None:
        """The next trial to start: one that waits, else a new one; None where there is none, or none yet."""
        for trial in self._waiting:
            if not self._clashes(trial):
                self._waiting.remove(trial)
                return trial
        while self._may_draw() and len(self._waiting) < MOST_WAITING:
            trials = self._journal.trials
            number = len(trials)
            drawn = self._suggester.suggest(number, list(trials.values()))
            trial = self._journal.drawn(number, drawn.parameters, drawn.point)
            if not self._clashes(trial):
                return trial
            self._waiting.append(trial)
        return None

    def _clashes(self, trial: Trial) -> bool:
        """Whether the place of these parameters is in use: the trial waits, then finds the run already made."""
        place = self._target.place(trial.parameters)
        return place is not None and any(
            self._target.place(attempt.trial.parameters) == place for attempt in self._running.values()
        )

    def _may_draw(self) -> bool:
        if self._limit is not None and len(self._journal.trials) >= self._limit:
            return False
        return not self._reached()

    def _reached(self) -> bool:
        metric = self._sweep.metric
        found = best_by(metric, self._journal.trials.values())
        return metric is not None and found is not None and found.value is not None and metric.reached(found.value)

    def _start(self, trial: Trial) -> None:
        folder = trial_folder(self._folder, trial.number)
        self._journal.started(trial)
        trial.value, trial.history = None, []
        (folder / METRICS).unlink(missing_ok=True)  # of an attempt that did not end
        self._running[trial.number] = _Attempt(trial, time.monotonic())
        self._executor.submit(Job(trial.number, trial.parameters, folder, self._folder))

    def _handle(self, message: Message, *, stopping: bool) -> None:
        attempt = self._running.get(message.number)
        if attempt is None:
            return
        if isinstance(message, Moved):
            return
        if isinstance(message, Told):
            self._told(attempt, message.metrics)
            return
        del self._running[message.number]
        if attempt.metrics is not None:
            with attempt.metrics as file:
                file.flush()
                os.fsync(file.fileno())
        if isinstance(message, Lost):
            self._failed(attempt, message.reason, death=True, stopping=stopping)
        elif isinstance(message, Ended):
            self._ended(attempt, message.outcome, stopping=stopping)

    def _told(self, attempt: _Attempt, metrics: Mapping[str, Any]) -> None:
        if attempt.metrics is None:
            folder = trial_folder(self._folder, attempt.trial.number)
            folder.mkdir(parents=True, exist_ok=True)
            attempt.metrics = (folder / METRICS).open("w", encoding="utf-8")
        attempt.metrics.write(run_files.dumps(metrics) + "\n")
        attempt.last.update(metrics)
        if self._sweep.metric is None:
            return
        value = metrics.get(self._sweep.metric.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            attempt.unusable = value if value is not None else attempt.unusable
            return
        attempt.newest = value
        if not math.isfinite(value):
            return
        attempt.history.append(value)
        attempt.trial.history = attempt.history
        attempt.trial.value = self._sweep.metric.best(attempt.history)
        if self._sweep.early_terminate is not None:
            histories = {trial.number: trial.history for trial in self._journal.trials.values() if trial.history}
            running = [number for number, one in self._running.items() if not one.pruned]
            for number in hyperband.to_stop(self._sweep.early_terminate, self._sweep.metric.goal, histories, running):
                self._running[number].pruned = True
                self._executor.stop(number)

    def _ended(self, attempt: _Attempt, outcome: Outcome, *, stopping: bool) -> None:
        metric = self._sweep.metric
        if outcome.status == "no room":
            with contextlib.suppress(OSError):
                self._journal.stopped(attempt.trial)
            raise UserError(f"trial {attempt.trial.number}: {outcome.error}; make room and repeat the command")
        if outcome.status == "failed":
            self._failed(attempt, outcome.error or "it failed without a word", death=False, stopping=stopping)
        elif outcome.status == "stopped" and not attempt.pruned:
            self._journal.stopped(attempt.trial)
            self._waiting.insert(0, attempt.trial)
        elif outcome.status == "diverged":
            self._end(attempt, "diverged", run=outcome.run, error=outcome.error)
        elif attempt.newest is not None and not math.isfinite(attempt.newest):
            assert metric is not None
            self._end(attempt, "diverged", run=outcome.run, error=f"its last {metric.name} is {attempt.newest}")
        elif metric is not None and not attempt.history:
            if attempt.unusable is not None:
                kind = "text" if isinstance(attempt.unusable, str) else f"a {type(attempt.unusable).__name__}"
                error = f"it reported the metric {metric.name!r} as {attempt.unusable!r}, {kind}, not as a number"
            else:
                near = suggestion(metric.name, attempt.last, near=0.8)
                told = ", ".join(attempt.last) or "nothing"
                error = f"it never reported the metric {metric.name!r}{near}; it reported {told}"
            self._failed(attempt, error, death=False, stopping=stopping)
        else:
            self._end(attempt, "pruned" if outcome.status == "stopped" else "finished", run=outcome.run)

    def _failed(self, attempt: _Attempt, error: str, *, death: bool, stopping: bool) -> None:
        trial = attempt.trial
        if stopping:  # what a stop breaks is not the trial's fault
            self._journal.stopped(trial)
            self._waiting.insert(0, trial)
            return
        self._journal.attempt_failed(trial, error, death=death)
        if trial.errors < MOST_ERRORS and trial.deaths < MOST_DEATHS:
            self._view.say(f"trial {trial.number}: {error}; once more")
            self._waiting.insert(0, trial)
            return
        self._end(attempt, "failed", run=None, error=error)
        if self._failed_now >= HOPELESS and not self._sound_now:
            log = trial_folder(self._folder, trial.number) / LOG
            raise UserError(f"the first {HOPELESS} trials all failed, the last one: {error}; see {log}")

    def _end(self, attempt: _Attempt, status: str, *, run: str | None, error: str | None = None) -> None:
        trial = attempt.trial
        self._failed_now += status == "failed"
        self._sound_now += status != "failed"
        self._journal.ended(
            trial,
            status,
            value=self._sweep.metric.best(attempt.history) if self._sweep.metric else None,
            history=attempt.history,
            metrics=attempt.last,
            run=run,
            seconds=time.monotonic() - attempt.started,
            error=error,
        )
        self._view.ended(trial)


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
