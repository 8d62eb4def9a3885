"""A plugin of pytest: every test's outcome as a line of JSON, at once, so that a run cut short has told what it did.

`EVONORM_OUTCOMES=FILE python -m pytest -p benchmarks.outcomes ...`. After an error that a GPU does not get over, the
worker of pytest-xdist that met it ends, and another takes its place: else all its later tests failed for that one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

PLACE = "EVONORM_OUTCOMES"
LOST = ("CUDA error", "illegal memory access", "device-side assert")
LENGTH = 1000  # of a message

_WORKER = "PYTEST_XDIST_WORKER" in os.environ
_lost = False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test ran, or its fixtures did not."""
    global _lost
    if report.when != "call" and report.outcome == "passed":
        return
    message = _message(report)
    _lost = _lost or (report.failed and any(word in message for word in LOST))
    _write(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 3), message=message)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that could not be read, or skips itself."""
    if report.outcome != "passed":
        _write(test=report.nodeid, outcome=report.outcome, seconds=0.0, message=_message(report))


def pytest_runtest_logfinish() -> None:
    """All is told of a test."""
    if _WORKER and _lost:
        os._exit(1)


def _message(report: Any) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(getattr(report.longrepr, "reprcrash", None), "message", None)
    return str(crash or report.longrepr or "")[:LENGTH] if report.outcome != "passed" else ""


def _write(**line: object) -> None:
    # The one that a worker belongs to hears of its tests too.
    if not _WORKER:
        with Path(os.environ[PLACE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
