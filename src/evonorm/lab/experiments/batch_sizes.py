"""The batch-size experiment, as data: what layers are worth as batches shrink, at equal epochs.

Layers with statistics over the batch (BatchNorm, the B series) lose them in small batches; those with statistics over
the sample (GroupNorm, the S series) exist for that case. The learning rate grows with the batch, as the report's 1e-2
for 128 images does by linear scaling (Goyal et al. 2017, arXiv 1706.02677).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evonorm.lab.errors import UserError
from evonorm.lab.experiments.report_runs import REPORT_BATCH_SIZE, Budget
from evonorm.lab.training.config import Seeds, TrainConfig

LAYERS = ("bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0")
SIZES = (2, 4, 8, 16, 32, 128)
LEARNING_RATE = 1e-2


BATCH_BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", 1, 320, 500, "shows that it works, tells nothing"),
        Budget("hour", 2, 3_200, 1_000, "about half an hour a seed on two cores"),
        Budget("full", 60, None, None, "the report's own 60 epochs on every image"),
    )
}


@dataclass(frozen=True)
class Place:
    """One run's place in the experiment."""

    layer: str
    batch_size: int
    seed: int


def places(layers: Sequence[str], *, sizes: Sequence[int] = SIZES, seeds: Sequence[int] = (0, 1)) -> Iterator[Place]:
    """Every run, the first seed's first. Raises UserError for a size below 1."""
    for size in sizes:
        if size < 1:
            raise UserError(f"batch sizes must be at least 1: got {size}")
    for seed in dict.fromkeys(seeds):
        for size in sorted(set(sizes), reverse=True):
            for layer in dict.fromkeys(layers):
                yield Place(layer, size, seed)


def train_config(place: Place, budget: Budget, *, data: str | None) -> TrainConfig:
    """The configuration of one run: SGD, standardized pixels, every layer with its own default settings.

    The decay of the learning rate is a batch's, so that it scales too: each run ends at the same part of its first.
    """
    scale = place.batch_size / REPORT_BATCH_SIZE
    return TrainConfig(
        layer=place.layer,
        learning_rate=LEARNING_RATE * scale,
        decay=LEARNING_RATE / budget.epochs * scale,
        standardize=True,
        epochs=budget.epochs,
        batch_size=place.batch_size,
        data=data,
        train_images=budget.train_images,
        test_images=budget.test_images,
        seeds=Seeds(model=place.seed, order=place.seed, augmentation=place.seed),
    )
