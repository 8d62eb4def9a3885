"""The report's eleven runs, and what each of them is in its two variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evonorm.lab.experiments.experiment import Images
from evonorm.lab.experiments.report import EXPERIMENT
from evonorm.lab.records.report import REPORT_RUNS
from evonorm.lab.training.config import TrainConfig


def configs(variant: str, budget: str = "full") -> dict[str, TrainConfig]:
    chosen = EXPERIMENT.budget(budget)
    images = Images(chosen.train_images or 50_000, chosen.test_images or 10_000)
    cells = EXPERIMENT.cells({"variant": [variant]})
    return {cell["experiment"]: EXPERIMENT.config(cell, chosen, images) for cell in cells}


def test_eleven_runs() -> None:
    assert [e.id for e in REPORT_RUNS] == [
        *("bn-relu-adam", "bn-relu-sgd", "bn-relu-sgd-aug", "b0", "b0-aug"),
        *("s0-g8", "s0-g16", "s0-g32", "s0-g8-aug", "s0-g16-aug", "s0-g32-aug"),
    ]


def test_published_evonorms_are_identities_and_one_function() -> None:
    published = configs("published")
    for experiment in REPORT_RUNS:
        if experiment.layer != "bn-relu":
            assert published[experiment.id].layer == "none"
    plain = {replace(published[id], groups=None) for id in ("b0", "s0-g8", "s0-g16", "s0-g32")}
    augmented = {replace(published[id], groups=None) for id in ("b0-aug", "s0-g8-aug", "s0-g16-aug", "s0-g32-aug")}
    assert len(plain) == len(augmented) == 1


def test_published_augmented_runs_have_the_data_fault() -> None:
    for id, config in configs("published").items():
        faulty = id.endswith("-aug")
        assert config.batch_size == (32 if faulty else 128)
        assert config.steps_per_epoch == (390 if faulty else None)
        assert config.validation_images == (2_496 if faulty else None)


def test_intended_runs_are_what_the_report_describes() -> None:
    for experiment, config in zip(REPORT_RUNS, configs("intended").values(), strict=True):
        assert (config.layer, config.groups) == (experiment.layer, experiment.groups)
        assert (config.batch_size, config.steps_per_epoch, config.validation_images) == (128, None, None)
        assert (config.epochs, config.train_images, config.test_images) == (60, None, None)
        # Keras' BatchNormalization against the EvoNorms' own defaults.
        bn = experiment.layer == "bn-relu"
        assert (config.norm_eps, config.norm_momentum) == ((1e-3, 0.01) if bn else (None, 0.1))


def test_batch_norm_runs_differ_only_where_the_data_fault_touches_them() -> None:
    published, intended = configs("published"), configs("intended")
    same = {id for id in published if published[id] == intended[id]}
    assert same == {"bn-relu-adam", "bn-relu-sgd"}


@pytest.mark.parametrize("budget", ["quick", "hour"])
def test_budgets_scale_the_fault_too(budget: str) -> None:
    chosen, config = EXPERIMENT.budget(budget), configs("published", budget)["b0-aug"]
    assert chosen.train_images is not None
    assert chosen.test_images is not None
    assert config.steps_per_epoch == chosen.train_images // 128
    assert config.validation_images == chosen.test_images // 128 * 32
