"""A sweep as one table, and whatever a folder holds: a row a trial or run, or a row a report or epoch.

sweeps:  trial, run, status, metric, value, reports, seconds, error, param.* (as drawn), data.*, config.*, best.*,
         last.*; without data.*, config.* and best.* where the sweep runs a program, whose last.* are its own metrics
reports: trial, report (from 1) and every metric reported

value: the best value of the sweep's metric. Runs, and the other columns: see records.export.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.records import export as of_records
from evonorm.lab.records import run_files
from evonorm.lab.records.export import Row, Table, inferred, run_columns, run_row, typed
from evonorm.lab.records.run_files import flat
from evonorm.lab.sweep.driver import read_sweep
from evonorm.lab.sweep.journal import SWEEP, Trial, trial_folder

_TRIAL: dict[str, type] = {
    **{"trial": int, "run": str, "status": str, "metric": str, "value": float, "reports": int, "seconds": float},
    "error": str,
}


def export(folder: Path, *, csv: Path | None, parquet: Path | None, metrics: bool) -> Table:
    """Writes the table of `folder` to the files given, at least one, and returns it. metrics: a row an epoch.

    Raises UserError if there is nothing to export or nowhere to write it, OSError if a file cannot be written.
    """
    if csv is None and parquet is None:
        raise UserError("export to what? give --csv FILE or --parquet FILE")
    table = read(folder, metrics=metrics)
    if csv is not None:
        run_files.write_atomically(csv, table.csv().encode())
    if parquet is not None:
        run_files.write_atomically(parquet, table.parquet())
    return table


def read(folder: Path, *, metrics: bool = False) -> Table:
    """The table of a sweep's folder, a run's, or one of runs. Raises UserError if it is none of them."""
    if not (folder / SWEEP).exists():
        return of_records.read(folder, metrics=metrics)
    content, trials = read_sweep(folder)
    return _trial_reports(folder, trials) if metrics else _trials(folder, content, trials)


def _trials(folder: Path, content: Mapping[str, Any], trials: Iterable[Trial]) -> Table:
    trials = list(trials)
    made = {trial.run: folder / trial.run for trial in trials if trial.run is not None}
    found = run_files.read_these(path for path in made.values() if run_files.is_run(path))
    runs = {run.name: run for run in found.records}
    metric = (content["sweep"]["metric"] or {}).get("name")
    trains = "training" in content["runs"]
    of_runs = run_columns([run.config for run in runs.values()] or [content["runs"].get("training") or {}])
    rows: list[Row] = []
    for trial in trials:
        row: Row = {name: getattr(trial, name) for name in ("run", "status", "value", "seconds", "error")}
        row |= {"trial": trial.number, "metric": metric, "reports": len(trial.history) if metric else None}
        row |= {f"param.{name}": value for name, value in flat(trial.parameters).items()}
        if not trains:
            row |= {f"last.{name}": value for name, value in flat(trial.metrics).items()}
        elif trial.run in runs:
            run = run_row(runs[trial.run])
            row |= {name: run[name] for name in of_runs if name in run}
        rows.append(row)
    drawn = inferred(rows, "param.")
    rest = of_runs if trains else inferred(rows, "last.", numbers=float)
    return typed({**_TRIAL, **drawn, **rest}, rows, found.unread)


def _trial_reports(folder: Path, trials: Iterable[Trial]) -> Table:
    rows: list[Row] = []
    unread = []
    for trial in trials:
        try:
            reports = list(run_files.read_metrics(trial_folder(folder, trial.number)))
        except UserError as error:
            unread.append(run_files.Unread(f"trial {trial.number}", str(error)))
            continue
        rows += [
            {"trial": trial.number, "report": place + 1, **_unclashing(flat(report))}
            for place, report in enumerate(reports)
        ]
    named = inferred(rows, "", numbers=float)
    columns = {"trial": int, "report": int, **{name: kind for name, kind in named.items() if name not in _KEYS}}
    return typed(columns, rows, tuple(unread))


_KEYS = ("trial", "report")


def _unclashing(report: Row) -> Row:
    """A program may call a metric as we call a column."""
    return {f"metric.{name}" if name in _KEYS else name: value for name, value in report.items()}
