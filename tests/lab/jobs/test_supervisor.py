"""The supervisor on an executor that plays out what it is told: who starts when, who is tried again, how it ends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evonorm.lab.errors import UserError
from evonorm.lab.jobs import supervisor
from evonorm.lab.jobs.executors import Ended, Lost, Message, Moved, Told
from evonorm.lab.jobs.job import Job, Outcome
from evonorm.lab.jobs.supervisor import MOST_DEATHS, MOST_ERRORS, Supervisor, Work

DONE, FAILS, DIES = Outcome("finished"), Outcome("failed", error="the roof fell in"), "its process was killed"


@dataclass
class One:
    number: int
    errors: int = 0
    deaths: int = 0

    @property
    def words(self) -> str:
        return f"job {self.number}"


class Played:
    """Each wait ends the oldest attempt as the play says (in turn; then DONE); an endless one, when stopped."""

    def __init__(
        self, play: Mapping[int, list[Outcome | str]], *, slots: int = 1, endless: Collection[int] = ()
    ) -> None:
        self.slots, self.running, self.started = slots, list[int](), list[int]()
        self.stops, self.closed = list[int](), 0
        self._play, self._endless = {number: list(ends) for number, ends in play.items()}, set(endless)

    def free(self) -> int:
        return self.slots - len(self.running)

    def submit(self, job: Job) -> None:
        assert self.free() > 0
        assert job.number not in self.running
        self.running.append(job.number)
        self.started.append(job.number)

    def wait(self, seconds: float) -> list[Message]:
        for number in self.running:
            if number in self._endless and number not in self.stops:
                continue
            self.running.remove(number)
            if number in self.stops:
                return [Ended(number, Outcome("stopped"))]
            ends = self._play.get(number) or [DONE]
            end = ends.pop(0)
            told: list[Message] = [Moved(number, 0.5), Told(number, {"loss": 1.0})]
            return [*told, Lost(number, end) if isinstance(end, str) else Ended(number, end)]
        return []

    def stop(self, number: int) -> None:
        assert number in self.running
        self.stops.append(number)

    def close(self) -> None:
        self.closed += 1


class Kept(Work[One]):
    """Work that keeps what it hears."""

    def __init__(
        self, drawn: int = 0, *, places: Mapping[int, str] | None = None, end_early: int | None = None
    ) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._drawn, self._places, self._end_early = list(range(100, 100 + drawn)), places or {}, end_early

    def draw(self) -> One | None:
        return One(self._drawn.pop(0)) if self._drawn else None

    def place(self, task: One) -> str | None:
        return self._places.get(task.number)

    def job(self, task: One) -> Job:
        return Job(task.number, {}, Path("out") / str(task.number), Path("out"))

    def moved(self, task: One, part: float) -> None:
        assert part == 0.5

    def told(self, task: One, metrics: Mapping[str, Any]) -> Collection[int]:
        return () if self._end_early is None else (self._end_early,)

    def stopped(self, task: One) -> None:
        self.heard.append(("stopped", task.number))

    def attempt_failed(self, task: One, error: str, *, death: bool) -> None:
        task.deaths += death
        task.errors += not death

    def ended(self, task: One, outcome: Outcome) -> str | None:
        if outcome.run == "empty":
            return "it reported nothing"
        self.heard.append((outcome.status, task.number))
        return None

    def failed(self, task: One, error: str) -> None:
        self.heard.append(("failed", task.number, error))

    def say(self, text: str) -> None:
        self.heard.append(("say", text))


def never() -> bool:
    return False


def supervised(work: Kept, executor: Played, *tasks: One, hopeless: int | None = None) -> Supervisor[One]:
    found = Supervisor(work, executor, tasks, resumes=True, hopeless=hopeless)
    found.go(never)
    assert executor.closed == 1
    assert not found.stopping
    assert not found.left
    return found


def test_what_waits_goes_before_what_is_drawn() -> None:
    work, executor = Kept(drawn=2), Played({}, slots=2)
    supervised(work, executor, One(1), One(2))
    assert executor.started == [1, 2, 100, 101]
    assert work.heard == [("finished", number) for number in (1, 2, 100, 101)]


@pytest.mark.parametrize(
    ("ends", "most", "error"),
    [
        ([FAILS] * 9, MOST_ERRORS, "the roof fell in"),
        ([DIES] * 9, MOST_DEATHS, "its process was killed"),
        ([Outcome("finished", run="empty")] * 9, MOST_ERRORS, "it reported nothing"),
        ([DIES, FAILS, DIES, FAILS], 4, "the roof fell in"),
        ([Outcome("failed")] * 9, MOST_ERRORS, "it failed without a word"),
    ],
)
def test_it_is_tried_so_often_and_no_more(ends: list[Outcome | str], most: int, error: str) -> None:
    work, executor = Kept(), Played({1: ends})
    supervised(work, executor, One(1), One(2))
    assert executor.started == [1] * most + [2]
    assert work.heard[-2:] == [("failed", 1, error), ("finished", 2)]
    first = DIES if ends[0] == DIES else error
    assert work.heard[0] == ("say", f"job 1: {first}; once more")


def test_a_later_attempt_can_succeed() -> None:
    work = Kept()
    supervised(work, Played({1: [FAILS, DIES, DIES, DIES]}), One(1))
    assert work.heard[-1] == ("finished", 1)


def test_two_of_one_place_never_run_at_once() -> None:
    work, executor = Kept(places={1: "here", 2: "here", 3: "there"}), Played({}, slots=3)
    supervised(work, executor, One(1), One(2), One(3))
    assert executor.started == [1, 3, 2]


def test_only_so_many_are_drawn_for_a_place_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MOST_WAITING", 3)
    work = Kept(drawn=9, places=dict.fromkeys(range(100, 109), "here"))
    left = []
    executor = Played({}, slots=2)
    end = work.ended
    work.ended = lambda task, outcome: left.append(len(work._drawn)) or end(task, outcome)
    supervised(work, executor)
    assert executor.started == list(range(100, 109))
    assert left[0] == 9 - 4  # one at work, three that wait


def test_hopeless_work_ends_and_one_that_is_sound_saves_it() -> None:
    tasks = {number: [FAILS, FAILS] for number in range(1, 6)}
    executor = Played(tasks)
    with pytest.raises(
        UserError, match=r"the first 3 trials all failed, the last one: the roof fell in; see out/3/log"
    ):
        Supervisor(Kept(), executor, map(One, tasks), resumes=True, hopeless=3).go(never)
    assert executor.closed == 1
    supervised(Kept(), Played(tasks), One(0), *map(One, tasks), hopeless=3)
    supervised(Kept(), Played(tasks), *map(One, tasks))


def test_no_room_is_nobodys_fault() -> None:
    work, executor = Kept(), Played({1: [Outcome("no room", error="No space left on device")]})
    with pytest.raises(UserError, match=r"job 1: No space left on device; make room and repeat the command"):
        Supervisor(work, executor, [One(1)], resumes=True).go(never)
    assert work.heard == [("stopped", 1)]
    assert executor.closed == 1


def test_one_that_is_to_end_early_is_told_once() -> None:
    work, executor = Kept(end_early=1), Played({}, slots=2, endless=[1])
    supervised(work, executor, One(1), One(2), One(3))
    assert executor.stops == [1]
    assert ("stopped", 1) in work.heard  # as its outcome
    assert executor.started == [1, 2, 3]  # and not tried again


def test_a_signal_to_one_process_alone_is_gone_on_from() -> None:
    work, executor = Kept(), Played({1: [Outcome("stopped")]})
    supervised(work, executor, One(1))
    assert executor.started == [1, 1]
    assert work.heard == [("stopped", 1), ("finished", 1)]


@pytest.mark.parametrize("end", [FAILS, DIES])
def test_a_stop_starts_nothing_and_blames_nobody(end: Outcome | str) -> None:
    task = One(1)
    work, executor = Kept(drawn=5), Played({1: [end]}, slots=2, endless=[2])
    asked = iter([False, True])
    found = Supervisor(work, executor, [task, One(2)], resumes=True)
    wait, calls = executor.wait, iter([0])
    executor.wait = lambda seconds: [] if next(calls, None) == 0 else wait(seconds)
    executor.stop = lambda number: executor.stops.append(number) if number == 2 else None
    found.go(lambda: next(asked))
    assert found.stopping
    assert found.left
    assert executor.started == [1, 2]
    assert (task.errors, task.deaths) == (0, 0)
    assert work.heard == [
        ("say", "stopping at a checkpoint; Ctrl-C again ends at once"),
        ("stopped", 1),
        ("stopped", 2),
    ]


def test_what_does_not_stop_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS_WITHOUT_RESUME", 0.0)
    executor = Played({}, endless=[1])
    executor.stop = lambda number: None
    asked = iter([False, True])
    found = Supervisor(Kept(), executor, [One(1)], resumes=False)
    found.go(lambda: next(asked))
    assert found.left
    assert executor.closed == 1
