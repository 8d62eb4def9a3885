"""Runs as one table, for pandas, DuckDB or a spreadsheet: a row a run, or a row an epoch; sweeps: see sweep.export.

Columns have fixed names, order and types, those of the metrics by the tasks of the runs; what a run lacks is null
(empty in CSV).

runs:    run, experiments, status, epochs_done, seconds, parameters, diagnosis, error, data.*, config.*, best.*, last.*
epochs:  run, epoch and the metrics of an epoch

best.*: the epoch that is best by the goal of the run's task. config.* are the fields of TrainConfig, seeds as
config.seeds.*, what is the task's own as config.options.*. experiments: what a run stands for in experiments of
`reproduce`, as in "b0 intended; s0-g8 intended" or "batch-size evonorm-s0 16": see listings.describe.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evonorm.lab.errors import UserError
from evonorm.lab.records import listings, run_files
from evonorm.lab.records.record_shape import kind_of
from evonorm.lab.records.run_files import flat
from evonorm.lab.training import tasks
from evonorm.lab.training.config import Seeds, TrainConfig

Row = dict[str, Any]
_DATA: dict[str, type] = {"name": str, "fingerprint": str, "train_images": int, "test_images": int}
_RUN: dict[str, type] = {
    **{"run": str, "experiments": str, "status": str, "epochs_done": int, "seconds": float, "parameters": int},
    **{"diagnosis": str, "error": str},
}


@dataclass(frozen=True)
class Table:
    """columns: name to int, float, bool or str, in order. A row lacks what is null. unread: runs that are left out."""

    columns: dict[str, type]
    rows: list[Row]
    unread: tuple[run_files.Unread, ...] = ()

    def csv(self) -> str:
        """As CSV with a header: null is empty, switches are true and false, numbers round-trip."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([_as_text(row.get(name)) for name in self.columns])
        return text.getvalue()

    def parquet(self) -> bytes:
        """As a Parquet file of int64, double, bool and string columns. Raises UserError without pyarrow."""
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise UserError("--parquet needs pyarrow: pip install 'evonorm[parquet]'; or write --csv") from None
        kinds = {int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_(), str: pyarrow.string()}
        fields = [(name, kinds[kind]) for name, kind in self.columns.items()]
        columns = {name: [row.get(name) for row in self.rows] for name in self.columns}
        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.table(columns, schema=pyarrow.schema(fields)), sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content


def read(folder: Path, *, metrics: bool = False) -> Table:
    """The table of a run's folder or a folder of runs. Raises UserError if it is none of them."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = run_files.read_all(folder)
    if not found.records:
        lost = "".join(f"; {one}" for one in found.unread)
        raise UserError(f"there is no run and no sweep in {folder}; give --out of train, reproduce or sweep{lost}")
    if metrics:
        rows = [{"run": run.name, **epoch} for run in found.records for epoch in run.metrics]
        return typed({"run": str, **_epoch(run.config for run in found.records)}, rows, found.unread)
    return replace(of_runs(found.records, listings.stands_for(folder)), unread=found.unread)


def of_runs(runs: Iterable[run_files.Record], stands_for: Mapping[str, Iterable[str]]) -> Table:
    """A row a run. stands_for: see listings.stands_for."""
    runs = list(runs)
    rows = [{**run_row(run), "experiments": "; ".join(stands_for.get(run.name, ())) or None} for run in runs]
    return typed({**_RUN, **run_columns(run.config for run in runs)}, rows)


def run_row(run: run_files.Record) -> Row:
    """A run as a row, without what it stands for."""
    summary = run.summary
    row: Row = {"run": run.name, "status": run.status, "diagnosis": (summary.get("diagnosis") or {}).get("cause")}
    row |= {name: summary.get(name) for name in ("epochs_done", "seconds", "parameters", "error")}
    for place in ("best", "last"):
        row |= {f"{place}.{name}": value for name, value in (summary.get(place) or {}).items()}
    row |= {f"data.{name}": run.dataset.get(name) for name in _DATA}
    return row | {f"config.{name}": value for name, value in flat(run.config).items()}


def _epoch(configs: Iterable[Mapping[str, Any]]) -> dict[str, type]:
    return {"epoch": int, **dict.fromkeys(tasks.figures(configs), float)}


def run_columns(configs: Iterable[Mapping[str, Any]]) -> dict[str, type]:
    """The columns of a run that hold what it ran on, its configuration, and its best and last epoch.

    configs: of the runs, for their tasks.
    """
    configs = list(configs)
    of_epoch = _epoch(configs)
    columns = {f"data.{name}": kind for name, kind in _DATA.items()}
    for owner, above in ((TrainConfig, "config."), (Seeds, "config.seeds.")):
        hints = typing.get_type_hints(owner)
        fields = [field.name for field in dataclasses.fields(owner) if field.name not in ("seeds", "options")]
        columns |= {above + name: kind_of(hints[name]) for name in fields}
    columns |= inferred((flat(config, "config.") for config in configs), "config.options.")
    for place in ("best", "last"):
        columns |= {f"{place}.{name}": kind for name, kind in of_epoch.items()}
    return columns


def inferred(rows: Iterable[Row], above: str, *, numbers: type | None = None) -> dict[str, type]:
    """Columns that the rows have below a name, first come first. numbers: the type of every number; default: int where
    all are.
    """
    seen: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(above) and value is not None:
                seen.setdefault(name, set()).add(type(value))
    return {name: _common(kinds, numbers) for name, kinds in seen.items()}


def _common(kinds: set[type], numbers: type | None) -> type:
    if kinds <= {int, float}:
        return numbers or (int if kinds == {int} else float)
    return bool if kinds == {bool} else str


def typed(columns: dict[str, type], rows: Iterable[Row], unread: tuple[run_files.Unread, ...] = ()) -> Table:
    """The rows with each value as its column has it; text where a value is not of the kind."""
    typed = []
    for row in rows:
        kept = {name: row[name] for name in columns if row.get(name) is not None}
        typed.append({name: _as(columns[name], value) for name, value in kept.items()})
    return Table(columns, typed, unread)


def _as(kind: type, value: Any) -> Any:
    if kind is str:
        return value if isinstance(value, str) else json.dumps(value)
    return kind(value)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)
