"""Trials in a thread of this process, one at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping
from typing import Any

from evonorm.lab.jobs.executors.interface import Ended, Message, Moved, Told, attempt
from evonorm.lab.jobs.job import Job, Target, plain
from evonorm.lab.jobs.logs import LOG


class InThisProcess:
    """One trial at a time in a thread of this process: for notebooks, debuggers and functions that cannot travel.

    Prints go where they go; a trial can only be stopped where it reports.
    """

    slots = 1

    def __init__(self, target: Target) -> None:
        self._target = target
        self._messages: queue.Queue[Message] = queue.Queue()
        self._running: int | None = None
        self._stop = threading.Event()

    def free(self) -> int:
        """See Executor."""
        return int(self._running is None)

    def submit(self, job: Job) -> None:
        """See Executor."""
        self._running = job.number
        self._stop.clear()
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def wait(self, seconds: float) -> list[Message]:
        """See Executor."""
        messages = []
        with contextlib.suppress(queue.Empty):
            messages.append(self._messages.get(timeout=seconds))
            while True:
                messages.append(self._messages.get_nowait())
        if any(isinstance(message, Ended) for message in messages):
            self._running = None
        return messages

    def stop(self, number: int) -> None:
        """See Executor."""
        if number == self._running:
            self._stop.set()

    def close(self) -> None:
        """See Executor."""
        self._stop.set()

    def _run(self, job: Job) -> None:
        messages, stop = self._messages, self._stop

        class ToQueue:
            def tell(self, metrics: Mapping[str, Any]) -> None:
                messages.put(Told(job.number, plain(metrics)))

            def moved(self, part: float) -> None:
                messages.put(Moved(job.number, part))

            def stop_requested(self) -> bool:
                return stop.is_set()

        messages.put(Ended(job.number, attempt(self._target, job, ToQueue(), job.folder / LOG)))
