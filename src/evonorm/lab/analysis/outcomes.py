"""How runs ended, in words and counts: finished, diverged, stopped, failed, running and not run are told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evonorm.lab.records.run_files import Record
from evonorm.lab.training import tasks

# In the order in which they are told. "not run": planned, and no folder is there.
STATES = ("finished", "diverged", "stopped", "failed", "running", "not run")
# A run of these has not said how its training ends.
UNENDED = ("stopped", "failed", "running", "not run")


def state(record: Record | None) -> str:
    """One of STATES."""
    return "not run" if record is None else record.status


def tally(runs: Iterable[Record | None]) -> dict[str, int]:
    """How many runs of each state there are, in the order of STATES; only those that there are."""
    found = [state(record) for record in runs]
    return {name: found.count(name) for name in STATES if name in found}


def counted(runs: Iterable[Record | None]) -> str:
    """As "3 finished, 1 diverged"."""
    return ", ".join(f"{count} {name}" for name, count in tally(runs).items())


def steps_per_epoch(record: Record) -> int:
    """Training steps of one epoch; 0 where the record does not say."""
    batch, images = int(record.config.get("batch_size") or 0), int(record.dataset.get("train_images") or 0)
    full = -(-images // batch) if batch else 0
    asked = int(record.config.get("steps_per_epoch") or 0)
    return min(asked, full) if asked and full else asked or full


def planned_epochs(record: Record) -> int:
    """As many as the run was to train for; at least as many as it has."""
    return max(int(record.config.get("epochs") or 0), len(record.metrics))


def diverged_at(record: Record) -> float | None:
    """Epochs trained when the run diverged, with a fraction where its step is known; None if it did not diverge."""
    if record.status != "diverged":
        return None
    found = record.summary.get("diagnosis") or {}
    epoch = int(found.get("epoch") or len(record.metrics) + 1)
    step, each = found.get("step"), steps_per_epoch(record)
    # The step is counted from the start of training.
    return min(max(int(step) / each, epoch - 1.0), float(epoch)) if step and each else float(epoch)


def end(record: Record | None) -> str:
    """How the run ended, how far it came, and what it had reached."""
    if record is None or record.status == "finished":
        return state(record)
    if record.status == "diverged":
        found = record.summary.get("diagnosis") or {}
        epoch = f"in epoch {found.get('epoch') or len(record.metrics) + 1} of {planned_epochs(record)}"
        return f"diverged at step {found['step']:,}, {epoch}" if found.get("step") else f"diverged {epoch}"
    far = f"{record.status} after {len(record.metrics)} of {planned_epochs(record)} epochs"
    value = reached(record)
    return f"{far}, at {tasks.of(record.config).goal.said(value)}" if value is not None else far


def last(record: Record) -> Mapping[str, Any]:
    """The last epoch that was finished."""
    return record.metrics[-1] if record.metrics else record.summary.get("last") or {}


def reached(record: Record, split: str = "val") -> float | None:
    """The goal of the run's task after the last epoch, whether or not the run came to its end; None without one."""
    value = last(record).get(tasks.of(record.config).goal.key(split))
    return None if value is None else float(value)
