"""Classification: a network of the zoo, cross-entropy, and the share of images whose largest logit is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from evonorm.lab.errors import UserError
from evonorm.lab.training.seeding import generator
from evonorm.lab.training.tasks import ACCURACY
from evonorm.lab.training.tasks.image_work import ImageWork
from evonorm.models import zoo


class Classification(ImageWork):
    """Output: logits, float32 (N, classes)."""

    def network(self) -> nn.Module:
        """See Work."""
        config = self.config
        try:
            return zoo.build(
                config.model,
                len(self.dataset.classes),
                config.layer,
                groups=config.groups or 1,
                eps=config.norm_eps,
                momentum=config.norm_momentum,
                backend=config.backend,
                plain_norms=config.plain_norms,
                dropout=config.dropout,
                generator=generator(config.seeds.model, "weights"),
            )
        except ValueError as error:
            raise UserError(str(error)) from None

    def loss(self, output: Any, images: Tensor, labels: Tensor, reduction: Literal["mean", "sum"]) -> Tensor:
        """See ImageWork."""
        return F.cross_entropy(output, labels, reduction=reduction)

    def sums(self, output: Any, images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """See ImageWork."""
        return {ACCURACY.name: (output.argmax(1) == labels).sum()}
