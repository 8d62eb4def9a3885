"""The engine: every trial once, whatever dies; failures, divergence, early stops, stopping and going on."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.errors import UserError
from evonorm.lab.jobs import executors
from evonorm.lab.jobs.job import Function
from evonorm.lab.stopping import locked
from evonorm.lab.sweep import journal, schema, suggest
from evonorm.lab.sweep.driver import drive
from tests.lab.sweep import toys
from tests.lab.sweeps import LOSS, config, facts, quiet
from tests.processes import children, until

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("EVONORM_TEST_KILLS", "6"))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_executor_gives_the_same_trials(tmp_path: Path, workers: int) -> None:
    result = quiet(config(run_cap=6), toys.parabola, tmp_path, workers=workers)
    assert [trial.status for trial in result.trials] == ["finished"] * 6
    assert facts(result) == facts(quiet(config(run_cap=6), toys.parabola, tmp_path / "other", workers=0))
    assert result.best is min(result.trials, key=lambda trial: trial.value or 0)
    assert not result.stopped
    assert (journal.trial_folder(tmp_path, 3) / "metrics.jsonl").read_text().count("\n") == 1


def test_repeating_runs_nothing_again_and_a_larger_cap_goes_on(tmp_path: Path) -> None:
    first = quiet(config(run_cap=3), toys.parabola, tmp_path, workers=0)
    written = (tmp_path / "trials.jsonl").read_bytes()
    assert facts(quiet(config(run_cap=3), toys.parabola, tmp_path, workers=0)) == facts(first)
    assert (tmp_path / "trials.jsonl").read_bytes() == written
    more = quiet(config(), toys.parabola, tmp_path, workers=0, trials=5)
    assert facts(more)[:3] == facts(first)
    assert len(more.trials) == 5


def test_a_grid_ends_by_itself(tmp_path: Path) -> None:
    grid = config(method="grid", parameters={"x": {"values": [1, 2, 3]}})
    result = quiet(grid, toys.parabola, tmp_path, workers=0)
    assert [trial.parameters["x"] for trial in result.trials] == [1, 2, 3]


def test_the_target_ends_the_sweep(tmp_path: Path) -> None:
    result = quiet(config(metric=LOSS | {"target": 0.05}), toys.parabola, tmp_path, workers=0)
    *before, last = [trial.value for trial in result.trials]
    assert last is not None
    assert last <= 0.05
    assert all(value > 0.05 for value in before if value is not None)


def test_bayes_finds_and_resumes_exactly(tmp_path: Path) -> None:
    space = {"x": {"min": 0.0, "max": 1.0}, "o": {"values": ["a", "b"]}, "n": {"distribution": "normal"}}
    bayes = config(method="bayes", parameters=space)
    whole = quiet(bayes, toys.parabola, tmp_path / "whole", workers=0, trials=15)
    assert whole.best is not None
    assert whole.best.value is not None
    assert whole.best.value < 1e-3
    for trials in (4, 12, 15):
        parts = quiet(bayes, toys.parabola, tmp_path / "parts", workers=0, trials=trials)
    assert facts(parts) == facts(whole)


def test_trouble_is_retried_once_and_kept_with_its_log(tmp_path: Path) -> None:
    kinds = ["raises", "dies", "diverges", "silent", "exits", "sound"]
    grid = config(method="grid", parameters={"kind": {"values": kinds}})
    result = quiet(grid, toys.troubled, tmp_path, workers=2)
    found = {trial.parameters["kind"]: trial for trial in result.trials}
    assert {kind: trial.status for kind, trial in found.items()} == {
        **dict.fromkeys(("raises", "dies", "silent", "exits"), "failed"),
        "diverges": "diverged",
        "sound": "finished",
    }
    assert (found["raises"].errors, found["raises"].error) == (2, "RuntimeError: the roof fell in")
    log = (journal.trial_folder(tmp_path, found["raises"].number) / "log.txt").read_text()
    assert log.count("before the fall") == 2
    assert log.count("Traceback") == 2
    assert found["dies"].error is not None
    assert "killed by SIGKILL" in found["dies"].error
    assert found["silent"].error == "it never reported the metric 'loss'; it reported accuracy"
    assert found["sound"].metrics == {"loss": 2.0, "kind": "sound"}
    assert result.best is found["sound"]


def test_a_second_attempt_can_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVONORM_TEST_STARTS", str(tmp_path / "mark"))
    (trial,) = quiet(config(run_cap=1), toys.fails_once, tmp_path / "out", workers=1).trials
    assert (trial.status, trial.value, trial.errors) == ("finished", 1.0, 1)


def test_a_program_that_always_fails_ends_the_sweep(tmp_path: Path) -> None:
    always = config(parameters={"kind": {"value": "raises"}})
    with pytest.raises(UserError, match=r"the first 5 trials all failed, the last one: RuntimeError: the roof fell in"):
        quiet(always, toys.troubled, tmp_path, workers=0)


def test_early_terminate_stops_the_worse(tmp_path: Path) -> None:
    early = {"type": "hyperband", "min_iter": 2, "eta": 2}
    result = quiet(config(run_cap=8, early_terminate=early), toys.curve, tmp_path, workers=1)
    statuses = {trial.status for trial in result.trials}
    assert statuses == {"finished", "pruned"}
    pruned = [trial for trial in result.trials if trial.status == "pruned"]
    assert all(2 <= len(trial.history) <= 9 for trial in pruned)
    assert result.best is not None
    assert result.best.parameters["x"] == min(trial.parameters["x"] for trial in result.trials)


def test_threads_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    result = quiet(config(run_cap=1), toys.threads, tmp_path, workers=1)
    assert result.trials[0].value == executors.cores()
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_second_driver_refuses(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UserError, match="another process is running the sweep in"):
        quiet(config(run_cap=1), toys.parabola, tmp_path, workers=0)


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"parameters": {"x": {"min": 0.0, "max": 2.0}}}, {}, r"parameters\[0\].distribution.maximum was 1.0, is 2.0"),
        ({"method": "grid", "parameters": {"x": {"values": [1]}}}, {}, "method was 'random', is 'grid'"),
        ({}, {"seed": 4}, "has seed 0: got 4"),
    ],
)
def test_another_sweep_is_refused(tmp_path: Path, change: dict[str, Any], more: dict[str, Any], message: str) -> None:
    quiet(config(run_cap=1), toys.parabola, tmp_path, workers=0)
    with pytest.raises(UserError, match=message):
        quiet(config(run_cap=2, **change), toys.parabola, tmp_path, workers=0, **more)


def test_a_function_that_cannot_travel_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be sent to worker processes.*workers=0"):
        quiet(config(run_cap=1), lambda parameters: 1.0, tmp_path, workers=1)


def test_the_clock_stands_still_while_no_driver_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(journal.time, "monotonic", lambda: now)
    (tmp_path / journal.SWEEP).write_text("{}")
    for number, start in enumerate((100.0, 9000.0)):
        now = start
        with closing(journal.Journal(tmp_path)) as pen:
            trial = pen.drawn(number, {"x": 0.5}, {})
            now += 2
            pen.ended(trial, "finished", value=1.0, history=[1.0], metrics={}, run=None, seconds=2.0)
    assert [trial.at for trial in journal.read_trials(tmp_path)] == [2.0, 4.0]


def test_a_torn_line_is_cut_off_and_a_broken_one_named(tmp_path: Path) -> None:
    first = quiet(config(run_cap=2), toys.parabola, tmp_path, workers=0)
    file = tmp_path / "trials.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"event": "drawn", "numb')
    assert facts(quiet(config(run_cap=2), toys.parabola, tmp_path, workers=0)) == facts(first)
    assert file.read_bytes() == whole
    file.write_bytes(b"{broken\n" + whole)
    with pytest.raises(UserError, match=r"trials\.jsonl, line 1 is broken"):
        quiet(config(run_cap=2), toys.parabola, tmp_path, workers=0)


def test_a_full_disk_stops_it_and_leaves_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.fsync, 5

    def fsync(number: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left"):
            quiet(config(run_cap=4), toys.parabola, tmp_path, workers=0)
    assert (tmp_path / "trials.jsonl").read_bytes().endswith(b"\n")
    assert [t.status for t in quiet(config(run_cap=4), toys.parabola, tmp_path, workers=0).trials] == ["finished"] * 4


def test_a_trial_that_finds_the_disk_full_is_not_its_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No space left on device; make room and repeat the command"):
        quiet(config(parameters={"kind": {"value": "no room"}}), toys.troubled, tmp_path, workers=0)
    assert [trial.status for trial in journal.read_trials(tmp_path)] == ["waiting"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot make the folder .*; choose another --out"):
        quiet(config(run_cap=1), toys.parabola, tmp_path / "file" / "out", workers=0)


def test_bayes_with_trials_running_beside(tmp_path: Path) -> None:
    bayes = config(method="bayes", parameters={"x": {"min": 0.0, "max": 1.0}, "o": {"values": [1, 2, 3]}})
    result = quiet(bayes, toys.parabola, tmp_path, workers=2, trials=16)
    assert len({trial.parameters["x"] for trial in result.trials}) == 16
    assert result.best is not None
    assert result.best.value is not None
    assert result.best.value < 0.01


def test_imputation() -> None:
    def trial(number: int, status: str, *history: float) -> journal.Trial:
        best = min(history, default=None)
        return journal.Trial(number, {}, status=status, value=best, history=list(history))

    trials = [
        trial(0, "finished", 3.0, 1.0, 2.0),
        trial(1, "failed", 7.0, 5.0, 6.0),
        trial(2, "diverged"),
        trial(3, "running", 9.0),
    ]
    for impute, expected in {"worst": [1, 7, 7], "best": [1, 5, 0], "latest": [1, 6, 0]}.items():
        metric = schema.parse(config(metric=LOSS | {"impute": impute})).metric
        assert metric is not None
        assert suggest.imputed(trials, metric) == dict(enumerate(expected))


def test_running_trials_count_where_the_file_says_so() -> None:
    point = {"x": 0.5}
    trials = [
        journal.Trial(0, {}, point, status="finished", value=1.0, history=[3.0, 1.0]),
        journal.Trial(1, {}, point, status="running", value=2.0, history=[2.0, 4.0]),
        journal.Trial(2, {}, point, status="running"),
        journal.Trial(3, {}, point, status="waiting"),
    ]
    for impute, expected in {"false": {0: 1}, "worst": {0: 1, 1: 2, 2: 3}, "latest": {0: 1, 1: 2, 2: 0}}.items():
        sweep = schema.parse(config(method="bayes", metric=LOSS | {"impute_while_running": impute}))
        assert sweep.metric is not None
        assert suggest.imputed(trials, sweep.metric) == expected
        # The search takes them: it still draws.
        assert suggest.make(sweep, 0).suggest(4, trials).point.keys() == {"x"}


def test_ctrl_c_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = schema.parse(config(run_cap=3))

    def press() -> None:
        until(lambda: len(list(tmp_path.glob("trials/*/metrics.jsonl"))) == 2)  # both are at work
        signal.raise_signal(signal.SIGINT)

    threading.Thread(target=press).start()
    target = Function(toys.endless, "loss")
    stopped = drive(sweep, target, tmp_path, executors.Processes(target, 2))
    assert stopped.stopped
    assert {trial.status for trial in stopped.trials} == {"waiting"}
    monkeypatch.setattr(toys.parabola, "__qualname__", "endless")  # the same function, mended
    done = quiet(config(run_cap=3), toys.parabola, tmp_path, workers=0)
    assert [trial.parameters for trial in done.trials][: len(stopped.trials)] == [t.parameters for t in stopped.trials]
    assert {trial.status for trial in done.trials} == {"finished"}


DRIVER = """
import sys
from evonorm.lab.sweep import run
from tests.lab.sweep import toys
if __name__ == "__main__":
    run({config}, toys.slow, out=sys.argv[1], workers=2, show=False)
"""


def test_kill_9_of_driver_and_workers_at_random_moments(tmp_path: Path) -> None:
    """Every trial ends once, with the parameters and values of a sweep that nobody killed."""
    trials = KILLS * 30
    content = config(run_cap=trials)
    program = tmp_path / "driver.py"
    program.write_text(DRIVER.replace("{config}", repr(content)))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    out, draw = tmp_path / "out", random.Random(7)
    ended: dict[int, str] = {}
    at_work = 0
    for kill in range(KILLS):
        process = subprocess.Popen([sys.executable, str(program), str(out)], env=os.environ | {"PYTHONPATH": path})
        time.sleep(draw.uniform(0.1, 0.8))
        if kill % 2:
            for worker in children(process.pid)[:1]:
                os.kill(worker, signal.SIGKILL)
            time.sleep(draw.uniform(0.0, 0.2))
        process.kill()
        at_work += process.wait() == -signal.SIGKILL
        if (out / "sweep.json").exists():
            now = {trial.number: repr(trial) for trial in journal.read_trials(out) if trial.ended}
            assert ended.items() <= now.items()  # nothing that had ended is lost, or changed
            ended = now
    assert at_work > KILLS / 2
    result = quiet(content, toys.slow, out, workers=2)
    drawn = suggest.make(result.sweep, seed=0)
    for trial in result.trials:
        x = drawn.suggest(trial.number, []).parameters["x"]
        assert (trial.status, trial.parameters, trial.history) == ("finished", {"x": x}, [x, x + 1, x + 2])
    lines = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    for event in ("drawn", "ended"):
        assert sorted(line["number"] for line in lines if line["event"] == event) == list(range(trials))
