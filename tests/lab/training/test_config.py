"""A config names its run: what changes the result changes the name, and nothing else does."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from evonorm.lab.errors import UserError
from evonorm.lab.training.config import NOT_IDENTITY, Seeds, TrainConfig, run_name

BASE = TrainConfig().resolved(precision="fp32", grouped=True, eps=1e-5)
RESNET = replace(TrainConfig(), model="resnet18").resolved(precision="fp32", grouped=True, eps=1e-5)
OTHER = {
    "formula": "x * weight + bias",
    "model": "resnet18",
    "plain_norms": "affine",
    "layer": "bn-relu",
    "groups": 8,
    "norm_eps": 0.5,
    "norm_momentum": 0.5,
    "optimizer": "adam",
    "learning_rate": 0.5,
    "decay": 0.5,
    "schedule": "cosine",
    "step_epochs": 3,
    "step_factor": 0.5,
    "warmup_epochs": 0.5,
    "weight_decay": 0.5,
    "momentum": 0.5,
    "clip_norm": 0.5,
    "epochs": 3,
    "batch_size": 3,
    "steps_per_epoch": 3,
    "augment": True,
    "augment_centre": "true",
    "train_images": 30,
    "test_images": 30,
    "validation_images": 30,
    "standardize": True,
    "dropout": 0.1,
    "precision": "bf16",
    "backend": "kernel",
    "channels_last": False,
    "task": "another",
    "seeds": Seeds(model=1),
}


def test_every_field_but_place_and_device_changes_the_name() -> None:
    """A task's own options: see test_own_tasks."""
    assert {field.name for field in fields(TrainConfig)} == {*OTHER, *NOT_IDENTITY, "options"}
    found = {run_name(replace(BASE, **{name: value}), "f") for name, value in OTHER.items()}
    assert len(found | {run_name(BASE, "f"), run_name(BASE, "g")}) == len(OTHER) + 2
    assert run_name(replace(BASE, data="elsewhere.zip", device="cuda", check_steps=8), "f") == run_name(BASE, "f")


def test_runs_from_before_there_were_models_keep_their_names() -> None:
    """These names were written by the version before `model` and `plain_norms`."""
    assert run_name(BASE, "f") == "evonorm-s0-g32-sgd-648432d5bd28"
    other = TrainConfig(layer="bn-relu", dropout=0.25, optimizer="adam", augment=True)
    found = run_name(other.resolved(precision="bf16", grouped=False, eps=1e-5), "0123")
    assert found == "bn-relu-adam-aug-eaed1bfec73c"


def test_what_a_model_has_by_itself_stays_its_own() -> None:
    assert (BASE.dropout, RESNET.dropout) == (0.5, None)
    # Mini Inception has no norm without activation: what would become of one makes no other run.
    config = replace(TrainConfig(), plain_norms="affine")
    assert config.resolved(precision="fp32", grouped=True, eps=1e-5) == BASE
    config = replace(config, model="resnet18")
    assert run_name(config.resolved(precision="fp32", grouped=True, eps=1e-5), "f") != run_name(RESNET, "f")


def test_names_are_readable() -> None:
    assert run_name(RESNET, "f").startswith("resnet18-evonorm-s0-g32-sgd-")
    assert run_name(replace(BASE, model="timm:resnet18"), "f").startswith("timm-resnet18-evonorm-s0-")
    assert run_name(replace(BASE, groups=8, augment=True), "f").startswith("evonorm-s0-g8-sgd-aug-")
    assert run_name(BASE, "f") == run_name(BASE, "f")


def test_groups_do_not_name_a_layer_without_groups() -> None:
    eight, sixteen = (
        TrainConfig(layer="none", groups=g).resolved(precision="fp32", grouped=False, eps=1e-5) for g in (8, 16)
    )
    assert eight == sixteen


@pytest.mark.parametrize(
    ("field", "value", "must"),
    [
        ("epochs", 0, "at least 1"),
        ("batch_size", -1, "at least 1"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("decay", -1.0, "0 or above"),
        ("dropout", 1.0, r"in \[0, 1\)"),
        ("norm_momentum", 2.0, r"in \[0, 1\]"),
    ],
)
def test_values_out_of_range(field: str, value: float, must: str) -> None:
    with pytest.raises(UserError, match=f"{field} must be {must}: got {field}="):
        TrainConfig(**{field: value})


# As the runs of the report's comparison on an H200 recorded them, before there were schedules and weight decay.
RECORDED = {
    "evonorm-s0-g8-sgd-ddb04b2adc34": {"groups": 8},
    "evonorm-s0-g16-sgd-aug-c4850d6f3d99": {"groups": 16, "augment": True},
    "bn-relu-adam-2c6d613bdf85": {"layer": "bn-relu", "optimizer": "adam", "norm_eps": 1e-3, "norm_momentum": 0.01},
}


@pytest.mark.parametrize("name", RECORDED)
def test_runs_from_before_there_were_schedules_keep_their_names(name: str) -> None:
    given = {"precision": "bf16", "backend": "reference", **RECORDED[name]}
    resolved = TrainConfig(**given).resolved(precision="bf16", grouped="layer" not in given, eps=1e-5)  # type: ignore[arg-type]
    assert run_name(resolved, "fd05f04e6541c592") == name


def test_what_a_schedule_does_not_use_names_no_run() -> None:
    def name(**given: object) -> str:
        config = TrainConfig(**given).resolved(precision="fp32", grouped=True, eps=1e-5)  # type: ignore[arg-type]
        return run_name(config, "f")

    assert name(step_epochs=7, step_factor=0.5) == name()
    assert name(schedule="cosine", decay=0.5, step_epochs=7) == name(schedule="cosine")
    assert name(schedule="step") == name(schedule="step", step_epochs=20) != name(schedule="step", step_epochs=30)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"groups": 0}, "groups must be at least 1: got groups=0"),
        ({"groups": -8}, "groups must be at least 1: got groups=-8"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0: got learning_rate=inf"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0: got learning_rate=nan"),
        ({"decay": float("nan")}, "decay must be 0 or above"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or above: got weight_decay=-0.0001"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be 0 or above"),
        ({"warmup_epochs": 60.0}, "warmup_epochs must be below epochs=60: got warmup_epochs=60.0"),
        ({"step_epochs": 0, "schedule": "step"}, "step_epochs must be at least 1"),
        ({"step_factor": 0.0}, r"step_factor must be in \(0, 1\]: got step_factor=0.0"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"norm_momentum": float("nan")}, "norm_momentum must be in"),
    ],
)
def test_numbers_that_cannot_be(given: dict[str, float], told: str) -> None:
    with pytest.raises(UserError, match=told):
        TrainConfig(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_that_cannot_be(seed: int) -> None:
    with pytest.raises(UserError, match=rf"seeds must be between 0 and 2\^63 - 1: got seeds.order={seed}"):
        Seeds(order=seed)


def test_an_option_without_effect_is_told() -> None:
    with pytest.raises(UserError, match=r"decay=0.0001 is of schedule=decay.*say weight_decay"):
        TrainConfig(schedule="cosine", decay=1e-4).check_used()
    with pytest.raises(UserError, match=r"step_epochs=30 is of schedule=step: got schedule=decay"):
        TrainConfig(step_epochs=30).check_used()
    TrainConfig(schedule="step", step_epochs=30, weight_decay=1e-4).check_used()
