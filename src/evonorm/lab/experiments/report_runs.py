"""The report's runs, as data: what it trained, what its notebooks recorded, and what each run is here.

Each experiment exists in two variants. `published` is what the report's code really ran: its EvoNorm layers were
identities, its augmented runs took batches of 32 for a quarter of an epoch and validated on a quarter of the test
images. `intended` is what the report describes: the layers as the paper defines them, batches of 128, every image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evonorm.lab.training.config import Seeds, TrainConfig

Variant = Literal["published", "intended"]
VARIANTS: tuple[Variant, ...] = ("published", "intended")

REPORT_BATCH_SIZE = 128
# The report's augmented runs called `flow` without a batch size and got its default.
FLOW_BATCH_SIZE = 32


@dataclass(frozen=True)
class Budget:
    """How much of the report's training each run of an experiment does. images: None for all of them.

    batch_size: where the experiment does not vary it; small budgets take small ones, for 128 images a batch would leave
    a few dozen steps.
    """

    name: str
    epochs: int
    train_images: int | None
    test_images: int | None
    meaning: str
    batch_size: int = REPORT_BATCH_SIZE


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", 2, 2_560, 1_000, "a first look: ten minutes on two cores"),
        Budget("hour", 3, 12_800, 2_560, "about an hour a seed on two cores"),
        Budget("full", 60, None, None, "the report's own 60 epochs on every image"),
    )
}


@dataclass(frozen=True)
class Experiment:
    """One of the report's runs.

    recorded: validation accuracies of the last epoch in its notebooks, in percent; None where the loss was NaN.
    """

    id: str
    layer: str
    optimizer: Literal["sgd", "adam"]
    augment: bool
    recorded: tuple[float | None, ...]
    groups: int | None = None


EXPERIMENTS = (
    Experiment("bn-relu-adam", "bn-relu", "adam", False, (80.9, 84.0)),
    Experiment("bn-relu-sgd", "bn-relu", "sgd", False, (84.3,)),
    Experiment("bn-relu-sgd-aug", "bn-relu", "sgd", True, (82.4,)),
    Experiment("b0", "evonorm-b0", "sgd", False, (75.7,)),
    Experiment("b0-aug", "evonorm-b0", "sgd", True, (None,)),
    Experiment("s0-g8", "evonorm-s0", "sgd", False, (76.0,), groups=8),
    Experiment("s0-g16", "evonorm-s0", "sgd", False, (74.8,), groups=16),
    Experiment("s0-g32", "evonorm-s0", "sgd", False, (None,), groups=32),
    Experiment("s0-g8-aug", "evonorm-s0", "sgd", True, (None,), groups=8),
    Experiment("s0-g16-aug", "evonorm-s0", "sgd", True, (None,), groups=16),
    Experiment("s0-g32-aug", "evonorm-s0", "sgd", True, (None,), groups=32),
)


def train_config(
    experiment: Experiment,
    variant: Variant,
    budget: Budget,
    *,
    seed: int,
    data: str | None,
    train_images: int,
    test_images: int,
) -> TrainConfig:
    """The configuration of one run. train_images, test_images: how many the budget leaves of the data at hand.

    Published runs that differ only in the name of a layer that never ran come out as one configuration.
    """
    bn = experiment.layer == "bn-relu"
    published_augmentation = variant == "published" and experiment.augment
    return TrainConfig(
        layer=experiment.layer if bn or variant == "intended" else "none",
        groups=experiment.groups,
        # Keras' BatchNormalization: epsilon 1e-3, momentum 0.99. The EvoNorms: their own defaults.
        norm_eps=1e-3 if bn else None,
        norm_momentum=0.01 if bn else 0.1,
        optimizer=experiment.optimizer,
        epochs=budget.epochs,
        batch_size=FLOW_BATCH_SIZE if published_augmentation else REPORT_BATCH_SIZE,
        steps_per_epoch=max(1, train_images // REPORT_BATCH_SIZE) if published_augmentation else None,
        augment=experiment.augment,
        data=data,
        train_images=budget.train_images,
        test_images=budget.test_images,
        validation_images=max(1, test_images // REPORT_BATCH_SIZE) * FLOW_BATCH_SIZE
        if published_augmentation
        else None,
        seeds=Seeds(model=seed, order=seed, augmentation=seed),
    )
