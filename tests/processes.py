"""Other processes, and waiting for what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

# A machine busy with other tests may take long over what takes a second.
PATIENCE_SECONDS = 120.0


def until(holds: Callable[[], object]) -> None:
    """Returns once it holds, which no pace of the machine may decide."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Processes that this one started; none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False
