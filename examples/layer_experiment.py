"""A layer of your own beside its rivals, in one file: does the S-series need the mean?

evonorm reproduce --experiment examples/layer_experiment.py --data cifar10 --budget hour --out own
"""

from __future__ import annotations

import evonorm
from evonorm.lab.experiments.experiment import Axis, Budget, Experiment, of
from evonorm.lab.experiments.layers import layers

# EvoNorm-S0 by the root mean square. Its formula travels with each run, and names it.
evonorm.add_layer(
    "rms-s0",
    lambda x, s, p, affine: affine(x * (p.v * x).sigmoid(), over=s.group_rms()),
    initial={"v": 1.0},
    source="an example, after EvoNorm-S0",
)

EXPERIMENT = Experiment(
    "own-layer",
    title="EvoNorm-S0 with and without the mean",
    what="own layer",
    question="does EvoNorm-S0 need the mean",
    axes=(layers("evonorm-s0", "rms-s0"), Axis("groups", of(8, 32), option="groups_of", kind=int)),
    budgets=(
        Budget("quick", 1, 64, 40, "2 steps a run: shows that it works", batch_size=32),
        Budget("hour", 2, 3_200, 1_000, "200 steps a run", batch_size=32),
    ),
    config=lambda cell, budget, images: budget.config(cell, layer=cell["layer"], groups=cell["groups"]),
)
