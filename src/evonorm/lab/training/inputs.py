"""The images a run trains on: chosen, put on the device once, and made into what the network takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evonorm.lab.data.sets import ImageDataset, balanced_subset
from evonorm.lab.errors import UserError
from evonorm.lab.training.config import TrainConfig


@dataclass(frozen=True)
class Images:
    """Images on the device: uint8 (N, 3, side, side), labels (N,)."""

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


def on_device(config: TrainConfig, dataset: ImageDataset, device: torch.device) -> tuple[Images, Images]:
    """Training and validation images that the config chooses, as two uint8 tensors on the device."""
    chosen = [
        _chosen(dataset.train_images, dataset.train_labels, config.train_images, config, device),
        _chosen(dataset.test_images, dataset.test_labels, config.test_images, config, device),
    ]
    return chosen[0], chosen[1].first(config.validation_images)


def pinned(value: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host where a GPU fetches it from by itself: copied with non_blocking, the host does not wait."""
    return value.pin_memory() if device.type == "cuda" else value


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
