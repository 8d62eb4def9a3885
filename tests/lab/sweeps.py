"""Sweeps: folders with a known truth, written as the driver writes them; small ones that are driven."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evonorm.lab.records import run_files
from evonorm.lab.sweep import driver, run, schema
from evonorm.lab.sweep.journal import SWEEP, TRIALS

HOSTILE = "</script><script>window.harmed = true</script><img src=x onerror='window.harmed = true'>"
REPORT: dict[str, Any] = {
    "method": "random",
    "metric": {"name": "accuracy", "goal": "maximize"},
    "parameters": {
        "groups": {"values": [4, 8, 12, 16, 32]},
        "learning_rate": {"values": [1e-2, 1e-3, 1e-4, 3e-4, 3e-5, 1e-5]},
        "optimizer": {"values": ["adam", "sgd"]},
        "momentum": {"min": 0.0, "max": 0.99},
        "batch_size": {"value": 128},
    },
}

LOSS = {"name": "loss", "goal": "minimize"}

Row = Mapping[str, Any]


def write(
    folder: Path,
    rows: Iterable[Row],
    config: Mapping[str, Any] = REPORT,
    *,
    runs: Mapping[str, Any] | None = None,
    clock: bool = True,
) -> Path:
    """A sweep of these trials. A row: parameters; and status, value, error, history, run where they are not the usual.

    clock: whether the journal has times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep = schema.parse(config)
    content = {"schema": 1, "name": sweep.name, "description": sweep.description, "seed": 3}
    content |= {"sweep": driver.identity(sweep), "runs": runs or {"function": "train"}}
    run_files.write_json(folder / SWEEP, content)
    lines = []
    for number, row in enumerate(rows):
        at = {"at": 2.0 * number} if clock else {}
        status, value = row.get("status", "finished"), row.get("value")
        drawn = {"event": "drawn", "number": number, "parameters": row["parameters"], "point": {}}
        lines.append(drawn | at)
        if status == "waiting":
            continue
        lines.append({"event": "started", "number": number} | at)
        if status == "running":
            continue
        ended = {
            "event": "ended",
            "number": number,
            "status": status,
            "value": value,
            "run": row.get("run"),
            "metrics": {},
        }
        ended |= {"history": row.get("history", [] if value is None else [value]), "seconds": 1.5}
        lines.append(ended | {"error": row.get("error")} | ({"at": 2.0 * number + 1.5} if clock else {}))
    (folder / TRIALS).write_text("".join(run_files.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def drawn(
    count: int, value: Callable[[dict[str, Any], random.Random], float], *, seed: int = 0
) -> list[dict[str, Any]]:
    """Random trials of REPORT. value(parameters, noise): what a trial comes to."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        parameters: dict[str, Any] = {
            name: rng.choice(one["values"]) for name, one in REPORT["parameters"].items() if "values" in one
        }
        parameters |= {"momentum": rng.uniform(0, 0.99), "batch_size": 128}
        rows.append({"parameters": parameters, "value": value(parameters, rng)})
    return rows


def config(**more: Any) -> dict[str, Any]:
    """Random, of one number."""
    return {"method": "random", "metric": LOSS, "parameters": {"x": {"min": 0.0, "max": 1.0}}, **more}


def quiet(content: dict[str, Any], train: Any, out: Path, **more: Any) -> driver.Result:
    """Driven without a word."""
    return run(content, train, out=out, show=False, **more)


def facts(result: driver.Result) -> list[Any]:
    """What must not depend on where and when trials ran."""
    return [(t.number, t.parameters, t.status, t.value, t.history, t.metrics) for t in result.trials]
