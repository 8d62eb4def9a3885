"""What every place that runs trials is to the driver: five methods, three messages; and one attempt at a trial."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evonorm.lab.errors import NO_ROOM
from evonorm.lab.jobs.job import Job, Outcome, Reporter, Target
from evonorm.lab.jobs.logs import LOG, output_to


@dataclass(frozen=True)
class Told:
    """A trial reported metrics."""

    number: int
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Moved:
    """A trial got on: `part` of it, from 0 to 1, is done."""

    number: int
    part: float


@dataclass(frozen=True)
class Ended:
    """An attempt ended."""

    number: int
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """The process of an attempt died without a word."""

    number: int
    reason: str


Message = Told | Moved | Ended | Lost


class Executor(Protocol):
    """Runs attempts, `slots` at a time, and tells what becomes of them."""

    @property
    def slots(self) -> int:
        """How many attempts run at a time."""

    def free(self) -> int:
        """How many more attempts can start now."""

    def submit(self, job: Job) -> None:
        """Starts an attempt; only while free() > 0."""

    def wait(self, seconds: float) -> list[Message]:
        """What came within that time; returns as soon as something has."""

    def stop(self, number: int) -> None:
        """Asks a trial to end after its current step; its Ended comes when it does."""

    def close(self) -> None:
        """Ends everything at once; a second time does nothing."""


def attempt(target: Target, job: Job, reporter: Reporter, log: Path | None) -> Outcome:
    """One attempt, whatever it raises; the traceback goes to the end of `log`, or to stderr."""
    try:
        return target.run(job, reporter)
    except KeyboardInterrupt:
        return Outcome("stopped")
    except (Exception, SystemExit) as error:
        with contextlib.suppress(OSError):  # the disk may be full
            if log is None:
                traceback.print_exc()
            else:
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a", encoding="utf-8") as file:
                    traceback.print_exc(file=file)
        return _outcome(error)


def logged_attempt(target: Target, job: Job, reporter: Reporter) -> Outcome:
    """One attempt in this process, all that it prints in the trial's log."""
    try:
        with output_to(job.folder / LOG):
            return attempt(target, job, reporter, None)
    except OSError as error:  # of the log itself
        return _outcome(error)


def _outcome(error: BaseException) -> Outcome:
    no_room = isinstance(error, OSError) and error.errno in NO_ROOM
    return Outcome("no room" if no_room else "failed", error="".join(traceback.format_exception_only(error)).strip())


def cannot_travel(error: Exception) -> str:
    """What to tell of a target that does not pickle."""
    return (
        f"the training function cannot be sent to worker processes ({error}); define it at the top of a "
        "module, or use workers=0 to run in this process"
    )
