"""Detection: Mask R-CNN, the sum of its losses, and COCO's average precisions over the whole validation set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evonorm.lab.data.coco import DetectionDataset
from evonorm.lab.errors import UserError
from evonorm.lab.records import pictures, run_files
from evonorm.lab.training import replicas
from evonorm.lab.training.config import REPORT_MODEL, TrainConfig
from evonorm.lab.training.inputs import stage
from evonorm.lab.training.seeding import derive
from evonorm.lab.training.tasks import DETECTION
from evonorm.lab.training.tasks.detection_pictures import LEAST_SCORE, grid
from evonorm.lab.training.tasks.detection_scores import results, scores
from evonorm.lab.training.tasks.detection_steps import Target, batch, judged, losses
from evonorm.lab.training.tasks.work import Work
from evonorm.models import mask_rcnn

# What a run keeps of its last validation: detections in COCO's format of results, and the precisions by class.
DETECTIONS, CLASSES = "detections.json", "classes.json"
VALIDATION_BATCH = 8
SHOWN = 6
# Frozen norms have the statistics of so many training pictures.
FREEZE_PICTURES = 16
# A caption tells the precision of each class where there are no more.
MOST_CLASSES = 20


class DetectionInputs:
    """Pictures read from the disk as they are asked for, and the boxes, labels and masks of each."""

    def __init__(self, config: TrainConfig, dataset: DetectionDataset, device: torch.device) -> None:
        self._device = device
        self.train = dataset.train.subset(config.train_images, config.seeds.subset)
        self.val = dataset.val.subset(config.test_images, config.seeds.subset).first(config.validation_images)

    @property
    def train_images(self) -> int:
        """See Inputs."""
        return len(self.train)

    @property
    def val_images(self) -> int:
        """See Inputs."""
        return len(self.val)

    def batch(self, chosen: Tensor, step: int, part: slice) -> tuple[list[Tensor], list[Target]]:
        """See Inputs."""
        with stage("data"):
            return batch(self.train, chosen[part].tolist(), self._device)

    def validation(self, part: slice) -> tuple[list[Tensor], list[Target]]:
        """See Inputs."""
        return batch(self.val, range(*part.indices(len(self.val))), self._device)


class Detection(Work):
    """Output: the loss of the batch. images: a list of (3, H, W) in [0, 1]; labels: their targets."""

    def known(self, model: str) -> str:
        """See Work; the default of every task stands for the small detector."""
        return mask_rcnn.SMALL if model == REPORT_MODEL else mask_rcnn.known(model)

    def check(self, config: TrainConfig) -> None:
        """See Work."""
        for name in ("augment", "standardize", "dropout"):
            if getattr(config, name):
                raise UserError(f"{name} is not of task={DETECTION}, whose networks standardize pixels; leave it out")
        if config.freeze_norms and config.layer != "bn-relu":
            raise UserError(f"freeze_norms is of layer=bn-relu: got layer={config.layer}; leave it out, or say bn-relu")
        if replicas.current().size > 1:
            raise UserError(f"task={DETECTION} is trained by one process: its losses are means over regions")

    def network(self, config: TrainConfig, dataset: DetectionDataset) -> nn.Module:
        """See Work."""
        self._config = config
        try:
            model, self.plan = mask_rcnn.build(
                config.model,
                len(dataset.classes),
                None if config.freeze_norms else config.layer,
                groups=config.groups,
                eps=config.norm_eps,
                momentum=config.norm_momentum,
                backend=config.backend,
                plain_norms=config.plain_norms,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        if config.freeze_norms:
            first = dataset.train.subset(config.train_images, config.seeds.subset).first(FREEZE_PICTURES)
            mask_rcnn.freeze(model, *batch(first, range(len(first)), torch.device("cpu")))
        return model

    def inputs(self, config: TrainConfig, dataset: DetectionDataset, device: torch.device) -> DetectionInputs:
        """See Work."""
        return DetectionInputs(config, dataset, device)

    def output(self, model: nn.Module, images: list[Tensor], labels: list[Target]) -> Tensor:
        """See Work."""
        kind = images[0].device.type
        with torch.autocast(kind, enabled=False):
            return losses(model, images, labels, bf16=self._config.precision == "bf16")

    def loss(
        self, output: Tensor, images: list[Tensor], labels: list[Target], reduction: Literal["mean", "sum"]
    ) -> Tensor:
        """See Work."""
        return output if reduction == "mean" else output * len(images)

    def judge(self, model: nn.Module, inputs: DetectionInputs, folder: Path, epoch: int) -> Mapping[str, float]:
        """See Work; keeps what was found, the precisions by class, and a picture of the first that are validated."""
        split, bf16 = inputs.val, self._config.precision == "bf16"
        listed: list[dict[str, Any]] = []
        shown: dict[int, Mapping[str, Tensor]] = {}
        loss = 0.0
        # The loss is taken of regions that are drawn: of the same ones after every epoch.
        with torch.random.fork_rng():
            torch.manual_seed(derive(self._config.seeds.model, "validation"))
            for first in range(0, len(split), VALIDATION_BATCH):
                images, targets = inputs.validation(slice(first, first + VALIDATION_BATCH))
                of_batch, found = judged(model, images, targets, bf16=bf16)
                loss += of_batch.item() * len(images)
                for place, one in enumerate(found, first):
                    listed += results(split, place, one)
                    if place < SHOWN:
                        shown[place] = {name: value.cpu() for name, value in one.items()}
        overall, by_class = scores(split, listed)
        run_files.write_atomically(folder / DETECTIONS, run_files.dumps(listed).encode())
        run_files.write_json(folder / CLASSES, {"epoch": epoch, "classes": by_class})
        pictures.write(folder, "detections", epoch, grid(split, shown), _caption(by_class))
        return {"loss": loss / len(split), **overall}


def _caption(by_class: Mapping[str, Mapping[str, float]]) -> str:
    told = (
        "Validation pictures, the first of them: in each pair left the truth, right what was found with a score of "
        f"{LEAST_SCORE} or more."
    )
    if len(by_class) > MOST_CLASSES:
        return told
    each = ", ".join(f"{name} {100 * one['mask_ap50']:.0f}".replace("nan", "–") for name, one in by_class.items())
    return f"{told} Mask AP50 by class, %: {each}."
