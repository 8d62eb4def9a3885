"""The learning-rate experiment: every layer on the same ladder of learning rates, equal epochs for all.

The report gave every layer the learning rate that suits BatchNorm-ReLU, 1e-2, and raw pixels. This asks what it should
have asked first: how good is each layer at its own best setting, if all get the same number of trials, and how far may
the learning rate be from it?
"""

from __future__ import annotations

from evonorm.lab.analysis import learning_rate
from evonorm.lab.analysis.usable_range import OPTIMIZERS, PIXELS, Setting
from evonorm.lab.experiments.experiment import FULL, QUARTER, Axis, Budget, Cell, Experiment, Images, of
from evonorm.lab.experiments.layers import layers
from evonorm.lab.training.config import TrainConfig

# Two rungs a decade, from too slow to learn to where something diverges. Adam's are a decade lower.
LEARNING_RATES = {
    "sgd": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
    "adam": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


def _one_of(what: str, known: tuple[str, ...], value: str) -> str:
    if value not in known:
        raise ValueError(f"{what} must be of {', '.join(known)}: got {value!r}")
    return value


def _rate(value: float) -> float:
    if not value > 0:
        raise ValueError(f"learning rates must be above 0: got {value}")
    return value


def _config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    """The report's network and optimizers; every layer with its own default settings."""
    return budget.config(
        cell,
        layer=cell["layer"],
        optimizer=cell["optimizer"],
        learning_rate=cell["learning_rate"],
        standardize=cell["pixels"] == "standardized",
    )


EXPERIMENT = Experiment(
    "learning-rate",
    title="Each layer at its own best learning rate",
    what="learning rates",
    question="every layer at its own best learning rate, with equal trials: SGD and Adam, raw and standardized pixels",
    axes=(
        layers(),
        Axis("optimizer", of(*OPTIMIZERS), known=lambda value: _one_of("optimizers", OPTIMIZERS, value)),
        Axis("pixels", of(*PIXELS), option="pixels", known=lambda value: _one_of("pixels", PIXELS, value)),
        Axis(
            "learning_rate",
            lambda cell: LEARNING_RATES[cell["optimizer"]],
            kind=float,
            help="two a decade from 1e-4 (sgd) or 1e-5 (adam)",
            order="rising",
            known=_rate,
        ),
    ),
    budgets=(
        Budget("quick", 1, 640, 500, "20 steps a run: shows that it works, tells nothing", batch_size=32),
        Budget("hour", 2, 3_200, 1_000, "200 steps a run: 20 minutes a layer and seed on two cores", batch_size=32),
        QUARTER,
        FULL,
    ),
    config=_config,
    place=lambda cell: Setting(str(cell["optimizer"]), str(cell["pixels"]), float(cell["learning_rate"])),
    label=lambda cells: "{learning_rate:g}, {pixels}, seed {seed}".format_map(cells[0]),
    analyse=learning_rate.analysis,
)
