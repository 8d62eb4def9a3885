"""The parts of a task that need torch: what the loop asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from evonorm.lab.data.sets import ImageDataset
from evonorm.lab.training.config import TrainConfig


class Work(ABC):
    """Network, loss and metrics of a task. images: float (N, 3, H, W), as the network takes them; labels: (N,)."""

    @abstractmethod
    def network(self, config: TrainConfig, dataset: ImageDataset) -> nn.Module:
        """The network, untrained; torch's global generator is seeded with seeds.model, and given back afterwards."""

    @abstractmethod
    def loss(self, output: Any, images: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
        """The loss of these images: its mean over them, or its sum."""

    def output(self, model: nn.Module, images: Tensor) -> Any:
        """What loss and sums are taken of; called under autocast where precision is bf16."""
        return model(images).float()

    def sums(self, output: Any, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Scalars that add up over images, batches and processes, and that `measure` needs besides the loss."""
        return {}

    def measure(self, sums: Mapping[str, float], images: int) -> Mapping[str, float]:
        """Every metric by name, from the sums over so many images, "loss" among them; default: each sum's mean."""
        return {name: value / images for name, value in sums.items()}
