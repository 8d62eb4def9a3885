"""Tables of sweeps, read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from evonorm import cli
from evonorm.lab.records import run_files
from evonorm.lab.sweep import export
from evonorm.lab.sweep import run as run_sweep
from tests.lab.records.test_export import NEEDS_PYARROW, read_parquet
from tests.lab.sweep.toys import curve


@NEEDS_PYARROW
def test_a_sweep_of_a_function(tmp_path: Path) -> None:
    parameters = {"x": {"values": [1, 2]}, "net": {"parameters": {"name": {"value": "wide"}}}}
    config = {"method": "grid", "metric": {"name": "loss"}, "parameters": parameters}
    result = run_sweep(config, curve, out=tmp_path / "out", workers=0, show=False)
    arguments = ["export", str(tmp_path / "out"), "--parquet", str(tmp_path / "t.parquet")]
    assert cli.main(arguments) == 0
    table = read_parquet(tmp_path / "t.parquet")
    assert table.column_names == [
        *("trial", "run", "status", "metric", "value", "reports", "seconds", "error"),
        *("param.net.name", "param.x", "last.step", "last.loss"),
    ]
    rows = table.to_pylist()
    assert [(row["trial"], row["param.x"], row["param.net.name"]) for row in rows] == [(0, 1, "wide"), (1, 2, "wide")]
    assert [row["value"] for row in rows] == [trial.value for trial in result.trials]
    assert [str(table.schema.field(name).type) for name in ("param.x", "last.step")] == ["int64", "double"]
    assert cli.main([*arguments, "--metrics"]) == 0
    table = read_parquet(tmp_path / "t.parquet")
    assert table.column_names == ["trial", "report", "step", "loss"]
    assert len(table) == 18
    assert table["loss"].to_pylist()[:2] == [2.0, 1.5]


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_of_training(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("method: grid\nmetric: {name: val_loss}\nparameters: {learning_rate: {values: [1e-3]}}")
    settings = ["train_images=10", "test_images=10", "batch_size=10", "precision=fp32", "epochs=1", "layer=bn-relu"]
    out = ["--out", str(tmp_path / "out"), "--data", "digits"]
    assert cli.main(["sweep", str(file), *out, "--set", *settings]) == 0
    (row,) = export.read(tmp_path / "out").rows
    (record,) = run_files.read_all(tmp_path / "out").records
    assert (row["param.learning_rate"], row["config.learning_rate"], row["run"]) == (0.001, 0.001, record.name)
    assert row["last.val_loss"] == record.metrics[0]["val_loss"] == row["value"]
    (report,) = export.read(tmp_path / "out", metrics=True).rows
    assert report["train_accuracy"] == report["accuracy"] == record.metrics[0]["train_accuracy"]


def test_a_metric_called_as_a_column() -> None:
    assert export._unclashing({"trial": 1, "loss": 2}) == {"metric.trial": 1, "loss": 2}
