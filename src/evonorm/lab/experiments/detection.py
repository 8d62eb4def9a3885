"""The detection experiment: each layer in Mask R-CNN with one or two pictures a batch, as detectors are trained.

So small a batch leaves BatchNorm little to take statistics of; detectors freeze it for that. Here it is tried both
ways, beside layers that look at each picture alone. Every network starts with random weights: a frozen BatchNorm has
the statistics that the untrained network gives it, and not those of another, trained one as is usual. A layer stands
at every normalization, with its activation off where none follows.
"""

from __future__ import annotations

from evonorm.lab.analysis import detection
from evonorm.lab.analysis.detection import FROZEN
from evonorm.lab.experiments.batch_size import known_size
from evonorm.lab.experiments.experiment import Axis, Budget, Cell, Experiment, Images, of
from evonorm.lab.experiments.layers import layers
from evonorm.lab.training import tasks
from evonorm.lab.training.config import TrainConfig

SMALL, LARGE = "mask-rcnn-small", "maskrcnn_resnet50_fpn_v2"
# For each picture of a batch (Goyal et al. 2017, arXiv 1706.02677): the small network's own, and for the large one what
# Mask R-CNN's authors take for 16 pictures.
LEARNING_RATES = {SMALL: 1e-2, LARGE: 0.02 / 16}
WARMUP_EPOCHS = 0.2
WEIGHT_DECAY = 1e-4
# Without it a frozen BatchNorm, which normalizes nothing that grows, diverged in the first epoch at the same rate.
CLIP_NORM = 1.0
FULL = "full"

_LAYERS = layers("bn-relu", "gn-relu", "evonorm-b0", "evonorm-s0")


def _known(name: str) -> str:
    return name if name == FROZEN else str(_LAYERS.known(name))


def _config(cell: Cell, budget: Budget, images: Images) -> TrainConfig:
    """SGD with momentum 0.9, warm-up, clipping, a cosine to 0; the learning rate is proportional to the batch."""
    frozen = cell["layer"] == FROZEN
    model = LARGE if budget.name == FULL else SMALL
    return budget.config(
        cell,
        model=model,
        layer="bn-relu" if frozen else cell["layer"],
        task=tasks.DETECTION,
        options=tasks.DetectionOptions(freeze_norms=frozen),
        plain_norms="affine",
        batch_size=cell["batch_size"],
        learning_rate=LEARNING_RATES[model] * cell["batch_size"],
        schedule="cosine",
        warmup_epochs=WARMUP_EPOCHS,
        weight_decay=WEIGHT_DECAY,
        clip_norm=CLIP_NORM,
    )


EXPERIMENT = Experiment(
    "detection",
    title="Each layer in Mask R-CNN, with one or two pictures a batch",
    what="detection",
    question="each layer in Mask R-CNN, trained with one or two pictures a batch",
    axes=(
        Axis("layer", of(FROZEN, *_LAYERS.values({})), known=_known),
        Axis("batch_size", of(1, 2), kind=int, order="falling", known=known_size),
    ),
    budgets=(
        Budget("quick", 3, 300, 100, "900 pictures a run, the first signs of learning: 90 seconds of a core each"),
        Budget("hour", 8, 800, 200, "6,400 pictures a run"),
        Budget(FULL, 12, None, None, "ResNet-50 and every picture: for COCO, on a GPU"),
    ),
    config=_config,
    label=lambda cells: f"{cells[0]['layer']}, batch {cells[0]['batch_size']}, seed {cells[0]['seed']}",
    task=tasks.DETECTION,
    place=lambda cell: int(cell["batch_size"]),
    analyse=detection.analysis,
)
