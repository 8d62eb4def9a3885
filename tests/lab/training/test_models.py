"""Runs of other networks than the report's: records, resuming, diagnosis, profile, sweeps and the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from evonorm import cli
from evonorm.lab.errors import UserError
from evonorm.lab.jobs.training_job import config_of
from evonorm.lab.records import run_files
from evonorm.lab.sweep import schema
from evonorm.lab.sweep.of_training import check
from evonorm.lab.training import profile
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.training import run_folder, train
from evonorm.layers import table
from evonorm.models import zoo
from tests.lab.pictures import pictures
from tests.lab.training.test_training import StopAfter, curves

# 16 images in batches of 8: two steps an epoch.
CONFIG = TrainConfig(
    model="timm:test_resnet", groups=8, epochs=2, batch_size=8, train_images=16, test_images=8, precision="fp32"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> run_files.Record:
    return train(CONFIG, pictures(), tmp_path_factory.mktemp("whole"))


def test_the_record_names_the_network(whole: run_files.Record) -> None:
    assert whole.status == "finished"
    assert whole.name.startswith("timm-test_resnet-evonorm-s0-g8-sgd-")
    assert (whole.config["model"], whole.config["plain_norms"], whole.config["dropout"]) == (CONFIG.model, "keep", None)
    assert whole.summary["groups_in_force"] == {"16": 8, "32": 8, "48": 8, "96": 8}
    assert all(epoch["train_loss"] > 0 and epoch["images_per_second"] > 0 for epoch in whole.metrics)


def test_parameters_are_counted_for_the_data_at_hand(whole: run_files.Record, tmp_path: Path) -> None:
    """evonorm-s0 has v beside weight and bias at each site, one a channel; and the classifier has four classes."""
    other = train(replace(CONFIG, layer="bn-relu", epochs=1), pictures(), tmp_path)
    assert other.config["norm_eps"] == 1e-5
    model = zoo.build(CONFIG.model, 4)
    v = [parameter.numel() for name, parameter in model.named_parameters() if name.endswith(".v")]
    assert len(v) == 8
    assert whole.summary["parameters"] - other.summary["parameters"] == sum(v)
    assert whole.summary["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_one_network_has_one_name(tmp_path: Path) -> None:
    one, same = (
        run_folder(replace(CONFIG, model=m), pictures(), tmp_path) for m in ("resnet18", "torchvision:resnet18")
    )
    assert one == same
    assert one.name.startswith("resnet18-evonorm-s0-")


@pytest.mark.parametrize("steps", [1, 2], ids=["middle of an epoch", "end of an epoch"])
def test_a_stopped_run_resumes_exactly(whole: run_files.Record, tmp_path: Path, steps: int) -> None:
    assert train(CONFIG, pictures(), tmp_path, watch=StopAfter(steps)).status == "stopped"
    resumed = train(CONFIG, pictures(), tmp_path)
    assert resumed.status == "finished"
    assert curves(resumed) == curves(whole)


def test_dropout_of_the_networks_own_resumes_exactly(tmp_path: Path) -> None:
    """MobileNetV2, bf16: its dropout draws the same masks, its kept norms go on with their statistics."""
    config = replace(
        CONFIG, model="mobilenet_v2", epochs=1, batch_size=4, train_images=8, precision="bf16", layer="evonorm-b0"
    )
    straight = train(config, pictures(), tmp_path / "straight")
    train(config, pictures(), tmp_path / "stopped", watch=StopAfter(1))
    assert curves(train(config, pictures(), tmp_path / "stopped")) == curves(straight)
    assert straight.status == "finished"


def test_a_diverged_run_is_diagnosed(tmp_path: Path) -> None:
    record = train(replace(CONFIG, layer="none", learning_rate=1e30), pictures(), tmp_path)
    assert record.status == "diverged"
    diagnosis = record.summary["diagnosis"]
    assert diagnosis["kind"] in ("forward", "parameter", "gradient", "loss")
    assert diagnosis["tensor"]


def test_the_profile_tells_its_layers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "WARM_UP_STEPS", 1)
    result = profile.profile(replace(CONFIG, device="cpu"), pictures(), steps=1)
    parts = result.parts()
    assert all(parts[part] > 0 for part in profile.NETWORK)
    assert "timm:test_resnet with evonorm-s0" in str(result.table().title)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "resnet19"}, "no model is called 'resnet19'; did you mean 'resnet18'"),
        ({"model": "fcn_resnet50"}, "torchvision's fcn_resnet50 is no image classifier"),
        ({"model": "squeezenet1_1"}, "squeezenet1_1 has no normalization"),
    ],
)
def test_user_errors(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(replace(CONFIG, **change), pictures(), tmp_path)


def test_a_sweep_over_models() -> None:
    assert config_of({"model": "resnet18", "plain_norms": "affine"}) == TrainConfig(
        model="resnet18", plain_norms="affine"
    )
    parameters = {"model": {"values": ["mini-inception", "resnet18", "resnet19"]}}
    with pytest.raises(UserError, match=r"parameters\.model\.values\[2\]: no model is called 'resnet19'"):
        check(schema.parse({"method": "grid", "parameters": parameters}), {})
    with pytest.raises(UserError, match="no model is called 'resnet19'"):
        check(schema.parse({"method": "grid", "parameters": {"epochs": {"value": 1}}}), {"model": "resnet19"})


def test_train_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--data", "digits", "--train-images", "10", "--test-images", "10", "--epochs", "1"]
    arguments += ["--model", "timm:test_resnet", "--plain-norms", "affine", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    (record,) = run_files.read_all(tmp_path).records
    assert (record.config["model"], record.config["plain_norms"]) == ("timm:test_resnet", "affine")
    assert cli.main(["train", "--data", "digits", "--model", "resnet19", "--out", str(tmp_path)]) == cli.USER_ERROR
    told = capsys.readouterr().err
    assert "no model is called 'resnet19'" in told
    assert "Traceback" not in told


def test_an_added_layer_trains_and_travels(tmp_path: Path) -> None:
    """By its formula, which names the run; in a process that has never heard of it; and into its record."""
    formula = "x * sigmoid(v * x) / rms_group * weight + bias; v=1"
    config = TrainConfig(layer="rms-swish", formula=formula, groups=4, epochs=1, batch_size=8)
    with mock.patch.dict(table._ROWS):
        record = train(config, pictures(), tmp_path)
        assert record.status == "finished"
        assert record.config["formula"] == "x * sigmoid(v * x) / rms_group * weight + bias; v=1.0"
        assert record.summary["groups_in_force"]
        again = train(replace(config, formula=record.config["formula"]), pictures(), tmp_path)
        assert again.name == record.name
        other = replace(config, layer="other", formula="x * sigmoid(v * x) / rms_group * weight + bias; v=2")
        assert run_folder(other, pictures(), tmp_path).name != record.name
    with mock.patch.dict(table._ROWS), pytest.raises(UserError, match="no layer is called 'rms-swish'"):
        train(replace(config, formula=None), pictures(), tmp_path)
    with pytest.raises(UserError, match="a layer is called 'bn-relu' already"):
        train(replace(config, layer="bn-relu"), pictures(), tmp_path)
    with pytest.raises(UserError, match="there is no function 'swoosh'"):
        train(replace(config, formula="swoosh(x)"), pictures(), tmp_path)
