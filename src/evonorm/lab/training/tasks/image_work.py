"""Tasks on images and their labels: batches and augmentation; and those whose metrics add up over images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from evonorm.lab.training import inputs
from evonorm.lab.training.augmentation import augment
from evonorm.lab.training.seeding import derive, generator, seed_torch
from evonorm.lab.training.stages import stage
from evonorm.lab.training.tasks.work import Pass, Work

VALIDATION_BATCH = 256


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
        config, part = self.config, self.group.part(len(chosen))
        with stage("data"):
            own = chosen[part].to(self.device)
            images, labels = self.floats(self.train_set.pixels[own]), self.train_set.labels[own]
        if config.augment:
            with stage("augmentation"):
                draw = generator(config.seeds.augmentation, "augmentation", step)
                images = augment(images, draw, centre=config.augment_centre, of=len(chosen), part=part)
        with stage("data"):
            return self.scaled(images), labels

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

    def training_pass(self, model: nn.Module, chosen: Tensor, step: int) -> Pass:
        """See Work; with this step's draw of dropout."""
        images, labels = self.batch(chosen, step)
        with stage("forward"):
            seed_torch(derive(self.config.seeds.model, "dropout", step), self.device)
            with self.autocast():
                output = self.output(model, images)
            loss = self.group.loss(lambda reduction: self.loss(output, images, labels, reduction))
        return loss, self.sums(output, images, labels)

    def validate(self, epoch: int) -> Mapping[str, float]:
        """See Work: from sums over the validation images."""
        sums: dict[str, float] = {}
        images_in_all, stride = self.sizes[1], VALIDATION_BATCH * self.group.size
        for first in range(VALIDATION_BATCH * self.group.rank, images_in_all, stride):
            part = slice(first, first + VALIDATION_BATCH)
            labels = self.test_set.labels[part]
            images = self.scaled(self.floats(self.test_set.pixels[part]))
            with self.autocast():
                output = self.output(self.model, images)
            own = {"loss": self.loss(output, images, labels, "sum"), **self.sums(output, images, labels)}
            for name, value in own.items():
                sums[name] = sums.get(name, 0) + value.item()
        # A process whose part is empty has to add as many zeros as the others have sums.
        names = self.group.share(lambda: list(sums))
        whole = self.group.sum(*(sums.get(name, 0) for name in names))
        return self.measure(dict(zip(names, whole, strict=True)), images_in_all)
