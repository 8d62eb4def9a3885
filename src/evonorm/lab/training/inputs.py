"""The images a run trains on: chosen, put on the device once, and made into what the network takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from evonorm.lab.data.sets import ImageDataset, balanced_subset
from evonorm.lab.errors import UserError
from evonorm.lab.training.augmentation import augment
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.seeding import generator

# What a profiler sees of a step are its stages: "data", "augmentation", "forward", "backward", "gradient check" and
# "optimizer". Without a profiler a mark costs a few microseconds.
STAGE = "evonorm stage: "


def stage(name: str) -> record_function:
    """Marks what runs under it as a stage of the step."""
    return record_function(STAGE + name)


class Inputs(Protocol):
    """What a run trains and validates on, in batches as its task's network and loss take them."""

    @property
    def train_images(self) -> int:
        """How many images the run trains on."""

    @property
    def val_images(self) -> int:
        """How many it validates on."""

    def batch(self, chosen: Tensor, step: int, part: slice) -> tuple[Any, Any]:
        """Images and labels of a part of the batch `chosen`: places among the training images. step: of the run."""

    def validation(self, part: slice) -> tuple[Any, Any]:
        """Images and labels of a part of the validation images."""


@dataclass(frozen=True)
class Images:
    """Images on the device: uint8 (N, 3, 32, 32), labels (N,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Images:
        """The first so many of them; None: all."""
        return Images(self.pixels[:count], self.labels[:count])


@dataclass(frozen=True)
class Scaling:
    """pixels / 255, then (value - mean) / deviation per channel; the report's network takes pixels / 255 alone."""

    mean: Tensor
    deviation: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """images: (N, 3, H, W), pixels / 255."""
        return (images - self.mean) / self.deviation


class ImageInputs:
    """Images of classes on the device: float (N, 3, 32, 32), scaled and augmented as the config says, labels (N,)."""

    def __init__(self, config: TrainConfig, dataset: ImageDataset, device: torch.device) -> None:
        self._config, self._device = config, device
        self.train, self.val = on_device(config, dataset, device)
        self._scaling = standardization(self.train.pixels) if config.standardize else None

    @property
    def train_images(self) -> int:
        """See Inputs."""
        return len(self.train)

    @property
    def val_images(self) -> int:
        """See Inputs."""
        return len(self.val)

    def batch(self, chosen: Tensor, step: int, part: slice) -> tuple[Tensor, Tensor]:
        """See Inputs."""
        config = self._config
        with stage("data"):
            own = chosen[part].to(self._device)
            images, labels = self._float(self.train.pixels[own]), self.train.labels[own]
        if config.augment:
            with stage("augmentation"):
                draw = generator(config.seeds.augmentation, "augmentation", step)
                images = augment(images, draw, centre=config.augment_centre, of=len(chosen), part=part)
        with stage("data"):
            return self._scaled(images), labels

    def validation(self, part: slice) -> tuple[Tensor, Tensor]:
        """See Inputs."""
        return self.as_input(self.val.pixels[part]), self.val.labels[part]

    def as_input(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, 32, 32) as the network takes it, without augmentation."""
        return self._scaled(self._float(pixels))

    def _float(self, pixels: Tensor) -> Tensor:
        return pixels.to(memory_format=memory_format(self._config)).float() / 255

    def _scaled(self, images: Tensor) -> Tensor:
        return images if self._scaling is None else self._scaling(images)


def on_device(config: TrainConfig, dataset: ImageDataset, device: torch.device) -> tuple[Images, Images]:
    """Training and validation images that the config chooses, as two uint8 tensors on the device."""
    chosen = [
        _chosen(dataset.train_images, dataset.train_labels, config.train_images, config, device),
        _chosen(dataset.test_images, dataset.test_labels, config.test_images, config, device),
    ]
    return chosen[0], chosen[1].first(config.validation_images)


def memory_format(config: TrainConfig) -> torch.memory_format:
    """The order in which activations lie in memory."""
    return torch.channels_last if config.channels_last else torch.contiguous_format


def standardization(pixels: Tensor) -> Scaling:
    """Mean and standard deviation of pixels / 255, per channel. Raises UserError if a channel is constant."""
    # By value counts: exact, and without a float copy of every image.
    values = torch.arange(256, dtype=torch.float64) / 255
    channels = pixels.movedim(1, 0).reshape(pixels.shape[1], -1)
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in channels]).cpu().double()
    share = counts / counts.sum(1, keepdim=True)
    mean = (share * values).sum(1)
    deviation = (share * (values - mean.unsqueeze(1)).square()).sum(1).sqrt()
    if bool((deviation == 0).any()):
        raise UserError("standardize: a colour channel is constant over all training images; leave standardize off")
    return Scaling(*(value.float().view(1, -1, 1, 1).to(pixels.device) for value in (mean, deviation)))


def _chosen(
    pixels: np.ndarray, labels: np.ndarray, count: int | None, config: TrainConfig, device: torch.device
) -> Images:
    kept = balanced_subset(labels, count, config.seeds.subset)
    images = torch.from_numpy(pixels[kept]).permute(0, 3, 1, 2).contiguous(memory_format=memory_format(config))
    return Images(images.to(device), torch.from_numpy(labels[kept]).to(device))
