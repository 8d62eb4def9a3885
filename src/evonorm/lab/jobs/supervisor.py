"""The one supervisor of jobs on an executor: starts them as slots come free, tries again, stops them well.

What the jobs are and what becomes of them is the work's affair: a sweep's driver, an experiment's campaign.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors.interface import Executor, Lost, Message, Moved, Told
from evonorm.lab.jobs.job import Job, Outcome
from evonorm.lab.jobs.logs import LOG

# A job that raises gets a second attempt; one whose process is killed, which is seldom its own fault, gets four.
MOST_ERRORS, MOST_DEATHS = 2, 4
# So many jobs may wait for the place of a running one while others go ahead of them.
MOST_WAITING = 32
POLL_SECONDS = 0.25
# After Ctrl-C: for a job to reach its checkpoint, and for one that keeps none.
STOP_SECONDS, STOP_SECONDS_WITHOUT_RESUME = 60.0, 3.0


class Task(Protocol):
    """One thing to do, in one attempt or more. errors, deaths: attempts that failed, and whose process died."""

    number: int
    errors: int
    deaths: int

    @property
    def words(self) -> str:
        """What a person calls it."""


T = TypeVar("T", bound=Task)


class Work(Protocol[T]):
    """What is to be done, and who hears what became of it.

    Each attempt is begun by `job` and ends in one of `stopped`, `attempt_failed` or `ended`. By default there is
    nothing to draw, each task has a place of its own, and what only tells is not heard.
    """

    def draw(self) -> T | None:
        """One task more, besides those that wait; None where there is none, or none yet."""
        return None

    def place(self, task: T) -> str | None:
        """Where it works, if others may work there too: two of one place never run at once."""
        return None

    def job(self, task: T) -> Job:
        """An attempt begins."""

    def moved(self, task: T, part: float) -> None:
        """The attempt got on: `part` of it, from 0 to 1, is done."""
        return

    def told(self, task: T, metrics: Mapping[str, Any]) -> Collection[int]:
        """The attempt reported. Returns the running tasks that are to end early for it: their outcome is `stopped`."""

    def stopped(self, task: T) -> None:
        """The attempt was ended before its time; the task waits for another."""

    def attempt_failed(self, task: T, error: str, *, death: bool) -> None:
        """The attempt failed: one more among the task's errors, or deaths."""

    def ended(self, task: T, outcome: Outcome) -> str | None:
        """The attempt came to its end. Returns why it is a failure all the same, or None: the task is done."""

    def failed(self, task: T, error: str) -> None:
        """The task is not tried again."""

    def say(self, text: str) -> None:
        """Something to know."""

    def update(self) -> None:
        """Something may have changed."""
        return


class Supervisor(Generic[T]):
    """Does the work on the executor.

    waiting: tasks to do before any that is drawn. resumes: a stopped attempt is gone on with, so it is given time to
    stop well. hopeless: so many tasks failed and none ended otherwise: what they run is broken; None: go on all the
    same.
    """

    def __init__(
        self,
        work: Work[T],
        executor: Executor,
        waiting: Iterable[T],
        *,
        resumes: bool,
        hopeless: int | None = None,
    ) -> None:
        self._work, self._executor, self._resumes, self._hopeless = work, executor, resumes, hopeless
        self._waiting = list(waiting)
        self._running: dict[int, tuple[T, Job]] = {}
        self._ending_early: set[int] = set()
        self._stop_at: float | None = None
        self._failed_so_far = self._sound_so_far = 0

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop_at is not None

    @property
    def left(self) -> bool:
        """Whether a task waits, or did not end."""
        return bool(self._waiting or self._running)

    def go(self, stop_requested: Callable[[], bool]) -> None:
        """Until there is nothing to do, or stopped. Ends the executor in any case.

        Raises UserError where the disk has no room, or the work is hopeless.
        """
        try:
            while True:
                if not self.stopping and stop_requested():
                    self._stop()
                while not self.stopping and self._executor.free() and (task := self._next()) is not None:
                    job = self._work.job(task)
                    self._running[task.number] = task, job
                    self._executor.submit(job)
                if not self._running or (self._stop_at is not None and time.monotonic() > self._stop_at):
                    break
                for message in self._executor.wait(POLL_SECONDS):
                    self._handle(message)
                self._work.update()
            self._work.update()
        finally:
            self._executor.close()

    def _stop(self) -> None:
        self._stop_at = time.monotonic() + (STOP_SECONDS if self._resumes else STOP_SECONDS_WITHOUT_RESUME)
        self._work.say(f"stopping{' at a checkpoint' if self._resumes else ''}; Ctrl-C again ends at once")
        for number in self._running:
            self._executor.stop(number)

    def _next(self) -> T | None:
        """The next task to start: one that waits, else a new one; None where there is none, or none yet."""
        for task in self._waiting:
            if not self._clashes(task):
                self._waiting.remove(task)
                return task
        while len(self._waiting) < MOST_WAITING and (drawn := self._work.draw()) is not None:
            if not self._clashes(drawn):
                return drawn
            self._waiting.append(drawn)
        return None

    def _clashes(self, task: T) -> bool:
        """Whether the task's place is in use: it waits, then finds what it was to do already done."""
        place = self._work.place(task)
        return place is not None and any(self._work.place(other) == place for other, _ in self._running.values())

    def _handle(self, message: Message) -> None:
        task, job = self._running.get(message.number, (None, None))
        if task is None or job is None:
            return
        if isinstance(message, Moved):
            self._work.moved(task, message.part)
        elif isinstance(message, Told):
            for number in self._work.told(task, message.metrics):
                if number in self._running and number not in self._ending_early:
                    self._ending_early.add(number)
                    self._executor.stop(number)
        else:
            del self._running[message.number]
            early = message.number in self._ending_early
            self._ending_early.discard(message.number)
            if isinstance(message, Lost):
                self._failed(task, job, message.reason, death=True)
            else:
                self._ended(task, job, message.outcome, early=early)

    def _ended(self, task: T, job: Job, outcome: Outcome, *, early: bool) -> None:
        if outcome.status == "no room":
            with contextlib.suppress(OSError):
                self._work.stopped(task)
            raise UserError(f"{task.words}: {outcome.error}; make room and repeat the command")
        if outcome.status == "failed":
            self._failed(task, job, outcome.error or "it failed without a word", death=False)
        elif outcome.status == "stopped" and not early:  # by Ctrl-C, or by a signal to its process alone
            self._again(task)
        elif (error := self._work.ended(task, outcome)) is not None:
            self._failed(task, job, error, death=False)
        else:
            self._sound_so_far += 1

    def _failed(self, task: T, job: Job, error: str, *, death: bool) -> None:
        if self.stopping:  # what a stop breaks is not the task's fault
            self._again(task)
            return
        self._work.attempt_failed(task, error, death=death)
        if task.errors < MOST_ERRORS and task.deaths < MOST_DEATHS:
            self._work.say(f"{task.words}: {error}; once more")
            self._waiting.insert(0, task)
            return
        self._work.failed(task, error)
        self._failed_so_far += 1
        if self._hopeless is not None and self._failed_so_far >= self._hopeless and not self._sound_so_far:
            raise UserError(
                f"the first {self._hopeless} trials all failed, the last one: {error}; see {job.folder / LOG}"
            )

    def _again(self, task: T) -> None:
        self._work.stopped(task)
        self._waiting.insert(0, task)
