"""Trials in worker processes on this machine."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.jobs.executors.capacity import cores
from evonorm.lab.jobs.executors.gpus import Shared
from evonorm.lab.jobs.executors.interface import Ended, Lost, Message, Moved, Told, cannot_travel, logged_attempt
from evonorm.lab.jobs.job import Job, Target, plain

_PR_SET_PDEATHSIG = 1


class Processes:
    """Worker processes on this machine, kept from trial to trial; each gets its share of the cores as threads.

    gpus: tell which of them a further worker goes to, and whether it has to wait; of several a worker sees that one.

    Workers start as they are needed and die with this process, even by kill -9. What a trial prints goes into its
    log.txt. Where OMP_NUM_THREADS is set already, it stays.
    """

    def __init__(self, target: Target, workers: int, gpus: Shared | None = None) -> None:
        self.slots, self._gpus = workers, gpus
        self._target = target
        self._threads = max(1, cores() // workers)
        self._workers: list[_Worker] = []

    def free(self) -> int:
        """See Executor."""
        idle = sum(worker.job is None for worker in self._workers)
        further = self.slots - len(self._workers)
        if self._gpus is None:
            return idle + further
        # A GPU is asked only where a further worker could begin.
        return idle or int(further > 0 and self._gpus.place(self._runs()) is not None)

    def submit(self, job: Job) -> None:
        """See Executor."""
        worker = next((worker for worker in self._workers if worker.job is None), None)
        if worker is None:
            worker = self._started()
            self._workers.append(worker)
        worker.job = job
        self._tell(worker)
        with contextlib.suppress(OSError):  # it has just died: wait() tells
            worker.pipe.send(job)

    def wait(self, seconds: float) -> list[Message]:
        """See Executor."""
        if not self._workers:
            time.sleep(seconds)
            return []
        ready = wait([one for worker in self._workers for one in (worker.pipe, worker.process.sentinel)], seconds)
        messages: list[Message] = []
        for worker in list(self._workers):
            if worker.pipe in ready or worker.process.sentinel in ready:
                messages += self._received(worker)
        return messages

    def stop(self, number: int) -> None:
        """See Executor."""
        for worker in self._workers:
            if worker.job is not None and worker.job.number == number:
                with contextlib.suppress(OSError):
                    worker.pipe.send("stop")

    def close(self) -> None:
        """See Executor."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.job is not None:
                # Its own children first: a program it started is told by the signal and takes its group along.
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(2.0)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def _started(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self._target, theirs, os.getpid()), daemon=False)
        own = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(self._threads)}
        gpu = None
        if self._gpus is not None:
            gpu = self._gpus.place(self._runs()) or self._gpus.fewest(self._runs())
            if len(self._gpus.names) > 1:
                own["CUDA_VISIBLE_DEVICES"] = gpu
        with _environment(**own):
            try:
                process.start()
            except (AttributeError, TypeError, ImportError) as error:
                raise UserError(cannot_travel(error)) from None
            except Exception as error:
                if type(error).__name__ != "PicklingError":
                    raise
                raise UserError(cannot_travel(error)) from None
        theirs.close()
        return _Worker(process, ours, gpu)

    def _runs(self) -> Counter[str]:
        return Counter(worker.gpu for worker in self._workers if worker.gpu is not None)

    def _tell(self, worker: _Worker) -> None:
        if self._gpus is not None and worker.gpu is not None:
            self._gpus.changed(worker.gpu)

    def _received(self, worker: _Worker) -> list[Message]:
        messages: list[Message] = []
        alive = worker.process.is_alive()
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Ended):
                    worker.job = None
                    self._tell(worker)
                messages.append(message)
        except (EOFError, OSError):
            worker.process.join(2.0)
            alive = False
        if not alive:
            self._workers.remove(worker)
            self._tell(worker)
            worker.process.join()
            if worker.job is not None:
                messages.append(Lost(worker.job.number, _how_it_died(worker.process.exitcode)))
        return messages


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection[Any, Any]
    gpu: str | None = None
    job: Job | None = None


class _ToDriver:
    """A worker's end of the pipe, as a Reporter."""

    def __init__(self, pipe: Connection[Any, Any], number: int) -> None:
        self._pipe, self._number, self._stop = pipe, number, False

    def tell(self, metrics: Mapping[str, Any]) -> None:
        self._pipe.send(Told(self._number, plain(metrics)))

    def moved(self, part: float) -> None:
        self._pipe.send(Moved(self._number, part))

    def stop_requested(self) -> bool:
        while not self._stop and self._pipe.poll():
            self._stop = self._pipe.recv() == "stop"
        return self._stop


def _work(target: Target, pipe: Connection[Any, Any], parent: int) -> None:
    """A worker's life: job after job, until the driver closes the pipe or dies."""
    _die_with(parent)
    # Ctrl-C reaches the whole terminal; the driver decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        if not isinstance(job, Job):
            continue  # a stop for a trial that has just ended
        outcome = logged_attempt(target, job, _ToDriver(pipe, job.number))
        try:
            pipe.send(Ended(job.number, outcome))
        except OSError:
            return


def _die_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent dies; elsewhere the closed pipe ends it after its trial."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _how_it_died(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for want of memory: try fewer --workers" if -exitcode == signal.SIGKILL else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exitcode}"


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
