"""Where trials run: one small interface; processes on this machine, or a thread of this process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from evonorm.lab.errors import UserError
from evonorm.lab.sweep.journal import LOG
from evonorm.lab.sweep.trial import Job, Outcome, Target, plain

# What one training process of the report's network takes at its largest, at batch 128 and CIFAR-10's size: 2.8 GB in
# bf16 and 3.1 GB in fp32 measured (EvoNorm-S0, one thread, torch 2.14.1).
TRAINING_GB = 3.5
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PR_SET_PDEATHSIG = 1


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

    slots: int

    def free(self) -> int:
        """How many more attempts can start now."""

    def submit(self, job: Job) -> None:
        """Starts an attempt; only while free() > 0."""

    def wait(self, seconds: float) -> list[Message]:
        """What came within that time; returns as soon as something has."""

    def stop(self, number: int) -> None:
        """Asks a trial to end after its current step; its Ended comes when it does."""

    def close(self) -> None:
        """Ends everything at once."""


def cores() -> int:
    """The cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def default_workers(gigabytes_each: float | None) -> int:
    """One worker a core, fewer if memory for gigabytes_each (None: unknown, not counted) runs out sooner."""
    free = _free_gigabytes()
    if gigabytes_each is None or free is None:
        return cores()
    return max(1, min(cores(), int(free / gigabytes_each)))


class Processes:
    """Worker processes on this machine, kept from trial to trial; each gets its share of the cores as threads.

    Workers start as they are needed and die with this process, even by kill -9. What a trial prints goes into its
    log.txt. Where OMP_NUM_THREADS is set already, it stays.
    """

    def __init__(self, target: Target, workers: int) -> None:
        self.slots = workers
        self._target = target
        self._threads = max(1, cores() // workers)
        self._workers: list[_Worker] = []

    def free(self) -> int:
        """See Executor."""
        return self.slots - sum(worker.job is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        """See Executor."""
        worker = next((worker for worker in self._workers if worker.job is None), None)
        if worker is None:
            worker = self._started()
            self._workers.append(worker)
        worker.job = job
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
        with _environment(OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS") or str(self._threads)):
            try:
                process.start()
            except (AttributeError, TypeError, ImportError) as error:
                raise UserError(
                    f"the training function cannot be sent to worker processes ({error}); define it at the top of a "
                    "module, or use workers=0 to run in this process"
                ) from None
            except Exception as error:
                if type(error).__name__ != "PicklingError":
                    raise
                raise UserError(
                    f"the training function cannot be sent to worker processes ({error}); define it at the top of a "
                    "module, or use workers=0 to run in this process"
                ) from None
        theirs.close()
        return _Worker(process, ours)

    def _received(self, worker: _Worker) -> list[Message]:
        messages: list[Message] = []
        alive = worker.process.is_alive()
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Ended):
                    worker.job = None
                messages.append(message)
        except (EOFError, OSError):
            worker.process.join(2.0)
            alive = False
        if not alive:
            self._workers.remove(worker)
            worker.process.join()
            if worker.job is not None:
                messages.append(Lost(worker.job.number, _how_it_died(worker.process.exitcode)))
        return messages


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection[Any, Any]
    job: Job | None = None


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

        messages.put(Ended(job.number, _attempt(self._target, job, ToQueue(), job.folder / LOG)))


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
        with _output_to(job.folder / LOG):
            outcome = _attempt(target, job, _ToDriver(pipe, job.number), None)
        try:
            pipe.send(Ended(job.number, outcome))
        except OSError:
            return


def _attempt(target: Target, job: Job, reporter: Any, log: Path | None) -> Outcome:
    try:
        return target.run(job, reporter)
    except KeyboardInterrupt:
        return Outcome("stopped")
    except (Exception, SystemExit) as error:
        if log is None:
            traceback.print_exc()
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        no_room = isinstance(error, OSError) and error.errno in _NO_ROOM
        return Outcome(
            "no room" if no_room else "failed", error="".join(traceback.format_exception_only(error)).strip()
        )


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Everything this process and its children print goes to the end of a file; one that stays empty is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(number) for number in (1, 2)]
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        for number in (1, 2):
            os.dup2(log, number)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)
        if os.fstat(log).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(log)


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


def _free_gigabytes() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("MemAvailable")), None)
