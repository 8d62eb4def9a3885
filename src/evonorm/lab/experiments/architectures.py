"""The architectures experiment, as data: each layer in each network, everything else equal.

The report asks what EvoNorm is worth in one network of its own; the paper claims gains in several. Each run trains one
of them from random weights with one layer at every normalization that an activation follows; see models.zoo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evonorm.lab.experiments.report_runs import Budget
from evonorm.lab.training.config import REPORT_MODEL, Seeds, TrainConfig

# The report's own network, and those that it names.
MODELS = (REPORT_MODEL, "resnet18", "resnet50", "mobilenet_v2", "mnasnet1_0", "efficientnet_b0")
LAYERS = ("bn-relu", "evonorm-b0", "evonorm-s0")


ARCHITECTURE_BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", 1, 320, 500, "10 steps a run: shows that it works, tells nothing", batch_size=32),
        Budget("hour", 2, 3_200, 1_000, "200 steps a run: 25 minutes a seed on two cores", batch_size=32),
        Budget("full", 60, None, None, "the report's own 60 epochs on every image"),
    )
}


@dataclass(frozen=True)
class Place:
    """One run's place in the experiment."""

    model: str
    layer: str
    seed: int


def places(
    layers: Sequence[str] = LAYERS, *, models: Sequence[str] = MODELS, seeds: Sequence[int] = (0, 1)
) -> Iterator[Place]:
    """Every run, the first seed's first."""
    for seed in dict.fromkeys(seeds):
        for model in dict.fromkeys(models):
            for layer in dict.fromkeys(layers):
                yield Place(model, layer, seed)


def train_config(place: Place, budget: Budget, *, data: str | None) -> TrainConfig:
    """The configuration of one run: SGD as the report has it, standardized pixels, every layer's default settings.

    Norms that no activation follows stay BatchNorm: the layers differ where they claim to.
    """
    return TrainConfig(
        model=place.model,
        layer=place.layer,
        standardize=True,
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        data=data,
        train_images=budget.train_images,
        test_images=budget.test_images,
        seeds=Seeds(model=place.seed, order=place.seed, augmentation=place.seed),
    )
