"""What an attempt prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from evonorm.lab.jobs.logs import last_line


@pytest.mark.parametrize(
    ("log", "last"),
    [
        ("", ""),
        ("\n  \n", ""),
        ("one\ntwo\n\n", "two"),
        ("Traceback ...\n  x = f(lr)\n      ^^^^^\nValueError: lr\n", "ValueError: lr"),
        ("ValueError: lr\n      ^^^^^\n-----\n", "ValueError: lr"),
        ("\x1b[31merror:\x1b[0m no such file\n", "error: no such file"),
        ("10 %\r50 %\r100 %", "100 %"),
        ("früh\n", "früh"),
        ("x" * 300, "x" * 199 + "…"),
        ("a\n" * 100_000 + "end", "end"),
    ],
    ids=range(10),
)
def test_the_last_thing_that_a_log_says(log: str, last: str, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(log, newline="")
    assert last_line(tmp_path / "log.txt") == last
    assert last_line(tmp_path / "none.txt") == ""
