"""An experiment of your own, in one file: how much dropout each layer wants.

evonorm reproduce --experiment examples/dropout_experiment.py --data digits --seeds 0 1 --out dropout
"""

from __future__ import annotations

from evonorm.lab.experiments.experiment import Axis, Budget, Experiment, of
from evonorm.lab.experiments.layers import layers

EXPERIMENT = Experiment(
    "dropout",
    title="How much dropout each layer wants",
    what="dropout",
    question="how much dropout each layer wants",
    axes=(layers("bn-relu", "evonorm-s0"), Axis("dropout", of(0.0, 0.5), kind=float)),
    budgets=(Budget("quick", 1, 320, 200, "10 steps a run: shows that it works", batch_size=32),),
    config=lambda cell, budget, images: budget.config(cell, layer=cell["layer"], dropout=cell["dropout"]),
)
