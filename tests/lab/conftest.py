"""What tests of the lab share."""

from __future__ import annotations

import pytest

from evonorm.lab.jobs import executors


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of commands run here: for tests of what they come to, for which no worker needs to start."""
    monkeypatch.setattr(executors, "make", lambda target, **_: executors.InThisProcess(target))
