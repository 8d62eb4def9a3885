"""What a run keeps of itself beside its checkpoint and its epochs: what it is, what it ran on, how it ended."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from evonorm.lab import machine
from evonorm.lab.data.sets import Dataset
from evonorm.lab.records import listings, run_files
from evonorm.lab.training.config import identity
from evonorm.lab.training.diagnosis import is_compiled
from evonorm.models import zoo

if TYPE_CHECKING:
    from evonorm.lab.training.loop import Run


def describe(run: Run, dataset: Dataset) -> None:
    """Writes config.json, environment.json with one session more, and the plan of the network's layers if any."""
    if not run.group.first:
        return
    path = run.folder / "environment.json"
    sessions = run_files.read_json(path).get("sessions", []) if path.exists() else []
    environment = machine.environment(run.device)
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "epoch": run.position.epoch + 1,
        "threads": environment["threads"],
        "processes": run.group.size,
        "device": environment["device"],
        "layers": machine.layers_by(run.config.backend, run.device),
        "compiled": is_compiled(run.work.model),
        "captured": run.captured is not None,
    }
    # Paths are this machine's; the record names the data by content.
    config = asdict(replace(run.config, data=dataset.name, device=run.device.type))
    if run.config.options is not None:
        config["options"] = identity(run.config.options)
    about = listings.described(dataset, *run.work.sizes)
    run_files.write_json(run.folder / "config.json", {"config": config, "dataset": about})
    run_files.write_json(path, environment | {"sessions": [*sessions, session]})
    if run.work.plan is not None:
        run_files.write_atomically(run.folder / "plan.json", run.work.plan.to_json().encode())
        run.watch.say(run.work.plan.summary)
    summarize(run, "running")


def amend(run: Run, **facts: Any) -> None:
    """Corrects what the newest session says of itself."""
    path = run.folder / "environment.json"
    environment = run_files.read_json(path)
    environment["sessions"][-1] |= facts
    run_files.write_json(path, environment)


def summarize(run: Run, status: str, *, diagnosis: dict[str, Any] | None = None, error: str | None = None) -> None:
    """Writes summary.json."""
    if not run.group.first:
        return
    content = {
        "status": status,
        "epochs_done": run.position.epoch,
        "best": run.task.goal.best(run.epochs),
        "last": run.epochs[-1] if run.epochs else None,
        "diagnosis": diagnosis,
        "error": error,
        "parameters": sum(p.numel() for p in run.work.model.parameters() if p.requires_grad),
        "groups_in_force": zoo.groups_in_force(run.work.model),
        "seconds": run.seconds_before + time.monotonic() - run.started,
    }
    run_files.write_json(run.folder / "summary.json", content)
