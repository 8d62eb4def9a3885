"""The command line as users meet it: help, exit codes, and errors without tracebacks."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from evonorm import cli, names
from evonorm.lab.errors import UserError
from evonorm.lab.records import run_files
from evonorm.lab.records.report import REPORT_RUNS
from evonorm.lab.training.config import TrainConfig

TINY = ["--data", "digits", "--train-images", "20", "--test-images", "10", "--epochs", "1", "--precision", "fp32"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "evonorm", *arguments], capture_output=True, text=True, check=False)


COMMANDS = [[], ["train"], ["reproduce"], ["sweep"], ["sweep", "run"], ["report"], ["bench"], ["layers"], ["plan"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: evonorm" in capsys.readouterr().out


def test_every_field_is_an_option_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in fields(TrainConfig):
        if field.name == "options":  # see test_own_tasks
            continue
        assert ("--seed" if field.name == "seeds" else f"--{field.name.replace('_', '-')} ") in shown
    assert "per batch, learning rate / (1 + decay * batches so far)" in shown
    with pytest.raises(SystemExit):
        cli.main(["reproduce", "--help"])
    shown = "".join(capsys.readouterr().out.split())  # the formatter breaks lines at hyphens too
    assert all(experiment.id in shown for experiment in REPORT_RUNS)
    assert "CIFAR-10archive" in shown


def test_layers_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names())
    assert "y = x * sigmoid(v * x) / std_group * weight + bias" in shown
    assert "arXiv 2004.02967" in shown


def test_train_then_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs"
    assert cli.main(["train", *TINY, "--layer", "gn-silu", "--groups", "8", "--augment", "--out", str(out)]) == 0
    assert "finished:" in capsys.readouterr().out
    (record,) = run_files.read_all(out).records
    assert record.config["augment"] is True
    assert record.name.startswith("gn-silu-g8-sgd-aug-")
    for runs in (out, out / record.name):
        assert cli.main(["report", str(runs), "-o", str(tmp_path / "page.html")]) == 0
        assert record.name in (tmp_path / "page.html").read_text()


def test_a_config_file_and_an_override(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("layer: bn-relu\nepochs: 7\nlearning_rate: 1e-3\nseeds: {model: 4}\n")
    arguments = ["train", "--config", str(file), *TINY, "--seeds.order", "5", "--out", str(tmp_path / "runs")]
    assert cli.main(arguments) == 0
    (record,) = run_files.read_all(tmp_path / "runs").records
    assert (record.config["layer"], record.config["epochs"], record.config["learning_rate"]) == ("bn-relu", 1, 1e-3)
    assert (record.config["seeds"]["model"], record.config["seeds"]["order"]) == (4, 5)


def test_divergence_has_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", *TINY, "--layer", "none", "--learning-rate", "1e6", "--epochs", "3", "--batch-size", "5"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == cli.DIVERGED
    shown = capsys.readouterr().out
    assert "diverged in epoch 1" in shown
    assert "ower the learning rate" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--epochs", "0"], "epochs must be at least 1: got epochs=0"),
        (["train", *TINY, "--layer", "evonorm"], "no layer is called 'evonorm'"),
        (["train", "--data", "nowhere.zip"], "there is no 'nowhere.zip'; --data takes"),
        (["train", *TINY, "--train-images", "3"], "a subset needs an image of each class: got 3 images for 10"),
        (["reproduce", "--only", "b7"], "no experiment is called 'b7'"),
        (["reproduce", "--models", "resnet18"], "--models is for --experiment architectures: got --experiment report"),
        (["reproduce", "--experiment", "architectures", "--models", "resnet19"], "no model is called 'resnet19'"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["report", "nowhere"], "there is no folder nowhere"),
        (["train", "--device", "tpu", *TINY], "device must be auto, cpu or cuda"),
    ],
)
def test_a_users_mistake_is_told_without_a_traceback(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == cli.USER_ERROR
    told = capsys.readouterr()
    assert message in told.err
    assert "Traceback" not in told.err + told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--layr", "x"], "--layr"),
        (["train", "--epochs", "many"], "epochs"),
        (["train", "--precision", "fp8"], "precision"),
        (["reproduce", "--budget", "huge"], "budget"),
        (["trian"], "trian"),
        ([], "COMMAND"),
    ],
)
def test_what_the_parser_refuses(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_as_a_program(tmp_path: Path) -> None:
    assert run("--version").stdout.strip().endswith("0.1.0")
    failed = run("report", str(tmp_path / "nowhere"))
    assert failed.returncode == 2
    assert failed.stderr.startswith("evonorm: there is no folder")


def test_reproduce_end_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from evonorm.lab.experiments import catalogue, report
    from evonorm.lab.experiments.experiment import Budget

    short = replace(report.EXPERIMENT, budgets=(Budget("quick", 1, 20, 10, "a test"),))
    monkeypatch.setitem(catalogue.EXPERIMENTS, "report", short)
    arguments = ["reproduce", "--data", "digits", "--only", "s0-g8", "--variant", "intended", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert (tmp_path / "report.html").exists()
    assert f"page: {tmp_path / 'report.html'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--layer", "evonrm-s0"], "no layer is called 'evonrm-s0'"),
        (["train", "--layer", ""], "no layer is called ''"),
        (["train", "--model", "resnt18"], "no model is called 'resnt18'; did you mean 'resnet18'"),
        (["train", "--model", ""], "no model is called ''"),
        (["train", "--device", "gpu"], "device must be auto, cpu or cuda"),
        (["train", "--groups", "0"], "groups must be at least 1: got groups=0"),
        (["train", "--weight-decay", "-1"], "weight_decay must be 0 or above"),
        (["train", "--schedule", "cosine", "--decay", "1e-4"], "say weight_decay if the parameters are to decay"),
        (["train", "--seed", "-1"], "seeds must be between 0 and 2^63 - 1"),
        (["train", "--profile", "0"], "--profile must be at least 1 step: got 0"),
        (["train", "--profile", "2", "--profile-json", "no/such/file.json"], "there is no folder no/such"),
        (["train", "--out", "a-file"], "is a file; choose another --out"),
        (["train", "--out", "a-file/below"], "is a file; choose another --out"),
        (["reproduce", "--out", "a-file/below"], "is a file; choose another --out"),
        (["reproduce", "--only", "b7"], "no experiment is called 'b7'"),
        (["reproduce", "--experiment", "learning-rate", "--layers", "b0"], "no layer is called 'b0'"),
        (["reproduce", "--seeds", "-1"], "seeds must be between 0 and 2^63 - 1"),
        (["reproduce", "--workers", "0"], "--workers must be at least 1"),
    ],
)
def test_what_is_wrong_is_told_before_there_is_data_or_a_folder(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fetched(*_: object, **__: object) -> None:
        pytest.fail("data were fetched")

    monkeypatch.setattr("evonorm.lab.data.sets.load", fetched)
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("")
    assert cli.main(arguments) == cli.USER_ERROR
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
@pytest.mark.parametrize("place", ["nowhere/table", ".", "a-file/table"])
def test_export_to_a_place_that_is_none(
    option: str, place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a-file").write_text("")
    assert cli.main(["export", ".", option, place]) == cli.USER_ERROR
    told = capsys.readouterr().err
    assert told.startswith(f"evonorm: {option} {place}")
    assert "name another file" in told or "name a file" in told


def test_a_plan_to_a_missing_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only a page makes its folder: `report` is how a person asks for a new place."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", "resnet18", "bn-relu", "--json", "nowhere/plan.json"]) == cli.USER_ERROR
    assert "there is no folder nowhere; make it, or name another file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "file", "expected"),
    [
        ([], "", (0, 0, 0, 0)),
        (["--seed", "7"], "", (7, 7, 7, 7)),
        (["--seed", "7", "--seeds.order", "0"], "", (7, 0, 7, 7)),
        (["--seeds.subset", "3", "--seed", "7"], "", (7, 7, 7, 3)),
        ([], "seed: 5\nseeds: {augmentation: 1}\n", (5, 5, 1, 5)),
        (["--seed", "6"], "seed: 5\nseeds: {model: 2}\n", (2, 6, 6, 6)),
        ([], "seeds: {model: 4, subset: 2}\n", (4, 0, 0, 2)),
    ],
)
def test_one_seed_for_all_and_single_ones(
    given: list[str], file: str, expected: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[TrainConfig] = []

    def caught(config: TrainConfig, out: Path | None) -> None:
        found.append(config)
        raise UserError("enough")

    monkeypatch.setattr("evonorm.lab.training.training.check", caught)
    if file:
        (tmp_path / "run.yaml").write_text(file)
        given = ["--config", str(tmp_path / "run.yaml"), *given]
    assert cli.main(["train", *given]) == cli.USER_ERROR
    seeds = found[0].seeds
    assert (seeds.model, seeds.order, seeds.augmentation, seeds.subset) == expected
