"""The campaign goes on where it was stopped, and tells what failed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
from benchmarks import campaign

from evonorm import cli


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that it gave, none of them run; each ends as `codes` says, by a word of its own, else well."""
    given: list[list[str]] = []

    def run(words: list[str], check: bool) -> SimpleNamespace:
        given.append(words)
        return SimpleNamespace(returncode=next((code for word, code in CODES.items() if word in words), 0))

    monkeypatch.setattr(subprocess, "run", run)
    CODES.clear()
    return given


CODES: dict[str, int] = {}


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["campaign", "--data", "digits", *words])
    return campaign.main()


def test_every_command_is_one_of_ours(commands, monkeypatch) -> None:
    for words in ((), ("--rehearse",)):
        assert start(monkeypatch, *words) == 0
    assert len(commands) == 2 * len(campaign.PARTS)
    for words in commands:
        cli.build_parser(words[3:]).parse_args(cli._normalized(words[3:]))


def test_a_command_that_stopped_stops_it(commands, monkeypatch, capsys) -> None:
    CODES["learning-rate"] = cli.INTERRUPTED
    assert start(monkeypatch, "--for", "9m") == cli.INTERRUPTED
    assert len(commands) == 2
    assert commands[0][-2] == "--for"
    assert capsys.readouterr().out.endswith("stopped in learning-rate; repeat the command to go on\n")


def test_a_time_too_short_for_anything(commands, monkeypatch, capsys) -> None:
    assert start(monkeypatch, "--for", "2s") == cli.INTERRUPTED
    assert not commands
    assert capsys.readouterr().out == "the time is over before report; repeat the command to go on\n"


def test_what_failed_is_told_at_the_end(commands, monkeypatch, capsys) -> None:
    CODES["batch-size"] = cli.FAILED
    assert start(monkeypatch) == cli.FAILED
    assert len(commands) == len(campaign.PARTS)
    assert capsys.readouterr().out.endswith("all has run; failed: batch-size\n")


def test_a_time_that_is_none(commands, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        start(monkeypatch, "--for", "soon")
    assert "--for takes a time as 90s, 9m or 1.5h: got 'soon'" in capsys.readouterr().err
