"""The learning-rate experiment, as data: every layer on the same ladder of learning rates, equal epochs for all.

The report gave every layer the learning rate that suits BatchNorm-ReLU, 1e-2, and raw pixels. This asks what it should
have asked first: how good is each layer at its own best setting, if all get the same number of trials, and how far may
the learning rate be from it?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from evonorm.lab.errors import UserError
from evonorm.lab.experiments.report_runs import Budget
from evonorm.lab.training.config import Seeds, TrainConfig

Optimizer = Literal["sgd", "adam"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam")
PIXELS: tuple[str, ...] = ("raw", "standardized")

# Two rungs a decade, from too slow to learn to where something diverges. Adam's are a decade lower.
LEARNING_RATES: dict[Optimizer, tuple[float, ...]] = {
    "sgd": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "adam": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


LADDER_BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", 1, 640, 500, "20 steps a run: shows that it works, tells nothing", batch_size=32),
        Budget("hour", 2, 3_200, 1_000, "200 steps a run: 20 minutes a layer and seed on two cores", batch_size=32),
        Budget("full", 60, None, None, "the report's own 60 epochs on every image"),
    )
}


@dataclass(frozen=True)
class Rung:
    """One run's place on the ladder."""

    layer: str
    optimizer: Optimizer
    pixels: str
    learning_rate: float
    seed: int


def rungs(
    layers: Sequence[str],
    *,
    optimizers: Sequence[Optimizer] = OPTIMIZERS,
    pixels: Sequence[str] = PIXELS,
    learning_rates: Sequence[float] | None = None,
    seeds: Sequence[int] = (0, 1),
) -> Iterator[Rung]:
    """Every run, the first seed's first. learning_rates: of every optimizer, in place of its own ladder.

    Raises UserError for a learning rate that is not above 0.
    """
    for rate in learning_rates or ():
        if not rate > 0:
            raise UserError(f"learning rates must be above 0: got {rate}")
    for seed in dict.fromkeys(seeds):
        for optimizer in dict.fromkeys(optimizers):
            for kind in dict.fromkeys(pixels):
                for rate in sorted(set(learning_rates or LEARNING_RATES[optimizer])):
                    for layer in dict.fromkeys(layers):
                        yield Rung(layer, optimizer, kind, rate, seed)


def train_config(rung: Rung, budget: Budget, *, data: str | None) -> TrainConfig:
    """The configuration of one run: the report's network and optimizers; every layer with its own default settings."""
    return TrainConfig(
        layer=rung.layer,
        optimizer=rung.optimizer,
        learning_rate=rung.learning_rate,
        standardize=rung.pixels == "standardized",
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        data=data,
        train_images=budget.train_images,
        test_images=budget.test_images,
        seeds=Seeds(model=rung.seed, order=rung.seed, augmentation=rung.seed),
    )
