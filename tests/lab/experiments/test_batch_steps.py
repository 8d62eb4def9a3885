"""Batch sizes at equal steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from evonorm.lab.experiments import batch_size, catalogue
from evonorm.lab.experiments.experiment import FULL, Images
from evonorm.lab.training.config import TrainConfig

CIFAR = Images(50_000, 10_000)


def configured(size: int, images: Images = CIFAR) -> TrainConfig:
    cell = {"layer": "evonorm-s0", "batch_size": size, "seed": 0}
    return batch_size.EQUAL_STEPS.config(cell, FULL, images)


@pytest.mark.parametrize("size", [2, 16, 127, 128, 200, 256, 1024])
def test_every_size_takes_the_steps_of_the_report(size: int) -> None:
    config = configured(size)
    filled = -(-CIFAR.train // size)
    assert config.steps_per_epoch is not None
    assert config.steps_per_epoch <= filled
    # A larger batch ends an epoch with a shorter one than the others: that counts as a step.
    assert config.epochs * config.steps_per_epoch == pytest.approx(60 * 391, rel=0.02)


@pytest.mark.parametrize("size", [2, 128, 1024])
def test_the_rate_falls_alike_and_begins_in_proportion(size: int) -> None:
    config = configured(size)
    assert config.learning_rate == pytest.approx(0.01 * size / 128)
    assert config.decay == pytest.approx(0.01 / 60)


def test_more_images_than_there_are() -> None:
    config = configured(1024, Images(100, 10))
    assert (config.epochs, config.steps_per_epoch) == (60, 1)


def test_its_listing_is_its_own() -> None:
    assert catalogue.of_listing(Path("batch-steps-full-0123.json")) is batch_size.EQUAL_STEPS
    assert catalogue.of_listing(Path("batch-size-full-0123.json")) is batch_size.EXPERIMENT
