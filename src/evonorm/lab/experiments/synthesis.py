"""The synthesis experiment: each layer in BigGAN's generator, its weight and bias from class and noise.

The discriminator is the same in every run. What is compared is the Frechet distance of samples to the validation images
by the features of one classifier, trained on the same images before the first run: lower is better, and comparable
between these runs alone.
"""

from __future__ import annotations

from evonorm.lab.analysis import synthesis
from evonorm.lab.experiments.experiment import Budget, Cell, Experiment, Images
from evonorm.lab.experiments.layers import layers
from evonorm.lab.training import tasks
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.synthesis.options import SynthesisOptions

# Of the script for CIFAR-10 in github.com/ajbrock/BigGAN-PyTorch: batches of 50, four steps of the discriminator to one
# of the generator, a fixed rate for both, 500 epochs. The networks here are the paper's, with attention, one embedding
# for all layers, z in parts and orthogonal weights, which that script leaves out.
LEARNING_RATE, BATCH_SIZE = 2e-4, 50
_OPTIONS = {
    "quick": SynthesisOptions(width=8, generator_every=2, average=0.99, judge_epochs=1, judge_images=5_000),
    "hour": SynthesisOptions(width=16, generator_every=2, average=0.99, judge_epochs=2, judge_images=10_000),
    "full": SynthesisOptions(),
}


def _config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    return budget.config(
        cell,
        layer=cell["layer"],
        task=tasks.SYNTHESIS,
        options=_OPTIONS[budget.name],
        optimizer="adam",
        learning_rate=LEARNING_RATE,
    )


EXPERIMENT = Experiment(
    "synthesis",
    title="Each layer in BigGAN's generator",
    what="synthesis",
    question="each layer in BigGAN's generator, by how near its samples are to images",
    axes=(layers("bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0"),),
    budgets=(
        Budget("quick", 3, 2_000, 500, "an eighth of the width, 120 steps: shows that it works", BATCH_SIZE),
        Budget("hour", 14, 5_000, 1_000, "a quarter of the width, 1,400 steps", BATCH_SIZE),
        Budget("full", 500, None, None, "500 epochs on every image, for a GPU", BATCH_SIZE),
    ),
    config=_config,
    label=lambda cells: f"seed {cells[0]['seed']}",
    task=tasks.SYNTHESIS,
    analyse=synthesis.analysis,
)
