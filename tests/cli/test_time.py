"""--for: a long command stops after a time as by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.stopping import seconds_of, stop_requests, within
from tests.processes import until


def test_the_time_requests_a_stop() -> None:
    with stop_requests() as requested, within(0.05):
        until(requested)


def test_what_ends_in_time_is_left_alone() -> None:
    handler = signal.getsignal(signal.SIGINT)
    with stop_requests() as requested:
        with within(3600.0):
            pass
        assert not requested()
    assert signal.getsignal(signal.SIGINT) is handler
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    assert all(timer.finished.is_set() for timer in timers)


@pytest.mark.parametrize(("time", "seconds"), [("90s", 90.0), ("9m", 540.0), ("1.5h", 5400.0), (None, None)])
def test_times(time: str | None, seconds: float | None) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["", "9", "9x", "m", "-1s", "0s", "nans", "infh", "1h30m"])
def test_what_is_no_time(time: str) -> None:
    with pytest.raises(UserError, match=f"--for takes a time as 90s, 9m or 1.5h: got '{time}'"):
        seconds_of(time)


@pytest.mark.parametrize("command", [["train"], ["reproduce"], ["sweep", "sweep.yaml"]])
def test_every_long_command_has_it(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    @contextlib.contextmanager
    def noted(seconds: float | None) -> Iterator[None]:
        asked.append(seconds)
        yield

    monkeypatch.setattr(cli, "within", noted)
    monkeypatch.chdir(tmp_path)
    # There is no such data, nor such a file: each ends at once.
    data = [] if command[0] == "sweep" else ["--data", "missing.zip"]
    assert cli.main([*command, *data, "--out", "runs", "--for", "9m"]) == cli.USER_ERROR
    assert asked == [540.0]
