"""How many runs a machine takes at once, and which GPU each of them sees. nvidia-smi is made up: there is none here."""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from evonorm.lab.jobs import executors
from evonorm.lab.jobs.executors import capacity
from evonorm.lab.jobs.executors.gpus import LOOKS, SETTLING_SECONDS, Gpu, Measured, Shared, gpus
from evonorm.lab.jobs.job import Job, Outcome, Reporter

TWO = "0, GPU-aaaa, 40000, 37\n1, GPU-bbbb, 9000, [N/A]\n"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of this name on the path, which says this text."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def says(text: str, exit_code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {exit_code}\n")
        program.chmod(0o755)

    return says


def test_workers_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "cores", lambda: 8)
    for free, workers in {100.0: 8, 11.0: 3, 1.0: 1, None: 8}.items():
        monkeypatch.setattr(capacity, "_free_gigabytes", lambda free=free: free)
        assert executors.default_workers(3.5) == workers
    assert executors.default_workers(None) == 8


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["GPU-aaaa", "GPU-bbbb"]), ("1", ["GPU-bbbb"]), ("GPU-bbbb, 0", ["GPU-bbbb", "GPU-aaaa"]), ("", [])],
)
def test_gpus_that_are_visible(
    visible: str | None, names: list[str], nvidia_smi: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(TWO)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.name for gpu in gpus()] == names
    told = {"GPU-aaaa": (40000 / 1024, 37.0), "GPU-bbbb": (9000 / 1024, None)}
    assert all((gpu.free_gigabytes, gpu.busy) == told[gpu.name] for gpu in gpus())


@pytest.mark.parametrize(
    ("text", "exit_code"), [("", 0), (TWO, 9), ("0, GPU-aaaa, [N/A], 5\n", 0), ("No devices\n", 0)]
)
def test_without_an_answer_there_are_none(text: str, exit_code: int, nvidia_smi: Any) -> None:
    nvidia_smi(text, exit_code)
    assert gpus() == []


def test_gpus_that_torch_cannot_use_are_none(nvidia_smi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(TWO)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus() == []


class Tells:
    """A target that says which GPU its process sees; it runs until it is asked to stop, so each has its own process."""

    resumes = ships_folder = False

    def run(self, job: Job, reporter: Reporter) -> Outcome:
        reporter.tell({"gpu": os.environ["CUDA_VISIBLE_DEVICES"]})
        while not reporter.stop_requested():
            time.sleep(0.01)
        return Outcome("stopped")


def test_workers_share_gpus_alike(tmp_path: Path) -> None:
    processes: Any = executors.Processes(Tells(), 3, Shared(["a", "b"]))  # type: ignore[arg-type]
    told: list[str] = []
    try:
        for number in range(3):
            processes.submit(Job(number, {}, tmp_path / str(number), tmp_path))
        while len(told) < 3:
            told += [message.metrics["gpu"] for message in processes.wait(10.0) if isinstance(message, executors.Told)]
    finally:
        processes.close()
    assert sorted(told) == ["a", "a", "b"]


class MadeUp:
    """A card of this memory and runs that take so much of it, and of its time, each; a clock that is moved by hand."""

    def __init__(self, gigabytes: float, each_gigabytes: float, each_busy: float | None, answers: bool = True) -> None:
        self.now, self.runs, self.asked, self.resting = 0.0, 0, 0, False
        self._all, self._each, self._busy, self._answers = gigabytes, each_gigabytes, each_busy, answers
        self.measured = Measured([self.gpu()], self.ask, lambda: self.now)

    def gpu(self) -> Gpu:
        if self.resting:  # between two runs
            return Gpu("a", self._all, 0.0)
        busy = None if self._busy is None else min(100.0, self._busy * self.runs)
        return Gpu("a", self._all - self._each * self.runs, busy)

    def ask(self) -> dict[str, Gpu]:
        self.asked += 1
        return {"0": self.gpu()} if self._answers else {}

    def place(self) -> str | None:
        return self.measured.place({"a": self.runs})

    def begin(self) -> None:
        self.runs += 1
        self.measured.changed("a")

    def grown(self, seconds: float = 3_600.0) -> int:
        end = self.now + seconds
        while self.now < end:
            if self.place():
                self.begin()
            self.now += 1.0
        return self.runs


@pytest.mark.parametrize(
    ("card", "runs"),
    [
        (MadeUp(80.0, 3.0, 25.0), 4),  # 75 per cent of the time leaves room for a fourth, 100 for no fifth
        (MadeUp(80.0, 3.0, 100.0), 1),
        (MadeUp(10.0, 3.3, 5.0), 2),  # a third would fit, with nothing to spare
        (MadeUp(80.0, 3.0, None), 26),  # where it does not tell, memory decides
        (MadeUp(1.0, 0.9, 25.0), 1),  # there is always one
        (MadeUp(80.0, 3.0, 25.0, False), 1),
    ],
)
def test_runs_are_added_while_the_gpu_is_idle_and_has_memory(card: MadeUp, runs: int) -> None:
    assert card.grown() == runs


def test_a_run_is_added_when_the_newest_has_settled_and_looks_agree() -> None:
    card = MadeUp(80.0, 3.0, 25.0)
    assert card.place() == "a"
    card.begin()
    assert card.place() is None
    card.now = SETTLING_SECONDS - 1
    assert card.place() is None
    assert not card.asked
    found = []
    for look in range(LOOKS):
        card.now = SETTLING_SECONDS + 1 + look
        found.append(card.place())
    assert found == [None] * (LOOKS - 1) + ["a"]
    assert card.place() == "a"
    assert card.asked == LOOKS  # not twice in a second
    card.begin()
    assert card.place() is None


def test_a_gap_between_two_runs_is_no_room() -> None:
    card = MadeUp(80.0, 60.0, 60.0)
    assert card.grown(300.0) == 1
    card.resting = True  # one has ended, the next begins on the same worker
    card.measured.changed("a")
    asked = card.asked
    card.grown(SETTLING_SECONDS - 1)
    assert card.asked == asked
    assert card.grown(300.0) == 1  # however long it is: the next may take what the last one took
    assert card.asked > asked


def test_a_card_that_is_full_or_silent_is_asked_less_often() -> None:
    for card in (MadeUp(80.0, 3.0, 100.0), MadeUp(80.0, 3.0, 10.0, False)):
        card.begin()
        card.grown(630.0)
        assert 55 <= card.asked <= 70  # every ten seconds, and not every second


def test_a_second_gpu_has_its_first_run_before_the_first_has_two() -> None:
    measured = Measured([Gpu("c", 1.0), Gpu("a", 70.0), Gpu("b", 80.0)], dict, lambda: 0.0)
    assert measured.place({}) == "b"  # where most is free
    assert measured.place({"b": 1}) == "a"
    assert measured.place({"a": 1, "b": 1}) is None  # nor does c, whose memory others have, get any
    assert Measured([Gpu("c", 1.0), Gpu("d", 2.0)], dict, lambda: 0.0).place({}) == "d"


def test_workers_wait_until_there_is_room_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[Measured.__module__], "SETTLING_SECONDS", 0.0)
    busy = 0.0
    measured = Measured([Gpu("a", 80.0)], lambda: {"0": Gpu("a", 76.0, busy)}, itertools.count(0.0, 11.0).__next__)
    processes: Any = executors.Processes(Tells(), 3, measured)  # type: ignore[arg-type]
    try:
        started = 0
        for _ in range(4 * LOOKS):
            if processes.free():
                processes.submit(Job(started, {}, tmp_path / str(started), tmp_path))
                started += 1
                busy = 50.0 * started
    finally:
        processes.close()
    assert started == 2


def test_only_trainings_whose_number_is_not_given_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    target: Any = Tells()
    there = [Gpu("a", 80.0), Gpu("b", 80.0)]
    for workers, gigabytes, found, kind in (
        (None, 3.5, there, Measured),
        (5, 3.5, there, Shared),
        (None, None, there, Shared),
        (None, 3.5, [], type(None)),
    ):
        monkeypatch.setattr(executors, "gpus", lambda found=found: found)
        made: Any = executors.make(target, workers=workers, gigabytes_each=gigabytes)
        assert type(made._gpus) is kind
        assert made.slots == (workers or executors.default_workers(gigabytes))
