"""The batch-size experiments: what layers are worth as batches shrink, at equal epochs and at equal steps.

Layers with statistics over the batch (BatchNorm, the B series) lose them in small batches; those with statistics over
the sample (GroupNorm, the S series) exist for that case. The learning rate grows with the batch, as the report's 1e-2
for 128 images does by linear scaling (Goyal et al. 2017, arXiv 1706.02677), and at equal epochs its decay, which is a
batch's, with it: each run ends at the same part of its first.

At equal epochs a batch of 2 takes 64 times the steps of one of 128; at equal steps it sees a 64th of the images.
Neither is fair alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from evonorm.lab.analysis import batch_size
from evonorm.lab.experiments.experiment import (
    FULL,
    QUARTER,
    REPORT_BATCH_SIZE,
    Axis,
    Budget,
    Cell,
    Experiment,
    Images,
    of,
)
from evonorm.lab.experiments.layers import layers
from evonorm.lab.training.config import TrainConfig

LEARNING_RATE = 1e-2


def known_size(value: int) -> int:
    """A batch size as it is. Raises ValueError for one below 1."""
    if value < 1:
        raise ValueError(f"batch sizes must be at least 1: got {value}")
    return value


def _config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    """SGD, standardized pixels, every layer with its own default settings."""
    scale = cell["batch_size"] / REPORT_BATCH_SIZE
    return budget.config(
        cell,
        layer=cell["layer"],
        batch_size=cell["batch_size"],
        learning_rate=LEARNING_RATE * scale,
        decay=LEARNING_RATE / budget.epochs * scale,
        standardize=True,
    )


def _at_equal_steps(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    """As many steps as the report's batch takes in the budget: of smaller batches in as many shorter epochs, of larger
    ones, whose epochs have fewer, in more of them; a last batch that is short counts as one.
    """
    size = int(cell["batch_size"])
    steps = -(-images.train // REPORT_BATCH_SIZE)
    filled = -(-images.train // size)
    epochs = budget.epochs if filled >= steps else max(1, round(budget.epochs * steps / filled))
    return replace(
        _config(cell, budget, images),
        epochs=epochs,
        steps_per_epoch=min(steps, filled),
        decay=LEARNING_RATE / budget.epochs,
    )


EXPERIMENT = Experiment(
    "batch-size",
    title="What small batches cost each layer",
    what="batch sizes",
    question="what layers are worth as batches shrink",
    axes=(
        layers("bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0"),
        Axis("batch_size", of(2, 4, 8, 16, 32, 128), kind=int, order="falling", known=known_size),
    ),
    budgets=(
        Budget("quick", 1, 320, 500, "shows that it works, tells nothing"),
        Budget("hour", 2, 3_200, 1_000, "about half an hour a seed on two cores"),
        QUARTER,
        FULL,
    ),
    config=_config,
    label=lambda cells: f"batch {cells[0]['batch_size']}, seed {cells[0]['seed']}",
    analyse=batch_size.analysis,
)
EQUAL_STEPS = replace(
    EXPERIMENT,
    name="batch-steps",
    title="What small batches cost each layer, at equal steps",
    what="batch sizes at equal steps",
    question="the same at equal steps",
    config=_at_equal_steps,
    analyse=partial(batch_size.analysis, equal="steps"),
)
