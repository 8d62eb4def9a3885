"""Detection: Mask R-CNN, the sum of its losses, and COCO's average precisions over the whole validation set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from evonorm.lab.errors import UserError
from evonorm.lab.records import pictures, run_files
from evonorm.lab.training.config import REPORT_MODEL, TrainConfig
from evonorm.lab.training.seeding import derive, seed_torch
from evonorm.lab.training.stages import stage
from evonorm.lab.training.tasks import DETECTION
from evonorm.lab.training.tasks.detection_pictures import LEAST_SCORE, grid
from evonorm.lab.training.tasks.detection_scores import results, scores
from evonorm.lab.training.tasks.detection_steps import batch, judged, losses
from evonorm.lab.training.tasks.work import Pass, Work
from evonorm.models import mask_rcnn

# What a run keeps of its last validation: detections in COCO's format of results, and the precisions by class.
DETECTIONS, CLASSES = "detections.json", "classes.json"
VALIDATION_BATCH = 8
SHOWN = 6
# Frozen norms have the statistics of so many training pictures.
FREEZE_PICTURES = 16
# A caption tells the precision of each class where there are no more.
MOST_CLASSES = 20


class Detection(Work):
    """Pictures are read from the disk as they are asked for: (3, H, W) in [0, 1], and the boxes and masks of each."""

    def __init__(self, *at: Any) -> None:
        super().__init__(*at)
        config, dataset = self.config, self.dataset
        self.train = dataset.train.subset(config.train_images, config.seeds.subset)
        self.val = dataset.val.subset(config.test_images, config.seeds.subset).first(config.validation_images)

    @classmethod
    def known(cls, model: str) -> str:
        """See Work; the default of every task stands for the small detector."""
        return mask_rcnn.SMALL if model == REPORT_MODEL else mask_rcnn.known(model)

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """See Work."""
        for name in ("augment", "standardize", "dropout"):
            if getattr(config, name):
                raise UserError(f"{name} is not of task={DETECTION}, whose networks standardize pixels; leave it out")
        if config.options.freeze_norms and config.layer != "bn-relu":
            raise UserError(
                f"options.freeze_norms is of layer=bn-relu: got layer={config.layer}; leave it out, or say bn-relu"
            )

    @property
    def sizes(self) -> tuple[int, int]:
        """See Work."""
        return len(self.train), len(self.val)

    def network(self) -> nn.Module:
        """See Work."""
        config = self.config
        try:
            model, self.plan = mask_rcnn.build(
                config.model,
                len(self.dataset.classes),
                None if config.options.freeze_norms else config.layer,
                groups=config.groups,
                eps=config.norm_eps,
                momentum=config.norm_momentum,
                backend=config.backend,
                plain_norms=config.plain_norms,
            )
        except ValueError as error:
            raise UserError(str(error)) from None
        if config.options.freeze_norms:
            first = self.train.first(FREEZE_PICTURES)
            mask_rcnn.freeze(model, *batch(first, range(len(first)), torch.device("cpu")))
        return model

    def training_pass(self, model: nn.Module, chosen: Tensor, step: int) -> Pass:
        """See Work; of regions that are drawn."""
        with stage("data"):
            images, targets = batch(self.train, chosen.tolist(), self.device)
        with stage("forward"):
            seed_torch(derive(self.config.seeds.model, "dropout", step), self.device)
            return losses(model, images, targets, bf16=self.bf16), {}

    def validate(self, epoch: int) -> Mapping[str, float]:
        """See Work; keeps what was found, the precisions by class, and a picture of the first that are validated."""
        listed: list[dict[str, Any]] = []
        shown: dict[int, Mapping[str, Tensor]] = {}
        loss = 0.0
        # The loss is taken of regions that are drawn: of the same ones after every epoch.
        with torch.random.fork_rng():
            torch.manual_seed(derive(self.config.seeds.model, "validation"))
            for first in range(0, len(self.val), VALIDATION_BATCH):
                places = range(first, min(first + VALIDATION_BATCH, len(self.val)))
                images, targets = batch(self.val, places, self.device)
                of_batch, found = judged(self.model, images, targets, bf16=self.bf16)
                loss += of_batch.item() * len(images)
                for place, one in zip(places, found, strict=True):
                    listed += results(self.val, place, one)
                    if place < SHOWN:
                        shown[place] = {name: value.cpu() for name, value in one.items()}
        overall, by_class = scores(self.val, listed)
        run_files.write_atomically(self.folder / DETECTIONS, run_files.dumps(listed).encode())
        run_files.write_json(self.folder / CLASSES, {"epoch": epoch, "classes": by_class})
        pictures.write(self.folder, "detections", epoch, grid(self.val, shown), _caption(by_class))
        return {"loss": loss / len(self.val), **overall}


def _caption(by_class: Mapping[str, Mapping[str, float]]) -> str:
    told = (
        "Validation pictures, the first of them: in each pair left the truth, right what was found with a score of "
        f"{LEAST_SCORE} or more."
    )
    if len(by_class) > MOST_CLASSES:
        return told
    each = ", ".join(f"{name} {100 * one['mask_ap50']:.0f}".replace("nan", "–") for name, one in by_class.items())
    return f"{told} Mask AP50 by class, %: {each}."
