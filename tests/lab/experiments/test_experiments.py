"""The report's eleven runs, and what each of them is in its two variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evonorm.lab.experiments.report_runs import BUDGETS, EXPERIMENTS, train_config


def configs(variant: str, budget: str = "full") -> dict[str, object]:
    return {
        e.id: train_config(e, variant, BUDGETS[budget], seed=0, data=None, train_images=50_000, test_images=10_000)
        for e in EXPERIMENTS
    }


def test_eleven_runs() -> None:
    assert [e.id for e in EXPERIMENTS] == [
        *("bn-relu-adam", "bn-relu-sgd", "bn-relu-sgd-aug", "b0", "b0-aug"),
        *("s0-g8", "s0-g16", "s0-g32", "s0-g8-aug", "s0-g16-aug", "s0-g32-aug"),
    ]


def test_published_evonorms_are_identities_and_one_function() -> None:
    published = configs("published")
    for experiment in EXPERIMENTS:
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
    for experiment, config in zip(EXPERIMENTS, configs("intended").values(), strict=True):
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
    chosen = BUDGETS[budget]
    aug = next(e for e in EXPERIMENTS if e.id == "b0-aug")
    config = train_config(
        aug, "published", chosen, seed=0, data=None, train_images=chosen.train_images, test_images=chosen.test_images
    )
    assert config.steps_per_epoch == chosen.train_images // 128
    assert config.validation_images == chosen.test_images // 128 * 32
