"""A task in one file: images are made again from few numbers; the error is in grey levels, and lower is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from evonorm import NormActivation
from evonorm.lab.training import tasks
from evonorm.lab.training.tasks.image_work import ImageWork


class Reconstruction(ImageWork):
    """Output: the images again, (N, 3, H, W)."""

    def network(self) -> nn.Module:
        """Eight numbers for each 4x4 pixels."""
        layer = NormActivation(8, self.config.layer, groups=self.config.groups or 1)
        return nn.Sequential(nn.Conv2d(3, 8, 4, 4), layer, nn.ConvTranspose2d(8, 3, 4, 4))

    def loss(self, output: Any, images: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
        """Mean squared difference of an image's values, which lie between 0 and 1."""
        each = (output - images).square().mean((1, 2, 3))
        return each.mean() if reduction == "mean" else each.sum()

    def measure(self, sums: Mapping[str, float], images: int) -> Mapping[str, float]:
        """The error is the root of the loss over all images."""
        loss = sums["loss"] / images
        return {"loss": loss, "error": loss**0.5}


ERROR = tasks.Metric("error", unit="grey levels", scale=255.0)
RECONSTRUCTION = tasks.add(tasks.Task("reconstruction", (tasks.LOSS, ERROR), ERROR, Reconstruction))
