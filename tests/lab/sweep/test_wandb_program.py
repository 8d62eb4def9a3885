"""A script written for W&B as a trial, unchanged: its parameters in wandb.config, its metrics from wandb.log, live."""

from __future__ import annotations

import importlib.util
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from evonorm import cli
from evonorm.lab.jobs.job import Job
from evonorm.lab.sweep import journal
from evonorm.lab.sweep.wandb_reports import OneSource, WandbReports
from tests.lab.records.test_wandb_file import history, written

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None and not os.environ.get("CI"), reason="wandb is not installed"
)

# The last trial logs for a minute, unless what it logs is seen while it runs and it is stopped.
SCRIPT = """
    import time
    import wandb

    run = wandb.init(project="toy", config={"lr": 99, "epochs": 2})
    lr = wandb.config.lr
    print({"lr": lr}, wandb.config.net["depth"])
    for epoch in range(wandb.config.epochs):
        wandb.log({"loss": lr + 1 / (epoch + 1), "val": {"acc": epoch}, "curve": wandb.Histogram([1, 2])})
    for _ in range(600 if lr > 1 else 0):
        time.sleep(0.1)
        wandb.log({"loss": lr})
    run.summary["deepest"] = 3
    wandb.finish()
"""
SWEEP = """
    program: train.py
    method: grid
    metric: {name: loss}
    command: ["${env}", "${interpreter}", "${program}"]
    early_terminate: {type: hyperband, min_iter: 2}
    parameters:
      lr: {values: [0.00001, 2.0]}
      net: {parameters: {depth: {value: 3}}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    return tmp_path


def test_a_script_for_wandb_needs_no_change(here: Path) -> None:
    (here / "train.py").write_text(textwrap.dedent(SCRIPT))
    (here / "s.yaml").write_text(textwrap.dedent(SWEEP))
    assert cli.main(["sweep", "s.yaml", "--out", "out", "--workers", "1"]) == 0
    good, bad = journal.read_trials(here / "out")
    assert (good.status, bad.status) == ("finished", "pruned")
    assert good.history == [1.00001, 0.50001]
    assert good.metrics == {"loss": 0.50001, "val.acc": 1}
    assert bad.history[:2] == [3.0, 2.5]
    assert len(bad.history) < 300
    files = list((here / "out").glob("trials/*/wandb/offline-run-*/*.wandb"))
    assert len(files) == 2


class Told:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def tell(self, metrics: Any) -> None:
        self.reports.append(dict(metrics))

    def stop_requested(self) -> bool:
        return False


def test_a_metric_both_printed_and_logged_counts_once() -> None:
    told = Told()
    source = OneSource(told, "loss")
    for report in (("wandb", {"loss": 1.0}), ("printed", {"loss": 1.0, "epoch": 1}), ("printed", {"loss": 1.0})):
        source.tell(*report)
    assert told.reports == [{"loss": 1.0}, {"epoch": 1}]


def job(folder: Path) -> Job:
    return Job(3, {"lr": 1e-05, "net": {"depth": 3}}, folder / "trials" / "0003", folder)


def test_the_environment_of_a_program(tmp_path: Path) -> None:
    it = job(tmp_path)
    it.folder.mkdir(parents=True)
    environment = WandbReports(it).environment({"WANDB_RUN_GROUP": "mine", "PATH": "p"})
    assert environment["WANDB_MODE"] == "offline"
    assert (environment["WANDB_RUN_GROUP"], environment["PATH"]) == ("mine", "p")
    assert environment["WANDB_NAME"] == "trial-0003"
    assert WandbReports(it).environment({"WANDB_MODE": "online"})["WANDB_MODE"] == "online"
    assert WandbReports(it).environment({"WANDB_MODE": "online"}, mode="offline")["WANDB_MODE"] == "offline"
    content = yaml.safe_load(Path(environment["WANDB_SWEEP_PARAM_PATH"]).read_text())
    assert content == {"wandb_version": 1, "lr": {"value": 1e-05}, "net": {"value": {"depth": 3}}}


def test_a_damaged_file_does_not_end_the_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    it, told = job(tmp_path), Told()
    reports = WandbReports(it)
    run = it.folder / "wandb" / "offline-run-1-a"
    run.mkdir(parents=True)
    (run / "run-a.wandb").write_bytes(b"not a file of W&B")
    for _ in range(2):
        reports.tell(OneSource(told, "loss"), ended=True)
    assert told.reports == []
    assert capsys.readouterr().out.count("is read no further") == 1


def summary(**values: str) -> bytes:
    from wandb.proto import wandb_internal_pb2 as proto

    record = proto.Record()
    for name, value in values.items():
        record.summary.update.add(nested_key=[name], value_json=value)
    content: bytes = record.SerializeToString()
    return content


@pytest.mark.parametrize("logs_besides", [False, True])
def test_a_metric_that_is_only_in_the_summary(tmp_path: Path, logs_besides: bool) -> None:
    it, told = job(tmp_path), Told()
    reports, source = WandbReports(it), OneSource(told, "loss")
    run = it.folder / "wandb" / "offline-run-1-a"
    run.mkdir(parents=True)
    logged = [history(epoch="1")] if logs_besides else []
    written(run / "run-a.wandb", *logged, summary(epoch="1"), summary(loss="0.5"))
    reports.tell(source)
    assert told.reports == [{"epoch": 1}] * logs_besides
    reports.tell(source, ended=True)
    assert told.reports[logs_besides:] == [{"epoch": 1, "loss": 0.5}]


def test_files_of_an_earlier_attempt_are_not_read_again(tmp_path: Path) -> None:
    it, told = job(tmp_path), Told()
    run = it.folder / "wandb" / "offline-run-1-a"
    run.mkdir(parents=True)
    (run / "run-a.wandb").write_bytes(b"not a file of W&B")
    WandbReports(it).tell(OneSource(told, "loss"), ended=True)
    assert told.reports == []
