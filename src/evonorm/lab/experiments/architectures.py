"""The architectures experiment: each layer in each network, everything else equal.

The report asks what EvoNorm is worth in one network of its own; the paper claims gains in several. Each run trains one
of them from random weights with one layer at every normalization that an activation follows; the others stay BatchNorm,
so that the layers differ where they claim to.
"""

from __future__ import annotations

from evonorm.lab.analysis import architectures
from evonorm.lab.experiments.experiment import FULL, Axis, Budget, Cell, Experiment, Images, of
from evonorm.lab.experiments.layers import layers
from evonorm.lab.training.config import REPORT_MODEL, TrainConfig

# The report's own network, and those that it names.
MODELS = (REPORT_MODEL, "resnet18", "resnet50", "mobilenet_v2", "mnasnet1_0", "efficientnet_b0")


def _model(name: str) -> str:
    from evonorm.models import zoo

    return zoo.known(name)


def _config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    """SGD as the report has it, standardized pixels, every layer's default settings."""
    return budget.config(cell, model=cell["model"], layer=cell["layer"], standardize=True)


EXPERIMENT = Experiment(
    "architectures",
    title="Each layer in each network",
    what="architectures",
    question="each layer in each network, one table",
    axes=(Axis("model", of(*MODELS), known=_model), layers("bn-relu", "evonorm-b0", "evonorm-s0")),
    budgets=(
        Budget("quick", 1, 320, 500, "10 steps a run: shows that it works, tells nothing", batch_size=32),
        Budget("hour", 2, 3_200, 1_000, "200 steps a run: 25 minutes a seed on two cores", batch_size=32),
        FULL,
    ),
    config=_config,
    analyse=lambda trials: architectures.analysis(trials, MODELS),
)
