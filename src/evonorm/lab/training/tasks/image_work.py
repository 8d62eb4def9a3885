"""Tasks on images and their labels: batches and augmentation; and those whose metrics add up over images.

What a step takes from the host is kept apart from what the device makes of it: the latter can be captured.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evonorm.lab.training import augmentation, inputs
from evonorm.lab.training.seeding import derive, generator, seed_torch
from evonorm.lab.training.stages import stage
from evonorm.lab.training.tasks.work import Pass, Work

VALIDATION_BATCH = 256
# On a GPU launches cost more than arithmetic: as many 32x32 images as this many pixels. A choice, not measured.
VALIDATION_PIXELS = 2**21

Tensors = Mapping[str, Tensor]


class ImageData(Work):
    """Trains on an ImageDataset. images: float (N, 3, H, W), as the network takes them; labels: (N,)."""

    def __init__(self, *at: Any) -> None:
        super().__init__(*at)
        self.train_set, self.test_set = inputs.on_device(self.config, self.dataset, self.device)
        self.scaling = inputs.standardization(self.train_set.pixels) if self.config.standardize else None

    @property
    def sizes(self) -> tuple[int, int]:
        """See Work."""
        return len(self.train_set), len(self.test_set)

    def batch(self, chosen: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """This process's images and labels of the chosen training images, as the network takes them."""
        return self.batch_of(self.given(chosen, step))

    def given(self, chosen: Tensor, step: int) -> Tensors:
        """What the host says of this process's part of the batch: tensors whose shapes follow from len(chosen)."""
        config, part = self.config, self.group.part(len(chosen))
        given = {"chosen": chosen[part]}
        if config.augment:
            with stage("augmentation"):
                source = generator(config.seeds.augmentation, "augmentation", step)
                height, width = self.train_set.pixels.shape[-2:]
                theta, flip = augmentation.draw(len(chosen), height, width, source, centre=config.augment_centre)
                given |= {"theta": theta[part].float(), "flip": flip[part]}
        return given

    def batch_of(self, given: Tensors) -> tuple[Tensor, Tensor]:
        """What the device makes of that."""
        with stage("data"):
            own = self.here(given["chosen"])
            images, labels = self.floats(self.train_set.pixels[own]), self.train_set.labels[own]
        if self.config.augment:
            with stage("augmentation"):
                images = augmentation.apply(images, self.here(given["theta"]), self.here(given["flip"]))
        with stage("data"):
            return self.scaled(images), labels

    def here(self, value: Tensor) -> Tensor:
        """The tensor on the run's device."""
        if value.device.type == self.device.type:
            return value
        return inputs.pinned(value, self.device).to(self.device, non_blocking=True)

    def floats(self, pixels: Tensor) -> Tensor:
        """uint8 pixels as numbers between 0 and 1."""
        return pixels.to(memory_format=inputs.memory_format(self.config)).float() / 255

    def scaled(self, images: Tensor) -> Tensor:
        """Images as the configuration standardizes them."""
        return images if self.scaling is None else self.scaling(images)


class ImageWork(ImageData):
    """One network on images; loss and metrics are sums over them."""

    @abstractmethod
    def loss(self, output: Any, images: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
        """The loss of these images: its mean over them, or its sum."""

    def output(self, model: nn.Module, images: Tensor) -> Any:
        """What loss and sums are taken of; called under autocast where precision is bf16."""
        return model(images).float()

    def sums(self, output: Any, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Scalars that add up over images, batches and processes, and that `measure` needs besides the loss."""
        return {}

    @property
    def fixed(self) -> bool:
        """Whether a step is a descent of `pass_of` what is given, and nothing else: no subclass has its own."""
        return type(self).update is Work.update and type(self).training_pass is ImageWork.training_pass

    def seed(self, step: int) -> None:
        """Makes this step's draw of dropout what it is."""
        seed_torch(derive(self.config.seeds.model, "dropout", step), self.device)

    def training_pass(self, model: nn.Module, chosen: Tensor, step: int) -> Pass:
        """See Work; with this step's draw of dropout."""
        given = self.given(chosen, step)
        self.seed(step)
        return self.pass_of(model, given)

    def pass_of(self, model: nn.Module, given: Tensors) -> Pass:
        """The pass over the batch that is given: once that is on the device, the host has no part in it."""
        images, labels = self.batch_of(given)
        with stage("forward"):
            with self.autocast():
                output = self.output(model, images)
            loss = self.group.loss(lambda reduction: self.loss(output, images, labels, reduction))
        return loss, self.sums(output, images, labels)

    def validate(self, epoch: int) -> Mapping[str, float]:
        """See Work: from sums over the validation images, which are read from the device once."""
        sums: dict[str, Tensor] = {}
        images_in_all, batch = self.sizes[1], self._validation_batch()
        for first in range(batch * self.group.rank, images_in_all, batch * self.group.size):
            chosen = torch.arange(first, min(first + batch, images_in_all))
            for name, value in self.sums_of({"chosen": chosen}).items():
                sums[name] = sums[name] + value if name in sums else value
        # A process whose part is empty has to add as many zeros as the others have sums.
        names = self.group.share(lambda: list(sums))
        whole = self.group.sum(*(sums.get(name, 0.0) for name in names))
        return self.measure(dict(zip(names, whole, strict=True)), images_in_all)

    def sums_of(self, given: Tensors) -> Tensors:
        """Loss and sums of the validation images that are given, in float64; of the device alone, as `pass_of` is."""
        own = self.here(given["chosen"])
        labels = self.test_set.labels[own]
        images = self.scaled(self.floats(self.test_set.pixels[own]))
        with self.autocast():
            output = self.output(self.model, images)
        sums = {"loss": self.loss(output, images, labels, "sum"), **self.sums(output, images, labels)}
        return {name: value.double() for name, value in sums.items()}

    def _validation_batch(self) -> int:
        """Images at once; on a GPU as many as leave the batches about equal."""
        if self.device.type == "cpu":
            return VALIDATION_BATCH
        images, (height, width) = self.sizes[1], self.test_set.pixels.shape[-2:]
        batches = -(-images // max(1, VALIDATION_PIXELS // (height * width)))
        return -(-images // batches)
