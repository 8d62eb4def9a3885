"""What an attempt prints: one file in its folder, and the last thing it says."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

LOG = "log.txt"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def last_line(log: Path) -> str:
    """The last thing that a log says, at most 200 characters; empty where it says nothing.

    Lines that only underline another, as Python's tracebacks have, say nothing.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = (_ESCAPES.sub("", line.rpartition("\r")[2]).strip() for line in reversed(lines))
    found = next((line for line in said if line.strip("-=~^*_ ")), "")
    return found if len(found) <= 200 else f"{found[:199]}…"


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
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
