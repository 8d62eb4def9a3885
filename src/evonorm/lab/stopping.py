"""Ending well: Ctrl-C or a time after the current step, and one process to a run folder."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import filelock

from evonorm.lab.errors import UserError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Held(UserError):
    """Another process holds the folder."""


@contextmanager
def locked(folder: Path, who: str = "another process is training in") -> Iterator[None]:
    """Makes a folder of runs, or one run's, if it is missing, and holds it for this process.

    Raises UserError if it cannot be made, Held, beginning with `who`, if another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; choose another --out") from error
    path = folder / "lock"
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise Held(f"{who} {folder}{_holder(path)}; wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(f"cannot write in the folder {folder}: {error.strerror}; choose another --out") from error
    # The lock is the system's and ends with its process, whatever is written there.
    with contextlib.suppress(OSError):
        path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" ({text})" if text else ""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step; a second one ends at once."""
    requested = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True

    try:
        before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are not ours
        before = {}
    try:
        yield lambda: requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def seconds_of(time: str | None) -> float | None:
    """--for's time in seconds; None without it. Raises UserError for what is no time."""
    if time is None:
        return None
    number, unit = time[:-1], _SECONDS.get(time[-1:])
    with contextlib.suppress(ValueError):
        if unit is not None and 0 < float(number) < math.inf:
            return float(number) * unit
    raise UserError(f"--for takes a time as 90s, 9m or 1.5h: got {time!r}")


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """After so many seconds what runs inside is stopped as by Ctrl-C; None: never."""
    if seconds is None:
        yield
        return
    # As Ctrl-C does, it reaches whatever waits; before there is anything to stop well, it ends the command.
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
