"""W&B and TensorBoard: what they wrote is read back, over resuming, failing, sweeps and the whole command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evonorm import cli
from evonorm.lab.records import run_files
from evonorm.lab.records.wandb_file import Tail
from evonorm.lab.training import sinks
from evonorm.lab.training.progress import Silent
from evonorm.lab.training.sinks import Recording, Wanted, wandb_sink

for name in ("wandb", "tensorboard"):
    if not os.environ.get("CI"):
        pytest.importorskip(name)

TINY = ["--data", "digits", "--train-images", "10", "--test-images", "10", "--batch-size", "10", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine that never met W&B: no settings, no key."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


class Listener(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def say(self, text: str) -> None:
        self.told.append(text)


def run_folder(folder: Path, epochs: int, status: str = "finished") -> Path:
    """A run as training leaves it, without the training."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"layer": "bn-relu", "learning_rate": 0.01, "groups": None, "seeds": {"model": 3}}
    dataset = {"name": "toy", "fingerprint": "00ff", "train_images": 10, "test_images": 5}
    run_files.write_json(folder / "config.json", {"config": config, "dataset": dataset})
    run_files.rewrite_metrics(folder, [metrics(epoch) for epoch in range(1, epochs + 1)])
    last = metrics(epochs) if epochs else None
    summary = {"status": status, "epochs_done": epochs, "best": last, "last": last}
    run_files.write_json(folder / "summary.json", summary | {"parameters": 99})
    return folder


def metrics(epoch: int) -> dict[str, Any]:
    values = {"train_loss": 1 / epoch, "train_accuracy": 0.5, "val_loss": None, "val_accuracy": 0.1 * epoch}
    return {"epoch": epoch, **values, "learning_rate": 0.01, "images_per_second": 7.0, "seconds": 2.0}


def sessions(wanted: Wanted, out: Path, watch: Silent, *ends: int) -> None:
    """A run stopped and resumed: each session goes on to one of these epochs."""
    done = 0
    for end in ends:
        run_folder(out / "run", done)
        with Recording(wanted, out, watch) as recording:
            recording.begin("run", steps=9, done=done)
            for epoch in range(done + 1, end + 1):
                run_files.append_metrics(out / "run", metrics(epoch))
                recording.epoch(metrics(epoch))
            recording.ended(run_files.read(run_folder(out / "run", end, "finished" if end == ends[-1] else "stopped")))
        done = end


def wandb_records(path: Path) -> list[Any]:
    """By W&B's own classes."""
    from wandb.proto import wandb_internal_pb2 as proto

    return [proto.Record.FromString(record) for record in Tail(path).read()]


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)


def rows(*paths: Path, summary: bool = False) -> list[dict[str, Any]]:
    return [row.values for path in paths for row in Tail(path).rows() if row.summary is summary]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(at.step, at.value) for at in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_wandb_run_over_two_sessions(tmp_path: Path) -> None:
    watch = Listener()
    wanted = Wanted("offline").of(group="a sweep", job_type="trial", tags=("sweep", "random"), config={"trial": 4})
    sessions(wanted, tmp_path, watch, 2, 3)
    assert watch.told == []
    first, second = wandb_files(tmp_path / "run")
    (run,) = [record.run for record in wandb_records(first) if record.HasField("run")]
    assert (run.run_group, run.job_type, list(run.tags)) == ("a sweep", "trial", ["sweep", "random"])
    assert (run.project, run.display_name) == ("evonorm", "run")
    config = {item.key: item.value_json for item in run.config.update}
    assert config["learning_rate"] == "0.01"
    assert (config["seeds.model"], config["trial"], config["data.fingerprint"]) == ("3", "4", '"00ff"')
    # The same run of W&B, and each epoch once.
    assert first.stem == second.stem
    logged = rows(first, second)
    assert [row["epoch"] for row in logged] == [1, 2, 3]
    assert logged[1] == {name: value for name, value in metrics(2).items() if value is not None}
    last: dict[str, Any] = {}
    for row in rows(second, summary=True):
        last |= row
    assert (last["status"], last["epochs_done"], last["best.epoch"], last["parameters"]) == ("finished", 3, 3, 99)
    assert last["best.val_accuracy"] == pytest.approx(0.3)


def test_tensorboard_over_two_sessions(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    watch = Listener()
    sessions(Wanted(tensorboard=str(tmp_path / "tb")), tmp_path, watch, 2, 3)
    assert watch.told == []
    found = scalars(tmp_path / "tb" / "run")
    assert found["val_accuracy"] == [(epoch, pytest.approx(0.1 * epoch)) for epoch in (1, 2, 3)]
    assert "val_loss" not in found
    assert found["best/val_accuracy"] == [(3, pytest.approx(0.3))]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb" / "run"))
    events.Reload()
    data = {
        name: HParamsPluginData.FromString(content) for name, content in events.PluginTagToContent("hparams").items()
    }
    start = data["_hparams_/session_start_info"].session_start_info.hparams
    assert start["layer"].string_value == "bn-relu"
    assert (start["learning_rate"].number_value, start["seeds.model"].number_value) == (0.01, 3)
    named = {info.name.tag for info in data["_hparams_/experiment"].experiment.metric_infos}
    assert {"val_accuracy", "best/val_accuracy"} <= named
    assert "_hparams_/session_end_info" in data


@pytest.mark.parametrize("wanted", [Wanted("offline"), Wanted(tensorboard="")], ids=["wandb", "tensorboard"])
def test_a_run_that_was_finished_before_is_copied_once(wanted: Wanted, tmp_path: Path) -> None:
    record = run_files.read(run_folder(tmp_path / "run", 2))
    for _ in range(2):
        with Recording(wanted, tmp_path, Listener()) as recording:
            recording.ended(record)
    if wanted.wandb:
        (file,) = wandb_files(tmp_path)
        assert [row["epoch"] for row in rows(file)] == [1, 2]
    else:
        assert [step for step, _ in scalars(tmp_path / "run" / "tensorboard")["val_accuracy"]] == [1, 2]
        assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def broken_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for loaded in [loaded for loaded in sys.modules if loaded.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)


def unwritable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    if name == "wandb":
        monkeypatch.setattr(importlib.import_module("wandb"), "init", refuse)
    else:
        monkeypatch.setattr("torch.utils.tensorboard.writer.SummaryWriter", refuse)


def full_disk(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is lost without a word."""
    if name == "wandb":
        monkeypatch.setattr("evonorm.lab.training.sinks.wandb_sink.WRITTEN_SECONDS", 0.1)
        monkeypatch.setattr("evonorm.lab.training.sinks.wandb_sink.Tail.rows", lambda tail: iter(()))
    else:
        unwritable(name, monkeypatch)


def fails_later(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the pen broke")

    if name == "wandb":
        monkeypatch.setattr("evonorm.lab.training.sinks.wandb_sink.WandbSink.epoch", refuse)
    else:
        monkeypatch.setattr("torch.utils.tensorboard.writer.SummaryWriter.add_scalar", refuse)


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (broken_import, "not installed; pip install 'evonorm["),
        (unwritable, "No space left on device"),
        (full_disk, "space"),
        (fails_later, "the pen broke"),
    ],
)
def test_a_sink_that_fails_warns_once(
    name: str,
    trouble: Callable[[str, pytest.MonkeyPatch], None],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trouble(name, monkeypatch)
    watch, wanted = Listener(), Wanted("offline") if name == "wandb" else Wanted(tensorboard="")
    with Recording(wanted, tmp_path, watch) as recording:
        for run in ("one", "two"):
            record = run_files.read(run_folder(tmp_path / run, 0))
            recording.begin(run, steps=2, done=0)
            for epoch in (1, 2):
                recording.epoch(metrics(epoch))
            recording.ended(record)
    (told,) = watch.told
    assert reason in told
    assert "going on without it, the run's folder has everything" in told


def no_network(*args: Any, **kwargs: Any) -> None:
    raise ConnectionError("no route to host")


@pytest.mark.parametrize("network", [True, False])
def test_online_that_cannot_be_records_offline_and_asks_nothing(
    network: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not network:
        monkeypatch.setattr(importlib.import_module("wandb"), "login", no_network)
    watch = Listener()
    wandb_sink._cannot_log_in.cache_clear()
    sessions(Wanted("online"), tmp_path, watch, 1)
    wandb_sink._cannot_log_in.cache_clear()
    (told,) = watch.told
    assert ("no API key" if network else "cannot log in (ConnectionError)") in told
    assert "wandb sync" in told
    (file,) = wandb_files(tmp_path)
    assert [row["epoch"] for row in rows(file)] == [1]


def test_train_with_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", *TINY, "--layer", "bn-relu", "--epochs", "1", "--out", str(tmp_path)]
    assert cli.main([*arguments, "--wandb", "offline", "--tensorboard"]) == 0
    (record,) = run_files.read_all(tmp_path).records
    (file,) = wandb_files(tmp_path / record.name)
    (row,) = rows(file)
    assert row == {name: value for name, value in record.metrics[0].items() if value is not None}
    found = scalars(tmp_path / record.name / "tensorboard")
    assert found["val_loss"] == [(1, pytest.approx(record.metrics[0]["val_loss"]))]
    assert "W&B" not in capsys.readouterr().out
    (run,) = [entry.run for entry in wandb_records(file) if entry.HasField("run")]
    assert str(tmp_path) not in str(run.config)


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_and_its_membership(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "method: grid\nname: small\nmetric: {name: val_loss}\nparameters: {learning_rate: {values: [1e-3]}}"
    )
    settings = ["train_images=10", "test_images=10", "batch_size=10", "precision=fp32", "epochs=1", "layer=bn-relu"]
    arguments = ["sweep", str(file), "--out", str(tmp_path / "out"), "--data", "digits"]
    assert cli.main([*arguments, "--wandb", "offline", "--set", *settings]) == 0
    (path,) = wandb_files(tmp_path / "out")
    (run,) = [record.run for record in wandb_records(path) if record.HasField("run")]
    assert (run.run_group, run.job_type, list(run.tags)) == ("small", "trial", ["sweep", "grid"])
    assert {item.key: item.value_json for item in run.config.update}["trial"] == "0"


def test_a_sweep_of_a_program_has_no_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "s.yaml").write_text("program: train.py\nmethod: grid\nparameters: {x: {values: [1]}}")
    arguments = ["sweep", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--tensorboard"]
    assert cli.main(arguments) == cli.USER_ERROR
    assert "--tensorboard is for this lab's training" in capsys.readouterr().err


def test_reproduce_names_the_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evonorm.lab.experiments import catalogue, report
    from evonorm.lab.experiments.experiment import Budget

    short = replace(report.EXPERIMENT, budgets=(Budget("quick", 1, 10, 10, "a test"),))
    monkeypatch.setitem(catalogue.EXPERIMENTS, "report", short)
    arguments = ["reproduce", "--data", "digits", "--only", "b0", "--variant", "intended", "--workers", "1"]
    sinks = ["--wandb", "offline", "--tensorboard", str(tmp_path / "tb")]
    assert cli.main([*arguments, *sinks, "--out", str(tmp_path / "out")]) == 0
    (path,) = wandb_files(tmp_path / "out")
    (run,) = [record.run for record in wandb_records(path) if record.HasField("run")]
    assert (run.job_type, list(run.tags)) == ("reproduce", ["b0 intended"])
    assert run.run_group.startswith("comparison-quick-")
    (folder,) = (tmp_path / "tb").iterdir()
    assert folder.name == run.display_name
    assert scalars(folder)["val_accuracy"]


def test_results_of_a_diverged_run() -> None:
    record = run_files.Record("r", {}, {}, summary={"status": "diverged", "diagnosis": {"cause": "too fast"}})
    assert sinks.results(record) == {"status": "diverged", "diagnosis": "too fast"}
