"""The parts of a task that need torch: what the loop asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evonorm.lab.errors import UserError
from evonorm.lab.training.config import TrainConfig
from evonorm.lab.training.inputs import ImageInputs, Inputs
from evonorm.layers.conversion import Plan
from evonorm.models import zoo


class Work(ABC):
    """Network, batches, loss and metrics of a task, for one run.

    images, labels: a batch of the task's inputs; by default float (N, 3, H, W), as the network takes them, and (N,).
    plan: how the layers got into the network, where `network` leaves that to be told and kept.
    """

    plan: Plan | None = None

    @abstractmethod
    def network(self, config: TrainConfig, dataset: Any) -> nn.Module:
        """The network, untrained; torch's global generator is seeded with seeds.model, and given back afterwards."""

    @abstractmethod
    def loss(self, output: Any, images: Any, labels: Any, reduction: Literal["mean", "sum"]) -> Tensor:
        """The loss of these images: its mean over them, or its sum."""

    def known(self, model: str) -> str:
        """The model's name in the one way it is written; raises ValueError if the task has none of this name."""
        return zoo.known(model)

    def check(self, config: TrainConfig) -> None:
        """Raises UserError for an option that the task does not serve; by default freeze_norms."""
        if config.freeze_norms:
            raise UserError(f"freeze_norms is of task=detection: got task={config.task}; leave it out")

    def inputs(self, config: TrainConfig, dataset: Any, device: torch.device) -> Inputs:
        """What the run trains and validates on."""
        return ImageInputs(config, dataset, device)

    def output(self, model: nn.Module, images: Any, labels: Any) -> Any:
        """What loss and sums are taken of; called under autocast where precision is bf16."""
        return model(images).float()

    def sums(self, output: Any, images: Any, labels: Any) -> Mapping[str, Tensor]:
        """Scalars that add up over images, batches and processes, and that `measure` needs besides the loss."""
        return {}

    def measure(self, sums: Mapping[str, float], images: int) -> Mapping[str, float]:
        """Metrics by name, from the sums over so many images, "loss" among them; default: each sum's mean."""
        return {name: value / images for name, value in sums.items()}

    def judge(self, model: nn.Module, inputs: Any, folder: Path, epoch: int) -> Mapping[str, float] | None:
        """Every metric of the whole validation set at once, where they are no sums over images; None where they are.

        Called under inference mode, the model in evaluation. folder: the run's, for what is kept of it; epoch: from 1.
        """
        return None
