"""What happened to each trial, as an append-only file that outlives any crash.

sweep.json                  the sweep, its seed and what it runs: what a repeated command must agree with
trials.jsonl                one line an event: a trial is drawn, starts, stops, fails, ends. One writer, the driver
trials/<number>/            metrics.jsonl (a line a report) and log.txt (what the trial printed)

A line torn by a crash is cut off when the file is next opened. A trial's parameters are on the disk before it starts,
and are never drawn again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files

SWEEP, TRIALS, FOLDERS = "sweep.json", "trials.jsonl", "trials"
METRICS = "metrics.jsonl"
ENDED = ("finished", "pruned", "diverged", "failed")


@dataclass
class Trial:
    """One trial as the journal tells it.

    status: waiting, running (also where the driver died without a word), or one of ENDED (pruned: stopped by
    early_terminate). point: where in [0, 1] each searched
    parameter was drawn, by name. value: the metric's best finite value; history: all of them, in order. metrics: the
    last report. errors, deaths: attempts that failed, and whose process died. run: name of the run folder, if any.
    at: when the last of this happened, in seconds that drivers were at work on the sweep; None: a journal without them.
    """

    number: int
    parameters: dict[str, Any]
    point: dict[str, float] = field(default_factory=dict)
    status: str = "waiting"
    value: float | None = None
    history: list[float] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    errors: int = 0
    deaths: int = 0
    error: str | None = None
    run: str | None = None
    seconds: float = 0.0
    at: float | None = None

    @property
    def words(self) -> str:
        """What a person calls it."""
        return f"trial {self.number}"

    @property
    def ended(self) -> bool:
        """Whether it will not run again."""
        return self.status in ENDED


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial's metrics and log lie."""
    return folder / FOLDERS / f"{number:04}"


def read_trials(folder: Path) -> list[Trial]:
    """Every trial of the sweep in `folder`, by number. Raises UserError if there is no sweep, or a line is broken."""
    if not (folder / SWEEP).exists():
        raise UserError(f"there is no sweep in {folder}; `evonorm sweep FILE --out {folder}` makes one")
    path = folder / TRIALS
    trials: dict[int, Trial] = {}
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for place, line in enumerate(lines[:-1]):  # what follows the last newline is torn, or nothing
        try:
            _replay(trials, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {place + 1} is broken ({error}); mend or remove the line") from None
    return [trials[number] for number in sorted(trials)]


class Journal:
    """The driver's pen: every event is in the file, and in `trials`, before the method returns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trials = {trial.number: trial for trial in read_trials(folder)}
        for trial in self.trials.values():
            if not trial.ended:
                trial.status = "waiting"
        self._began = time.monotonic() - max((trial.at or 0.0 for trial in self.trials.values()), default=0.0)
        self._file = _opened(folder / TRIALS)

    def close(self) -> None:
        """Ends the writing."""
        self._file.close()

    def drawn(self, number: int, parameters: Mapping[str, Any], point: Mapping[str, float]) -> Trial:
        """A new trial, before it starts."""
        self._write({"event": "drawn", "number": number, "parameters": parameters, "point": point})
        return self.trials[number]

    def started(self, trial: Trial) -> None:
        """An attempt begins."""
        self._write({"event": "started", "number": trial.number}, lasting=False)

    def stopped(self, trial: Trial) -> None:
        """An attempt was ended before its time; the trial waits for another."""
        self._write({"event": "stopped", "number": trial.number}, lasting=False)

    def attempt_failed(self, trial: Trial, error: str, *, death: bool) -> None:
        """An attempt failed; the trial may be tried again."""
        self._write({"event": "attempt_failed", "number": trial.number, "error": error, "death": death})

    def ended(
        self,
        trial: Trial,
        status: str,
        *,
        value: float | None,
        history: list[float],
        metrics: Mapping[str, Any],
        run: str | None,
        seconds: float,
        error: str | None = None,
    ) -> None:
        """The trial will not run again."""
        self._write(
            {
                "event": "ended",
                "number": trial.number,
                "status": status,
                "value": value,
                "history": history,
                "metrics": metrics,
                "run": run,
                "seconds": round(seconds, 3),
                "error": error,
            }
        )

    def _write(self, event: Mapping[str, Any], *, lasting: bool = True) -> None:
        """lasting: on the disk before this returns; what only tells where a sweep stands need not be."""
        line = run_files.dumps({**event, "at": round(time.monotonic() - self._began, 3)}).encode() + b"\n"
        whole = self._file.tell()
        try:
            left = memoryview(line)
            while left:  # a disk that fills up takes a part of it and says nothing; the rest is refused
                left = left[self._file.write(left) :]
            if lasting:
                os.fsync(self._file.fileno())
        except OSError as error:
            # A full disk: no half line stays, so that what is there can be read and gone on with.
            os.ftruncate(self._file.fileno(), whole)
            self._file.seek(whole)  # where the next event, and a cut after it, is counted from
            raise OSError(error.errno, error.strerror, str(self.folder / TRIALS)) from None
        _replay(self.trials, json.loads(line))


def _opened(path: Path) -> IO[bytes]:
    file = path.open("ab", buffering=0)
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        os.ftruncate(file.fileno(), content.rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
    return file


def _replay(trials: dict[int, Trial], event: Mapping[str, Any]) -> None:
    number, kind = event["number"], event["event"]
    if kind == "drawn":
        trials[number] = Trial(number, dict(event["parameters"]), dict(event["point"]))
    elif kind in ("started", "stopped"):
        trials[number].status = "running" if kind == "started" else "waiting"
    elif kind == "attempt_failed":
        trial = trials[number]
        trial.error, trial.status = event["error"], "waiting"
        trial.deaths += bool(event["death"])
        trial.errors += not event["death"]
    elif kind == "ended":
        trial = trials[number]
        for key in ("status", "value", "history", "metrics", "run", "seconds", "error"):
            setattr(trial, key, event[key])
    else:
        raise ValueError(f"unknown event {kind!r}")
    trials[number].at = None if event.get("at") is None else float(event["at"])
