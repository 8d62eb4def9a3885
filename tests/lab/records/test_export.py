"""Tables of runs and experiments, read back from CSV and Parquet: names, types, nulls."""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.records import export, listings, run_files
from evonorm.lab.training.config import TrainConfig
from tests.lab.training.test_sinks import metrics, run_folder

NEEDS_PYARROW = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None and not os.environ.get("CI"), reason="pyarrow is not installed"
)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def runs(folder: Path) -> Path:
    run_folder(folder / "a", 3)
    run_folder(folder / "b", 0, "running")
    summary = run_files.read_json(folder / "b" / "summary.json")
    broken = {"status": "diverged", "diagnosis": {"cause": "too fast, says\nthe layer"}}
    run_files.write_json(folder / "b" / "summary.json", summary | broken)
    entries = [{"experiment": id, "variant": "intended", "seed": 0, "run": "a"} for id in ("b0", "s0-g8")]
    run_files.write_json(folder / "comparison-quick-00ff.json", {"entries": entries})
    return folder


def test_runs_as_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(runs(tmp_path / "runs")), "--csv", str(tmp_path / "t.csv")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 't.csv'}: 2 rows, ")
    one, two = read_csv(tmp_path / "t.csv")
    assert (one["run"], one["experiments"], one["status"]) == ("a", "b0 intended; s0-g8 intended", "finished")
    assert (one["config.learning_rate"], one["config.seeds.model"], one["config.groups"]) == ("0.01", "3", "")
    assert (one["last.epoch"], one["last.val_loss"]) == ("3", "")
    assert float(one["best.val_accuracy"]) == metrics(3)["val_accuracy"]
    assert (two["status"], two["diagnosis"], two["last.epoch"]) == ("diverged", "too fast, says\nthe layer", "")


@NEEDS_PYARROW
def test_runs_as_parquet(tmp_path: Path) -> None:
    assert cli.main(["export", str(runs(tmp_path / "runs")), "--parquet", str(tmp_path / "t.parquet")]) == 0
    table = read_parquet(tmp_path / "t.parquet")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["config.learning_rate"] == "double"
    # Also where every value is null.
    assert (kinds["config.groups"], kinds["config.augment"], kinds["last.val_loss"]) == ("int64", "bool", "double")
    assert table["config.seeds.model"].to_pylist() == [3, 3]
    assert table["best.val_accuracy"].to_pylist() == [metrics(3)["val_accuracy"], None]


def test_columns_do_not_depend_on_the_runs(tmp_path: Path) -> None:
    some = export.read(runs(tmp_path / "runs"))
    assert list(some.columns) == list(export.read(tmp_path / "runs" / "a").columns)
    fields = set(TrainConfig.__dataclass_fields__) - {"seeds", "options"}  # they have columns of their own
    assert {f"config.{name}" for name in fields} <= set(some.columns)
    assert set(some.columns) >= {name for row in some.rows for name in row}
    assert list(some.columns)[:3] == ["run", "experiments", "status"]


@NEEDS_PYARROW
def test_runs_of_every_experiment(tmp_path: Path) -> None:
    """In the words of the entry: what the experiment varies, in the listing's order, without the seed."""
    from evonorm.lab.experiments import architectures, batch_size, learning_rate, report
    from evonorm.lab.experiments.reproduce import plan
    from tests.lab.pictures import pictures

    rate = {"layer": ["evonorm-s0"], "optimizer": ["sgd"], "pixels": ["raw"], "learning_rate": [1e-5]}
    small = {"layer": ["evonorm-s0"], "batch_size": [16]}
    in_model = {"layer": ["bn-relu"], "model": ["mini-inception"]}
    plans = (
        plan(learning_rate.EXPERIMENT, pictures(), tmp_path, asked=rate),
        plan(batch_size.EXPERIMENT, pictures(), tmp_path, asked=small, seeds=[0]),
        plan(architectures.EXPERIMENT, pictures(), tmp_path, asked=in_model, seeds=[0]),
        plan(report.EXPERIMENT, pictures(), tmp_path, asked={"experiment": ["b0"], "variant": ["intended"]}),
    )
    words = [
        *["learning-rate evonorm-s0 sgd raw 1e-05"] * 2,
        "batch-size evonorm-s0 16",
        "architectures mini-inception bn-relu",
        "b0 intended",
    ]
    names = [run.name for planned in plans for run in planned.runs]
    for planned in plans:
        entries = [entry for run in planned.runs for entry in run.entries]
        listings.write(planned.listing, pictures(), planned.budget, entries, planned.experiment.described())
    for name in names:
        run_folder(tmp_path / name, 1)
    run_files.write_json(tmp_path / "another-plan-of-mine.json", {"sites": []})
    found = {row["run"]: row["experiments"] for row in export.read(tmp_path).rows}
    assert [found[name] for name in names] == words
    # A run may serve several experiments.
    entry = {"layer": "bn-relu", "batch_size": 4, "seed": 0, "run": names[-1]}
    listings.write(tmp_path / "batch-size-hour-00ff.json", pictures(), plans[1].budget, [entry], {})
    assert listings.stands_for(tmp_path)[names[-1]] == ["batch-size bn-relu 4", "b0 intended"]


def test_a_listing_that_cannot_be_read(tmp_path: Path) -> None:
    run_files.write_json(runs(tmp_path) / "comparison-hour-00ff.json", {"entries": [{"experiment": "b0"}]})
    with pytest.raises(UserError, match=r"comparison-hour-00ff\.json is not a listing that can be read: .*'run'"):
        export.read(tmp_path)


def test_a_row_an_epoch(tmp_path: Path) -> None:
    files = {"--csv": tmp_path / "t.csv", "--parquet": tmp_path / "t.parquet"}
    options = [word for name, path in files.items() for word in (name, str(path))]
    assert cli.main(["export", str(runs(tmp_path / "runs")), "--metrics", *options]) == 0
    assert [(row["run"], row["epoch"]) for row in read_csv(files["--csv"])] == [("a", "1"), ("a", "2"), ("a", "3")]
    table = read_parquet(files["--parquet"])
    assert table["val_accuracy"].to_pylist() == [metrics(epoch)["val_accuracy"] for epoch in (1, 2, 3)]
    assert [str(table.schema.field(name).type) for name in ("epoch", "val_loss")] == ["int64", "double"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs"], "export to what? give --csv FILE or --parquet FILE"),
        (["nowhere", "--csv", "x.csv"], "there is no folder nowhere"),
        (["empty", "--csv", "x.csv"], "there is no run and no sweep in empty"),
        (["runs", "--parquet", "x.parquet"], "--parquet needs pyarrow: pip install 'evonorm[parquet]'"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    runs(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    assert cli.main(["export", *arguments]) == cli.USER_ERROR
    assert message in capsys.readouterr().err
